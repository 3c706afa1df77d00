"""Training runs of seconds, and what they leave."""

import csv
from pathlib import Path

import torch
import yaml

from training.config import load_config

SMALL = {
    "model": {
        "architecture": "painn",
        "hyperparameters": {"cutoff": 4.0, "n_features": 16, "n_interactions": 2, "n_rbf": 8},
        "prior": "none",
        "final_shift": False,
    },
    "loss": {"forces_weight": 100.0},
    "data": {"n_val": 10},
    "optimizer": {
        "lr": 0.005,
        "schedule": "plateau",
        "warmup_steps": 10,
        "plateau_patience": 1,
        "plateau_factor": 0.5,
        "ema_decay": 0.9,
    },
    "run": {"batch_size": 10, "max_epochs": 4, "threads": 1, "device": "cpu", "progress": False},
}


# As users name a calculator of their own.
ANALYTIC = """
from ase.build import molecule

from tests.teacher import Teacher

calculator = Teacher(molecule("CH3CH2OH"))
"""


def analytic_teacher(folder):
    """The name of the potential that labelled `teacher.molecule_frames`, as a teacher; leaves analytic.py."""
    path = Path(folder) / "analytic.py"
    path.write_text(ANALYTIC)
    return f"{path}:calculator"


def config(tmp_path, data, *overrides, output="run"):
    """Settings of a small run; leaves small.yaml in `tmp_path`."""
    base = tmp_path / "small.yaml"
    base.write_text(yaml.safe_dump(SMALL))
    if any(text.startswith("data.split_file=") for text in overrides):  # which has no numbers beside it
        overrides = (*overrides, "data.n_train=null", "data.n_val=null")
    return load_config([base], [f"data.train={data}", f"run.output={tmp_path / output}", *overrides])


def weak_losses():
    """All losses of weak supervision by name: every class of training.losses below WeakLoss that has a residual."""
    import training.losses.variants  # noqa: F401  defines some of them
    from training.losses import WeakLoss

    found = [WeakLoss]
    for cls in found:
        found += cls.__subclasses__()
    ours = [cls for cls in found if cls.__module__.startswith("training.")]
    return {cls.name: cls for cls in ours if not cls.__abstractmethods__}


def weights(folder):
    """The last checkpoint, and all weights in it: raw, average and best."""
    state = torch.load(Path(folder) / "last.ckpt", weights_only=False)
    average = next(v for k, v in state["callbacks"].items() if "AveragedWeights" in k)
    return state, [*state["state_dict"].values(), *average["average"], *average["best"]]


def rows(folder):
    """log.csv without the times."""
    with (Path(folder) / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
