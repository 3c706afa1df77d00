"""Does it help to learn an embedded-atom potential first? Trainings on real crystals, plain, pretrained and rivals.

    python benchmarks/studies/eam_study.py run [PART or ROW...]     # fits, pretrains and trains what is missing
    python benchmarks/studies/eam_study.py list                          # parts, rows, what is done
    python benchmarks/studies/eam_md.py                                  # the models in dynamics
    python benchmarks/studies/eam_report.py                              # tables and figures from the results

All rows of a model take the same number of gradient steps: one that is pretrained takes half of them on labels of an
EAM that was fitted to the same frames. Interrupted trainings go on where they were. Results:
benchmarks/results/eam_study.json.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.locks import locked  # noqa: E402
from benchmarks.studies.eam_rows import (  # noqa: E402
    DATA,
    PARTS,
    PRETRAINED,
    RUNS,
    SPLIT_SEED,
    VALIDATION_FRAMES,
    Row,
    folder_of,
    pretrain_overrides,
    train_overrides,
)
from benchmarks.studies.grid import fit_model, run_rows, select_rows, show_parts  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "eam_study.json"
SHARED = ROOT.parent / "shared" / "data"
TEST_FRAMES = 400


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
    """Train one row, with what it stands on, and test it."""
    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.data.errors import evaluate_frames

    _fit_eam(row)
    folders = [train_overrides(row, SHARED)["run.output"]]
    if row.method in PRETRAINED:
        folders.append(_pretrain(row))
    path, _, average, _ = fit_model(train_overrides(row, SHARED), row.key)
    calculator = PIWSLCalculator.load(path, device="cpu")
    frames = _test_frames(row)
    errors = evaluate_frames(calculator, frames)
    return {
        **row.to_dict(),
        "mae": {name: round(value, 3) for name, value in errors.mae.items()},
        "rmse": {name: round(value, 3) for name, value in errors.rmse.items()},
        "test_frames": len(frames),
        "validation_frames": VALIDATION_FRAMES,
        "parameters": sum(p.numel() for p in calculator.model.potential.parameters()),
        "best_epoch": average.best_epoch + 1,
        "training_seconds": round(sum(map(_seconds, folders)), 1),
    }


def _fit_eam(row: Row) -> None:
    """Fit the EAM of a subset to the frames that its rows train on, unless it is there."""
    from asecalc_mlip.data.readers import read_frames
    from training.data.split import make_split
    from training.eam import FitSettings, fit_eam

    folder = folder_of(row)
    with locked(folder, wait=True):
        if (folder / "eam.pt").exists():
            return
        frames = read_frames(SHARED / DATA[row.data]["train"])
        split = make_split(len(frames), row.n_train, VALIDATION_FRAMES, seed=SPLIT_SEED)
        settings = FitSettings(core="zbl", epochs=DATA[row.data]["epochs"][row.n_train])
        chosen = [frames[i] for i in split.train]
        test = _test_frames(row)[::4]
        name = DATA[row.data]["train"]
        fit = fit_eam(chosen, settings, test=test, checkpoint=folder / "eam.ckpt", progress=False, data_name=name)
        fit.save(folder / "eam.pt")


def _pretrain(row: Row) -> Path:
    """Train on the labels of the EAM, once for each model and seed; returns the folder of that."""
    overrides = pretrain_overrides(row, SHARED)
    folder = overrides["run.output"]
    with locked(folder, wait=True):
        labels = folder_of(row) / "labelled.xyz"
        if labels.exists() and not (folder / "labelled.xyz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(labels, folder / "labelled.xyz")
        fit_model(overrides, "/".join(folder.relative_to(RUNS).parts))
        if not labels.exists():
            shutil.copy(folder / "labelled.xyz", labels)
    return folder


def _seconds(folder: Path) -> float:
    """Return what the epochs of a training took on its thread, from its log; the EAM and its labels are not counted."""
    with open(folder / "log.csv") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])


def _test_frames(row: Row) -> list[Any]:
    from asecalc_mlip.data.readers import read_frames

    return read_frames(SHARED / DATA[row.data]["test"])[:TEST_FRAMES]


def _summary(result: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {value:.1f}" for name, value in result["mae"].items())
    return f"MAE (meV, Å): {errors}; {result['training_seconds']} s"


if __name__ == "__main__":
    main()
