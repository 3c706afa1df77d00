"""The sections of a configuration: a dataclass each, one docstring per field, and what a value must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from asecalc_mlip.quantities import (
    BATCH,
    COPIES,
    EPOCHS,
    FRAMES,
    PROCESSES,
    RATE,
    SEED,
    SHIFT,
    STEPS,
    WEIGHT,
    Quantity,
    count,
    seconds_of,
)
from training.options import Distance, E0Method, Normalisation, Order, PerturbationName, ResidualDistance

__all__ = [
    "BASE",
    "OF_BASE",
    "RULES",
    "SECTIONS",
    "DataConfig",
    "FarConfig",
    "FinetuneConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "RunConfig",
    "WeakConfig",
]

# The architecture of a run that starts from a model and does not say which it expects.
OF_BASE = "that of finetune.base"
BASE = "base"
"""Name of a teacher or sampler that is what a fine-tuning starts from."""


@dataclass(frozen=True)
class DataConfig:
    """Where the labelled structures come from and how they are split."""

    train: str = ""
    """Labelled structures: extended XYZ, ASE database, rMD17/MD17 .npz, or any other file of frames that ASE reads.
    Relative to the folder where the run starts."""
    test: str | None = None
    """File of test frames, for the errors in the card; None takes the frames that the split leaves over, if any."""
    n_train: int | None = None
    """Number of training frames; None takes all that are not for validation, which leaves none for a test."""
    n_val: int | None = None
    """Number of validation frames, for the schedule, early stopping and the choice of the best weights; None takes a
    tenth, at least 10 (a quarter of fewer than 40) and at most 50."""
    split_seed: int = 0
    """Seed of the random split."""
    split_file: str | None = None
    """A split.json to use again; None draws one and saves it in the output folder."""
    energy_key: str | None = None
    """Name of the energy label; None looks for the usual ones."""
    forces_key: str | None = None
    """Name of the forces label; None looks for the usual ones."""
    stress_key: str | None = None
    """Name of the stress label; None looks for the usual ones."""
    energy_unit: str | None = None
    """Unit of the energies in the file; None means what belongs to the format (kcal/mol for MD17 archives, else eV)."""
    length_unit: str | None = None
    """Unit of the lengths in the file; None means what belongs to the format, else Å."""
    force_unit: str | None = None
    """Unit of the forces in the file, e.g. Hartree/Bohr; None means what belongs to the format, else energy_unit over
    length_unit."""
    stress_unit: str | None = None
    """Unit of the stresses in the file, e.g. GPa or kbar, where compression is negative; None means what belongs to the
    format, else energy_unit over length_unit cubed."""
    level_of_theory: str = "not stated"
    """Level of theory of the labels, for the card."""
    source: str = "not stated"
    """Origin, citation and licence of the data, for the card."""
    trust: bool = False
    """Train on labels of implausible size and on labels that contradict each other; they then give a warning."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factor on the loss of frames by their `config_type`, e.g. {liquid: 2, default: 1}; `default` is for all others,
    1 if not given."""

    def reading(self) -> dict[str, Any]:
        """Return how files of this data set are read: options of `asecalc_mlip.data.readers.read_frames`."""
        keys = ("energy_key", "forces_key", "stress_key", "energy_unit", "length_unit", "force_unit", "stress_unit")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class ModelConfig:
    """Architecture and reference energies."""

    architecture: str = "tensornet"
    """painn, schnet, tensornet, m3gnet, escn, equiformer_v2, spinconv, cgcnn or torchmd_et. With finetune.base it need
    not be given, nor need hyper-parameters."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Sizes of the network: cutoff (Å), n_features, n_interactions, n_rbf, radial_basis and others. Those that are not
    given are the defaults of the architecture."""
    prior: Literal["zbl", "none"] = "zbl"
    """Repulsion between close atoms as a part of the model. It ends at 0.8 of a single bond and keeps atoms apart at
    distances without data. Networks with a force head and models with a base get none."""
    reference_energies: E0Method = "fit"
    """E0 per element: fit (least squares on the training set), isolated (atoms in a file), given (numbers) or zero.
    Frames of one isolated atom in the data give the E0 of its element with `fit` and with `isolated`."""
    cohesion: bool = True
    """With E0 of isolated atoms, give atoms that have the neighbours of the data their mean binding energy by a fixed
    part of the potential, so that the network need not learn it. Networks with a force head have none."""
    final_shift: bool = True
    """At the end, shift fitted E0 by least squares on the training set, to remove a constant error of the energies. A
    shift that raises the validation error is not made."""
    isolated_atoms: str | None = None
    """File with one structure per isolated atom, for `isolated`."""
    given: dict[str, float] = field(default_factory=dict)
    """E0 of each element, eV, for `given`, e.g. {H: -13.6}."""


@dataclass(frozen=True)
class LossConfig:
    """Weights and distances of the supervised losses."""

    energy_weight: float = 1.0
    """Weight of the energy loss (eV)."""
    forces_weight: float = 25.0
    """Weight of the force loss (eV/Å)."""
    stress_weight: float = 0.0
    """Weight of the stress loss (eV/Å³)."""
    energy: Distance = "mae"
    """Distance between energies."""
    forces: Distance = "l2mae"
    """Distance between forces; l2mae is the mean over atoms of |F − F_ref|₂."""
    stress: Distance = "mae"
    """Distance between stresses."""
    energy_per_atom: bool = False
    """Divide energy errors by the number of atoms; for data with structures of different sizes."""


@dataclass(frozen=True)
class WeakConfig:
    """Weak supervision: losses that need no labels (PIWSL), their variants, and other methods to compare with."""

    method: str = "plain"
    """piwsl is PITC + PISC; two_point, two_point_label, taylor_label and endpoint are variants; curvature, noisy_nodes,
    sam and asam are other methods to compare with; curvature_label learns the curvature of a teacher; plain is none of
    them."""
    pitc: float = 1.0
    """Coefficient of PITC (per eV²); the published 1.2 for kcal/mol beside mean absolute errors is 27.7 here."""
    pisc: float = 0.01
    """Coefficient of PISC (per eV²); the published 0.01 is 0.23 here."""
    coefficient: float = 1.0
    """Coefficient of the one loss of the other methods."""
    order: Order = "first"
    """first is the published form, which also penalises the curvature of the energy; the others do not."""
    epsilon: float = 0.05
    """Largest displacement along each axis, Å."""
    normalisation: Normalisation | None = None
    """Residual of the whole structure (total), as published, or per_atom. None: as the energies count, by
    loss.energy_per_atom, so that the same coefficients weigh the same beside them."""
    distance: ResidualDistance = "mse"
    """Distance of the residual from zero."""
    perturbation: PerturbationName = "uniform"
    """Distribution of the first displacement."""
    remove_translation: bool = False
    """Take the mean displacement off each structure."""
    skin: float | None = None
    """Å by which neighbour lists reach beyond the cutoff; None takes what epsilon needs."""
    rho: float = 0.05
    """Radius of sam; for asam, whose steps are relative to the weights, 0.5 to 2 is usual."""
    teacher: str | None = None
    """Teacher of curvature_label, whose forces at displaced training structures give the curvature: xtb,
    pyscf:PBE/def2-SVP, a model file, FILE.py:NAME, or base, which is finetune.base itself."""
    directions: int = 4
    """Directions of displacement of each training structure, for curvature_label; the teacher labels two structures for
    each."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser (AdamW), schedule of the learning rate, and limits that keep the training stable."""

    lr: float = 7e-4
    """Largest learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """cosine falls to min_lr over the whole training; plateau lowers the rate when validation stalls."""
    plateau_factor: float = 0.7
    """Factor of the plateau schedule."""
    plateau_patience: int = 25
    """Epochs without improvement before the rate falls."""
    min_lr: float = 1e-6
    """Smallest learning rate."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which the model file gets; 0 is off."""
    gradient_clip: float = 10.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class RunConfig:
    """One run on one machine."""

    output: str = "runs/model"
    """Folder for split, logs, checkpoints, figures and the .pt file."""
    name: str = "model"
    """Name of the .pt file and in the card."""
    seed: int = 0
    """Seed of weights, batches and everything else random."""
    batch_size: int = 5
    """Structures per gradient step."""
    max_epochs: int | None = None
    """Passes over the training set, or parts of `steps_per_epoch` steps. None takes the passes that make 20 000 steps,
    at most 500, and of a large training set epochs of 1000 steps."""
    time: str | None = None
    """Time that the training may take, e.g. 30min, 2h or 1h30min: the schedule ends within it. With max_epochs,
    whichever comes first ends the training."""
    steps_per_epoch: int | None = None
    """Gradient steps between validations; None means one pass over the training set. The order of frames is that of
    passes one after another either way."""
    early_stop: int | None = None
    """Stop after this many epochs without improvement; None does not stop early."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    devices: int = 1
    """Processes that share each batch, one on each GPU. The result is that of one process, apart from rounding."""
    licence: str = "not stated"
    """Licence of the trained model, for the card."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Start from a trained model; add to a fitted potential; keep structures of an older level among the new ones."""

    base: str | None = None
    """Model file to start from, all of whose weights are trained; None starts from random weights."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each block to the one before it, counted from the head, which has
    optimizer.lr; the embedding has the least. 1 gives all the same."""
    delta: str | None = None
    """Potential that the model adds to, E = E_model + E_delta: a model file such as silica_eam.pt, or zbl."""
    delta_frozen: bool = True
    """Leave the parameters of `delta`, or of what a base was added to, as they are."""
    replay: float = 0.0
    """Share of each batch that is drawn from the old level instead of the training set; 0 is off."""
    old_data: str | None = None
    """Labelled structures of the old level, for replay and to see what is forgotten. None takes the labelled.xyz that
    `asecalc pretrain` leaves beside a base, if it is there."""
    n_old: int = 50
    """Structures of the old level held back from replay, on which the model is tested before and after."""


@dataclass(frozen=True)
class FarConfig:
    """Structures far from the data, labelled by a teacher, that stay in the batches."""

    teacher: str | None = None
    """Teacher, which labels structures that the data do not cover: xtb, pyscf:PBE/def2-SVP, a model file, FILE.py:NAME,
    or base, which is finetune.base itself; None is off."""
    data: str | None = None
    """Labelled structures at the level of theory of the data, such as those of `asecalc data atoms`. Isolated atoms
    among them give E0."""
    share: float = 0.1
    """Share of each batch that consists of structures far from the data."""
    weight: float = 0.1
    """Factor on the loss of the structures far from the data, whose errors are much larger than those near them."""
    sources: list[str] = field(default_factory=lambda: ["dimers", "bonds", "two_step", "dynamics"])
    """Sources of the structures: dimers (isolated, of each two elements), bonds (stretched and compressed), two_step
    (pulled pairs and random moves) and dynamics (hot runs of the teacher)."""
    structures: str | None = None
    """More structures for the teacher, in a file: the frames at which runs broke (unstable.extxyz), and those that a
    learning gives to no labeller (unphysical.xyz). None: those of the sources alone."""
    n: int = 200
    """Structures of each source, before those near the data are left out."""
    dimers: int = 40
    """Distances of each isolated dimer, from 0.2 of the sum of the covalent radii to the cutoff."""
    strength: float = 1.0
    """Largest displacement of two_step, Å."""
    temperature: float = 1500.0
    """Temperature of the dynamics, K; take 2 to 4 times that of the data."""
    width: float = 0.2
    """Width of the rise of the weight, Å. A structure has the weight 0 if all distances of nearest neighbours are in
    the range of the data, and the weight 1 if one of them is this far outside."""
    seed: int = 0
    """Seed of the structures."""


@dataclass(frozen=True)
class PretrainConfig:
    """Train on the labels of a teacher instead of those of the data."""

    teacher: str | None = None
    """Teacher, which labels perturbed copies of the structures for training and validation: an EAM or another model
    file, xtb, FILE.py:NAME. None: data.train has labels already, for example those of `asecalc eam label`."""
    rounds: int = 5
    """Copies of each structure; the first copy is not perturbed. With a temperature: frames from each structure."""
    temperature: float | None = None
    """K; in place of perturbed copies, the training takes frames of short dynamics of the teacher at this temperature,
    from each structure. Take 2 to 4 times that of the data. None is off."""
    sampler: str | None = None
    """Model whose dynamics make these frames in place of those of the teacher, which then labels them: a file, or base,
    which is finetune.base itself. It saves the teacher nineteen of twenty labels. None is the teacher."""
    correct: int = 0
    """Small networks that first learn the difference between the labels of data.train and the teacher. Their mean is
    added to the teacher. 0 is off."""
    strength: float = 0.5
    """Largest displacement in the last copy, Å."""
    n_pairs: int = 4
    """Closest pairs that are pulled together."""
    max_atoms: int = 5
    """Atoms that are moved at random."""
    seed: int = 0
    """Seed of the perturbations."""


def _is_name(value: str) -> bool:
    return value.strip() != "" and not set(value) & set("/\\\0") and len(value.encode("utf-8", "replace")) <= 200


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "loss": LossConfig,
    "weak": WeakConfig,
    "optimizer": OptimizerConfig,
    "finetune": FinetuneConfig,
    "far": FarConfig,
    "pretrain": PretrainConfig,
    "run": RunConfig,
}

# What a value must be: a number within bounds, or a test and what it expects. Others hold what any number may be.
# Messages for values of another kind say it too.
RULES: dict[str, Quantity | tuple[Callable[[Any], bool], str]] = {
    "data.n_train": FRAMES,
    "data.n_val": FRAMES,
    "data.split_seed": SEED,
    "loss.energy_weight": WEIGHT,
    "loss.forces_weight": WEIGHT,
    "loss.stress_weight": WEIGHT,
    "optimizer.lr": RATE,
    "optimizer.weight_decay": WEIGHT,
    "optimizer.warmup_steps": STEPS,
    "optimizer.plateau_factor": (lambda v: 0 < v < 1, "between 0 and 1"),
    "optimizer.plateau_patience": count(1e7, 0),
    "optimizer.min_lr": Quantity(0, 1e3),
    "optimizer.ema_decay": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "optimizer.gradient_clip": Quantity(0, 1e9, above=True),
    "run.name": (_is_name, "a file name without a folder, of at most 200 letters"),
    "run.seed": SEED,
    "run.time": (lambda v: seconds_of(v) is not None, "a time such as 30min, 2h or 1h30min"),
    "run.batch_size": BATCH,
    "run.max_epochs": EPOCHS,
    "run.steps_per_epoch": count(1e9),
    "run.early_stop": EPOCHS,
    "run.threads": PROCESSES,
    "run.devices": PROCESSES,
    "finetune.layer_decay": Quantity(0, 1, above=True),
    "finetune.replay": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "finetune.n_old": count(1e8, 0),
    "far.share": (lambda v: 0 < v < 1, "above 0 and below 1"),
    "far.weight": (lambda v: v > 0, "above 0"),
    "far.sources": (
        lambda v: len(v) > 0 and set(map(str, v)) <= {"dimers", "bonds", "two_step", "dynamics"},
        "some of dimers, bonds, two_step, dynamics",
    ),
    "far.n": COPIES,
    "far.dimers": COPIES,
    "far.strength": SHIFT,
    "far.temperature": Quantity(0, 1e5, "K", above=True),
    "far.width": Quantity(0, 10, "Å", above=True),
    "far.seed": SEED,
    "pretrain.correct": count(100, 0),
    "pretrain.rounds": count(1e5),
    "pretrain.temperature": Quantity(0, 1e5, "K", above=True),
    "pretrain.strength": SHIFT,
    "pretrain.n_pairs": COPIES,
    "pretrain.max_atoms": COPIES,
    "pretrain.seed": SEED,
    "weak.pitc": WEIGHT,
    "weak.pisc": WEIGHT,
    "weak.coefficient": WEIGHT,
    "weak.epsilon": Quantity(0, 10, "Å", above=True),
    "weak.skin": Quantity(0, 100, "Å"),
    "weak.rho": Quantity(0, 1e6, above=True),
    "weak.directions": count(1000),
}
