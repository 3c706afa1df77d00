r"""Right isolated atoms and dimers for a model that is trained already, without a change at its data.

    E' = E + Σ_i [E0_a − E0_a(model)] + cohesion,      cohesion: `asecalc_mlip.models.cohesion`

with E0 of isolated atoms. The energies of the cohesion are those that keep the energies of the data, and its pairs are

    φ_ab(r) = E_ab(r) − E_model(a–b at r)

so that an isolated dimer has the energy E_ab of a table, at every distance. Where atoms have the neighbours of the data
there is nothing but the model; test errors are as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.data.label_checks import refuse_without_cores
from asecalc_mlip.data.labels import frame_name, is_isolated_atom
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import Potential, add_potentials, build_potential, core_potential, parts_of
from asecalc_mlip.models.cohesion import FIRST, ONE, Cohesion, fewest_neighbors

__all__ = ["DimerCurve", "add_dimers", "fit_cohesion", "read_table"]

# Å; longest reach of the count of neighbours, and distance of the knots of φ.
REACH, STEP = 5.0, 0.02
# Of the fewest neighbours in the data, those from which on atoms have their whole binding energy.
SHARE = 0.9
# Fewest neighbours of data for which there is room between one and all.
ROOM = 2.0 * ONE
# Frames whose neighbours are counted, spread evenly.
MOST = 500
# 1/Å, of the fall beyond a table: not slower than this.
SLOWEST = 1.0
# Share of the cutoff from which on a curve falls to zero, or the end of the table, if that is shorter.
FALLS = 0.75
# eV and eV/Å, of φ; a model file may not hold numbers beyond a million.
LARGEST = 2e5
# Between two points a cubic has no extremum of its own if its slopes are at most so many times the mean one.
STEEPEST = 3.0
SAME = 1e-6  # eV and Å
Reals = NDArray[np.float64]


class DimerCurve:
    """Energy of an isolated dimer at every distance, from a table.

    Slopes are those of the table, but not so steep that the curve would swing between its points. Inside the first
    point the repulsion of the nuclei (ZBL) goes on, towards the cutoff the energy falls to zero.

    Parameters
    ----------
    numbers : (int, int)
        Atomic numbers.
    distances, energies, forces : (n,)
        Å ascending; eV less those of the isolated atoms; eV/Å, positive where the atoms repel.
    """

    def __init__(self, numbers: tuple[int, int], distances: Reals, energies: Reals, forces: Reals):
        self.numbers, self.distances, self.energies = numbers, distances, energies
        self.slopes = _limited(distances, energies, -forces)
        self._inside = CubicHermiteSpline(distances, energies, self.slopes)
        core = core_potential(numbers).eval()
        self._core = PIWSLCalculator(LoadedModel(core, {}, Path("zbl")), device="cpu", dtype="float64")
        self._core.tell_state.told = True  # a core has no data

    def __call__(self, distances: Reals, cutoff: float) -> tuple[Reals, Reals]:
        """Return energies in eV and their slopes in eV/Å."""
        r, first, last = np.asarray(distances, dtype=float), self.distances[0], self.distances[-1]
        bounded = np.clip(r, first, last)
        energies, slopes = self._inside(bounded), self._inside(bounded, 1)
        end, slope = self.energies[-1], self.slopes[-1]
        rate = max(-slope / end if end else 0.0, SLOWEST)
        decay = np.exp(-rate * np.maximum(r - last, 0.0))
        energies, slopes = energies * decay, np.where(r > last, -rate * end * decay, slopes)
        begin = min(last, FALLS * cutoff)
        s = np.clip((cutoff - r) / (cutoff - begin), 0.0, 1.0)
        smooth, fall = s**3 * (10 + s * (6 * s - 15)), -30 * s**2 * (1 - s) ** 2 / (cutoff - begin)
        energies, slopes = energies * smooth, slopes * smooth + energies * fall
        if (inner := r < first).any():
            at, more = self._repulsion(np.array([first])), self._repulsion(r[inner])
            steeper = self.slopes[0] - at[1]
            energies[inner] = self.energies[0] + more[0] - at[0] + steeper * (r[inner] - first)
            slopes[inner] = more[1] + steeper
        return energies, slopes

    def _repulsion(self, distances: Reals) -> tuple[Reals, Reals]:
        found = self._core.evaluate([_dimer(self.numbers, r) for r in distances])
        return np.array([one["energy"] for one in found]), -np.array([one["forces"][1, 2] for one in found])


def read_table(frames: Sequence[Atoms]) -> tuple[dict[int, float], dict[tuple[int, int], DimerCurve]]:
    """Read energies of isolated atoms (eV, by atomic number) and curves of dimers from labelled frames; skip others.

    Raises
    ------
    InputError
        Where an element of a dimer has no isolated atom, a dimer no energy or forces, a curve one point only, and where
        atoms or distances are there twice with unlike labels.
    DataError
        For labels by PySCF that lack core potentials.
    """
    refuse_without_cores(frames)
    atoms: dict[int, float] = {}
    for frame in frames:
        if is_isolated_atom(frame) and "energy" in frame.info:
            z, energy = int(frame.numbers[0]), float(frame.info["energy"])
            if abs(atoms.setdefault(z, energy) - energy) > SAME:
                raise InputError(
                    f"the table has two unlike energies of the atom {chemical_symbols[z]}; keep one of them"
                )
    points: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for frame in frames:
        if len(frame) != 2 or frame.pbc.any():
            continue
        a, b = sorted(frame.numbers.tolist())
        if missing := [chemical_symbols[z] for z in (a, b) if z not in atoms]:
            raise InputError(f"the table has a dimer, but no isolated atom of {', '.join(missing)}; add it")
        if not ("energy" in frame.info and "forces" in frame.arrays):
            raise InputError(
                f"{frame_name(frame)} is a dimer of {_name((a, b))} without energy or forces; leave it out"
            )
        vector = frame.positions[1] - frame.positions[0]
        distance = float(np.linalg.norm(vector))
        force = float(frame.arrays["forces"][1] @ vector) / distance
        points.setdefault((a, b), []).append((distance, frame.info["energy"] - atoms[a] - atoms[b], force))
    curves = {}
    for pair, rows in points.items():
        distances, energies, forces = np.array(sorted(set(rows))).T
        if (twice := np.flatnonzero(np.diff(distances) < SAME)).size:
            raise InputError(f"the table has {_name(pair)} twice at {distances[twice[0]]:.6g} Å; keep one of them")
        if len(distances) < 2:
            raise InputError(f"the table has one distance of {_name(pair)}; a curve needs at least two")
        curves[pair] = DimerCurve(pair, distances, energies, forces)
    return atoms, curves


def fit_cohesion(
    frames: Sequence[Atoms], left: Reals, cutoff: float, *, counted: Sequence[Atoms] | None = None
) -> Potential | None:
    """Make a cohesion that gives frames some energies.

    Parameters
    ----------
    frames : sequence of Atoms
        Their compositions count.
    left : (n,)
        eV; energy that each is to get.
    cutoff : float
        Å, of the network that it is added to.
    counted : sequence of Atoms, optional
        The data, whose neighbours are counted; default: `frames`.

    Returns
    -------
    Potential or None
        None where the data hold atoms with so few neighbours that they are like those of isolated dimers.
    """
    reach, counted = min(REACH, cutoff), frames if counted is None else counted
    some = np.unique(np.linspace(0, len(counted) - 1, MOST).astype(int))
    fewest = fewest_neighbors([counted[i] for i in some], reach)
    if min(fewest.values()) < ROOM:
        return None
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in elements] for atoms in frames], dtype=float)
    sizes = counts.sum(1)
    mean = float(left.sum() / sizes.sum())
    # The mean of all atoms for each, and the smallest changes of it that the compositions ask for.
    more, *_ = np.linalg.lstsq(counts / sizes[:, None], left / sizes - mean, rcond=1e-8)
    parameters = {
        "elements": elements,
        "energies": (mean + more).round(8).tolist(),
        "full": [round(SHARE * fewest.get(z, ROOM), 4) for z in elements],
        "cutoff": reach,
    }
    return build_potential("cohesion", parameters, reference_energies=dict.fromkeys(elements, 0.0))


def add_dimers(model: LoadedModel, table: Sequence[Atoms], frames: Sequence[Atoms]) -> LoadedModel:
    """Give a model the isolated atoms and dimers of a table, and leave it as it is at its data.

    Parameters
    ----------
    model : LoadedModel
    table : sequence of Atoms
        Labelled isolated atoms and dimers, at the level of theory of the data.
    frames : sequence of Atoms
        Structures that the model was trained on.

    Returns
    -------
    LoadedModel
        With what was done in its card.

    Raises
    ------
    InputError
        For a model with a force head, a table without an atom that the data have, data with elements that the model
        does not know, and data with too few neighbours.
    """
    potential = model.potential
    if potential.direct_forces:
        raise InputError(
            f"{model.path.name} has a force head, to whose forces the gradient of an energy cannot be added"
        )
    atoms, curves = read_table(table)
    frames = [frame for frame in frames if not is_isolated_atom(frame)]
    elements = sorted({int(z) for frame in frames for z in frame.numbers})
    if missing := [chemical_symbols[z] for z in elements if z not in atoms]:
        raise InputError(f"the table has no isolated atom of {', '.join(missing)}, which the data have; add it")
    if unknown := [chemical_symbols[z] for z in elements if z not in potential.elements]:
        raise InputError(f"the data have {', '.join(unknown)}, which {model.path.name} does not know; leave them out")
    parts = [part for part in parts_of(potential) if not isinstance(part.network, Cohesion)]
    old = next((part.network for part in parts_of(potential) if isinstance(part.network, Cohesion)), None)
    e0 = {z: atoms[z] for z in elements}
    plain = _without_e0(add_potentials(parts, reference_energies=e0) if len(parts) > 1 else parts[0], elements)
    now = dict.fromkeys(elements, 0.0)
    if old is not None:
        now = {z: float(old.table[z, 0]) for z in elements}
    changes = {z: potential.reference_energies[z] + now[z] - atoms[z] for z in elements}
    left = np.array([sum(changes[int(z)] for z in frame.numbers) for frame in frames])
    cohesion = fit_cohesion(frames, left, parts[0].cutoff)
    if cohesion is None:
        raise InputError("atoms of these data have so few neighbours that they cannot be told from those of dimers")
    known = [pair for pair in curves if set(pair) <= set(elements)]
    cohesion = _with_pairs(cohesion, {pair: curves[pair] for pair in known}, plain)
    total = add_potentials([*parts, cohesion], reference_energies=e0)
    network = cohesion.network
    assert isinstance(network, Cohesion)
    card = {
        **model.card,
        "cohesion_eV": {chemical_symbols[z]: float(network.table[z, 0]) for z in elements},
        "dimers": {
            "pairs": [_name(pair) for pair in known],
            "added": "after the training, without a change at the data",
        },
    }
    entries = {
        "values": {chemical_symbols[z]: value for z, value in e0.items()},
        "method": "isolated",
        "source": "isolated atoms of the table of dimers",
    }
    return LoadedModel(total.eval(), card, model.path, {**model.reference_energies, **entries}, model.reference)


def _with_pairs(cohesion: Potential, curves: Mapping[tuple[int, int], DimerCurve], plain: LoadedModel) -> Potential:
    """Return a cohesion with φ of pairs: curves less what a model says."""
    hyper = dict(cohesion.hyperparameters)
    cutoff, elements = float(hyper["cutoff"]), list(hyper["elements"])
    knots = round((cutoff - FIRST) / STEP) + 1
    r = np.linspace(FIRST, cutoff, knots)
    new = build_potential("cohesion", {**hyper, "knots": knots}, reference_energies=cohesion.reference_energies)
    assert isinstance(new.network, Cohesion)
    calculator = PIWSLCalculator(plain, device="cpu", dtype="float64")
    for (a, b), curve in curves.items():
        found = calculator.evaluate([_dimer((a, b), distance) for distance in r])
        energies, slopes = curve(r, cutoff)
        energies = energies - [one["energy"] for one in found]
        slopes = slopes + [one["forces"][1, 2] for one in found]
        energies[-1] = slopes[-1] = 0.0
        # A network can be off by millions of eV where nuclei meet; from there on inwards φ goes on straight.
        k = int(np.flatnonzero(np.maximum(np.abs(energies), np.abs(slopes)) > LARGEST).max(initial=-1)) + 1
        energies[:k], slopes[:k] = energies[k] + slopes[k] * (r[:k] - r[k]), slopes[k]
        values = torch.tensor(np.stack([energies, slopes], axis=1), dtype=new.network.pairs.dtype)
        i, j = elements.index(a), elements.index(b)
        new.network.pairs[i, j] = new.network.pairs[j, i] = values
    return new


def _without_e0(potential: Potential, elements: Sequence[int]) -> LoadedModel:
    zeros = Potential(
        potential.network,
        architecture=potential.architecture,
        hyperparameters=potential.hyperparameters,
        reference_energies=dict.fromkeys(elements, 0.0),
        scale=potential.scale,
    )
    return LoadedModel(zeros.eval(), {}, Path("model"))


def _dimer(numbers: tuple[int, int], distance: float) -> Atoms:
    return Atoms(list(numbers), [[0.0, 0.0, 0.0], [0.0, 0.0, float(distance)]])


def _limited(distances: Reals, energies: Reals, slopes: Reals) -> Reals:
    """Return slopes that are not steeper than a cubic without swings has, in the intervals whose trend they share."""
    found = slopes.copy()
    means = np.diff(energies) / np.diff(distances)
    for k, mean in enumerate(means):
        for end in (k, k + 1):
            if found[end] * mean > 0 and abs(found[end]) > STEEPEST * abs(mean):
                found[end] = STEEPEST * mean
    return found


def _name(pair: tuple[int, int]) -> str:
    return "-".join(chemical_symbols[z] for z in pair)
