"""Per-element reference energies E0, which a model adds to what it learns.

Total energies of DFT are hundreds of eV per atom and mostly constant per element. The model learns E − Σ E0(Z). Where
the E0 come from matters: isolated atoms at the same level of theory give the right limit of separated atoms, a
least-squares fit gives the smallest numbers to learn. Atoms computed at another level give neither, so those that show
it are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asecalc_mlip.data.label_checks import refuse_without_cores
from asecalc_mlip.data.plausibility import far_energies
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from training.options import E0Method

# What remains per atom is (minus) the binding energy when the E0 are isolated atoms. The most strongly bound solids
# have 9 eV per atom, spin-unpolarised atoms add up to 3.
BINDING_RANGE = (-15.0, 2.0)
MAX_OFFSET = 30.0  # eV per atom, whatever the method


@dataclass(frozen=True)
class ReferenceEnergies:
    """Energies of the elements and how they were obtained.

    Attributes
    ----------
    values
        Energy (eV) by atomic number.
    method
        ``isolated``, ``fit``, ``given`` or ``zero``.
    source
        Where they come from, in words.
    residual_rms
        Scatter of (E − Σ E0)/N about its mean, eV per atom: what the model has to learn.
    residual_mean
        Mean of (E − Σ E0)/N, eV per atom: minus the binding energy where the E0 are isolated atoms.
    isolated
        Elements whose energies are those of isolated atoms.
    undetermined
        Whether a fit left a choice, because the compositions do not fix every value.
    """

    values: dict[int, float]
    method: E0Method
    source: str
    residual_rms: float
    residual_mean: float = 0.0
    isolated: tuple[int, ...] = ()
    undetermined: bool = False

    @property
    def fitted(self) -> list[int]:
        """Elements whose energies were fitted to the data."""
        return [z for z in self.values if self.method == "fit" and z not in self.isolated]

    def shifted(self, shift: Mapping[int, float]) -> ReferenceEnergies:
        """Return the energies with a shift (eV) by atomic number, named in their source."""
        values = {z: energy + shift.get(z, 0.0) for z, energy in self.values.items()}
        return replace(self, values=values, source=f"{self.source}; shifted by least squares after the training")

    def __repr__(self) -> str:
        inner = ", ".join(f"{chemical_symbols[z]} {e:.3f}" for z, e in sorted(self.values.items()))
        return f"<ReferenceEnergies {self.method}: {inner} eV; rest {self._rest()}>"

    def table(self, elements: Iterable[int] | None = None) -> str:
        """Return one line per element, of all or of some, and the residual, for logs and cards."""
        shown = sorted(self.values if elements is None else elements)
        lines = [f"Reference energies ({self.method}; {self.source})"]
        lines += [f"  {chemical_symbols[z]:2s} {self.values[z]:16.6f} eV" for z in shown]
        lines.append(f"  E − Σ E0: {self._rest()}")
        if self.undetermined:
            lines.append(
                "  note: these E0 describe no atom; only their sums over the compositions of the data mean something. "
                "Isolated atoms at the level of the data would fix them: asecalc data atoms "
                f"{' '.join(chemical_symbols[z] for z in shown)} --level FUNCTIONAL/BASIS -o atoms.xyz, then "
                "model.isolated_atoms=atoms.xyz"
            )
        if self.method == "zero" and abs(self.residual_mean) > MAX_OFFSET:
            lines.append("  warning: these look like total energies, of which a network learns little: use 'fit'")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return plain types, e.g. for JSON or a checkpoint."""
        plain = asdict(self)
        isolated = [chemical_symbols[z] for z in plain.pop("isolated")]
        undetermined = plain.pop("undetermined")
        return {
            **plain,
            **({"isolated": isolated} if isolated else {}),
            **({"undetermined": True} if undetermined else {}),
        }

    def total(self, numbers: np.ndarray) -> float:
        """Return Σ E0 (eV) for the atomic numbers of one structure."""
        return float(sum(self.values[int(z)] for z in numbers))

    def _rest(self) -> str:
        return f"{self.residual_mean:+z.3f} ± {self.residual_rms:.3f} eV/atom"


def reference_energies(
    frames: Sequence[Atoms],
    method: E0Method = "fit",
    *,
    given: Mapping[int, float] | Mapping[str, float] | None = None,
    isolated: str | Path | Sequence[Atoms] | None = None,
    reading: Mapping[str, Any] | None = None,
    atoms: Sequence[Atoms] = (),
) -> ReferenceEnergies:
    """Get reference energies for a data set and test them against it.

    Parameters
    ----------
    frames
        Training structures with ``info["energy"]`` in eV, as `asecalc_mlip.data.readers.read_frames` makes them.
    method
        ``isolated``: single atoms at the level of theory of the data; ``fit``: least squares of the energies per atom
        on the composition; ``given``: from ``given``; ``zero``: none, for data that already are differences.
    given
        Energy (eV) by symbol or atomic number.
    isolated
        File or frames with one atom each.
    reading
        Options of `asecalc_mlip.data.readers.read_frames` for that file, such as the unit of its energies.
    atoms
        Frames of isolated atoms among the data, or those of `isolated` where there are none: with ``fit`` their
        elements are not fitted, nor are further ones of `isolated`; with ``isolated`` they take its place where that
        is not given.

    Raises
    ------
    InputError
        A method is unknown or lacks what it needs.
    DataError
        An element is missing, no frame has an energy, or the energies do not fit the data.
    """
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    refuse_without_cores(list(atoms))
    labelled = [frame for frame in frames if "energy" in frame.info]
    if not labelled and method == "fit":
        raise DataError("no frame has an energy, so reference energies cannot be fitted; give them, or use 'zero'")
    if method == "fit":
        sources, known = {"in the data": _known(atoms, elements)}, dict[int, float]()
        if isolated is not None:
            where = f"in {Path(isolated).name}" if isinstance(isolated, (str, Path)) else "given"
            more = read_frames(isolated, **(reading or {})) if isinstance(isolated, (str, Path)) else list(isolated)
            refuse_without_cores(more)
            sources[where] = _known(more, elements)
        for energies in sources.values():  # those in the data first
            known = {**energies, **known}
        return _checked(_fit(labelled, known, " and ".join(name for name in sources if sources[name])), elements)
    if method == "isolated":
        values, source = _from_isolated(isolated or list(atoms), reading or {})
    elif method == "given":
        values, source = _from_given(given)
    elif method == "zero":
        values, source = dict.fromkeys(elements, 0.0), "none subtracted"
    else:
        raise InputError(f"reference energies {method!r}; known are isolated, fit, given and zero")
    values = {z: values[z] for z in elements if z in values}
    found = ReferenceEnergies(values, method, source, 0.0)
    return _tested(labelled, values, method, source) if len(values) == len(elements) else _checked(found, elements)


def _checked(found: ReferenceEnergies, elements: Sequence[int]) -> ReferenceEnergies:
    """Return the same, if there is one for every element of the data."""
    if absent := [chemical_symbols[z] for z in elements if z not in found.values]:
        raise DataError(
            f"the data contain {', '.join(absent)}, for which there is no reference energy ({found.source})"
        )
    return found


def least_squares(
    frames: Sequence[Atoms], energies: np.ndarray, elements: Sequence[int]
) -> tuple[dict[int, float], int]:
    """Fit energies per atom to the fractions of elements; the shortest solution where they leave a choice.

    Parameters
    ----------
    frames
        Structures, of which the compositions count.
    energies
        Of the frames, (n,) eV.
    elements
        Atomic numbers of what is fitted.

    Returns
    -------
    dict, int
        Atomic number → eV, and how many of the values the compositions fix.
    """
    counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in elements] for atoms in frames], dtype=float)
    sizes = np.array([len(atoms) for atoms in frames], dtype=float)
    solution, _, rank, _ = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=1e-8)
    return dict(zip(elements, solution.tolist(), strict=True)), int(rank)


def _without_outliers(frames: Sequence[Atoms]) -> list[Atoms]:
    """Leave out frames whose energies are far from the rest, where every element is in the others too."""
    odd = set(far_energies(frames))
    rest = [atoms for k, atoms in enumerate(frames) if k not in odd]
    kept = {int(z) for atoms in rest for z in atoms.numbers}
    return rest + [frames[k] for k in sorted(odd) if not kept.issuperset(frames[k].numbers.tolist())]


def _fit(every: Sequence[Atoms], known: Mapping[int, float], where: str = "in the data") -> ReferenceEnergies:
    """Fit the elements without an isolated atom by least squares."""
    frames = _without_outliers(every)
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    free = [z for z in elements if z not in known]
    energies = np.array([atoms.info["energy"] for atoms in frames])
    if known:
        energies = energies - np.array([sum(known.get(int(z), 0.0) for z in atoms.numbers) for atoms in frames])
    parts = [f"isolated atoms {where} for {_symbols(known)}"] if known else []
    fitted, rank = least_squares(frames, energies, free) if free else ({}, 0)
    if free:
        of = f" for {_symbols(free)}" if known else ""
        left = f", without {len(every) - len(frames)} that are far from the rest" if len(every) > len(frames) else ""
        parts.append(f"least squares on {len(frames)} energies{of}{left}")
    if rank < len(free):
        parts.append(
            f"the compositions fix only {rank} of {len(free)} values, of which the smallest were taken: "
            "they do not describe single atoms"
        )
    values = dict(sorted({**known, **fitted}.items()))
    found = _tested(frames, values, "fit" if free else "isolated", "; ".join(parts))
    return replace(found, isolated=tuple(known), undetermined=rank < len(free))


def _known(atoms: Sequence[Atoms], elements: Sequence[int]) -> dict[int, float]:
    """Return the energies of the isolated atoms among the data, of elements that the structures have."""
    labelled = [frame for frame in atoms if "energy" in frame.info]
    if not labelled:
        return {}
    return {z: energy for z, energy in _from_isolated(labelled, {})[0].items() if z in elements}


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def _from_isolated(
    isolated: str | Path | Sequence[Atoms] | None, reading: Mapping[str, Any]
) -> tuple[dict[int, float], str]:
    if not isolated:
        raise InputError(
            "reference energies 'isolated' need a file with one atom per frame, model.isolated_atoms=FILE, or "
            "such frames among the data"
        )
    if isinstance(isolated, (str, Path)):
        frames, source = read_frames(isolated, **reading), f"isolated atoms in {Path(isolated).name}"
    else:
        frames, source = list(isolated), "isolated atoms"
    refuse_without_cores(frames)
    values: dict[int, float] = {}
    for number, atoms in enumerate(frames):
        if len(atoms) != 1 or "energy" not in atoms.info:
            raise DataError(
                f"frame {number} of the {source} has {len(atoms)} atoms and "
                f"{'an' if 'energy' in atoms.info else 'no'} energy; expected one atom with its energy"
            )
        z = int(atoms.numbers[0])
        if not np.isfinite(atoms.info["energy"]):
            raise DataError(
                f"the {source} have the energy {atoms.info['energy']} for {chemical_symbols[z]}; leave it out"
            )
        if z in values and abs(values[z] - atoms.info["energy"]) > 1e-6:
            raise DataError(f"the {source} hold two unlike energies for {chemical_symbols[z]}; keep one of them")
        values[z] = float(atoms.info["energy"])
    return values, source


def _from_given(given: Mapping[int, float] | Mapping[str, float] | None) -> tuple[dict[int, float], str]:
    if not given:
        raise InputError("reference energies 'given' need a table such as {H: -13.57, C: -1026.85} in eV")
    values: dict[int, float] = {}
    for name, energy in given.items():
        if str(name).isdigit():
            z = int(name)
        elif str(name) in atomic_numbers:
            z = atomic_numbers[str(name)]
        else:
            raise InputError(f"reference energies: {name!r} is not an element")
        try:
            finite = np.isfinite(float(energy))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise InputError(f"reference energies: the value for {name} is {energy!r}; expected a number in eV")
        values[z] = float(energy)
    return values, "given by the user"


def _tested(frames: Sequence[Atoms], values: dict[int, float], method: E0Method, source: str) -> ReferenceEnergies:
    """Compare the reference energies with the data and refuse those that cannot belong to them."""
    if not frames:
        return ReferenceEnergies(values, method, f"{source}; not tested, no energies", 0.0)
    sums = np.array([sum(values[int(z)] for z in atoms.numbers) for atoms in frames])
    rest = (np.array([atoms.info["energy"] for atoms in frames]) - sums) / np.array([len(atoms) for atoms in frames])
    typical = float(np.median(rest))
    if method == "isolated" and not BINDING_RANGE[0] <= typical <= BINDING_RANGE[1]:
        raise DataError(
            f"with the {source}, E − Σ E0 is {typical:.3f} eV per atom, where binding energies lie between "
            f"{BINDING_RANGE[0]:g} and {BINDING_RANGE[1]:g}. The atoms were computed at another level of theory or in "
            "other units than the data: compute them at the level of the data, leave them out, or use 'fit'"
        )
    if method == "given" and abs(typical) > MAX_OFFSET:
        raise DataError(
            f"with the reference energies {source}, E − Σ E0 is {typical:.3f} eV per atom; more than {MAX_OFFSET:g} "
            "means another level of theory or other units; use 'fit', or 'zero' for data that are differences"
        )
    return ReferenceEnergies(values, method, source, float(rest.std()), float(rest.mean()))
