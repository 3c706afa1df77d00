"""Attacks by data that are wrong: each corruption of a labelled set is refused or told by the census.

Also a program, which counts what is caught, told and missed on the files of a folder:

    python -m tests.attack.wrong_data DATA_FOLDER benchmarks/results/wrong_data.json
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from ase import Atoms, units

from asecalc_mlip.data.census import census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.structure_checks import shared_structures
from asecalc_mlip.errors import DataError
from asecalc_mlip.files import write_json
from tests.attack.harness import Arena, Attack, family
from tests.teacher import molecule_frames

Frames = list[Atoms]
Corruption = Callable[[Frames, np.random.Generator], Frames]
HA, RY, KCAL, KJ, BOHR = units.Hartree, units.Rydberg, units.kcal / units.mol, units.kJ / units.mol, units.Bohr
START = 60  # characters by which texts are compared
WEIGHTS = {"energy": 1.0, "forces": 1.0, "stress": 1.0}


def scaled(*, energy: float = 1.0, forces: float = 1.0, stress: float = 1.0, length: float = 1.0) -> Corruption:
    """Multiply labels and lengths."""

    def spoil(frames: Frames, rng: np.random.Generator) -> Frames:
        for atoms in frames:
            _multiply(atoms, energy, forces, stress)
            atoms.set_cell(atoms.cell.array * length)
            atoms.positions *= length
        return frames

    return spoil


def some(share: float, spoil: Corruption) -> Corruption:
    """Spoil a share of the frames."""

    def spoil_some(frames: Frames, rng: np.random.Generator) -> Frames:
        chosen = rng.permutation(len(frames))[: max(2, int(share * len(frames)))].tolist()
        spoil([frames[i] for i in chosen], rng)
        return frames

    return spoil_some


def per_atom(frames: Frames, rng: np.random.Generator) -> Frames:
    """Energies over the number of atoms."""
    for atoms in frames:
        _multiply(atoms, 1 / len(atoms), 1.0, 1.0)
    return frames


def shuffled(label: str) -> Corruption:
    """Give each frame the label of another with as many atoms of the same kinds."""

    def spoil(frames: Frames, rng: np.random.Generator) -> Frames:
        groups: dict[bytes, list[int]] = {}
        for i, atoms in enumerate(frames):
            groups.setdefault(atoms.numbers.tobytes(), []).append(i)
        if sum(len(places) for places in groups.values() if len(places) > 1) < len(frames) / 2:
            # Hardly any two of one composition: energies of any other frame, forces of one with as many atoms.
            groups = {}
            for i, atoms in enumerate(frames):
                groups.setdefault(str(len(atoms)).encode() if label == "forces" else b"", []).append(i)
        for places in groups.values():
            old = [_get(frames[i], label) for i in places]
            for i, k in zip(places, rng.permutation(len(places)), strict=True):
                _set(frames[i], label, old[k])
        return frames

    return spoil


def permuted(frames: Frames, rng: np.random.Generator) -> Frames:
    """Forces of atoms in another order, the same one for all frames of one composition."""
    orders: dict[int, np.ndarray] = {}
    for atoms in frames:
        order = orders.setdefault(len(atoms), rng.permutation(len(atoms)))
        if "forces" in atoms.arrays:
            atoms.arrays["forces"] = atoms.arrays["forces"][order]
    return frames


def permuted_each(frames: Frames, rng: np.random.Generator) -> Frames:
    """Forces of atoms in another order in each frame."""
    for atoms in frames:
        if "forces" in atoms.arrays:
            atoms.arrays["forces"] = rng.permutation(atoms.arrays["forces"])
    return frames


def constant(label: str, zero: bool = False) -> Corruption:
    """Give all frames the label of the first, or zero."""

    def spoil(frames: Frames, rng: np.random.Generator) -> Frames:
        for atoms in frames:
            value = _get(atoms, label)
            if value is not None:
                first = np.zeros_like(np.asarray(value, float)) if zero or label == "forces" else _get(frames[0], label)
                _set(atoms, label, float(first) if label == "energy" else first)
        return frames

    return spoil


def offset(value: float) -> Corruption:
    """Add to energies, eV."""

    def spoil(frames: Frames, rng: np.random.Generator) -> Frames:
        for atoms in frames:
            atoms.info["energy"] += value
        return frames

    return spoil


def axes(frames: Frames, rng: np.random.Generator) -> Frames:
    """Forces with x and z exchanged."""
    for atoms in frames:
        if "forces" in atoms.arrays:
            atoms.arrays["forces"] = atoms.arrays["forces"][:, ::-1].copy()
    return frames


def repeated(noise: float) -> Corruption:
    """Every frame twice, with noise in Å."""

    def spoil(frames: Frames, rng: np.random.Generator) -> Frames:
        again = [atoms.copy() for atoms in frames]
        for atoms in again:
            atoms.positions += noise * rng.normal(size=atoms.positions.shape)
        return frames + again

    return spoil


def rivals(frames: Frames, rng: np.random.Generator) -> Frames:
    """Copies of some structures with another energy."""
    again = [atoms.copy() for atoms in frames[: max(2, len(frames) // 20)]]
    for atoms in again:
        atoms.info["energy"] += 0.1 * len(atoms)
    return frames + again


def not_a_number(frames: Frames, rng: np.random.Generator) -> Frames:
    """One energy that is NaN."""
    frames[len(frames) // 2].info["energy"] = np.nan
    return frames


def overlapping(frames: Frames, rng: np.random.Generator) -> Frames:
    """Two atoms on top of each other in one frame."""
    atoms = frames[len(frames) // 2]
    atoms.positions[1] = atoms.positions[0] + 0.05
    return frames


def shifted(frames: Frames, rng: np.random.Generator) -> Frames:
    """Energies of the frame before."""
    old = [atoms.info["energy"] for atoms in frames]
    for atoms, energy in zip(frames, old[-1:] + old[:-1], strict=True):
        atoms.info["energy"] = energy
    return frames


CORRUPTIONS: dict[str, Corruption] = {
    "energies in Hartree": scaled(energy=1 / HA),
    "energies in Rydberg": scaled(energy=1 / RY),
    "energies in kcal/mol": scaled(energy=1 / KCAL),
    "energies in kJ/mol": scaled(energy=1 / KJ),
    "energies in meV": scaled(energy=1000.0),
    "energies per atom": per_atom,
    "energies of the other sign": scaled(energy=-1.0),
    "forces in Hartree/Bohr": scaled(forces=BOHR / HA),
    "forces in Rydberg/Bohr": scaled(forces=BOHR / RY),
    "forces in Hartree/Å": scaled(forces=1 / HA),
    "forces in kcal/mol/Å": scaled(forces=1 / KCAL),
    "forces in eV/Bohr": scaled(forces=BOHR),
    "forces × 0.001": scaled(forces=1e-3),
    "forces × 50": scaled(forces=50.0),
    "forces × 2": scaled(forces=2.0),
    "gradients in place of forces": scaled(forces=-1.0),
    "energies and forces in Hartree, Bohr": scaled(energy=1 / HA, forces=BOHR / HA),
    "energies and forces in Hartree, Å": scaled(energy=1 / HA, forces=1 / HA),
    "energies and forces in kcal/mol": scaled(energy=1 / KCAL, forces=1 / KCAL),
    "all in atomic units": scaled(energy=1 / HA, forces=BOHR / HA, length=1 / BOHR),
    "lengths in Bohr": scaled(length=1 / BOHR),
    "lengths in nm": scaled(length=0.1),
    "lengths in pm": scaled(length=100.0),
    "stress of the other sign": scaled(stress=-1.0),
    "stress in GPa": scaled(stress=160.2),
    "stress in kbar": scaled(stress=1602.0),
    "energies shuffled": shuffled("energy"),
    "energies of the frame before": shifted,
    "forces shuffled": shuffled("forces"),
    "forces of permuted atoms": permuted,
    "forces of atoms permuted in each frame": permuted_each,
    "axes of the forces exchanged": axes,
    "constant energies": constant("energy"),
    "zero energies": constant("energy", zero=True),
    "zero forces": constant("forces"),
    "zero stress": constant("stress", zero=True),
    "a tenth of the energies 500 eV off": some(0.1, offset(500.0)),
    "half of the energies 500 eV off": some(0.5, offset(500.0)),
    "two energies 20 eV off": some(0.0, offset(20.0)),
    "a tenth of the frames in Hartree": some(0.1, scaled(energy=1 / HA, forces=BOHR / HA)),
    "half of the frames with gradients": some(0.5, scaled(forces=-1.0)),
    "every frame twice": repeated(0.0),
    "every frame twice, with 10⁻⁴ Å of noise": repeated(1e-4),
    "copies with another energy": rivals,
    "an energy that is NaN": not_a_number,
    "atoms on top of each other": overlapping,
}


def verdict(frames: Frames, known: Collection[str] = ()) -> tuple[str, str]:
    """Return caught, told or missed, and by which text; texts that begin like `known` ones tell nothing."""
    try:
        found = census(frames)
        present = {label: 1.0 for label in WEIGHTS if found.counts[label] == len(frames)}
        found.require(present)
    except DataError as error:
        return "caught", str(error)
    texts = [text for text in found.warnings + [p.text for p in found.problems] if text[:START] not in known]
    return ("told", texts[0]) if texts else ("missed", "")


def applies(name: str, frames: Frames) -> bool:
    """Whether a set has the labels that a corruption spoils."""
    forces = any("forces" in atoms.arrays for atoms in frames)
    if "stress" in name:
        return any("stress" in atoms.info for atoms in frames)
    return forces if "forces" in name or "gradients" in name else True


def warm() -> None:
    """Judge a good set, which imports what cases need."""
    census(molecule_frames(20))


@family("wrong data", small=len(CORRUPTIONS), large=20 * len(CORRUPTIONS), seconds=20, warm=warm, together=12)
def wrong_data(arena: Arena) -> Attack:
    """Spoil molecules of the teacher, each time in one of the ways of the table."""
    name = list(CORRUPTIONS)[arena.case % len(CORRUPTIONS)]
    round_ = arena.case // len(CORRUPTIONS)
    frames = molecule_frames(80 if round_ else 40, seed=1 + round_, spread=0.05)
    if not applies(name, frames):
        return f"{name}: not for molecules", lambda: True
    return name, lambda: verdict(CORRUPTIONS[name](frames, arena.rng))[0] != "missed" or "nothing was told"


def table(folder: Path, most: int = 150) -> dict:
    """Spoil some of each file of a folder in every way; plain types."""
    files: dict[str, dict] = {}
    for path in sorted(folder.glob("*.xyz")):
        if path.name.startswith("isolated"):
            continue
        good = read_frames(path, index=f":{most}")
        # What is told of the file as it is, tells nothing of a corruption.
        known = {text[:START] for text in census(good).warnings}
        row = files[path.name] = {"frames": len(good), "told_as_it_is": sorted(known), "outcomes": {}, "told": {}}
        for name, spoil in CORRUPTIONS.items():
            if applies(name, good):
                outcome, text = verdict(spoil([atoms.copy() for atoms in good], np.random.default_rng(0)), known)
                row["outcomes"][name], row["told"][name] = outcome, text[:200]
        half = shared_structures(good, good[: len(good) // 2])
        row["outcomes"]["test file of training frames"] = "caught" if 2 * len(half) >= len(good) - 1 else "missed"
        print(path.name, dict(Counter(row["outcomes"].values())), flush=True)  # noqa: T201
    sums = Counter(outcome for row in files.values() for outcome in row["outcomes"].values())
    kinds: dict[str, Counter] = {}
    for row in files.values():
        for name, outcome in row["outcomes"].items():
            kinds.setdefault(name, Counter())[outcome] += 1
    return {"sums": dict(sums), "kinds": {name: dict(count) for name, count in kinds.items()}, "files": files}


def _multiply(atoms: Atoms, energy: float, forces: float, stress: float) -> None:
    if "energy" in atoms.info:
        atoms.info["energy"] *= energy
    if "forces" in atoms.arrays:
        atoms.arrays["forces"] = atoms.arrays["forces"] * forces
    if "stress" in atoms.info:
        atoms.info["stress"] = atoms.info["stress"] * stress


def _get(atoms: Atoms, label: str):
    return atoms.arrays.get("forces") if label == "forces" else atoms.info.get(label)


def _set(atoms: Atoms, label: str, value: object) -> None:
    if value is None:
        return
    if label == "forces":
        atoms.arrays["forces"] = value
    else:
        atoms.info[label] = value


if __name__ == "__main__":
    found = table(Path(sys.argv[1]))
    write_json(sys.argv[2], found)
    print(found["sums"])  # noqa: T201
