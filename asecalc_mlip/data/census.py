"""Count the labels of a data set, and refuse to train on what is missing or cannot be right.

`Census` reports; `Census.require` refuses. What counts as implausible is set so wide that strongly compressed oxides
(forces up to 190 eV/Å, 29 eV per atom above the rest) pass, and a mixture of units does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.data.bonds import check_bonds
from asecalc_mlip.data.broad_checks import check_mixing, check_stiff_bonds
from asecalc_mlip.data.consistency import check_agreement
from asecalc_mlip.data.label_checks import (
    check_constants,
    check_cores,
    check_extensive,
    check_rivals,
    check_states,
)
from asecalc_mlip.data.labels import frame_name, is_isolated_atom, unused_names
from asecalc_mlip.data.plausibility import Problem, check_energies, check_forces, check_stresses
from asecalc_mlip.data.structure_checks import check_structures
from asecalc_mlip.data.symmetry_checks import check_symmetry
from asecalc_mlip.errors import DataError
from asecalc_mlip.units import LABELS

CHECKS = (
    check_cores,
    check_structures,
    check_energies,
    check_forces,
    check_stresses,
    check_constants,
    check_rivals,
    check_states,
)
PHYSICS = (check_bonds, check_extensive, check_agreement, check_symmetry, check_stiff_bonds, check_mixing)


@dataclass(frozen=True)
class Census:
    """Contents of a data set.

    Attributes
    ----------
    n_frames : int
    counts : dict of str to int
        Number of frames that have each label.
    missing : dict of str to list of str
        For each label the names of up to five frames without it.
    elements : dict of str to int
        Number of atoms of each element, by symbol, in the whole set.
    sizes : (int, int)
        Smallest and largest number of atoms of a frame.
    n_periodic : int
        Frames that are periodic in at least one direction.
    keys : dict of str to dict
        For each label the names it had in the files, with counts.
    problems : list of Problem
        What cannot be right, most telling first.
    warnings : list of str
        What may be right and should be looked at.
    n_isolated : int
        Frames that hold one isolated atom, whose energy is an E0.
    others : dict of str to list of str
        For each label that frames lack, the names in the first of them that might be it.
    """

    n_frames: int
    counts: dict[str, int]
    missing: dict[str, list[str]]
    elements: dict[str, int]
    sizes: tuple[int, int]
    n_periodic: int
    keys: dict[str, dict[str, int]]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_isolated: int = 0
    others: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{label} {self.counts[label]}/{self.n_frames}" for label in LABELS)

    def report(self, *, allow_implausible: bool | Collection[str] = False) -> str:
        """Return a few lines for the start of a log; `allow_implausible` as for `require`."""
        low, high = self.sizes
        atoms = f"{low}" if low == high else f"{low}–{high}"
        found = [f"{label} from {', '.join(names)}" for label, names in self.keys.items() if names]
        found += [f"{label} perhaps as {', '.join(names)}" for label, names in self.others.items() if names]
        lines = [
            f"{self}",
            f"{atoms} atoms a frame, {self.n_periodic} of {self.n_frames} frames periodic, elements: "
            + " ".join(f"{symbol} ({count})" for symbol, count in self.elements.items()),
            "labels: " + ("; ".join(found) or "none"),
        ]
        if self.n_isolated:
            lines.append(f"isolated atoms: {self.n_isolated} of {self.n_frames} frames, whose energies are E0s")
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"problem: {problem.text}" for problem in self._refused(allow_implausible)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return plain types, e.g. for JSON."""
        return asdict(self)

    def require(self, weights: Mapping[str, float], *, allow_implausible: bool | Collection[str] = False) -> None:
        """Refuse a set that cannot be trained on.

        Parameters
        ----------
        weights : mapping of str to float
            Weight of each label in the loss. Labels of weight 0 may be absent.
        allow_implausible : bool or collection of str
            Accept values of implausible size, of all labels or of those named; NaN and missing labels are refused all
            the same.

        Raises
        ------
        DataError
            A weighted label is missing, not finite or implausible; the message names the frame.
        """
        if unknown := set(weights) - set(LABELS):
            raise DataError(f"unknown labels {sorted(unknown)} in the loss; labels are {', '.join(LABELS)}")
        weighted = [label for label, weight in weights.items() if weight > 0]
        for label in weighted:
            self._require_present(label)
        self.refuse(weighted, allow_implausible=allow_implausible)

    def refuse(self, labels: Collection[str], *, allow_implausible: bool | Collection[str] = False) -> None:
        """Raise DataError for what cannot be right among these labels where they are; options as for `require`."""
        for problem in self._refused(allow_implausible):
            if problem.label in ("structure", *labels):
                raise DataError(problem.text)

    def _refused(self, allow_implausible: bool | Collection[str]) -> list[Problem]:
        allowed = ("structure", *LABELS) if allow_implausible is True else allow_implausible or ()
        return [problem for problem in self.problems if not (problem.label in allowed and problem.size_only)]

    def _require_present(self, label: str) -> None:
        absent = self.n_frames - self.counts[label]
        if absent:
            raise DataError(
                f"the loss gives weight to {label}, but {absent} of {self.n_frames} frames have no {label}: "
                f"{', '.join(self.missing[label])}{', …' if absent > len(self.missing[label]) else ''}. "
                f"{self._other_name(label)}, leave these frames out, or set the weight of {label} to 0 "
                f"(loss.{label}_weight=0)"
            )

    def _other_name(self, label: str) -> str:
        names = self.others.get(label, [])
        if not names:
            return f"Name the label with {label}_key if the file has it under another name"
        return f"The file has {', '.join(names)}: name the label, for example {label}_key={names[0]}"


def census(frames: Sequence[Atoms]) -> Census:
    """Count the labels of frames made by `asecalc_mlip.data.readers.read_frames` and check their sizes.

    Parameters
    ----------
    frames : sequence of Atoms
        With labels in canonical places and units.

    Raises
    ------
    DataError
        There are no frames.
    """
    if not frames:
        raise DataError("the data set has no frames")
    absent = {label: [i for i, atoms in enumerate(frames) if not has_label(atoms, label)] for label in LABELS}
    numbers = Counter(int(z) for atoms in frames for z in atoms.numbers)
    problems: list[Problem] = []
    warnings = _mixed_keys(frames)
    for check in CHECKS:
        found, told = check(frames)
        problems += found
        warnings += told
    if not any(problem.size_only is False for problem in problems):  # else there is nothing to compare
        for check in PHYSICS:
            found, told = check(frames)
            problems += found
            warnings += told
    return Census(
        n_frames=len(frames),
        counts={label: len(frames) - len(absent[label]) for label in LABELS},
        missing={label: [frame_name(frames[i], i) for i in absent[label][:5]] for label in LABELS},
        elements={chemical_symbols[z]: numbers[z] for z in sorted(numbers)},
        sizes=(min(map(len, frames)), max(map(len, frames))),
        n_periodic=sum(bool(atoms.pbc.any()) for atoms in frames),
        keys=_keys(frames),
        problems=problems,
        warnings=warnings,
        n_isolated=sum(map(is_isolated_atom, frames)),
        others={label: unused_names(frames[i[0]], label) for label, i in absent.items() if i},
    )


def has_label(atoms: Atoms, label: str) -> bool:
    """Return whether a frame has a label, finite or not."""
    return label in atoms.arrays if label == "forces" else label in atoms.info


def _keys(frames: Sequence[Atoms]) -> dict[str, dict[str, int]]:
    names = {label: Counter(atoms.info.get("label_keys", {}).get(label) for atoms in frames) for label in LABELS}
    return {label: {name: n for name, n in count.items() if name} for label, count in names.items()}


def _mixed_keys(frames: Sequence[Atoms]) -> list[str]:
    """Warn when one label comes under several names, which often means several levels of theory."""
    return [
        f"{label} comes from {' and '.join(f'{name} ({n})' for name, n in names.items())}: is it one level of theory?"
        for label, names in _keys(frames).items()
        if len(names) > 1
    ]
