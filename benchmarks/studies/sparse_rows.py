"""Rows of the study of sparse data: data sets, starts, and what each training is given beside its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asecalc_mlip.teachers.bare import bare
from benchmarks.studies.grid import settings_of
from benchmarks.studies.sparse_methods import HOT_FRAMES, METHODS

__all__ = [
    "CONTROLLED",
    "DATA",
    "DYNAMICS",
    "FEW_OF",
    "KINDS",
    "ORDERS",
    "PARTS",
    "PICOSECONDS",
    "Row",
    "TRIALS",
    "WEAKEST",
    "hot_file",
    "hot_frames",
    "stages",
]

SEEDS = (0, 1, 2)
MATERIALS, MOLECULES = "TensorNet-MatPES-PBE", "TensorNet-ANI-1x"


@dataclass(frozen=True)
class DataSet:
    """A data set of the study.

    Attributes
    ----------
    train, test : str
        Files; without a test file the frames that the split leaves over are for testing.
    sizes : tuple of int
        Numbers of training frames.
    base : str
        Published model to fine-tune.
    batch, steps : int
        Structures per gradient step, and steps of a training.
    stress, forces : bool
        Whether there are such labels.
    rate : float
        Learning rate of fine-tuning: less than a random network is given, as large steps undo what the base knows.
    """

    train: str
    test: str | None
    sizes: tuple[int, ...]
    base: str
    batch: int = 2
    steps: int = 20_000
    stress: bool = False
    forces: bool = True
    rate: float = 2e-4


DATA = {
    "silica": DataSet("silica_zeo22_train.xyz", "silica_zeo22_test.xyz", (30, 120, 1160), MATERIALS),
    "limno": DataSet("limno_electrode_train.xyz", "limno_electrode_val.xyz", (30, 270), MATERIALS, stress=True),
    "tio2": DataSet("tio2_train.xyz", "tio2_test.xyz", (100, 1000), MATERIALS),
    "3bpa": DataSet("3bpa_train_300K.xyz", None, (50, 430), MOLECULES, batch=5, rate=5e-4),
    "aspirin": DataSet(
        "rmd17_aspirin_train.xyz", "rmd17_aspirin_test.xyz", (50, 100, 950), MOLECULES, batch=5, rate=5e-4
    ),
    "ethanol": DataSet("rmd17_ethanol_train.xyz", "rmd17_ethanol_test.xyz", (50, 950), MOLECULES, batch=5, rate=5e-4),
    "malonaldehyde": DataSet(
        "qm22_malonaldehyde_ccsdt_energies_train.xyz", None, (100, 950), MOLECULES, batch=10, forces=False
    ),
    "formic-acid-dimer": DataSet(
        "qm22_formic_acid_dimer_ccsdt_energies_train.xyz", None, (100, 950), MOLECULES, batch=10, forces=False
    ),
}


@dataclass(frozen=True)
class Row:
    """One training of the study."""

    data: str
    n_train: int
    method: str
    seed: int
    steps: int | None = None
    """Other than those of the data set."""

    @property
    def key(self) -> str:
        """Name, unique within the study."""
        steps = "" if self.steps is None else f", {self.steps} steps"
        return f"{self.data} {self.n_train}/{self.method}{steps}/seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.key.replace("/", "_").replace(" ", "_").replace(",", "")

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return dict(self.__dict__)


def stages(row: Row, data_folder: Path, output: Path) -> list[dict[str, Any]]:
    """Return the settings of the trainings of a row, one after another, as `asecalc train` takes them.

    With a teacher half of the steps, or the share `before`, are on its labels, in a folder of their own; the others
    start from that model. A model of the teacher that is `shared`, or a seed's `own`, has that number of steps. A
    network that `learns` a model, fine-tuned in so many steps, has the row of this model as its teacher. A teacher with
    a `temperature` labels frames of its own dynamics, which `hot_frames` makes.
    """
    data, method = DATA[row.data], dict(METHODS[row.method])
    names = ("start", "teacher", "shared", "own", "learns", "temperature", "before", "correct")
    start, teacher, shared, own, learns, temperature, share, _ = (method.pop(name, None) for name in names)
    steps = row.steps or data.steps
    labels = {
        "data.train": data_folder / data.train,
        "data.n_train": row.n_train,
        "data.n_val": min(50, max(20, row.n_train // 10)),
        "data.split_seed": row.seed,
        "loss.energy_per_atom": True,
        "run.batch_size": data.batch,
        "run.seed": row.seed,
        "run.threads": 1,
        "run.device": "cpu",
        "run.progress": False,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_decay": 0.99,
        **({"loss.stress_weight": 50.0} if data.stress else {}),
        **({} if data.forces else {"loss.forces_weight": 0.0, "loss.energy": "mse"}),
        **method,
    }
    last = {**labels, "run.output": output, **({} if data.test is None else {"data.test": data_folder / data.test})}
    based = {"finetune.base": data.base, "optimizer.lr": method.get("optimizer.lr", data.rate)}
    fresh = {} if start is None else {**_sizes(start), "optimizer.lr": 1e-3}
    if teacher is None:
        return [{**last, **(fresh or based), **_length(steps)}]
    before = shared or own or int(steps * (share or 0.5))
    heat = temperature or teacher.get("pretrain.temperature")
    kind = ("" if heat is None else f"_{heat}_K") + ("_far" if "far.teacher" in teacher else "")
    name = f"teacher_{row.data}_{row.n_train}{kind}"
    folder = output.parent / name if shared else output / "teacher"
    first = {**labels, **(fresh or based), **teacher, **_length(before, epochs=16), "run.output": folder}
    first = {name: value for name, value in first.items() if not name.startswith("weak.")}  # of the labels alone
    if shared:
        first |= {"data.split_seed": 0, "run.seed": 0}
    if (frames := hot_file(row)) is not None:
        first = {name: value for name, value in first.items() if not name.startswith("pretrain.")}
        first |= {"data.train": output.parent / frames, "data.n_train": HOT_FRAMES - 50, "data.n_val": 50}
    rest = steps if shared or own else steps - before
    parts = [first, {**last, "finetune.base": folder / "model.pt", "optimizer.lr": data.rate, **_length(rest)}]
    if learns is None:
        return parts
    tuned = Row(row.data, row.n_train, "fine-tuned", row.seed, learns)
    large = output.with_name(tuned.folder) / "model.pt"
    first["pretrain.teacher"] = large
    return parts if large.exists() else [*stages(tuned, data_folder, large.parent), *parts]


def hot_file(row: Row) -> str | None:
    """Name of the file of `hot_frames`, which networks share; None for methods that have none."""
    method = METHODS[row.method]
    if (temperature := method.get("temperature")) is None:
        return None
    seed = 0 if "shared" in method else row.seed
    by = "_corrected" if "correct" in method else ""
    return f"hot_{row.data}_{row.n_train}_seed_{seed}_{temperature}_K{by}.xyz"


def hot_frames(row: Row, data_folder: Path, path: Path) -> None:
    """Write frames of short dynamics of GFN2-xTB from the training frames of a row, with its labels; go on if begun.

    Of a method with `correct` the same frames have the labels of GFN2-xTB plus the mean of so many networks.
    """
    from asecalc_mlip.data.readers import read_frames
    from asecalc_mlip.teachers import open_teacher
    from asecalc_mlip.teachers.labelling import label_structures
    from training.data.split import make_split
    from training.far.sources import make_structures
    from training.pretrain.difference import corrected
    from training.settings import FarConfig
    from training.train import train_before

    if path.is_file() and len(read_frames(path)) == HOT_FRAMES:
        return
    frames, kept = read_frames(data_folder / DATA[row.data].train), Row(row.data, row.n_train, "PaiNN", row.seed)
    settings = stages(kept, data_folder, path.parent)[0]
    method = METHODS[row.method]
    seed = 0 if "shared" in method else row.seed
    split = make_split(len(frames), row.n_train, settings["data.n_val"], seed=seed)
    teacher, temperature = open_teacher("xtb"), float(method["temperature"])
    path.parent.mkdir(parents=True, exist_ok=True)
    if (networks := method.get("correct")) is None:
        asked = FarConfig(sources=["dynamics"], n=HOT_FRAMES, temperature=temperature, seed=seed)
        structures = make_structures([frames[k] for k in split.train], asked, 5.0, teacher)
    else:
        plain = path.with_name(path.name.replace("_corrected", ""))
        hot_frames(replace(row, method=row.method.replace(", corrected", "")), data_folder, plain)
        structures = [bare(atoms) for atoms in read_frames(plain)]
        config = settings_of({**settings, "pretrain.correct": networks})
        teacher = corrected(config, frames, replace(split, test=[]), teacher, path.with_suffix(""), train_before)
    label_structures(structures, teacher, path, recipe={"temperature_K": temperature}, progress=False)


def _length(steps: int, epochs: int = 40) -> dict[str, int]:
    return {"run.steps_per_epoch": max(50, steps // epochs), "run.max_epochs": min(epochs, steps // 50)}


def _sizes(start: dict[str, Any]) -> dict[str, Any]:
    sizes = {f"model.hyperparameters.{name}": value for name, value in start.items() if name != "architecture"}
    return {"model.architecture": start["architecture"], **sizes}


def _part(data: str) -> list[Row]:
    """Return every size, method and seed of a data set."""
    return [Row(data, n_train, method, seed) for n_train in DATA[data].sizes for seed in SEEDS for method in METHODS]


# Of a busy processor: what fits into some minutes.
SHORT = [
    Row("silica", 30, "fine-tuned", 0, 2000),
    Row("silica", 30, "PaiNN", 0, 2000),
    Row("silica", 30, "fine-tuned, antithetic", 0, 2000),
    Row("silica", 30, "fine-tuned, first", 0, 2000),
    Row("silica", 30, "fine-tuned, replay", 0, 2000),
    Row("aspirin", 50, "fine-tuned", 0, 2000),
    Row("aspirin", 50, "PaiNN", 0, 2000),
]
# The questions that docs/studies answers, in the steps after which the validation errors stay.
FEW = [Row("aspirin", 50, name, seed, 600) for name in ("fine-tuned", "fine-tuned, xtb first") for seed in SEEDS]
FEW += [Row("aspirin", 50, "fine-tuned, xtb first, 1500 K", seed, 600) for seed in SEEDS]
FEW += [Row("aspirin", 50, name, seed, 10_000) for name in ("TensorNet", "TensorNet, first") for seed in SEEDS]
# With the coefficients of docs/studies/piwsl.md, and with the best of the trials on validation frames.
ORDERS = ("first", "antithetic", "first × 0.1", "antithetic × 0.01")
WEAKEST = ("first × 0.001", "antithetic × 0.0001")
WEAK = [Row("aspirin", 50, f"fine-tuned, {order}", seed, 600) for order in ORDERS for seed in SEEDS]
WEAKER = ("first × 0.1", "first × 10", "antithetic × 0.1", "antithetic × 0.01")
TRIED = ("", *(f", {name}" for name in ("first", "antithetic", "rate 0.0002", "rate 0.001", *WEAKER)))
TRIALS = [Row("aspirin", 50, f"fine-tuned{name}", 0, 600) for name in TRIED]
TRIED_ON_ENERGIES = ("", ", rate 0.0002", ", rate 0.001", *(f", {name}" for name in (*ORDERS[2:], *WEAKEST)))
TRIALS += [Row("malonaldehyde", 950, f"fine-tuned{name}", 0, 2000) for name in TRIED_ON_ENERGIES]
TEACHER = [Row("aspirin", 100, name, seed, 4000) for seed in SEEDS for name in ("PaiNN", "PaiNN, xtb first")]
TEACHER += [Row("aspirin", 100, name, seed, 10_000) for seed in SEEDS for name in ("PaiNN", "PaiNN, xtb first")]
TEACHER += [Row("aspirin", 100, "PaiNN, xtb first, 1500 K", seed, 10_000) for seed in SEEDS]
TEACHER += [Row("aspirin", 100, name, seed, 6000) for seed in SEEDS for name in ("TensorNet", "TensorNet, xtb first")]
TEACHER += [
    Row("aspirin", 100, "TensorNet, xtb first, 1500 K", seed, steps) for steps in (6000, 12_000) for seed in SEEDS
]
# The teacher, corrected by networks of its difference to the labels.
CORRECTED = [
    Row("aspirin", 100, f"{name}, xtb first, 1500 K, corrected", seed, steps)
    for seed in SEEDS
    for name, steps in (("TensorNet", 6000), ("PaiNN", 10_000))
]
CORRECTED += [
    Row("aspirin", 100, f"TensorNet{first}", seed, 12_000)
    for seed in SEEDS
    for first in ("", ", xtb first, 1500 K, corrected")
]
# The number, kind and temperature of the teacher's structures: one seed.
KINDS = [
    Row("aspirin", 100, name, 0, 10_000)
    for name in METHODS
    if name.startswith("PaiNN, xtb first") and "curv" not in name
]
# The curvature of a teacher as a target: a published model errs less than GFN2-xTB. Coefficients are tried on seed 0.
CURVED = [
    Row("aspirin", n, name, seed, 10_000) for n in (100, 50) for seed in SEEDS for name in METHODS if "curv" in name
]
# Fewer and more labels.
FIRST_OF = ("PaiNN", "PaiNN, xtb first, 1500 K")
OTHERS = [Row("aspirin", n, name, seed, 10_000) for seed in SEEDS for n in (50, 950) for name in FIRST_OF]
LONGER = [Row("aspirin", 100, name, seed, 20_000) for seed in SEEDS for name in ("PaiNN", "PaiNN, xtb first, 1500 K")]
FIELD = [Row("aspirin", n, "fine-tuned, xtb first, far", seed, 600) for n in (50, 100) for seed in SEEDS]
CORRECTED_FIELD = [Row("aspirin", 50, "TensorNet, corrected xtb first, far", seed, 600) for seed in SEEDS]
# Other molecules, and more frames.
RECIPE_OTHERS = [
    Row(data, n, method, seed, steps)
    for seed in SEEDS
    for data, n in (("ethanol", 50), ("3bpa", 50), ("aspirin", 100))
    for method, steps in (("TensorNet, corrected xtb first, far", 600), ("TensorNet", 10_000))
]
RECIPE_HOTTER = [Row("aspirin", 100, "TensorNet, corrected xtb first, 1200 K, far", seed, 600) for seed in SEEDS]
HOT_FIELD = [Row("aspirin", 50, "fine-tuned, xtb first, 1500 K, far", seed, 600) for seed in SEEDS]
MORE = [Row("aspirin", 100, name, seed, 600) for name in ("fine-tuned", "fine-tuned, xtb first") for seed in SEEDS]
MORE += [Row("aspirin", 950, "fine-tuned", seed, 6000) for seed in SEEDS]
# What far-field structures cost near the data, as the shipped models have them.
CONTROLLED = (
    "TensorNet",
    "TensorNet, far",
    *(f"TensorNet, far, {x}" for x in ("share 0.03", "weight 0.1", "weight 0.01")),
)
CONTROL = [Row("ethanol", 950, name, seed, 20_000) for seed in SEEDS for name in CONTROLLED]
# Few labels of every other kind of data, by the published model that fits: what PIWSL and replay add. The coefficients
# are those that aspirin chose; a training from random weights beside them.
FEW_OF = {
    ("3bpa", 50): 600,
    ("silica", 30): 2000,
    ("limno", 30): 2000,
    ("tio2", 100): 2000,
    ("malonaldehyde", 950): 2000,
    ("formic-acid-dimer", 950): 2000,
}
TUNED = ("", ", first × 0.1", ", antithetic × 0.01", ", replay", ", layer decay")
OTHERS_FEW = [
    Row(data, n, method, seed, steps)
    for seed in SEEDS
    for (data, n), tuning in FEW_OF.items()
    for method, steps in (*((f"fine-tuned{name}", tuning) for name in TUNED), ("TensorNet", 10_000))
]
# Squeezed structures are among its test frames.
OTHERS_FEW += [Row("tio2", 100, "fine-tuned, zbl", seed, 2000) for seed in SEEDS]
DISTIL = [Row("silica", 30, name, 0, 8000) for name in ("PaiNN", "PaiNN, distilled")]
# Trainings whose models are run: what the docs advise, and what it is compared with.
DYNAMICS = [
    *CORRECTED_FIELD,
    *HOT_FIELD,
    *FIELD[: len(SEEDS)],
    *[Row("aspirin", 50, name, seed, 10_000) for name in ("TensorNet", "TensorNet, first") for seed in SEEDS],
    *FIELD[len(SEEDS) :],
    *[Row("aspirin", 100, "TensorNet, corrected xtb first, far", seed, 600) for seed in SEEDS],
    *RECIPE_HOTTER,
    *[Row("aspirin", 50, "fine-tuned", seed, 600) for seed in SEEDS],
    *[Row("aspirin", 50, "fine-tuned, first", seed, 600) for seed in SEEDS],
    *[Row("aspirin", 50, "fine-tuned, xtb first, 1500 K", seed, 600) for seed in SEEDS],
    *[Row("aspirin", 100, "TensorNet", seed, 6000) for seed in SEEDS],
    *[Row("aspirin", 100, "PaiNN", seed, 10_000) for seed in SEEDS],
    *[Row("aspirin", 100, "PaiNN, xtb first", seed, 10_000) for seed in SEEDS],
    Row("aspirin", 100, "PaiNN, xtb first, 1500 K in turn", 0, 10_000),
    *[Row("ethanol", 950, name, 1, 20_000) for name in ("TensorNet", "TensorNet, far", "TensorNet, far, weight 0.1")],
]
# K: ps, of their trajectories.
PICOSECONDS = {500: 50, 1200: 20}
PARTS: dict[str, Callable[[], list[Row]]] = {
    "short": lambda: SHORT,
    "few": lambda: FEW,
    "weak": lambda: WEAK,
    "weak-trials": lambda: TRIALS,
    "teacher": lambda: TEACHER,
    "teacher-kinds": lambda: KINDS,
    "teacher-curvature": lambda: CURVED,
    "teacher-corrected": lambda: CORRECTED,
    "teacher-sizes": lambda: OTHERS,
    "teacher-longer": lambda: LONGER,
    "field": lambda: FIELD + HOT_FIELD + CORRECTED_FIELD,
    "recipe-others": lambda: RECIPE_OTHERS,
    "recipe-hotter": lambda: RECIPE_HOTTER,
    "more": lambda: MORE,
    "control": lambda: CONTROL,
    "others-few": lambda: OTHERS_FEW,
    "distil": lambda: DISTIL,
    **{name: (lambda name=name: _part(name)) for name in DATA},  # type: ignore[misc]
}
