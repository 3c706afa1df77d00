"""Rows of the PIWSL study: data sets, models, losses, and the parts they are grouped in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.studies.grid import to_convergence

__all__ = ["DATA", "EPOCH", "PARTS", "Row", "overrides"]

SEEDS = (0, 1, 2)
STEPS = 3000
# Of the data sets beside aspirin, on which everything is tried.
SHORT = 1500
# Of the row of the paper with the largest gain, whose curve is to be flat at its end.
LONG = 10_000
EPOCHS = 15
# Of trainings to convergence: at most so many steps, ended after so many epochs without a better validation error. The
# rate halves after a third of them.
MOST, EPOCH, PATIENCE = 40_000, 500, 18
VALIDATION_FRAMES = 50
# Data and training frames whose coefficients are chosen by their own validation frames, and the rate to try beside.
TRIED = {"aspirin": 100, "ethanol": 100, "3bpa": 50, "lmnto": 100, "tio2": 100, "silica": 30}
RATE = 7e-4

DATA: dict[str, dict[str, Any]] = {
    "aspirin": {"train": "rmd17_aspirin_train.xyz", "test": "rmd17_aspirin_test.xyz"},
    "ethanol": {"train": "rmd17_ethanol_train.xyz", "test": "rmd17_ethanol_test.xyz"},
    # 1000 frames of ethanol and 300 of methanol.
    "ethanol-methanol": {"train": "ethanol_meth_train.xyz", "test": None},
    "silica": {"train": "silica_zeo22_train.xyz", "test": "silica_zeo22_test.xyz", "batch": 2, "per_atom": True},
    "3bpa": {"train": "3bpa_train_300K.xyz", "test": None},
    "tio2": {"train": "tio2_train.xyz", "test": "tio2_test.xyz", "batch": 2, "per_atom": True, "cutoff": 4.5},
    "lmnto": {
        "train": "limonitio_train.xyz",
        "test": "limonitio_test.xyz",
        "batch": 2,
        "per_atom": True,
        "cutoff": 4.5,
    },
    "malonaldehyde": {"train": "qm22_malonaldehyde_ccsdt_energies_train.xyz", "test": None},
    "formic-acid-dimer": {"train": "qm22_formic_acid_dimer_ccsdt_energies_train.xyz", "test": None},
}

# Small, and with the grids of the paper, which cost half of the fine ones.
SPHERICAL = {"n_features": 16, "n_interactions": 2, "n_edge": 16, "l_max": 2, "m_max": 2, "grid": "published"}
EQUIFORMER = {**SPHERICAL, "n_hidden": 16, "n_feed": 32, "n_alpha": 8, "n_value": 4}
MODELS: dict[str, dict[str, Any]] = {
    "painn": {"architecture": "painn"},
    "painn-direct": {"architecture": "painn", "direct_forces": True},
    "schnet": {"architecture": "schnet"},
    "equiformer": {"architecture": "equiformer_v2", "sizes": EQUIFORMER},
    "escn-direct": {"architecture": "escn", "direct_forces": True, "sizes": {**SPHERICAL, "n_hidden": 32}},
    "equiformer-direct": {"architecture": "equiformer_v2", "direct_forces": True, "sizes": EQUIFORMER},
    # Few angles, as forces of a head need not be a gradient: within 1e-3 of those with many angles and directions.
    "spinconv-direct": {
        "architecture": "spinconv",
        "direct_forces": True,
        "sizes": {"n_features": 16, "n_hidden": 16, "n_spins": 12, "n_polar": 5},
    },
}
# Of the size one would ship.
WIDE = {"n_features": 64}
MODELS |= {
    "painn 64": {"architecture": "painn", "sizes": WIDE},
    "painn 64, direct": {"architecture": "painn", "direct_forces": True, "sizes": WIDE},
    "tensornet 64": {"architecture": "tensornet", "sizes": {**WIDE, "n_interactions": 2, "n_rbf": 32}},
    "tensornet 64, direct": {
        "architecture": "tensornet",
        "direct_forces": True,
        "sizes": {**WIDE, "n_interactions": 2, "n_rbf": 32},
    },
}
SIZES = {"cutoff": 5.0, "n_features": 32, "n_interactions": 3, "n_rbf": 20}


@dataclass(frozen=True)
class Row:
    """One training of the study: `loss` names the settings, `weak` and `steps` are what they are."""

    data: str
    n_train: int
    model: str
    loss: str
    seed: int
    weak: tuple[tuple[str, Any], ...] = ()
    steps: int = STEPS
    forces_weight: float = 100.0
    energy_weight: float = 1.0
    stop: int | None = None
    """Epochs of `EPOCH` steps without a better validation error, which end the training."""
    rate: float | None = None
    """Learning rate; None for that of `asecalc train`."""

    @property
    def key(self) -> str:
        """Name, unique within the study; also that of its folder."""
        kind = self.model if self.forces_weight else f"{self.model}, energies only"
        return f"{self.data} {self.n_train}/{kind}/{self.loss}/seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {**self.__dict__, "weak": dict(self.weak)}


def piwsl(order: str, pitc: float, pisc: float, epsilon: float = 0.05) -> dict[str, Any]:
    """Return settings of PITC + PISC."""
    coefficients = {"order": order, "pitc": pitc, "pisc": pisc, "epsilon": epsilon}
    return {"method": "piwsl", **coefficients, "normalisation": "total"}


# Coefficients are the best of 3 to 4 powers of ten, seen on 100 frames of aspirin (seed 0, 2000 steps, half of the test
# frames): coarse, and the same for every size and data set after that.
CONSERVATIVE = {
    "plain": {},
    "plain, 2 x steps": {},
    "first": piwsl("first", 1.0, 0.01),
    "antithetic": piwsl("antithetic", 100.0, 1.0),
}
DIRECT = {
    "plain": {},
    "plain, 2 x steps": {},
    "first": piwsl("first", 30.0, 0.3),
    "trapezoid": piwsl("trapezoid", 30.0, 0.3),
    "antithetic": piwsl("antithetic", 30.0, 0.3),
}
# Where energies count per atom, so that the weak losses weigh beside them what they weigh on aspirin.
PER_ATOM = {f"{name}, per atom": {**DIRECT[name], "normalisation": "per_atom"} for name in ("first", "antithetic")}
PITC_ALONE = {
    "first, PITC alone": piwsl("first", 30.0, 0.0),
    "trapezoid, PITC alone": piwsl("trapezoid", 30.0, 0.0),
    "trapezoid, PISC alone": piwsl("trapezoid", 0.0, 30.0),
}
ENERGIES_ONLY = {
    "plain": {},
    "first": piwsl("first", 0.1, 0.001),
    "trapezoid": piwsl("trapezoid", 10.0, 0.1),
}
ENERGIES_ONLY_DIRECT = {
    "plain": {},
    "first, PITC alone": piwsl("first", 0.1, 0.0),
    "trapezoid, PITC alone": piwsl("trapezoid", 10.0, 0.0),
}
RIVALS: dict[str, dict[str, Any]] = {
    "curvature": {"method": "curvature", "coefficient": 1.0},
    "noisy nodes": {"method": "noisy_nodes", "coefficient": 1.0, "epsilon": 0.02},
    "SAM": {"method": "sam", "rho": 0.05},
    "Taylor labels": {"method": "taylor_label", "coefficient": 1.0, "epsilon": 0.02},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ASAM": {"method": "asam", "rho": 0.5},
    "two-point": {"method": "two_point", "coefficient": 1.0},
    "two-point, label": {"method": "two_point_label", "coefficient": 1.0, "epsilon": 0.02},
    "endpoint": {"method": "endpoint", "coefficient": 1.0},
}


def _grid(
    data: str, sizes: Iterable[int], model: str, losses: dict[str, dict[str, Any]], forces_weight: float = 100.0
) -> list[Row]:
    """Rows of every size, loss and seed; a name that ends in "N x steps" trains N times as long."""
    steps = STEPS if data == "aspirin" else SHORT
    # One number per structure teaches slowly.
    steps = steps if forces_weight else 2 * steps
    return [
        Row(data, n, model, name, seed, tuple(weak.items()), steps * _times(name), forces_weight)
        for n in sizes
        for seed in SEEDS
        for name, weak in losses.items()
    ]


def _times(name: str) -> int:
    return int(name.split(",")[1].split("x")[0]) if name.endswith("x steps") else 1


def _epsilons(model: str, orders: dict[str, tuple[float, float]]) -> list[Row]:
    losses = {
        f"{order}, epsilon {epsilon:g}": piwsl(order, pitc, pisc, epsilon)
        for epsilon in (0.005, 0.1)
        for order, (pitc, pisc) in orders.items()
    }
    return _grid("aspirin", (100,), model, losses)


def _direct(data: str, n_train: int) -> list[Row]:
    """Return the losses that aspirin left in question, where they did something: models with a force head."""
    return _grid(data, (n_train,), "painn-direct", _some(DIRECT, "plain", "first", "antithetic"))


def _per_atom(data: str, n_train: int) -> list[Row]:
    return _grid(data, (n_train,), "painn-direct", PER_ATOM)


def _spherical(data: str, n_train: int) -> list[Row]:
    """Return the models with a force head on which the paper sees its largest gains."""
    models = ("escn-direct", "equiformer-direct", "spinconv-direct")
    losses = _some(DIRECT, "plain", "first", "antithetic") | (PER_ATOM if DATA[data].get("per_atom") else {})
    return [row for model in models for row in _grid(data, (n_train,), model, losses)]


def _by_seed(rows: list[Row]) -> list[Row]:
    """All models and losses of a seed before the next."""
    return sorted(rows, key=lambda row: (row.seed, row.model))


def _converged(data: str, sizes: Iterable[int]) -> list[Row]:
    """Return the losses in question with networks of the size one would ship, trained until nothing changes."""
    orders = {"first": (1.0, 0.01), "trapezoid": (1.0, 0.01), "antithetic": (100.0, 1.0)}
    conservative = {"plain": {}, "curvature": RIVALS["curvature"]}
    conservative |= {order: piwsl(order, *coefficients) for order, coefficients in orders.items()}
    rows = [
        row
        for network in ("painn 64", "tensornet 64")
        for model, losses in (
            (network, conservative),
            (f"{network}, direct", _some(DIRECT, "plain", "first", "trapezoid", "antithetic")),
        )
        for row in _grid(data, sizes, model, losses)
    ]
    return [_to_the_end(row) for row in _by_seed(rows)]


def _to_the_end(row: Row) -> Row:
    """Return a row that trains until its validation error stays."""
    # As weak.normalisation has it by default.
    per_atom = DATA[row.data].get("per_atom")
    weak = tuple((k, "per_atom" if k == "normalisation" and per_atom else v) for k, v in row.weak)
    return replace(row, loss=f"{row.loss}, to convergence", steps=MOST, stop=PATIENCE, weak=weak)


def _converged_energies(data: str, n_train: int) -> list[Row]:
    """Return trainings on energies alone: whether their forces are the best that these energies allow."""
    losses = ENERGIES_ONLY | {"first × 0.1": piwsl("first", 0.01, 0.0001)}
    rows = [row for model in ("painn 64", "tensornet 64") for row in _grid(data, (n_train,), model, losses, 0.0)]
    return [_to_the_end(row) for row in _by_seed(rows)]


def _converged_smaller() -> list[Row]:
    """Return the published order with less weight, as the coefficients were found for a small network."""
    losses = {f"first × {factor:g}": piwsl("first", 30.0 * factor, 0.3 * factor) for factor in (0.1, 0.01)}
    return [_to_the_end(row) for row in _by_seed(_grid("aspirin", (100,), "painn 64, direct", losses))]


def _trials(data: str, n_train: int) -> list[Row]:
    """Return the trials that validation frames choose from, as many for plain training as for each order: seed 0."""
    factors = {"": 1.0, " × 0.1": 0.1, " × 10": 10.0}
    losses = {
        f"{order}{name}": piwsl(order, 30.0 * factor, 0.3 * factor)
        for order in ("first", "antithetic")
        for name, factor in factors.items()
    }
    plain = _grid(data, (n_train,), "painn 64, direct", {"plain": {}})[:1]
    rows = [replace(row, loss=f"plain, rate × {factor:g}", rate=factor * RATE) for row in plain for factor in (0.5, 2)]
    rows = [*plain, *rows, *(row for row in _grid(data, (n_train,), "painn 64, direct", losses) if row.seed == 0)]
    return [_to_the_end(row) for row in rows]


def _heterogeneous(n_train: int) -> list[Row]:
    """Return two molecules together, where the paper has large gains."""
    direct = _grid("ethanol-methanol", (n_train,), "painn-direct", _some(DIRECT, "plain", "first", "antithetic"))
    return _by_seed([*direct, *_conservative("ethanol-methanol", n_train)])


def _conservative(data: str, n_train: int) -> list[Row]:
    return _grid(data, (n_train,), "painn", _some(CONSERVATIVE, "plain", "first"))


def _some(losses: dict[str, dict[str, Any]], *names: str) -> dict[str, dict[str, Any]]:
    return {name: losses[name] for name in names}


PARTS: dict[str, Callable[[], list[Row]]] = {
    "aspirin-direct": lambda: _grid("aspirin", (100, 50, 200, 950), "painn-direct", DIRECT),
    "aspirin": lambda: (
        _grid("aspirin", (100, 200), "painn", CONSERVATIVE)
        + _grid("aspirin", (950,), "painn", _some(CONSERVATIVE, "plain", "plain, 2 x steps", "first"))
    ),
    "energies-only": lambda: _grid("aspirin", (950,), "painn", ENERGIES_ONLY, 0.0),
    "energies-only-direct": lambda: _grid("aspirin", (950,), "painn-direct", ENERGIES_ONLY_DIRECT, 0.0),
    "energies-only-spherical": lambda: _by_seed(
        _grid("aspirin", (950,), "equiformer", _some(ENERGIES_ONLY, "plain", "first"), 0.0)
    ),
    # PITC also strengthens what is said about energies; so does a larger weight of their labels.
    "weights-direct": lambda: [
        replace(row, loss=f"plain, energy weight {weight}", energy_weight=float(weight))
        for weight in (10, 100)
        for row in _grid("aspirin", (100,), "painn-direct", {"plain": {}})
    ],
    "rivals": lambda: _grid("aspirin", (100,), "painn", RIVALS),
    "parts-direct": lambda: _grid("aspirin", (100,), "painn-direct", PITC_ALONE),
    "rivals-direct": lambda: _grid(
        "aspirin", (100,), "painn-direct", _some(RIVALS, "curvature", "SAM", "Taylor labels")
    ),
    "3bpa": lambda: _direct("3bpa", 100),
    "ethanol": lambda: _direct("ethanol", 100),
    "lmnto": lambda: _direct("lmnto", 100) + _per_atom("lmnto", 100),
    "tio2": lambda: _direct("tio2", 100) + _per_atom("tio2", 100),
    "ccsdt": lambda: _grid("malonaldehyde", (950,), "painn", _some(ENERGIES_ONLY, "plain", "first"), 0.0),
    "spherical-published": lambda: [
        replace(row, loss=f"{row.loss}, {LONG} steps", steps=LONG)
        for row in _by_seed(_spherical("tio2", 1000))
        if row.model == "escn-direct"
    ],
    "spherical-aspirin": lambda: _by_seed(_spherical("aspirin", 100)) + _by_seed(_spherical("aspirin", 950)),
    "spherical-tio2": lambda: _by_seed(_spherical("tio2", 100)) + _by_seed(_spherical("tio2", 1000)),
    "epsilon-direct": lambda: _epsilons("painn-direct", dict.fromkeys(("first", "antithetic"), (30.0, 0.3))),
    "epsilon": lambda: _epsilons("painn", {"first": (1.0, 0.01)}),
    "schnet": lambda: _grid("aspirin", (100,), "schnet", _some(CONSERVATIVE, "plain", "first")),
    "others": lambda: [row for data in ("3bpa", "ethanol", "lmnto", "tio2") for row in _conservative(data, 100)],
    # What is left for longer evenings: the small and large ends, and more variants.
    "aspirin-50": lambda: _grid("aspirin", (50,), "painn", CONSERVATIVE),
    "larger": lambda: [
        row
        for data, n in (("lmnto", 450), ("tio2", 1000), ("3bpa", 400), ("ethanol", 950))
        for row in _direct(data, n) + _conservative(data, n)
    ],
    "formic-acid": lambda: _grid("formic-acid-dimer", (950,), "painn", _some(ENERGIES_ONLY, "plain", "first"), 0.0),
    "heterogeneous": lambda: _heterogeneous(100),
    "heterogeneous-1000": lambda: _heterogeneous(1000),
    **{
        f"converged-{data}": (lambda data=data, sizes=sizes: _converged(data, sizes))  # type: ignore[misc]
        for data, sizes in {
            "aspirin": (50, 100, 200, 950),
            "ethanol": (50, 100, 950),
            "3bpa": (50, 400),
            "lmnto": (100, 450),
            "tio2": (100, 1000),
            "silica": (30, 120, 1160),
            "ethanol-methanol": (100, 1000),
        }.items()
    },
    **{
        f"converged-trials-{data}": (lambda data=data, n=n: _trials(data, n))  # type: ignore[misc]
        for data, n in TRIED.items()
    },
    "converged-energies-only": lambda: _converged_energies("aspirin", 950),
    "converged-ccsdt": lambda: _converged_energies("malonaldehyde", 950),
    "converged-smaller": _converged_smaller,
    "variants": lambda: _grid("aspirin", (100,), "painn", VARIANTS),
}


def overrides(row: Row, data_folder: Path, output: Path) -> dict[str, Any]:
    """Return settings of a row as `asecalc train` takes them."""
    data = DATA[row.data]
    sizes = {**SIZES, "cutoff": data.get("cutoff", SIZES["cutoff"]), **MODELS[row.model].get("sizes", {})}
    if MODELS[row.model].get("direct_forces"):
        sizes["direct_forces"] = True
    return {
        "data.train": data_folder / data["train"],
        "data.n_train": row.n_train,
        "data.n_val": VALIDATION_FRAMES,
        "data.split_seed": row.seed,
        "model.architecture": MODELS[row.model]["architecture"],
        **{f"model.hyperparameters.{name}": value for name, value in sizes.items()},
        "loss.forces_weight": row.forces_weight,
        "loss.energy_weight": row.energy_weight,
        # Without forces a small batch says little, and a mean absolute error does not fall (seed 0, 2000 steps).
        "loss.energy": "mae" if row.forces_weight else "mse",
        "loss.energy_per_atom": data.get("per_atom", False),
        **{f"weak.{name}": value for name, value in row.weak},
        **_length(row),
        **({} if row.rate is None else {"optimizer.lr": row.rate}),
        "optimizer.warmup_steps": 100,
        "optimizer.ema_decay": 0.99,
        "run.seed": row.seed,
        "run.batch_size": data.get("batch", 5) if row.forces_weight else 10,
        "run.threads": 1,
        "run.device": "cpu",
        "run.progress": False,
        "run.output": output,
    }


def _length(row: Row) -> dict[str, Any]:
    if row.stop is None:
        return {"optimizer.schedule": "cosine", "run.steps_per_epoch": row.steps // EPOCHS, "run.max_epochs": EPOCHS}
    return to_convergence(row.steps, row.stop, EPOCH)
