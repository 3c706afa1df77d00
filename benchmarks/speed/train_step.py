"""Time of one energy-and-force training step, ours against SchNetPack's own task, model and loss, in one run.

    python benchmarks/speed/train_step.py  # writes benchmarks/results/train_step.json, prints a table
    python benchmarks/speed/train_step.py --piwsl  # our step with PITC and PISC against our plain one: piwsl_step.json

Both sides get the same batch (10 aspirins, displaced by 0.05 Å, labelled by aspirin_painn.pt), the same sizes, losses
and optimiser; steps of the two alternate, so that a busy machine hurts both. With `tuned` glibc's malloc keeps its
memory (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_), which helps SchNetPack more than us.

With --piwsl the sides are the plain step and that of `weak.method=piwsl` in each order. Memory is what the steps add to
the process at their peak, each side in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from asecalc_mlip.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "train_step.json"
PIWSL_RESULTS = RESULTS.with_name("piwsl_step.json")
ORDERS = ("first", "trapezoid", "antithetic")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}
ROWS = [(n, threads, tuned) for tuned in (False, True) for threads in (1, 2) for n in (32, 64, 128)]


@click.command(help=__doc__)
@click.option("--steps", default=15, show_default=True, help="Timed steps of each side.")
@click.option("--again", is_flag=True, help="Measure rows that are already in the file.")
@click.option("--piwsl", is_flag=True, help="Steps with PITC and PISC against plain ones.")
@click.option("--one", default=None, hidden=True, help="features,threads: measure in this process, print JSON.")
@click.option("--memory", default=None, hidden=True, help="plain or an order: with --one, MB of this side alone.")
def main(steps: int, again: bool, piwsl: bool, one: str | None, memory: str | None) -> None:
    """Measure every row in a process of its own."""
    if one is not None:
        n_features, threads = map(int, one.split(","))
        if memory is not None:
            print(json.dumps(measure_memory(n_features, threads, memory)))
        else:
            print(json.dumps((measure_piwsl if piwsl else measure)(n_features, threads, steps)))
        return
    if piwsl:
        piwsl_rows(steps, again)
        return
    done: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not again else {}
    for n_features, threads, tuned in ROWS:
        key = f"painn {n_features}x3, {threads} threads{', tuned malloc' if tuned else ''}"
        if key in done:
            continue
        done[key] = _in_its_own_process(n_features, threads, "--steps", str(steps), **(MALLOC if tuned else {}))
        write_json(RESULTS, done)
        click.echo(f"{key:40} SchNetPack {done[key]['schnetpack_ms']:6.1f}  ours {done[key]['ours_ms']:6.1f} ms  "
                   f"ratio {done[key]['ratio']:.2f}")  # fmt: skip


def measure(n_features: int, threads: int, steps: int) -> dict[str, Any]:
    """Median milliseconds of both sides, their steps alternating."""
    batch = ten_aspirins()
    sides = {"schnetpack": stepper(_their_task(n_features), batch), "ours": stepper(_our_task(n_features), batch)}
    medians = _medians(sides, threads, steps)
    return {
        **medians,
        "ratio": round(medians["schnetpack_ms"] / medians["ours_ms"], 2),
        **_circumstances(batch, threads, steps),
    }


def piwsl_rows(steps: int, again: bool) -> None:
    """Time and memory of the plain step and of those with PITC and PISC, for every size and number of threads."""
    done: dict[str, Any] = json.loads(PIWSL_RESULTS.read_text()) if PIWSL_RESULTS.exists() and not again else {}
    for n_features, threads, tuned in ROWS:
        key = f"painn {n_features}x3, {threads} threads"
        if tuned or key in done:
            continue
        row = _in_its_own_process(n_features, threads, "--piwsl", "--steps", str(steps))
        for side in ("plain", *ORDERS):
            row[f"{side}_mb"] = _in_its_own_process(n_features, threads, "--memory", side)
        row |= {f"{order}_memory_ratio": round(row[f"{order}_mb"] / row["plain_mb"], 2) for order in ORDERS}
        done[key] = row
        write_json(PIWSL_RESULTS, done)
        ratios = ", ".join(f"{o} {row[f'{o}_ratio']:.2f} (memory {row[f'{o}_memory_ratio']:.2f})" for o in ORDERS)
        click.echo(f"{key:24} plain {row['plain_ms']:6.1f} ms, {row['plain_mb']:4.0f} MB; times of it: {ratios}")


def measure_piwsl(n_features: int, threads: int, steps: int) -> dict[str, Any]:
    """Median milliseconds of the plain step and of the three orders, their steps alternating."""
    sides = {side: _piwsl_side(n_features, side) for side in ("plain", *ORDERS)}
    medians = _medians(sides, threads, steps)
    ratios = {f"{order}_ratio": round(medians[f"{order}_ms"] / medians["plain_ms"], 2) for order in ORDERS}
    return {**medians, **ratios, **_circumstances(ten_aspirins(), threads, steps)}


def measure_memory(n_features: int, threads: int, side: str) -> float:
    """MB that five steps of one side add to this process at their peak."""
    import torch

    torch.set_num_threads(threads)
    step = _piwsl_side(n_features, side)
    before = _status("VmRSS")
    for _ in range(5):
        step()
    return round((_status("VmHWM") - before) / 1024, 1)


def _status(name: str) -> int:
    """Return a number of kB from /proc: VmRSS is memory now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _piwsl_side(n_features: int, side: str) -> Callable[[], None]:
    from training.config import WeakConfig
    from training.losses.methods import list_skin
    from training.processes.malloc import keep_freed_memory

    keep_freed_memory()  # as every training does
    weak = WeakConfig() if side == "plain" else WeakConfig(method="piwsl", order=side)  # type: ignore[arg-type]
    return stepper(_our_task(n_features, weak), ten_aspirins(list_skin(weak)))


def _in_its_own_process(n_features: int, threads: int, *options: str, **environment: str) -> Any:
    command = [sys.executable, __file__, "--one", f"{n_features},{threads}", *options]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def _medians(sides: dict[str, Callable[[], None]], threads: int, steps: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(steps + 3):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            if k >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    return {f"{name}_ms": round(float(np.median(values)), 2) for name, values in times.items()}


def _circumstances(batch: dict[str, Any], threads: int, steps: int) -> dict[str, Any]:
    import torch

    return {
        "atoms": int(batch["_atomic_numbers"].shape[0]),
        "edges": int(batch["_idx_i"].shape[0]),
        "steps": steps,
        "threads": threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def ten_aspirins(skin: float = 0.0) -> dict[str, Any]:
    """Return a labelled batch of displaced aspirins."""
    from schnetpack.data.loader import _atoms_collate_fn

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.files import read_structure
    from asecalc_mlip.zoo import FOLDER as ZOO
    from training.data.samples import make_sample

    start, rng = read_structure(ZOO / "aspirin_painn.xyz"), np.random.default_rng(0)
    calculator, samples = PIWSLCalculator.load("aspirin_painn.pt", device="cpu"), []
    for index in range(10):
        atoms = start.copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        (result,) = calculator.evaluate([atoms])
        # Interaction energies, because SchNetPack's model would see nothing but digits in −17 600 eV of float32.
        atoms.info["energy"] = result["energy"] + 17617.0
        atoms.arrays["forces"] = result["forces"]
        samples.append(make_sample(atoms, index, ("energy", "forces"), 5.0 + skin))
    return _atoms_collate_fn(samples)


def _our_task(n_features: int, weak: Any = None) -> Any:
    import torch

    from asecalc_mlip.models import build_potential
    from training.config import LossConfig, OptimizerConfig, WeakConfig
    from training.losses.methods import list_skin, make_weak
    from training.task import PotentialAdapter, TrainingTask, make_outputs

    config = WeakConfig() if weak is None else weak

    torch.manual_seed(0)
    potential = build_potential(
        "painn", {"cutoff": 5.0, "n_features": n_features}, reference_energies={1: 0.0, 6: 0.0, 8: 0.0}
    )
    supervision = make_weak(config, LossConfig(), potential)
    reach = potential.cutoff + list_skin(config)
    adapter = PotentialAdapter(potential, forces=True, stress=False, weak=supervision, reach=reach)
    return TrainingTask(adapter, make_outputs(LossConfig(), supervision), OptimizerConfig(), max_epochs=1)


def _their_task(n_features: int) -> Any:
    import schnetpack as spk
    import torch
    from schnetpack.task import AtomisticTask, ModelOutput

    from training.losses.supervised import distance

    torch.manual_seed(0)
    model = spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            n_atom_basis=n_features,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=5.0),
            cutoff_fn=spk.nn.CosineCutoff(5.0),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=n_features, output_key="energy"), spk.atomistic.Forces()],
    )
    outputs = [
        ModelOutput("energy", loss_fn=distance("mae"), loss_weight=1.0, metrics={}),
        ModelOutput("forces", loss_fn=distance("l2mae"), loss_weight=100.0, metrics={}),
    ]
    arguments = {"lr": 1e-3, "weight_decay": 0.01}
    return AtomisticTask(model, outputs, optimizer_cls=torch.optim.AdamW, optimizer_args=arguments)


def stepper(task: Any, batch: dict[str, Any]) -> Callable[[], None]:
    """Return one step of a task, of ours or SchNetPack's, on a batch."""
    import torch

    optimizer = task.optimizer_cls(task.parameters(), **task.optimizer_kwargs)
    theirs = type(task).__name__ == "AtomisticTask"
    inputs = {k: v.float() if theirs and v.dtype == torch.float64 else v for k, v in batch.items()}
    if theirs:
        inputs["_offsets"] = torch.zeros(batch["_idx_i"].shape[0], 3)
    targets = {k: batch[k].float() if theirs else batch[k] for k in ("energy", "forces")}

    def step() -> None:
        optimizer.zero_grad()
        loss = task.loss_fn(task.predict_without_postprocessing(dict(inputs)), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 10.0)
        optimizer.step()

    task.train()
    return step


if __name__ == "__main__":
    main()
