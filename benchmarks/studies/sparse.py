"""What do published models, fine-tuned, make of few labels? With and without PIWSL and replay, beside training anew.

    asecalc zoo get TensorNet-MatPES-PBE; asecalc zoo get TensorNet-ANI-1x
    python benchmarks/studies/sparse.py run [PART or ROW...] [--jobs 2]   # trains what is missing, writes as it goes
    python benchmarks/studies/sparse.py list [PART]                       # parts, or the rows of one with their state
    python benchmarks/studies/sparse.py far                               # the control, far from the data
    python benchmarks/studies/sparse.py corrected                         # corrected teachers, on the test frames
    python benchmarks/studies/sparse.py table                             # tables and figure of docs/studies

A row is one training, for example "silica 30/fine-tuned/seed 0". Interrupted trainings go on where they were.
benchmarks/results/sparse.json holds the errors on the test frames, what was forgotten, steps and processor seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.grid import load_results, run_rows, select_rows, show_parts  # noqa: E402
from benchmarks.studies.sparse_rows import DATA, PARTS, Row, hot_file, hot_frames, stages  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "sparse.json"
RUNS = ROOT / "runs" / "sparse"
SHARED = ROOT.parent / "shared" / "data"


@click.group(help=__doc__)
def main() -> None:
    """Command group."""


@main.command("list")
@click.argument("part", required=False)
def list_rows(part: str | None) -> None:
    """Show the parts and what is done, or the rows of a PART."""
    if part is None:
        return show_parts(PARTS, RESULTS)
    done = load_results(RESULTS)
    for row in select_rows([part], PARTS):
        click.echo(f"{'done' if row.key in done else 'not run':<8} {row.key}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--jobs", default=1, show_default=True, help="Trainings at once, one thread each.")
def run(names: tuple[str, ...], jobs: int) -> None:
    """Train the rows of these parts, or of these names, that are not in the results yet."""
    run_rows(select_rows(names, PARTS), train_row, RESULTS, jobs=jobs, say=_summary)


@main.command()
def far() -> None:
    """Measure the models of the control far from the data, those that are there."""
    from benchmarks.studies.grid import add_result
    from benchmarks.studies.sparse_far import far_errors

    done = load_results(RESULTS)
    for row in PARTS["control"]():
        model, settings = RUNS / row.folder / "model.pt", stages(row, SHARED, RUNS / row.folder)[-1]
        if row.key in done and "far" not in done[row.key] and model.exists():
            measured = far_errors(settings, model)
            add_result(RESULTS, row.key, {**done[row.key], "far": measured})
            click.echo(f"{row.key}: {measured}")


@main.command()
def corrected() -> None:
    """Measure corrected teachers on the test frames, those that are there."""
    from benchmarks.studies.grid import add_result
    from benchmarks.studies.sparse_corrected import corrected_errors

    done = load_results(RESULTS)
    for row in select_rows(["field", "teacher-corrected", "recipe-others"], PARTS):
        if row.key in done and "corrected" in row.method and "teacher_errors" not in done[row.key]:
            measured = corrected_errors(row, SHARED, RUNS)
            if measured is not None:
                add_result(RESULTS, row.key, {**done[row.key], "teacher_errors": measured})
                click.echo(f"{row.key}: {measured}")


@main.command()
def table() -> None:
    """Write tables and figure of the pages, from the results."""
    from benchmarks.studies.sparse_figures import write_figures
    from benchmarks.studies.sparse_report import write_tables

    dynamics = load_results(RESULTS.with_name("sparse_md.json"))
    results = load_results(RESULTS)
    click.echo(write_tables(results, dynamics, RESULTS.parent))
    write_figures(results, dynamics, RESULTS.parent)


def train_row(row: Row) -> dict[str, Any]:
    """Train one row and test it."""
    from asecalc_mlip.locks import locked
    from asecalc_mlip.logs import show
    from benchmarks.studies.grid import settings_of
    from training.train import train

    show()
    folder = RUNS / row.folder
    resumed, start = any(folder.rglob("last.ckpt")), time.process_time()
    if (name := hot_file(row)) is not None:
        with locked(RUNS / f".{name}.wait", wait=True):
            hot_frames(row, SHARED, RUNS / name)
    for settings in stages(row, SHARED, folder):
        # Seeds share the model of a teacher: the first trains it, the others wait for it.
        output = settings["run.output"]
        with locked(output.with_name(f".{output.name}.wait"), wait=True):
            result = train(settings_of(settings))
    seconds = time.process_time() - start
    assert result.errors is not None
    return {
        **row.to_dict(),
        "mae": {name: round(value, 3) for name, value in result.errors.mae.items()},
        "rmse": {name: round(value, 3) for name, value in result.errors.rmse.items()},
        "old_level": None if result.old_level is None else result.old_level.card(),
        "test_frames": result.errors.n_structures,
        "best_epoch": result.best_epoch + 1,
        "curve": _curve(folder),
        "base": DATA[row.data].base if row.method.startswith("fine") else None,
        # Of a training in parts only the last one was timed.
        "cpu_seconds": None if resumed else round(seconds, 1),
    }


def _curve(folder: Path) -> list[list[float]]:
    """Return steps and errors of the validation frames, about twenty of them.

    The errors are those of the forces (meV/Å), or of the energies per atom (meV) where there are no other labels.
    """
    from training.run.log import read_rows

    rows = read_rows(folder / "log.csv")
    names = ("val_forces_mae", "val_energy_per_atom_mae")
    name = next((name for name in names if any(row.get(name) for row in rows)), names[0])
    rows = [row for row in rows if row.get(name)]
    kept = [*rows[: -1 : max(1, len(rows) // 20)], *rows[-1:]]
    return [[int(row["step"]), round(1000 * float(row[name]), 2)] for row in kept]


def _summary(result: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {value:.1f}" for name, value in result["mae"].items())
    return f"MAE (meV, Å): {errors}; {result['cpu_seconds']} s"


if __name__ == "__main__":
    main()
