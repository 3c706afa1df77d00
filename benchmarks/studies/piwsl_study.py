"""Does weak supervision by the physics of the own field help? Trainings on real data, plain, PIWSL and rivals.

    python benchmarks/studies/piwsl_study.py run [PART or ROW...]  # trains what is missing, writes as it goes
    python benchmarks/studies/piwsl_study.py list  # parts, rows, what is done
    python benchmarks/studies/piwsl_report.py  # tables and figures from the results

Interrupted trainings go on where they were. Each row is one training with its seed; benchmarks/results/piwsl_study.json
holds for each the errors on the test frames, sizes, gradient steps and processor seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.grid import fit_model, run_rows, select_rows, show_parts  # noqa: E402
from benchmarks.studies.piwsl_rows import DATA, PARTS, Row, overrides  # noqa: E402

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
    show_parts(PARTS, RESULTS)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--jobs", default=2, show_default=True, help="Trainings at once, one thread each.")
def run(names: tuple[str, ...], jobs: int) -> None:
    """Train the rows of these parts, or of these names (all by default), that are not in the results yet."""
    run_rows(select_rows(names, PARTS), train_row, RESULTS, jobs=jobs, say=_summary)


def train_row(row: Row) -> dict[str, Any]:
    """Train one row and test it."""
    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.data.errors import evaluate_frames

    folder = RUNS / row.key
    resumed = (folder / "last.ckpt").exists()
    model, run, average, seconds = fit_model(overrides(row, SHARED, folder), row.key)
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
        "batch_size": run.config.run.batch_size,
        "best_epoch": average.best_epoch + 1,
        "epochs": run.config.run.max_epochs,
        # Whether the curve is flat at the end is seen here.
        "validation": _curve(folder),
        # Of a training in parts only the last one was timed.
        "cpu_seconds": None if resumed else round(seconds, 1),
    }


def _curve(folder: Path) -> list[dict[str, float]]:
    """Errors on the validation frames after each epoch, eV and Å."""
    from training.run.log import read_rows

    rows = read_rows(folder / "log.csv")
    names = [name for name in rows[0] if name.startswith("val_") and name.endswith("_mae")] if rows else []
    return [{name.removeprefix("val_"): round(float(row[name]), 5) for name in names} for row in rows]


def _test_frames(row: Row, run: Any) -> list[Any]:
    from asecalc_mlip.data.readers import read_frames

    name = DATA[row.data]["test"]
    if name is not None:
        return read_frames(SHARED / name)[:TEST_FRAMES]
    return [run.frames[i] for i in run.split.test][:TEST_FRAMES]


def _summary(result: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {value:.1f}" for name, value in result["rmse"].items())
    return f"RMSE (meV, Å): {errors}; {result['cpu_seconds']} s"


if __name__ == "__main__":
    main()
