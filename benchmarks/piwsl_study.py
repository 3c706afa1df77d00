"""Does weak supervision by the physics of the own field help? Trainings on real data, plain, PIWSL and rivals.

    python benchmarks/piwsl_study.py run [PART...] [--jobs 2]    # trains what is missing, writes results as it goes
    python benchmarks/piwsl_study.py list                        # parts, rows, what is done
    python benchmarks/piwsl_report.py                            # tables and figures from the results

Interrupted trainings go on where they were. Each row is one training with its seed; benchmarks/results/piwsl_study.json
holds for each the errors on the test frames, sizes, gradient steps and processor seconds.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.piwsl_rows import DATA, PARTS, Row, overrides, rows_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "piwsl_study.json"
RUNS = ROOT / "runs" / "piwsl"
SHARED = ROOT.parent / "shared" / "data"
TEST_FRAMES = 1000


@click.group(help=__doc__)
def main() -> None:
    """Command group."""


@main.command("list")
def list_rows() -> None:
    """Show the parts and what is done."""
    done = load_results()
    for part in PARTS:
        rows = rows_of(part)
        click.echo(f"{part:<20} {sum(row.key in done for row in rows):4d} of {len(rows)} done")


@main.command()
@click.argument("parts", nargs=-1)
@click.option("--jobs", default=2, show_default=True, help="Trainings at once, one thread each.")
def run(parts: tuple[str, ...], jobs: int) -> None:
    """Train the rows of PARTS (all by default) that are not in the results yet."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    done = load_results()
    wanted = {row.key: row for part in parts or PARTS for row in rows_of(part)}
    rows = [row for key, row in wanted.items() if key not in done]
    click.echo(f"{len(wanted) - len(rows)} of {len(wanted)} rows are done")
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        pending = {pool.submit(train_row, row): row for row in rows}
        for number, future in enumerate(as_completed(pending), start=1):
            row, result = pending[future], future.result()
            if "failed" not in result:
                _add_result(row.key, result)
            click.echo(f"{number:4d}/{len(rows)} {row.key:<58} {_summary(result)}")


def train_row(row: Row) -> dict[str, Any]:
    """Train one row and test it; what went wrong is said, not raised, so that the others go on."""
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return _train_row(row)
    except Exception as error:  # noqa: BLE001  one bad row must not end a study of hours
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def _train_row(row: Row) -> dict[str, Any]:
    import torch

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.checkpoint import save
    from training.config import load_config
    from training.evaluate import evaluate_frames
    from training.train import fit, prepare

    torch.set_num_threads(1)
    folder = RUNS / row.key
    resumed = (folder / "last.ckpt").exists()
    config = load_config([], overrides(row, SHARED, folder))
    start = time.process_time()
    run = prepare(config)
    average = fit(run)
    seconds = time.process_time() - start
    average.copy_to_module(average.best or average.average)
    model = folder / "model.pt"
    save(model, run.potential, card={"name": row.key}, reference_energies=run.e0.to_dict())
    frames = _test_frames(row, run)
    errors = evaluate_frames(PIWSLCalculator.load(model, device="cpu"), frames)
    return {
        **row.to_dict(),
        "mae": {name: round(value, 3) for name, value in errors.mae.items()},
        "rmse": {name: round(value, 3) for name, value in errors.rmse.items()},
        "curl": errors.curl,
        "test_frames": len(frames),
        "validation_frames": len(run.split.val),
        "parameters": sum(p.numel() for p in run.potential.parameters()),
        "steps": average.steps,
        "batch_size": config.run.batch_size,
        "best_epoch": average.best_epoch + 1,
        "epochs": config.run.max_epochs,
        # Of a training in parts only the last one was timed.
        "cpu_seconds": None if resumed else round(seconds, 1),
    }


def _test_frames(row: Row, run: Any) -> list[Any]:
    from training.readers import read_frames

    name = DATA[row.data]["test"]
    if name is not None:
        return read_frames(SHARED / name)[:TEST_FRAMES]
    return [run.frames[i] for i in run.split.test][:TEST_FRAMES]


def load_results() -> dict[str, dict[str, Any]]:
    """Results so far, by key."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _add_result(key: str, result: dict[str, Any]) -> None:
    # Read again: another run of this script may have added rows of other parts.
    results = load_results()
    results.setdefault(key, result)
    temporary = RESULTS.with_suffix(".writing")
    temporary.write_text(json.dumps(dict(sorted(results.items())), indent=1))
    temporary.replace(RESULTS)


def _summary(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    errors = ", ".join(f"{name} {value:.1f}" for name, value in result["rmse"].items())
    return f"RMSE (meV, Å): {errors}; {result['cpu_seconds']} s"


if __name__ == "__main__":
    main()
