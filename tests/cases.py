"""Models and structures that the physics suite runs over: every architecture times molecule, crystal and slab."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from asecalc_mlip.checkpoint import save
from asecalc_mlip.models import ARCHITECTURES, Potential, build_potential, hyperparameters_of

E0 = {1: -13.6, 6: -1029.0, 8: -2041.0, 14: -7000.0}
# Those that everything about engines, training and files is tested with, and all that obey the same physics.
MODELS = ["painn", "schnet"]
PHYSICAL = sorted(ARCHITECTURES)
# Networks whose forces come from a head of their own; names for the tests only.
DIRECT = "painn-direct"
DIRECTS = [DIRECT, "spinconv-direct", "escn-direct", "equiformer_v2-direct"]
# Where an architecture has other hyper-parameters than those of message passing, or needs others.
SIZES = {
    "eam": {"elements": ["H", "C", "O", "Si"], "n_exponentials": 4, "core": "zbl"},
    # Parts of unlike cutoffs, one of them without weights.
    "sum": {
        "parts": [
            {
                "architecture": "painn",
                "hyperparameters": {"cutoff": 3.2, "n_features": 16, "n_interactions": 2, "n_rbf": 8},
                "scale": 0.7,
            },
            {
                "architecture": "eam",
                "hyperparameters": {"elements": ["H", "C", "O", "Si"], "n_exponentials": 4, "cutoff": 4.5},
            },
            {"architecture": "zbl"},
        ]
    },
    "spinconv": {"n_features": 8, "n_hidden": 8, "n_angular": 3, "n_polar": 3},
    "equiformer_v2": {
        "n_features": 8,
        "n_interactions": 1,
        "n_heads": 2,
        "n_alpha": 4,
        "n_value": 4,
        "n_hidden": 8,
        "n_feed": 8,
        "n_edge": 8,
        "l_max": 2,
        "m_max": 1,
    },
    "escn": {"n_features": 8, "n_hidden": 16, "n_edge": 8, "l_max": 2, "m_max": 1},
    # Of its layers the first and the last are special.
    "torchmd_et": {"n_interactions": 3},
}
# Networks whose random weights say little.
SCALES = {"escn": 40.0, "m3gnet": 1000.0, "spinconv": 1000.0, "tensornet": 100.0}
STRUCTURES = ["molecule", "crystal", "skewed", "slab"]


def make_potential(
    architecture: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, trainable: bool = False, **changes
) -> Potential:
    """Small random potential with biases that are not zero, so that no term hides; fixed as a served one by default."""
    torch.manual_seed(seed)
    if architecture in DIRECTS:
        architecture, changes = architecture.removesuffix("-direct"), {"direct_forces": True, **changes}
    sizes = {"cutoff": 4.0, "n_features": 16, "n_interactions": 2, "n_rbf": 8, **SIZES.get(architecture, {}), **changes}
    known = hyperparameters_of(architecture)
    hyperparameters = {name: value for name, value in sizes.items() if name in known or name in changes}
    # Of a size that differences of energies of −10⁴ eV can tell.
    scale = SCALES.get(architecture, 1.3)
    potential = build_potential(architecture, hyperparameters, reference_energies=E0, scale=scale)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return potential.to(dtype).eval().requires_grad_(trainable)


def make_structure(name: str, *, seed: int = 0) -> Atoms:
    """Disturbed structure without symmetry; the crystal's cell is smaller than the cutoff."""
    rng = np.random.default_rng(seed)
    if name == "molecule":
        atoms = molecule("CH3CH2OH")
    elif name == "crystal":
        atoms = bulk("SiO", "rocksalt", a=4.4)
    elif name == "skewed":
        atoms = bulk("SiO", "rocksalt", a=4.4)
        shear = np.array([[1.0, 0.4, -0.3], [0.0, 1.1, 0.5], [0.0, 0.0, 0.9]])
        atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    else:
        atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
        atoms.pbc = [True, True, False]
    atoms.positions += rng.uniform(-0.15, 0.15, atoms.positions.shape)
    return atoms


def model_file(folder, architecture: str = "painn", **options):
    """Small model file in a folder."""
    path = folder / f"{architecture}.pt"
    save(path, make_potential(architecture, dtype=torch.float32, **options), card={"name": "test", "licence": "MIT"})
    return path
