"""Energies and forces of eSCN and EquiformerV2 in fairchem-core (MIT), with weights that a formula gives.

    python -m venv VENV
    VENV/bin/pip install --no-deps fairchem-core==1.10.0
    VENV/bin/pip install torch e3nn ase torch_geometric numba orjson pyyaml tqdm requests pydantic click
    PYTHONPATH=. VENV/bin/python tools/fairchem_reference.py

It writes tests/golden/fairchem/expected.json; tests/models/test_fairchem.py compares our networks with it. Packages
that fairchem imports and these two models do not call (torch_scatter, lmdb, wandb and others) are replaced by nothing.
Three things are set: the angle of each edge's frame, which fairchem draws at random, is ours; neighbours come from ASE,
all within the cutoff; and random paths are not dropped. Forces are those of the head, and central differences of the
energies, because fairchem detaches its rotations.
"""

from __future__ import annotations

import importlib.machinery
import math
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from asecalc_mlip.files import write_json
from asecalc_mlip.models import build_network
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.spherical import edge_frames

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = {"grid": "published", "envelope": "none", "direct_forces": True}
_ESCN = {"cutoff": 4.0, "n_features": 8, "n_hidden": 12, "n_edge": 6, "n_rbf": 40}
# Our architecture and its hyper-parameters; m_max equal to l_max and smaller, whose published grids differ.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "escn_3_2": ("escn", {**_ESCN, **PUBLISHED, "l_max": 3, "m_max": 2, "n_interactions": 2}),
    "escn_2_2": ("escn", {**_ESCN, **PUBLISHED, "l_max": 2, "m_max": 2, "n_interactions": 3}),
}
STEP = 1e-3  # Å
# fairchem imports these, and the two models call none of them.
_UNUSED = {
    "torch_scatter",
    "torch_sparse",
    "wandb",
    "lmdb",
    "submitit",
    "hydra",
    "omegaconf",
    "pymatgen",
    "tensorboard",
}
_UNUSED |= {"huggingface_hub", "ase_db_backends"}


def structures() -> dict[str, Atoms]:
    """Return a molecule, a crystal whose cell is smaller than the cutoff, and a pair on the polar axis."""
    rng = np.random.default_rng(3)
    found = {"molecule": molecule("CH3OH"), "crystal": bulk("SiO", "rocksalt", a=4.4)}
    for atoms in found.values():
        atoms.positions += rng.uniform(-0.15, 0.15, atoms.positions.shape)
    return {**found, "pair": Atoms("CO", [[0, 0, 0], [0, 1.2, 0]])}


def filled(network: nn.Module) -> nn.Module:
    """Give each weight a number that depends on its name and place alone, of the size that keeps signals alive."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            phase = zlib.crc32(name.encode()) % 1000
            k = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(1.7 * k * k + 0.9 * k + phase).reshape(parameter.shape)
            size = 1.7 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.3
            parameter.copy_(1.0 + 0.3 * values if _is_norm(name) else size * values)
    return network


def _is_norm(name: str) -> bool:
    return "norm" in name and name.endswith("weight")


def escn_weights(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `asecalc_mlip.models.ESCN` under fairchem's names."""
    found = {}
    for name, value in ours.items():
        parts = name.split(".")
        if name == "embedding.weight":
            found["sphere_embedding.weight"] = value
        elif parts[0] in ("readout", "force_head"):
            block = "energy_block" if parts[0] == "readout" else "force_block"
            found[f"{block}.fc{int(parts[1]) // 2 + 1}.{parts[2]}"] = value
        elif parts[2] == "update":
            found[f"layer_blocks.{parts[1]}.fc{int(parts[3]) + 1}_sphere.weight"] = value
        elif parts[2] == "edge":
            new = {"radial": "fc1_dist", "neighbor": "source_embedding", "center": "target_embedding"}
            new["last"] = "fc1_edge_attr"
            found[f"layer_blocks.{parts[1]}.message_block.edge_block.{new[parts[3]]}.{parts[4]}"] = value
        else:
            found |= _escn_order(parts, value)
    return found


def _escn_order(parts: list[str], value: Tensor) -> dict[str, Tensor]:
    """`blocks.K.of_neighbor.orders.M.first.weight`: theirs has real and imaginary weights apart."""
    side = {"of_neighbor": "so2_block_source", "of_center": "so2_block_target"}[parts[2]]
    head = f"layer_blocks.{parts[1]}.message_block.{side}."
    m, layer, kind = int(parts[4]), parts[5], parts[6]
    if m == 0:
        return {head + {"gate": "fc1_dist0", "first": "fc1_m0", "last": "fc2_m0"}[layer] + "." + kind: value}
    head += f"so2_conv.{m - 1}."
    if layer == "gate":
        return {f"{head}fc1_dist.{kind}": value}
    real, imaginary = value.chunk(2, dim=0 if layer == "first" else 1)
    number = 1 if layer == "first" else 2
    return {f"{head}fc{number}_r.weight": real, f"{head}fc{number}_i.weight": imaginary}


WEIGHTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {"escn": escn_weights}
# Factor of the published energy on ours, which a potential has as its scale.
FACTORS = {"escn": 0.001}


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "tests" / "golden" / "fairchem")
def main(output: Path) -> None:
    """Write the expected numbers of all cases."""
    torch.set_default_dtype(torch.float64)
    sys.meta_path.append(_Nothing())
    content: dict[str, Any] = {"structures": {name: atoms.todict() for name, atoms in structures().items()}}
    for name, (architecture, hyperparameters) in CASES.items():
        ours = filled(build_network(architecture, hyperparameters))
        model = _models()[architecture](hyperparameters)
        missing, extra = model.load_state_dict(WEIGHTS[architecture](ours.state_dict()), strict=False)
        named = {n for n, _ in model.named_parameters()}
        lost = sorted(n for n in missing if n in named and not n.startswith("sph"))
        if lost or extra:
            raise click.ClickException(f"{name}: weights do not fit; missing {lost}, extra {extra}")
        model = model.double().eval()
        content[name] = {s: _results(model, a, hyperparameters["cutoff"]) for s, a in structures().items()}
        click.echo(f"{name}: {content[name]['molecule']['energy']:.6f}, {content[name]['crystal']['energy']:.6f}")
    write_json(output / "expected.json", content)


def _results(model: nn.Module, atoms: Atoms, cutoff: float) -> dict[str, Any]:
    energy, forces = _evaluate(model, atoms, cutoff)
    slopes = np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for axis in range(3):
            values = []
            for step in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[i, axis] += step * STEP
                values.append(_evaluate(model, moved, cutoff)[0])
            slopes[i, axis] = -(values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)
    return {"energy": energy, "forces": forces.tolist(), "minus_slopes": slopes.tolist()}


def _evaluate(model: Any, atoms: Atoms, cutoff: float) -> tuple[float, np.ndarray]:
    from fairchem.core.models.base import GraphData

    centers, neighbors, shifts = (torch.from_numpy(a) for a in neighbor_list("ijS", atoms, cutoff))
    positions = torch.from_numpy(atoms.positions)
    vectors = positions[neighbors] - positions[centers] + shifts.double() @ torch.from_numpy(atoms.cell.array)
    numbers, batch = torch.from_numpy(atoms.numbers), torch.zeros(len(atoms), dtype=torch.int64)
    graph = GraphData(
        edge_index=torch.stack([neighbors, centers]),
        edge_distance=vectors.norm(dim=1),
        edge_distance_vec=vectors,
        cell_offsets=shifts,
        offset_distances=shifts,
        neighbors=torch.tensor([len(centers)]),
        batch_full=batch,
        atomic_numbers_full=numbers,
    )
    data = MagicMock(pos=positions, atomic_numbers=numbers, natoms=torch.tensor([len(atoms)]), batch=batch)
    model.generate_graph = lambda *args, **kwargs: graph
    with torch.no_grad():
        found = model(data)
    return float(found["energy"].detach()), found["forces"].detach().numpy()


def _models() -> dict[str, Callable[[Mapping[str, Any]], nn.Module]]:
    return {"escn": _escn}


def _escn(sizes: Mapping[str, Any]) -> nn.Module:
    from fairchem.core.models.escn.escn import eSCN

    model: Any = eSCN(
        use_pbc=False,
        regress_forces=True,
        cutoff=sizes["cutoff"],
        max_num_elements=MAX_ATOMIC_NUMBER + 1,
        num_layers=sizes["n_interactions"],
        lmax_list=[sizes["l_max"]],
        mmax_list=[sizes["m_max"]],
        sphere_channels=sizes["n_features"],
        hidden_channels=sizes["n_hidden"],
        edge_channels=sizes["n_edge"],
        # One Gaussian more than is asked for would come of rounding.
        distance_resolution=sizes["cutoff"] / (sizes["n_rbf"] + 0.5),
    )
    model._init_edge_rot_mat = lambda data, index, vectors: _frames(vectors)
    return model


def _frames(vectors: Tensor) -> Tensor:
    return edge_frames(vectors / vectors.norm(dim=1, keepdim=True))


class _Nothing:
    """Finds packages that are not needed, and makes them of nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in _UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: Any) -> None:
        """Do nothing."""


if __name__ == "__main__":
    main()
