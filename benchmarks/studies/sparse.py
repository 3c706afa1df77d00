"""What do published models, fine-tuned, make of few labels? With and without PIWSL and replay, beside training anew.

    asecalc zoo get TensorNet-MatPES-PBE; asecalc zoo get TensorNet-ANI-1x
    python benchmarks/studies/sparse.py run [PART or ROW...] [--jobs 2]   # trains what is missing, writes as it goes
    python benchmarks/studies/sparse.py list [PART]                       # parts, or the rows of one with their state
    python benchmarks/studies/sparse.py table                             # the tables of docs/studies/sparse.md

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

from benchmarks.studies.grid import load_results, run_rows, select_parts, show_parts  # noqa: E402
from benchmarks.studies.sparse_rows import DATA, PARTS, Row, overrides  # noqa: E402

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
    for row in select_parts([part], PARTS):
        click.echo(f"{'done' if row.key in done else 'not run':<8} {row.key}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--jobs", default=1, show_default=True, help="Trainings at once, one thread each.")
def run(names: tuple[str, ...], jobs: int) -> None:
    """Train the rows of these parts, or of these names, that are not in the results yet."""
    every = {row.key: row for part in PARTS.values() for row in part()}
    rows = [every[name] for name in names if name in every]
    parts = [name for name in names if name not in every]
    rows += select_parts(parts, PARTS) if parts or not names else []
    run_rows(rows, train_row, RESULTS, jobs=jobs, say=_summary)


@main.command()
def table() -> None:
    """Print the tables of the page, from the results."""
    click.echo(tables(load_results(RESULTS)))


def train_row(row: Row) -> dict[str, Any]:
    """Train one row and test it."""
    from asecalc_mlip.logs import show
    from benchmarks.studies.grid import settings_of
    from training.train import train

    show()
    folder = RUNS / row.key.replace("/", "_").replace(" ", "_").replace(",", "")
    resumed, start = (folder / "last.ckpt").exists(), time.process_time()
    result = train(settings_of(overrides(row, SHARED, folder)))
    seconds = time.process_time() - start
    assert result.errors is not None
    return {
        **row.to_dict(),
        "mae": {name: round(value, 3) for name, value in result.errors.mae.items()},
        "rmse": {name: round(value, 3) for name, value in result.errors.rmse.items()},
        "old_level": None if result.old_level is None else result.old_level.card(),
        "test_frames": result.errors.n_structures,
        "best_epoch": result.best_epoch + 1,
        "base": DATA[row.data].base if row.method.startswith("fine") else None,
        # Of a training in parts only the last one was timed.
        "cpu_seconds": None if resumed else round(seconds, 1),
    }


def tables(results: dict[str, Any]) -> str:
    """Return a table for each data set in Markdown: rows that were run, and how many were not."""
    lines = []
    for name in DATA:
        rows = [result for result in results.values() if result["data"] == name]
        missing = sum(row.key not in results for row in PARTS[name]())
        lines += [f"### {name}", ""]
        if rows:
            lines += ["| frames | training | steps | seed | energies (meV/atom) | forces (meV/Å) | CPU |"]
            lines += ["|---|---|---|---|---|---|---|"]
            lines += [_line(result) for result in sorted(rows, key=lambda r: (r["n_train"], r["method"], r["seed"]))]
            lines += [""]
        lines += [
            f"Not run: {missing} of {len(PARTS[name]())} rows; `python benchmarks/studies/sparse.py run {name}`.",
            "",
        ]
    return "\n".join(lines)


def _line(result: dict[str, Any]) -> str:
    mae, seconds = result["mae"], result["cpu_seconds"]
    cost = "in parts" if seconds is None else f"{seconds / 60:.0f} min"
    energy = mae.get("energy_per_atom", mae.get("energy", float("nan")))
    steps = result["steps"] or DATA[result["data"]].steps
    cells = [result["n_train"], result["method"], steps, result["seed"], f"{energy:.2f}"]
    return f"| {' | '.join(map(str, cells))} | {mae.get('forces', float('nan')):.1f} | {cost} |"


def _summary(result: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {value:.1f}" for name, value in result["mae"].items())
    return f"MAE (meV, Å): {errors}; {result['cpu_seconds']} s"


if __name__ == "__main__":
    main()
