"""The methods of `weak.method`, one row each: a new one is its class and its row here.

A row says what makes the method, which settings it reads, which labels it needs, and where `asecalc tune` searches by
default. Settings, cards, the search and the optimiser ask the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from asecalc_mlip.errors import InputError
from asecalc_mlip.models import parts_of
from asecalc_mlip.models.potential import NO_STRESS
from training.losses.curvature_label import CURVATURE_LABEL, CurvatureLabel
from training.losses.taylor import PISC, PITC, WeakLoss
from training.losses.variants import Curvature, Endpoint, TaylorLabel, TwoPoint, TwoPointLabel
from training.losses.weak import NoisyNodes, WeakSupervision
from training.perturb import Perturbation, largest_relative_shift
from training.settings import LossConfig, WeakConfig

__all__ = ["METHODS", "Weak", "WeakMethod", "check_method", "list_skin", "make_weak", "method_of", "settled"]

Weak = WeakSupervision | NoisyNodes | CurvatureLabel
# What every loss on displaced copies reads.
DISPLACED = ("epsilon", "perturbation", "remove_translation", "normalisation", "distance", "skin")
# Where the coefficients of losses are searched, which differ by orders of magnitude.
COEFFICIENT = ("weak.coefficient=0.01:100:log", "weak.epsilon=0.005:0.1:log")


@dataclass(frozen=True)
class WeakMethod:
    """A method of weak supervision.

    Attributes
    ----------
    name : str
        Its value of `weak.method`.
    make : callable, optional
        From `WeakConfig` and the potential to what is added to the outputs of the task; None adds nothing.
    reads : tuple of str
        Settings of the section `weak` that it reads.
    space : tuple of str
        What `asecalc tune` varies unless told otherwise, as --space takes it.
    labels : tuple of str
        Labels without which its losses cannot be computed.
    conservative : bool
        Whether it needs a model whose forces are the gradient of its energy, with vectors to read.
    check : callable, optional
        Raises InputError for settings and models that do not go together: of `WeakConfig`, `LossConfig`, potential.
    optimizer : callable, optional
        From `WeakConfig` to options of the optimiser SAM; None takes AdamW.
    """

    name: str
    make: Callable[[WeakConfig, Any], Weak] | None = None
    reads: tuple[str, ...] = ()
    space: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    conservative: bool = False
    check: Callable[[WeakConfig, LossConfig, Any], None] | None = None
    optimizer: Callable[[WeakConfig], dict[str, Any]] | None = None

    @property
    def displaces(self) -> bool:
        """Whether it evaluates the model at displaced atoms, for which neighbour lists must reach further."""
        return "epsilon" in self.reads

    @property
    def on_card(self) -> tuple[str, ...]:
        """The settings that decide what is trained; the skin decides only how fast."""
        return tuple(name for name in self.reads if name != "skin")


def method_of(config: WeakConfig) -> WeakMethod:
    """Return the row of `config.method`."""
    return METHODS[config.method]


def check_method(name: str) -> None:
    """Raise InputError for a method that has no row."""
    if name not in METHODS:
        raise InputError(f"weak.method is {name!r}; allowed: {', '.join(METHODS)}")


def make_weak(config: WeakConfig, loss: LossConfig, potential: Any) -> Weak | None:
    """Make what `config.method` adds to the outputs of the task; None where it adds nothing.

    Raises
    ------
    InputError
        For methods, labels and models that do not go together.
    """
    method, config = method_of(config), settled(config, loss)
    _check(method, config, loss, potential)
    return None if method.make is None else method.make(config, potential)


def settled(config: WeakConfig, loss: LossConfig) -> WeakConfig:
    """Return the settings with what they leave to those of the labels' losses, and without what no loss reads."""
    given = config.normalisation or ("per_atom" if loss.energy_per_atom else "total")
    return replace(config, normalisation=given if "normalisation" in method_of(config).reads else None)


def list_skin(config: WeakConfig) -> float:
    """Return by how many Å the neighbour lists of a training must reach beyond the cutoff.

    Raises
    ------
    InputError
        Where `skin` is given and too small.
    """
    if not method_of(config).displaces:
        return config.skin or 0.0
    needed = largest_relative_shift(config.epsilon)
    if config.skin is not None and config.skin < needed:
        raise InputError(
            f"weak.epsilon {config.epsilon} Å is larger than weak.skin {config.skin} Å allows: two atoms can approach "
            f"each other by 2√3 ε = {needed:.4f} Å. Lower epsilon to {config.skin / largest_relative_shift(1.0):.4f}, "
            "or leave skin empty"
        )
    return needed if config.skin is None else config.skin


def _check(method: WeakMethod, config: WeakConfig, loss: LossConfig, potential: Any) -> None:
    direct = getattr(potential, "direct_forces", False)
    if method.check is not None:
        method.check(config, loss, potential)
    if direct and loss.stress_weight > 0:
        raise InputError(f"loss.stress_weight is {loss.stress_weight}, but {NO_STRESS}")
    if "coefficient" in method.reads and config.coefficient == 0:
        raise InputError(f"weak.method is {method.name}, but weak.coefficient is 0; set one, or use method plain")
    adversarial = "perturbation" in method.reads and config.perturbation == "adversarial"
    if (adversarial or "forces" in method.labels) and loss.forces_weight <= 0:
        what = "weak.perturbation adversarial" if adversarial else f"weak.method {method.name}"
        raise InputError(f"{what} needs force labels, but loss.forces_weight is 0; train with forces, or use uniform")
    if "energy" in method.labels and loss.energy_weight <= 0:
        raise InputError(f"weak.method {method.name} needs energy labels, but loss.energy_weight is 0")
    if method.conservative and (direct or not hasattr(_learner(potential).network, "energies_and_vectors")):
        raise InputError(f"weak.method {method.name} needs a conservative painn, whose vectors its head reads")


def _one(loss: type[WeakLoss]) -> WeakMethod:
    """Return the row of a method that is one loss with `weak.coefficient`."""

    def make(config: WeakConfig, _potential: Any) -> Weak:
        options = _options(config)
        return WeakSupervision([loss(config.coefficient, **options)], options["perturbation"])

    return WeakMethod(loss.name, make, ("coefficient", *DISPLACED), COEFFICIENT, labels=loss.labels)


def _piwsl(config: WeakConfig, _potential: Any) -> Weak:
    options = _options(config)
    losses: list[WeakLoss] = [
        PITC(config.pitc, order=config.order, **options),
        PISC(config.pisc, order=config.order, **options),
    ]
    return WeakSupervision([loss for loss in losses if loss.weight > 0], options["perturbation"])


def _check_piwsl(config: WeakConfig, loss: LossConfig, potential: Any) -> None:
    if getattr(potential, "direct_forces", False) and config.pisc > 0 and loss.forces_weight <= 0:
        raise InputError(
            "weak.pisc with an energy-only training of a model with a force head: without force labels nothing but "
            "PITC holds the force head. Set weak.pisc=0, give force labels, or use a conservative model "
            "(model.hyperparameters.direct_forces=false)"
        )
    if config.pitc == 0 and config.pisc == 0:
        raise InputError("weak.method is piwsl, but weak.pitc and weak.pisc are both 0; set one, or use method plain")


def _noisy_nodes(config: WeakConfig, potential: Any) -> Weak:
    return NoisyNodes(config.coefficient, config.epsilon, _learner(potential).network.n_features)


def _curvature_label(config: WeakConfig, _potential: Any) -> Weak:
    return CurvatureLabel(config.coefficient, config.epsilon)


def _options(config: WeakConfig) -> dict[str, Any]:
    """Return the options that all losses on displaced copies share."""
    return {
        "normalisation": config.normalisation,
        "distance": config.distance,
        "perturbation": Perturbation(config.epsilon, config.perturbation, config.remove_translation),
    }


def _learner(potential: Any) -> Any:
    """Return the part that learns: the first of a sum."""
    return parts_of(potential)[0]


_ROWS = (
    WeakMethod("plain"),
    WeakMethod(
        "piwsl",
        _piwsl,
        ("pitc", "pisc", "order", *DISPLACED),
        # Around the published coefficients, which are 27.7 and 0.23 in eV.
        ("weak.pitc=0.1:100:log", "weak.pisc=0.001:1:log", "weak.epsilon=0.005:0.1:log"),
        check=_check_piwsl,
    ),
    *map(_one, (TwoPoint, TwoPointLabel, TaylorLabel, Endpoint, Curvature)),
    WeakMethod(
        CURVATURE_LABEL,
        _curvature_label,
        ("coefficient", "epsilon", "teacher", "directions", "skin"),
        # One search has one epsilon, so that its trials share the labels of the teacher.
        ("weak.coefficient=0.01:100:log",),
    ),
    WeakMethod("noisy_nodes", _noisy_nodes, ("coefficient", "epsilon", "skin"), COEFFICIENT, conservative=True),
    WeakMethod("sam", None, ("rho",), ("weak.rho=0.005:0.2:log",), optimizer=lambda c: {"rho": c.rho}),
    WeakMethod("asam", None, ("rho",), ("weak.rho=0.1:5:log",), optimizer=lambda c: {"rho": c.rho, "adaptive": True}),
)
METHODS: dict[str, WeakMethod] = {row.name: row for row in _ROWS}
