"""Do energies, forces and stresses of a set belong to each other and to the structures?

Three questions that need no level of theory:

- Between close frames the energy must change by the work of the forces, ΔE = −½ (F₁ + F₂)·Δx. The slope is 0.9 to 1.1
  in real sets of dynamics, and any other number is a unit, a sign, or a mistake.
- Where frames are not close, a pair potential that is fitted to the forces must predict energies and stresses.
- Frames that are close must have closer energies than frames that are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms, units

from asecalc_mlip.data.labels import frame_name
from asecalc_mlip.data.near import ClosePairs, close_pairs
from asecalc_mlip.data.pair_fit import PairFit, exchanged_axes, fit_pairs
from asecalc_mlip.data.plausibility import Found, Problem
from asecalc_mlip.data.unit_guess import AS_READ, guess

__all__ = ["check_agreement"]

LEAST_PAIRS = 12
MOST_STRESS_WORK = 0.3  # of what else changes, in pairs by which forces are judged
LEAST_WORK = 2e-3  # eV, typical; below it energies are rounded
# Correlation of ΔE with the work: real sets have 0.90 and more, shuffled ones below 0.2.
UNRELATED, DOUBTFUL, CLEAR = 0.5, 0.75, 0.85
# Å; of the atom that moves most. On a longer way hydrogen goes around its neighbour: the straight line between the two
# places squeezes the bond, and the work along it says nothing. Correlations are 0.96 up to 0.3 Å, 0.3 from 0.7 Å on.
NEAR = 0.4
# Slope of ΔE against the work: real sets have 0.88 to 1.10; relaxations, whose cells and magnetic states
# change, 1.2 to 1.33.
SLOPES, FEW_SLOPES, MANY_PAIRS = (0.75, 1.33), (0.5, 2.0), 30
# With hydrogen 12 good pairs may have a slope of 0.41, or a correlation of 0.2.
ROUGH_SLOPES, MANY_UNRELATED = (0.4, 2.5), 20
# Of frames that are far from each other: right sets have 0.09 to 2, energies or forces in Hartree 0.04 or 50.
EXTREME = (0.05, 5.0)
# The same for energies of the pair fit: 0.55 to 1.5 where forces are described so well.
FIT_SLOPES, FIT_FORCES, FIT_ENERGIES = (0.25, 4.0), 0.7, 0.6
FIT_STRESS = 0.5
# Slope of the rest of ΔE against the work of the stresses; few pairs make it rough.
STRESS_SLOPES, LEAST_STRAINED, LEAST_STRESS_WORK = (0.3, 3.0), 6, 0.05
PRESSURES = {
    "GPa": units.GPa,
    "kbar": 0.1 * units.GPa,
    "Hartree/Bohr^3": units.Hartree / units.Bohr**3,
    "Rydberg/Bohr^3": units.Rydberg / units.Bohr**3,
    "kcal/mol/Ang^3": units.kcal / units.mol,
}
FOLLOWS = 0.85  # share of pairs with a positive curvature: 0.97 and more in real sets
# Curvature along thermal displacements, eV/Å²: lithium has 0.7, molecules, oxides and silicon 2 to 14.
SOFT, HARD = 0.8, 80.0
# Elements whose solids are so soft that the size of their forces tells nothing.
SOFT_ELEMENTS = {2, 3, 10, 11, 18, 19, 20, 36, 37, 38, 49, 54, 55, 56, 80, 81, 82, 86, 87, 88}
CLOSER = 0.8  # median |ΔE| of close pairs over that of any pairs; sets of energies: 0.1 to 0.5


def check_agreement(frames: Sequence[Atoms]) -> Found:
    """Look for labels that contradict each other, and name the unit, the sign or the mistake that explains it."""
    pairs = close_pairs(frames)
    known = np.isfinite(pairs.work) & np.isfinite(pairs.energies)
    sizes = np.maximum(np.abs(pairs.energies), np.abs(pairs.work))
    unstrained = known & (np.abs(pairs.stress_work) <= MOST_STRESS_WORK * sizes)
    near, strict = unstrained & (pairs.farthest <= NEAR), not any(1 in atoms.numbers for atoms in frames)
    straight = strict or near.sum() >= LEAST_PAIRS
    some = _closest(pairs, near if straight and not strict else unstrained)
    if len(some) >= LEAST_PAIRS and np.median(sizes[some]) > LEAST_WORK:
        problems, warnings = _judge_pairs(frames, pairs, some, straight, strict)
        # Wrong energies or forces would be blamed on the stresses.
        return problems or _judge_strains(pairs, np.flatnonzero(known)), warnings
    problems = _judge_strains(pairs, np.flatnonzero(known))
    warnings = [] if known.any() else _smooth(frames, pairs)
    fit = fit_pairs(frames)
    if fit is None or fit.forces < FIT_FORCES:
        return problems + _axes(frames), warnings
    found, told = _judge_fit(frames, fit)
    known_labels = {problem.label for problem in problems}
    return problems + [problem for problem in found if problem.label not in known_labels], warnings + told


def _closest(pairs: ClosePairs, known: np.ndarray) -> np.ndarray:
    """Places of the closer half of these pairs."""
    places = np.flatnonzero(known)
    order = places[np.argsort(pairs.moved[places], kind="stable")]
    return order[: max(60, len(order) // 2)]


def _judge_pairs(frames: Sequence[Atoms], pairs: ClosePairs, some: np.ndarray, straight: bool, strict: bool) -> Found:
    """Compare changes of the energy with work.

    `straight`: the atoms went straight ways, so that what does not agree is wrong. Others have to agree to be judged.
    `strict`: there is no hydrogen, and a few pairs are enough.
    """
    least = LEAST_PAIRS if strict else MANY_UNRELATED
    work, sizes = pairs.work[some], pairs.sizes[some]
    energies = pairs.energies[some] - pairs.stress_work[some]
    _, related = _line(work, energies)
    slope = _ratio(work, energies)
    stiffness = float(np.median(pairs.stiffness[some]))
    if abs(related) < CLEAR and (axes := _axes(frames)):
        return axes, []
    if not straight and len(some) < least:
        return [], []
    absurd = not EXTREME[0] < abs(slope) < EXTREME[1]
    if abs(related) < (UNRELATED if straight or absurd else CLEAR):
        if straight and len(some) >= least:
            return _unrelated(pairs, some, related)
        return [], [_doubtful(related)] if straight else []
    exact = len(some) >= MANY_PAIRS and not pairs.stress_work[some].any()
    # Frames that are close, but not very, as 150 of a large molecule are, make slopes of 0.59 to 0.78.
    clear = exact and straight and related > CLEAR
    low, high = SLOPES if clear else FEW_SLOPES if strict else ROUGH_SLOPES
    if low < slope < high:
        warnings = _size_of_forces(frames, stiffness)
        if related < DOUBTFUL:
            warnings.append(_doubtful(related))
        return [], warnings + ([] if related < DOUBTFUL or not exact else _odd(frames, pairs, some))
    per_atom = _ratio(work, energies * sizes)
    found = guess(slope, stiffness=stiffness, per_atom=per_atom, rough=not clear, read=_units_read(frames))
    how = f"between {len(some)} close frames the energy changes by {slope:.3g} times the work of the forces, −F·Δx"
    return [Problem(found.label, f"{how}, where 0.9 to 1.1 is usual: {found.text}")], []


def _axes(frames: Sequence[Atoms]) -> list[Problem]:
    axes = exchanged_axes(frames)
    if axes is None:
        return []
    names = "".join("xyz"[axis] for axis in axes)
    text = f"the forces follow the structures only if their components are taken in the order {names}"
    return [Problem("forces", f"{text}: are their axes exchanged?")]


def _unrelated(pairs: ClosePairs, some: np.ndarray, related: float) -> Found:
    how = (
        f"between {len(some)} close frames the change of the energy has nothing to do with the work of the forces, "
        f"−F·Δx (correlation {related:.2f}, where 0.9 and more is usual)"
    )
    if np.mean(pairs.stiffness[some] > 0) >= FOLLOWS:
        text = f"{how}, while the forces follow the structures: are the energies those of other frames?"
        return [Problem("energy", text)], []
    text = f"{how}, nor do the forces follow the structures: are they those of other frames, or of atoms in another "
    return [Problem("forces", f"{text}order?")], []


def _doubtful(related: float) -> str:
    return (
        f"between close frames the change of the energy agrees badly with the work of the forces, −F·Δx (correlation "
        f"{related:.2f}, where 0.9 and more is usual): are some labels those of other frames, or noisy?"
    )


def _judge_strains(pairs: ClosePairs, known: np.ndarray) -> list[Problem]:
    """Compare what the change of the cell costs with the work of the stresses."""
    size = np.abs(pairs.stress_work)
    strained = known[(size > 0.3 * np.abs(pairs.work))[known] & (size > LEAST_STRESS_WORK)[known]]
    if len(strained) < LEAST_STRAINED:
        return []
    rest, work = (pairs.energies - pairs.work)[strained], pairs.stress_work[strained]
    related = float(size[strained] @ np.sign(rest * work)) / float(size[strained].sum())
    slope = _ratio(np.abs(work), np.abs(rest))
    how = (
        f"between {len(strained)} frames of close cells the energy changes by {np.copysign(slope, related):.3g} times "
        "the work of the stresses, V σ:ε, where 1 is right"
    )
    if related < -UNRELATED:
        text = f"{how}: they have the opposite sign. Compression is negative here, as in ASE; multiply them by −1"
        return [Problem("stress", text)]
    if related > UNRELATED and not STRESS_SLOPES[0] < slope < STRESS_SLOPES[1]:
        return [Problem("stress", f"{how}: set data.stress_unit. {_stress_unit(slope)}")]
    return []


def _stress_unit(slope: float) -> str:
    names = [name for name, size in PRESSURES.items() if abs(np.log(slope / size)) < 0.5]
    return f"They look like {names[0]}" if names else "No unit known here makes that factor"


def _odd(frames: Sequence[Atoms], pairs: ClosePairs, some: np.ndarray) -> list[str]:
    """Name pairs of frames that disagree while the others agree."""
    work, energies = pairs.work[some], pairs.energies[some]
    off = np.abs(energies - work)
    limit = np.maximum(max(20 * float(np.median(off)), 0.1), 0.7 * np.maximum(np.abs(energies), np.abs(work)))
    odd = some[off > limit]
    if len(odd) == 0:
        return []
    first, second = ([frame_name(frames[i], int(i)) for i in places[odd[:3]]] for places in (pairs.first, pairs.second))
    names = "; ".join(
        f"{a} and {b} (ΔE {pairs.energies[k]:+.3g} eV, work {pairs.work[k]:+.3g} eV)"
        for k, a, b in zip(odd, first, second, strict=False)
    )
    return [
        f"energies and forces of {len(odd)} of {len(some)} pairs of close frames disagree: {names}"
        f"{'; …' if len(odd) > 3 else ''}. Did these calculations converge?"
    ]


def _size_of_forces(frames: Sequence[Atoms], stiffness: float) -> list[str]:
    """Judge energies and forces that agree with each other by the stiffness of matter."""
    elements = {int(z) for atoms in frames for z in atoms.numbers}
    if stiffness > HARD or (stiffness < SOFT and not elements <= SOFT_ELEMENTS):
        usual = f"{SOFT:g} to {HARD:g} eV/Å² are usual"
        found = guess(1.0, stiffness=stiffness, per_atom=None, read=_units_read(frames))
        return [f"energies and forces give a stiffness of {stiffness:.3g} eV/Å² along the motion of the atoms, where "
                f"{usual}: {found.text}"]  # fmt: skip
    return []


def _smooth(frames: Sequence[Atoms], pairs: ClosePairs) -> list[str]:
    """Compare energies of close frames with those of any frames, where there are no forces."""
    if len(pairs) < 50:
        return []
    rng = np.random.default_rng(0)
    energies = np.array([frames[i].info["energy"] for i in pairs.first])
    others = np.array([frames[i].info["energy"] for i in rng.permutation(pairs.second)])
    ratio = float(np.median(np.abs(pairs.energies)) / max(np.median(np.abs(energies - others)), 1e-300))
    if ratio < CLOSER:
        return []
    return [
        f"energies of close frames differ as much as those of any two ({ratio:.2f} times): do the energies belong to "
        "these structures, in this order?"
    ]


def _judge_fit(frames: Sequence[Atoms], fit: PairFit) -> Found:
    chosen = [frames[i] for i in fit.places]
    problems: list[Problem] = []
    warnings: list[str] = []
    slope, related = _energy_line(chosen, fit)
    how = f"a pair potential that describes the forces (correlation {fit.forces:.2f})"
    if abs(related) > FIT_ENERGIES and not FIT_SLOPES[0] < slope < FIT_SLOPES[1]:
        found = guess(slope, stiffness=None, per_atom=None, rough=True, read=_units_read(chosen))
        text = f"energies change by {slope:.3g} times what {how} predicts, where 0.6 to 1.5 is usual: {found.text}"
        problems.append(Problem(found.label, text))
    slope, related = _stress_line(chosen, fit)
    if related < -FIT_STRESS:
        text = (
            f"stresses have the opposite sign of those of {how} (correlation {related:.2f}): compression is negative "
            "here, as in ASE, while VASP writes it positive. Multiply them by −1"
        )
        problems.append(Problem("stress", text))
    elif related > FIT_STRESS and not 0.1 < slope < 10:
        warnings.append(
            f"stresses are {slope:.3g} times those of {how}: are they in eV/Å³? 1 eV/Å³ is 160.2 GPa or 1602 kbar; "
            "set data.stress_unit"
        )
    return problems, warnings


def _energy_line(chosen: Sequence[Atoms], fit: PairFit) -> tuple[float, float]:
    """Slope and correlation of energies per atom beyond the composition, over both halves; 0, 0: not told."""
    lines = []
    labelled = np.array(["energy" in atoms.info for atoms in chosen])
    energies = np.array([atoms.info.get("energy", np.nan) for atoms in chosen])
    for h in (0, 1):
        some = labelled & (fit.half == h)
        sizes = fit.composition[some].sum(axis=1, keepdims=True)
        shares = fit.composition[some] / sizes
        if len(shares) < LEAST_PAIRS or not np.isfinite(energies[some]).all():
            return 0.0, 0.0
        both = np.stack([fit.energies[some], energies[some]], axis=1) / sizes
        x, y = (both - shares @ np.linalg.lstsq(shares, both, rcond=1e-8)[0]).T
        lines.append(_line(x, y, centre=True))
    (a, ra), (b, rb) = lines
    return (float(np.sign(a) * np.sqrt(a * b)), min(ra, rb, key=abs)) if a * b > 0 else (0.0, 0.0)


def _stress_line(chosen: Sequence[Atoms], fit: PairFit) -> tuple[float, float]:
    some = [k for k, a in enumerate(chosen) if "stress" in a.info and np.isfinite(fit.stresses[k]).all()]
    if len(some) < LEAST_PAIRS:
        return 0.0, 0.0
    labels = np.array([chosen[k].info["stress"].reshape(-1)[[0, 4, 8]] for k in some])
    return _line(fit.stresses[some, :3].ravel(), labels.ravel(), centre=True)


def _units_read(frames: Sequence[Atoms]) -> Mapping[str, float]:
    """Units in which a file was read, eV and eV/Å; where files have unlike ones, no better guess is known."""
    return frames[0].info.get("label_factors", AS_READ)


def _ratio(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median of y/x with the weights |x|, which a few wrong labels do not bend."""
    ratios, weights = y / np.where(x == 0, 1e-300, x), np.abs(x)
    order = np.argsort(ratios)
    return float(ratios[order][np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())])


def _line(x: np.ndarray, y: np.ndarray, *, centre: bool = False) -> tuple[float, float]:
    """Return slope and correlation of a line, through the origin or not, without the points furthest out."""
    for _ in range(3):
        a, b = (x - np.median(x), y - np.median(y)) if centre else (x, y)
        near = np.abs(a) <= 8 * np.median(np.abs(a)) + 1e-12
        near &= np.abs(b) <= 8 * np.median(np.abs(b)) + 1e-12
        x, y = x[near], y[near]
    if centre:
        x, y = x - x.mean(), y - y.mean()
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    if xx <= 0 or yy <= 0:
        return 0.0, 0.0
    related = xy / np.sqrt(xx * yy)
    return float(np.copysign(np.sqrt(yy / xx), related)), float(related)
