"""Rows of the EAM study: data sets, models, methods, and the parts they are grouped in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies.grid import to_convergence

__all__ = [
    "DATA",
    "ENERGIES_UP",
    "MORE",
    "ON_TOP",
    "PARTS",
    "PRETRAINED",
    "RUNS",
    "Row",
    "folder_of",
    "pretrain_overrides",
    "train_overrides",
]

RUNS = Path(__file__).resolve().parents[2] / "runs" / "eam-study"
SEEDS = (0, 1, 2)
# Of forces in eV/Å beside 1 for the energy in eV/atom; and one that counts energies 50 times as much, as for the
# shipped model.
FORCES_WEIGHT, LOW_FORCES_WEIGHT = 100.0, 2.0
ENERGIES_UP = "energies x 50"
# Gradient steps of every row: half of them on the EAM's labels where a row is pretrained.
STEPS = 2000
# Enough to learn the few frames by heart nearly, as a user would train on them.
LONG_STEPS = 10_000
EPOCHS = 10
# Of trainings to convergence: at most so many steps, ended after so many epochs without a better validation error. The
# rate halves after a third of them.
MOST, EPOCH, PATIENCE = 40_000, 500, 18
CONVERGED = ", to convergence"
BATCH = 4
# Frames and model are drawn by seeds of their own: the EAM is fitted once for each subset.
SPLIT_SEED = 0
VALIDATION_FRAMES = 40
# Every structure has many copies among the labels of the EAM.
PRETRAINING_VALIDATION = 8

# `epochs` of the fit of the EAM, for each number of frames.
DATA: dict[str, dict[str, Any]] = {
    "silica": {
        "train": "silica_zeo22_train.xyz",
        "test": "silica_zeo22_test.xyz",
        "epochs": {30: 400, 120: 200, 1160: 60},
    },
    "limno": {
        "train": "limno_electrode_train.xyz",
        "test": "limno_electrode_val.xyz",
        "epochs": {30: 100},
        "stress": True,
    },
    "tio2": {"train": "tio2_train.xyz", "test": "tio2_test.xyz", "epochs": {200: 100}},
    "aspirin": {
        "train": "rmd17_aspirin_train.xyz",
        "test": "rmd17_aspirin_test.xyz",
        "epochs": {50: 400, 100: 200, 950: 60},
    },
    "ethanol": {"train": "rmd17_ethanol_train.xyz", "test": "rmd17_ethanol_test.xyz", "epochs": {50: 400, 950: 60}},
}
MODELS: dict[str, dict[str, Any]] = {
    "painn": {"cutoff": 5.0, "n_features": 32, "n_interactions": 3, "n_rbf": 20},
    "painn 64": {"cutoff": 5.0, "n_features": 64, "n_interactions": 3, "n_rbf": 20},
    "tensornet 64": {"cutoff": 5.0, "n_features": 64, "n_interactions": 2, "n_rbf": 32},
    "cgcnn": {"cutoff": 5.0, "n_features": 32, "n_interactions": 3, "n_rbf": 20},
    "torchmd_et": {"cutoff": 5.0, "n_features": 32, "n_interactions": 3, "n_rbf": 20, "n_heads": 4},
}
# Copies of every structure and the strength of the last round, in Å.
LABELS = {"rounds": 20, "strength": 0.5}
PIWSL = {"method": "piwsl", "order": "first", "pitc": 1.0, "pisc": 0.01, "epsilon": 0.02, "normalisation": "per_atom"}
METHODS = ("plain", "EAM", "EAM + replay", "EAM + PIWSL", "delta", "SAM")
# As published: the steps on the labels of the EAM come on top.
ON_TOP = "EAM, steps on top"
# For one model only: what the shipped silica is made with, if with other settings (recipes/silica.yaml); and without
# the EAM: its core alone, to see whether that is what helps, and a loss that has a study of its own.
MORE = (ON_TOP, "delta + replay", "ZBL", "PIWSL")
PRETRAINED = ("EAM", "EAM + replay", "EAM + PIWSL", ON_TOP)


@dataclass(frozen=True)
class Row:
    """One training of the study.

    `steps` are gradient steps in all (of `ON_TOP` without those on the EAM); `forces_weight` stands beside 1 for the
    energy.
    """

    data: str
    n_train: int
    model: str
    method: str
    seed: int
    steps: int = STEPS
    forces_weight: float = FORCES_WEIGHT
    stop: int | None = None
    """Epochs of `EPOCH` steps without a better validation error, which end the training."""

    @property
    def key(self) -> str:
        """Name, unique within the study; also that of its folder."""
        return f"{self.data} {self.n_train}/{self.model}/{self.label}/seed {self.seed}"

    @property
    def label(self) -> str:
        """Method, and what differs from the other rows."""
        return self.method + self.variant

    @property
    def variant(self) -> str:
        """What differs from the other rows."""
        energies = "" if self.forces_weight == FORCES_WEIGHT else f", {ENERGIES_UP}"
        if self.stop is not None:
            return energies + CONVERGED
        return energies + ("" if self.steps == STEPS else f", {self.steps} steps")

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return dict(self.__dict__)


def folder_of(row: Row) -> Path:
    """Folder of what all rows of a subset share: frames, EAM, its labels."""
    return RUNS / f"{row.data} {row.n_train}"


def _grid(data: str, sizes: Iterable[int], models: Iterable[str], methods: Iterable[str], **options: Any) -> list[Row]:
    return [
        Row(data, n, m, method, seed, **options) for n in sizes for m in models for method in methods for seed in SEEDS
    ]


# The question itself comes first; what else may help is for those with time.
FIRST = ("plain", "EAM", "delta")
REST = tuple(method for method in METHODS if method not in FIRST)
OTHERS = ("cgcnn", "torchmd_et")
WIDE = ("painn 64", "tensornet 64")

PARTS: dict[str, Callable[[], list[Row]]] = {
    "silica": lambda: _grid("silica", (120,), ("painn",), (*METHODS, *MORE)),
    "silica-energies": lambda: _grid(
        "silica", (120,), ("painn",), ("plain", "EAM", "delta", "delta + replay"), forces_weight=LOW_FORCES_WEIGHT
    ),
    "silica-long": lambda: _grid("silica", (120,), ("painn",), FIRST, steps=LONG_STEPS),
    "silica-models": lambda: _grid("silica", (120,), OTHERS, FIRST),
    "limno": lambda: _grid("limno", (30,), ("painn",), FIRST),
    "tio2": lambda: _grid("tio2", (200,), ("painn",), FIRST),
    "silica-all": lambda: _grid("silica", (1160,), ("painn",), FIRST),
    "silica-few": lambda: _grid("silica", (30,), ("painn",), (*FIRST, ON_TOP)),
    "silica-all-rest": lambda: _grid("silica", (1160,), ("painn",), (ON_TOP,)),
    "silica-models-rest": lambda: _grid("silica", (120,), OTHERS, REST),
    "limno-rest": lambda: _grid("limno", (30,), ("painn",), REST),
    **{
        f"converged-{data}": (
            lambda data=data, sizes=sizes: _grid(data, sizes, WIDE, FIRST, steps=MOST, stop=PATIENCE)  # type: ignore[misc]
        )
        for data, sizes in {
            "silica": (30, 120, 1160),
            "limno": (30,),
            "tio2": (200,),
            "aspirin": (50, 100, 950),
            "ethanol": (50, 950),
        }.items()
    },
    # Whether a repulsive core does what the EAM does: `asecalc train` adds one by default.
    "converged-silica-core": lambda: _grid("silica", (30,), ("painn 64",), ("ZBL",), steps=MOST, stop=PATIENCE),
    "tio2-rest": lambda: _grid("tio2", (200,), ("painn",), REST),
}


def pretrain_overrides(row: Row, shared: Path) -> dict[str, Any]:
    """Return settings of the training on the labels of the EAM, shared by the rows that are pretrained."""
    folder = folder_of(row)
    return {
        **_common(row, shared, row.steps // 2),
        "data.n_val": PRETRAINING_VALIDATION,
        "pretrain.teacher": folder / "eam.pt",
        "pretrain.rounds": LABELS["rounds"],
        "pretrain.strength": LABELS["strength"],
        "run.output": folder / row.model / f"pretrained{row.variant}" / f"seed {row.seed}",
    }


def train_overrides(row: Row, shared: Path) -> dict[str, Any]:
    """Return settings of the training on the ab-initio labels."""
    folder = folder_of(row)
    weak: dict[str, dict[str, Any]] = {"EAM + PIWSL": PIWSL, "PIWSL": PIWSL, "SAM": {"method": "sam", "rho": 0.05}}
    # SAM takes two gradients for each step. PIWSL costs as much and is not halved: the times tell.
    halved = row.method in (*PRETRAINED, "SAM") and row.method != ON_TOP
    settings = {
        **_common(row, shared, row.steps // 2 if halved else row.steps),
        **{f"weak.{name}": value for name, value in weak.get(row.method, {}).items()},
        "run.output": RUNS / row.key,
    }
    if row.method in PRETRAINED:
        before = pretrain_overrides(row, shared)["run.output"]
        settings |= {"finetune.base": before / "model.pt", "finetune.old_data": before / "labelled.xyz"}
    if row.method.endswith("replay"):
        settings["finetune.replay"] = 0.25
    if row.method.startswith("delta"):
        settings["finetune.delta"] = folder / "eam.pt"
    if row.method == "ZBL":
        settings["finetune.delta"] = "zbl"
    if row.method == "delta + replay":
        # Those that the pretrained rows have left.
        settings["finetune.old_data"] = folder / "labelled.xyz"
    return settings


def _common(row: Row, shared: Path, steps: int) -> dict[str, Any]:
    data = DATA[row.data]
    return {
        "data.train": shared / data["train"],
        "data.n_train": row.n_train,
        "data.n_val": VALIDATION_FRAMES,
        "data.split_seed": SPLIT_SEED,
        "model.architecture": row.model.partition(" ")[0],
        **{f"model.hyperparameters.{name}": value for name, value in MODELS[row.model].items()},
        "loss.energy_per_atom": True,
        "loss.forces_weight": row.forces_weight,
        "loss.stress_weight": 100.0 if data.get("stress") else 0.0,
        **_length(row, steps),
        "optimizer.warmup_steps": 100,
        "optimizer.ema_decay": 0.99,
        "run.seed": row.seed,
        "run.batch_size": BATCH,
        "run.threads": 1,
        "run.device": "cpu",
        "run.progress": False,
    }


def _length(row: Row, steps: int) -> dict[str, Any]:
    if row.stop is None:
        return {"optimizer.schedule": "cosine", "run.steps_per_epoch": steps // EPOCHS, "run.max_epochs": EPOCHS}
    return to_convergence(steps, row.stop, EPOCH)
