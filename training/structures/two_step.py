"""Two-step perturbation: structures with atoms pushed together, which dynamics would meet and no data set has.

    1 pull     the n closest pairs with no atom in common, each by U(0, p), half to each atom, towards each other
    2 perturb  m = min(5, N) random atoms, each along a random direction by U(0, q)

Source: Zheng, Fung, JCIM 2026, doi 10.1021/acs.jcim.6c00826. Distances are to the nearest image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.calculators.checks import CLOSEST
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.lists import neighbor_list
from asecalc_mlip.teachers.bare import bare

__all__ = ["closest_pairs", "round_strengths", "two_step", "two_step_series"]

# No two atoms come closer than this share of the sum of their covalent radii, which in dynamics counts as broken
# (docs/methods.md, section 3): atoms do not pass through each other, and forces stay below those that data are refused
# for.
LEAST_SHARE = 0.6
# Å; where the search for close pairs begins, and the factor by which it grows.
REACH, GROWTH = 2.5, 1.5
FURTHER = 0.9  # of the distance that atoms have which are closer than that already
# How often random moves that put an atom onto another are drawn anew, and after how many they are halved.
ATTEMPTS, HALVED = 200, 20


def two_step(
    atoms: Atoms, p: float, q: float, *, rng: np.random.Generator, n_pairs: int = 4, max_atoms: int = 5
) -> Atoms:
    """Copy a structure with its closest pairs pulled together and a few atoms moved.

    Parameters
    ----------
    atoms : Atoms
        Labels and constraints are not copied: they are not those of the result.
    p : float
        Å; most that a pair comes closer. Cut where it would be closer than 0.6 times the sum of its covalent radii, so
        that no atoms meet or pass.
    q : float
        Å; longest random move. Drawn anew while atoms are closer than that (0.9 of what they were, where they are
        closer from the start), and halved after every 20 draws.
    rng : numpy.random.Generator
    n_pairs, max_atoms : int
        How many pairs are pulled (fewer in structures of fewer atoms), and how many atoms moved at random.

    Raises
    ------
    InputError
        For a structure of one atom, which has no pair, strengths that are not lengths, and moves that put atoms onto
        each other however often they are drawn.
    """
    _check(atoms, p, q, n_pairs, max_atoms)
    moved = bare(atoms)
    if p > 0:
        _pull(moved, p, rng, n_pairs)
    return _moved(moved, q, rng, max_atoms) if q > 0 else moved


def two_step_series(
    atoms: Atoms,
    *,
    rounds: int = 5,
    maximum: float = 0.5,
    rng: np.random.Generator,
    n_pairs: int = 4,
    max_atoms: int = 5,
) -> list[Atoms]:
    """Make `rounds` copies of a structure, perturbed more and more: p = q = linspace(0, maximum, rounds), in Å.

    The first is the structure itself. Other parameters and errors as for `two_step`.
    """
    strengths = round_strengths(rounds, maximum)
    return [two_step(atoms, s, s, rng=rng, n_pairs=n_pairs, max_atoms=max_atoms) for s in strengths]


def round_strengths(rounds: int, maximum: float) -> list[float]:
    """Return the strength of each round in Å, from 0 to the maximum."""
    if rounds < 1 or not 0 <= maximum < np.inf:
        raise InputError(
            f"rounds {rounds}, strength {maximum} Å; expected 1 or more, and 0 Å or more (usually 0.5 to 1)"
        )
    return np.linspace(0.0, maximum, rounds).tolist()


def closest_pairs(atoms: Atoms, n_pairs: int) -> list[tuple[int, int, np.ndarray]]:
    """Return the closest pairs that have no atom in common, nearest first.

    Returns
    -------
    list of (i, j, vector)
        Atoms, and the vector (3,) in Å from i to the nearest image of j. An atom and its own image are no pair.
    """
    wanted = min(n_pairs, len(atoms) // 2)
    reach = REACH
    while len(pairs := list(_disjoint(atoms, reach, wanted))) < wanted:
        reach *= GROWTH
    return pairs


def _disjoint(atoms: Atoms, reach: float, wanted: int) -> Iterator[tuple[int, int, np.ndarray]]:
    i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    keep = i < j
    i, j, vectors = i[keep], j[keep], _vectors(atoms, i, j, shifts)[keep]
    used: set[int] = set()
    # Rounded, so that pairs of one length come in the order of their atoms on every machine.
    for k in np.argsort(np.linalg.norm(vectors, axis=1).round(9), kind="stable"):
        a, b = int(i[k]), int(j[k])
        if len(used) < 2 * wanted and a not in used and b not in used:
            used |= {a, b}
            yield a, b, vectors[k]


def _pull(atoms: Atoms, p: float, rng: np.random.Generator, n_pairs: int) -> None:
    # All pairs are those of the structure as it was: to have no atom in common makes the order irrelevant.
    for a, b, vector in closest_pairs(atoms, n_pairs):
        distance = float(np.linalg.norm(vector))
        room = distance - LEAST_SHARE * covalent_radii[atoms.numbers[[a, b]]].sum()
        pull = min(rng.uniform(0.0, p), max(0.0, room))
        if distance == 0.0:  # which has no direction; what labels the structure tells of it
            continue
        atoms.positions[a] += 0.5 * pull * vector / distance
        atoms.positions[b] -= 0.5 * pull * vector / distance


def _moved(atoms: Atoms, q: float, rng: np.random.Generator, max_atoms: int) -> Atoms:
    now = _closest(atoms)[0]
    # In compressed crystals, closer already, nearly every move brings some atoms a little closer still.
    least = min(LEAST_SHARE, now) if now > 0.999 * LEAST_SHARE else FURTHER * now
    for attempt in range(ATTEMPTS):
        moved = atoms.copy()
        chosen = rng.choice(len(atoms), size=min(max_atoms, len(atoms)), replace=False)
        directions = rng.normal(size=(len(chosen), 3))
        lengths = rng.uniform(0.0, q, size=len(chosen)) * 0.5 ** (attempt // HALVED)
        moved.positions[chosen] += (lengths / np.linalg.norm(directions, axis=1))[:, None] * directions
        share, distance = _closest(moved)
        if share >= least and distance >= CLOSEST:
            return moved
    raise InputError(
        f"random moves of up to {q} Å put atoms onto each other {ATTEMPTS} times in a row; lower the strength, or look "
        "whether the structure has overlapping atoms"
    )


def _closest(atoms: Atoms) -> tuple[float, float]:
    """Return the smallest distance over the sum of covalent radii, and in Å; infinite where all are far."""
    radii = covalent_radii[atoms.numbers]
    # A list of the shortest distances alone would take longer: it divides space into boxes of its reach.
    reach = max(REACH, 2.0 * LEAST_SHARE * float(radii.max()))
    i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    distances = np.linalg.norm(_vectors(atoms, i, j, shifts), axis=1)
    return float(np.min(distances / (radii[i] + radii[j]), initial=np.inf)), float(np.min(distances, initial=np.inf))


def _vectors(atoms: Atoms, i: np.ndarray, j: np.ndarray, shifts: np.ndarray | None) -> np.ndarray:
    """Return the vectors from atoms i to the images of atoms j, (E, 3) in Å."""
    vectors = atoms.positions[j] - atoms.positions[i]
    return vectors if shifts is None else vectors + shifts @ np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)


def _check(atoms: Atoms, p: float, q: float, n_pairs: int, max_atoms: int) -> None:
    if len(atoms) < 2:
        raise InputError(f"a structure of {len(atoms)} atom(s) has no pair to pull together; leave it out")
    if not (0 <= p < np.inf and 0 <= q < np.inf):
        raise InputError(f"strengths p {p} and q {q}; expected lengths of 0 Å or more, usually up to 1")
    if n_pairs < 0 or max_atoms < 0:
        raise InputError(f"n_pairs {n_pairs} and max_atoms {max_atoms}; expected 0 or more")
