"""Two levels of theory for tests of fine-tuning: rock salt by the teacher, and by an EAM that nobody fitted."""

import torch
from ase.io import write

from asecalc_mlip.checkpoint import save
from asecalc_mlip.models import build_potential
from tests import teacher
from tests.small_runs import config

# Networks and batches small enough for seconds.
TINY = ("model.hyperparameters.n_features=8", "model.hyperparameters.n_interactions=1", "run.batch_size=4",
        "data.n_train=8", "data.n_val=4", "run.max_epochs=2", "optimizer.warmup_steps=3")  # fmt: skip
SHAPE = {"elements": ["Na", "Cl"], "cutoff": 4.5, "n_exponentials": 2}
E0 = {11: -1.0, 17: -2.0}


def files(folder, n=14):
    """A labelled file and an EAM for it."""
    write(folder / "salt.xyz", teacher.as_reference(teacher.crystal_frames(n)), format="extxyz")
    torch.manual_seed(0)
    save(folder / "eam.pt", build_potential("eam", SHAPE, reference_energies=E0), card={"name": "EAM"})
    return folder / "salt.xyz", folder / "eam.pt"


def tiny(folder, data, *overrides, output="run"):
    """Settings of a run of a second."""
    return config(folder, data, *TINY, *overrides, output=output)
