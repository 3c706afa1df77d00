"""Per-element reference energies E0, which a model adds to what it learns.

Total energies of DFT are hundreds of eV per atom and mostly constant per element. The model learns E − Σ E0(Z). Where
the E0 come from matters: isolated atoms at the same level of theory give the right limit of separated atoms, a
least-squares fit gives the smallest numbers to learn. Atoms computed at another level give neither, so those that show
it are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError

Method = Literal["isolated", "fit", "given", "zero"]
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
    """

    values: dict[int, float]
    method: Method
    source: str
    residual_rms: float
    residual_mean: float = 0.0

    def __repr__(self) -> str:
        inner = ", ".join(f"{chemical_symbols[z]} {e:.3f}" for z, e in sorted(self.values.items()))
        return f"<ReferenceEnergies {self.method}: {inner} eV; rest {self._rest()}>"

    def table(self) -> str:
        """Return one line per element and the residual, for logs and cards."""
        lines = [f"Reference energies ({self.method}; {self.source})"]
        lines += [f"  {chemical_symbols[z]:2s} {energy:16.6f} eV" for z, energy in sorted(self.values.items())]
        lines.append(f"  E − Σ E0: {self._rest()}")
        if self.method == "zero" and abs(self.residual_mean) > MAX_OFFSET:
            lines.append("  warning: these look like total energies, of which a network learns little: use 'fit'")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return plain types, e.g. for JSON or a checkpoint."""
        return asdict(self)

    def total(self, numbers: np.ndarray) -> float:
        """Return Σ E0 (eV) for the atomic numbers of one structure."""
        return float(sum(self.values[int(z)] for z in numbers))

    def _rest(self) -> str:
        return f"{self.residual_mean:+.3f} ± {self.residual_rms:.3f} eV/atom"


def reference_energies(
    frames: Sequence[Atoms],
    method: Method = "fit",
    *,
    given: Mapping[int, float] | Mapping[str, float] | None = None,
    isolated: str | Path | Sequence[Atoms] | None = None,
    reading: Mapping[str, Any] | None = None,
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

    Raises
    ------
    InputError
        A method is unknown or lacks what it needs.
    DataError
        An element is missing, no frame has an energy, or the energies do not fit the data.
    """
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    labelled = [atoms for atoms in frames if "energy" in atoms.info]
    if not labelled and method == "fit":
        raise DataError("No frame has an energy, so reference energies cannot be fitted. Give them, or use 'zero'.")
    if method == "fit":
        values, source = _fit(labelled)
    elif method == "isolated":
        values, source = _from_isolated(isolated, reading or {})
    elif method == "given":
        values, source = _from_given(given)
    elif method == "zero":
        values, source = dict.fromkeys(elements, 0.0), "none subtracted"
    else:
        raise InputError(f"Reference energies {method!r}; known are isolated, fit, given and zero.")
    if absent := [chemical_symbols[z] for z in elements if z not in values]:
        raise DataError(f"The data contain {', '.join(absent)}, for which there is no reference energy ({source}).")
    values = {z: values[z] for z in elements}
    return _tested(labelled, values, method, source)


def _fit(frames: Sequence[Atoms]) -> tuple[dict[int, float], str]:
    """Least squares of E/N on the fractions of the elements; the shortest solution where they leave a choice."""
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in elements] for atoms in frames], dtype=float)
    sizes = counts.sum(axis=1)
    energies = np.array([atoms.info["energy"] for atoms in frames])
    solution, _, rank, _ = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=1e-8)
    source = f"least squares on {len(frames)} energies"
    if rank < len(elements):
        source += (
            f"; the compositions fix only {rank} of {len(elements)} values, of which the smallest were taken: "
            "they do not describe single atoms"
        )
    return dict(zip(elements, solution.tolist(), strict=True)), source


def _from_isolated(
    isolated: str | Path | Sequence[Atoms] | None, reading: Mapping[str, Any]
) -> tuple[dict[int, float], str]:
    if isolated is None:
        raise InputError("Reference energies 'isolated' need a file with one single atom per frame.")
    if isinstance(isolated, (str, Path)):
        frames, source = read_frames(isolated, **reading), f"isolated atoms in {Path(isolated).name}"
    else:
        frames, source = list(isolated), "isolated atoms"
    values: dict[int, float] = {}
    for number, atoms in enumerate(frames):
        if len(atoms) != 1 or "energy" not in atoms.info:
            raise DataError(
                f"Frame {number} of the {source} has {len(atoms)} atoms and "
                f"{'an' if 'energy' in atoms.info else 'no'} energy; expected one atom with its energy."
            )
        z = int(atoms.numbers[0])
        if z in values and abs(values[z] - atoms.info["energy"]) > 1e-6:
            raise DataError(f"The {source} hold two unlike energies for {chemical_symbols[z]}.")
        values[z] = float(atoms.info["energy"])
    return values, source


def _from_given(given: Mapping[int, float] | Mapping[str, float] | None) -> tuple[dict[int, float], str]:
    if not given:
        raise InputError("Reference energies 'given' need a table such as {H: -13.57, C: -1026.85} in eV.")
    values: dict[int, float] = {}
    for name, energy in given.items():
        if str(name).isdigit():
            z = int(name)
        elif str(name) in atomic_numbers:
            z = atomic_numbers[str(name)]
        else:
            raise InputError(f"Reference energies: {name!r} is not an element.")
        try:
            finite = np.isfinite(float(energy))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise InputError(f"Reference energies: the value for {name} is {energy!r}; expected eV.")
        values[z] = float(energy)
    return values, "given by the user"


def _tested(frames: Sequence[Atoms], values: dict[int, float], method: Method, source: str) -> ReferenceEnergies:
    """Compare the reference energies with the data and refuse those that cannot belong to them."""
    if not frames:
        return ReferenceEnergies(values, method, f"{source}; not tested, no energies", 0.0)
    sums = np.array([sum(values[int(z)] for z in atoms.numbers) for atoms in frames])
    rest = (np.array([atoms.info["energy"] for atoms in frames]) - sums) / np.array([len(atoms) for atoms in frames])
    typical = float(np.median(rest))
    if method == "isolated" and not BINDING_RANGE[0] <= typical <= BINDING_RANGE[1]:
        raise DataError(
            f"With the {source}, E − Σ E0 is {typical:.3f} eV per atom, where binding energies lie between "
            f"{BINDING_RANGE[0]:g} and {BINDING_RANGE[1]:g}. The atoms were computed at another level of theory or in "
            "other units than the data. Compute them at the level of the data, or use 'fit'."
        )
    if method == "given" and abs(typical) > MAX_OFFSET:
        raise DataError(
            f"With the reference energies {source}, E − Σ E0 is {typical:.3f} eV per atom; more than {MAX_OFFSET:g} "
            "means another level of theory or other units. Use 'fit', or 'zero' for data that are differences."
        )
    return ReferenceEnergies(values, method, source, float(rest.std()), float(rest.mean()))
