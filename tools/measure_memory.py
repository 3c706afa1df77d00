"""Peak memory of the eager engine for an architecture, to find the numbers of its trait `memory`.

    python tools/measure_memory.py painn
    python tools/measure_memory.py eam "{elements: [Si, O], n_exponentials: 40}" --dtype float64

Rock salt with atoms of silicon and oxygen. Linux only, as it reads the peak from /proc. Numbers are per block and
feature; take two sizes to see what belongs to edges and what to atoms, and round up.
"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("architecture")
@click.argument("hyperparameters", default="{}")
@click.option("--repeat", default=8, show_default=True, help="Cells of 8 atoms along each direction.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--plain", is_flag=True, help="Messages in plain torch, as without the native library.")
def main(architecture: str, hyperparameters: str, repeat: int, dtype: str, plain: bool) -> None:
    """Print the memory that one evaluation took, and the estimate."""
    import torch
    import yaml
    from ase.build import bulk

    from asecalc_mlip.engine import EagerEngine
    from asecalc_mlip.engine.estimate import EDGE_BYTES, autograd_bytes
    from asecalc_mlip.graph import graph_from_atoms
    from asecalc_mlip.kernels import plain_kernels
    from asecalc_mlip.models import build_potential

    torch.set_num_threads(1)
    potential = build_potential(architecture, yaml.safe_load(hyperparameters), reference_energies={8: 0.0, 14: 0.0})
    engine = EagerEngine(potential.to(getattr(torch, dtype)).eval().requires_grad_(False))
    cell = bulk("SiO", "rocksalt", a=4.4, cubic=True)
    graph = graph_from_atoms(cell * repeat, potential.cutoff)
    with plain_kernels() if plain else torch.enable_grad():
        engine(graph_from_atoms(cell, potential.cutoff))  # the first call also loads libraries
        before = _peak(reset=True)
        engine(graph)
    taken = _peak() - before
    estimate = autograd_bytes(potential, graph.n_atoms, graph.n_edges, native=not plain)
    words = potential.dtype.itemsize * potential.network.n_features * potential.network.n_blocks
    click.echo(
        f"{graph.n_atoms} atoms, {graph.n_edges} edges: {taken / 1e6:.0f} MB, estimate {estimate / 1e6:.0f} MB\n"
        f"{(taken - EDGE_BYTES * graph.n_edges) / (words * graph.n_edges):.2f} numbers per edge, block and feature "
        f"beyond {EDGE_BYTES} bytes per edge, if all of it belonged to edges"
    )


def _peak(*, reset: bool = False) -> int:
    """Peak of the resident memory in bytes, or with `reset` the memory now, from where the peak then counts."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
