"""What a learning would cost: one label, some gradient steps and some steps of dynamics are timed, nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import build_potential
from asecalc_mlip.models.potential import predict
from asecalc_mlip.teachers import open_teacher
from asecalc_mlip.teachers.base import Failed
from training.learn.committee import BATCH
from training.learn.settings import LearnSettings
from training.learn.structures import check_starts

__all__ = ["estimate"]

REPEATS = 5
# Reading, building, writing and drawing of one training.
OVERHEAD_S = 3.0


def estimate(settings: LearnSettings, starts: Sequence[Atoms]) -> str:
    """Tell what the whole budget would cost.

    Raises
    ------
    InputError
        When the first start structure cannot be labelled.
    """
    atoms = check_starts(starts, settings)[0]
    teacher = open_teacher(settings.labels, settings.labeller, device=settings.device)
    begun = time.perf_counter()
    (found,) = teacher.label([atoms])
    label = time.perf_counter() - begun
    if isinstance(found, Failed):
        raise InputError(f"{teacher.name} cannot label the start structure: {found.reason}")
    gradient, force = _seconds(atoms, settings)
    rounds = 1 + max(0, settings.budget - settings.initial) / settings.per_round
    steps = settings.steps_first + (rounds - 1) * settings.steps
    trained = settings.members * (steps * gradient + rounds * OVERHEAD_S) + settings.steps_last * gradient
    watched = settings.replica_steps * force * (1 + settings.members / settings.interval)
    dynamics = watched * (1 + 0.5 * rounds)
    lines = [
        f"one label of {atoms.get_chemical_formula()} by {teacher.name}: {_brief(label)}",
        f"budget of {settings.budget} labels in about {rounds:.0f} rounds: labels {_hours(settings.budget * label)}, "
        f"training {_hours(trained)}, dynamics {_hours(dynamics)}",
        f"The first label may include the start of the program; members are counted as small models of "
        f"{settings.architecture}, all in one process on this machine as it is now. Many learnings end before their "
        "budget.",
    ]
    return "\n".join(lines)


def _seconds(atoms: Atoms, settings: LearnSettings) -> tuple[float, float]:
    """Return seconds of a gradient step on a batch, and of the forces on all replicas."""
    energies = dict.fromkeys(map(int, atoms.numbers), 0.0)
    model = build_potential(settings.architecture, settings.small, reference_energies=energies)
    graph = graph_from_atoms(atoms, model.cutoff)
    batch, many = batch_graphs([graph] * BATCH), batch_graphs([graph] * settings.until.replicas)

    def gradient() -> None:
        found = predict(model.train(), batch, create_graph=True)
        assert found.forces is not None
        (found.energy.sum() + found.forces.square().sum()).backward()

    def forces() -> None:
        predict(model.eval(), many)

    return _timed(gradient), _timed(forces)


def _timed(work: Callable[[], None]) -> float:
    work()
    begun = time.perf_counter()
    for _ in range(REPEATS):
        work()
    return (time.perf_counter() - begun) / REPEATS


def _brief(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.{0 if seconds >= 0.01 else 2}f} ms"


def _hours(seconds: float) -> str:
    if seconds < 1:
        return _brief(seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
