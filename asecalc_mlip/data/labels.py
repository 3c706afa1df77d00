"""Find energies, forces and stresses in a frame and bring them to eV and Å.

Programs and data sets name their labels differently, and ASE moves the names it knows into a calculator. A label that
is overlooked trains nothing, so all usual places are searched, in a fixed order, and the place is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.errors import DataError
from asecalc_mlip.units import LABELS, Label

# In order of preference; case does not matter. An explicit reference goes before a bare name, which some program may
# have written on top of it, and the plain energy before the free energy.
ENERGY_NAMES = ("ref_energy", "dft_energy", "energy", "total_energy", "potential_energy", "free_energy")
FORCES_NAMES = ("ref_forces", "ref_force", "dft_forces", "dft_force", "forces", "force")
STRESS_NAMES = ("ref_stress", "dft_stress", "stress")
VIRIAL_NAMES = ("ref_virial", "ref_virials", "dft_virial", "dft_virials", "virial", "virials")
NAMES = {"energy": ENERGY_NAMES, "forces": FORCES_NAMES, "stress": STRESS_NAMES + VIRIAL_NAMES}

# Beginnings of names in `info` that say something else about a frame.
NO_LABELS = ("temperature", "time", "frame", "md17", "weight", "charge", "spin", "lattice")
# Å between an atom and its images; no crystal has its nearest neighbours that far.
ISOLATED = 8.0
FLAT = 0.3  # Å
LAST_ELEMENT = 99  # as far as the models have a place for an element


def canonical(
    atoms: Atoms, keys: dict[str, str | None], *, energy: float, length: float, force: float, stress: float
) -> Atoms:
    """Move the labels of a frame to their canonical places, in place.

    Parameters
    ----------
    atoms : Atoms
        A frame as a reader made it, maybe with a calculator that holds results.
    keys : dict of str to str or None
        Name of each label in the file, or None to try the usual names.
    energy, length, force, stress : float
        Units of the file in eV, Å, eV/Å and eV/Å³.

    Returns
    -------
    Atoms
        The same object. Results of the calculator that were not used stay in ``info["calculator_…"]``.
    """
    stores = _stores(atoms)
    atoms.calc = None
    found: dict[str, Hit | None] = {label: _find(stores, keys.get(label), NAMES[label]) for label in LABELS}
    rivals = {
        label: name
        for label in ("energy", "forces")
        if not keys.get(label) and (name := _rival(stores, found[label], NAMES[label]))
    }
    _detach(atoms, stores, found)
    if length != 1.0:
        atoms.set_cell(atoms.cell * length, scale_atoms=False)
        atoms.positions *= length
    used = {label: name for label, (_, name, _) in ((k, v) for k, v in found.items() if v is not None)}
    if (hit := found["energy"]) is not None:
        atoms.info["energy"] = _scalar(atoms, hit[2]) * energy
    if (hit := found["forces"]) is not None:
        atoms.set_array("forces", _forces(atoms, hit[2]) * force, float, (3,))
    if (hit := found["stress"]) is not None:
        atoms.info["stress"] = _stress(atoms, hit[1], hit[2], energy, stress)
        if not keys.get("stress") and (name := _rival_virial(atoms, stores, hit, energy, stress)):
            rivals["stress"] = name
    atoms.info["label_keys"] = used
    if rivals:
        atoms.info["label_rivals"] = rivals
    return atoms


def check_frame(atoms: Atoms) -> None:
    """Raise DataError for a frame of which nothing can be computed: unknown elements, a cell without volume."""
    name = frame_name(atoms)
    if len(atoms) == 0:
        raise DataError(f"{name} has no atoms: leave it out")
    unknown = sorted({int(z) for z in atoms.numbers if not 1 <= z <= LAST_ELEMENT})
    if unknown:
        raise DataError(f"{name} has the atomic numbers {unknown[:5]}; elements from 1 to {LAST_ELEMENT} are known")
    if np.isfinite(atoms.cell.array).all() and np.isfinite(atoms.positions).all() and (text := broken_cell(atoms)):
        raise DataError(f"{name} {text}")


def frame_name(atoms: Atoms, position: int | None = None) -> str:
    """Name a frame as the user knows it: its file and its place there."""
    if "frame_file" in atoms.info:
        return f"frame {atoms.info['frame_index']} of {atoms.info['frame_file']}"
    return "a frame" if position is None else f"frame {position}"


def unused_names(atoms: Atoms, label: Label) -> list[str]:
    """Return the names under which a frame may have a label that was not found: those with values of its shape."""
    if label == "forces":
        known = ("numbers", "positions", "momenta", "velocities", "initial_magmoms")
        return [k for k, v in atoms.arrays.items() if k not in known and v.shape == (len(atoms), 3)]
    sizes = (1,) if label == "energy" else (6, 9)
    return [k for k, v in atoms.info.items() if not k.lower().startswith(NO_LABELS) and _numbers(v) in sizes]


def is_isolated_atom(atoms: Atoms) -> bool:
    """Return whether a frame holds one atom that feels no other, so that its energy is an E0 and no structure.

    Parameters
    ----------
    atoms : Atoms
        One atom, open or in a box whose lattice vectors are longer than 8 Å (in a smaller box it is a crystal), or one
        that says so by ``info["config_type"] = "IsolatedAtom"``, the convention of MACE and GAP.
    """
    if len(atoms) != 1:
        return False
    if str(atoms.info.get("config_type", "")).lower().replace("_", "") == "isolatedatom" or not atoms.pbc.any():
        return True
    vectors = atoms.cell.array[atoms.pbc]
    there = vectors[vectors.any(axis=1)]
    if not np.isfinite(there).all() or (len(there) and np.linalg.matrix_rank(there) < len(there)):
        return False  # `broken_cell` says what is wrong
    lengths = np.linalg.norm(minkowski_reduce(atoms.cell.array, atoms.pbc)[0], axis=1)[atoms.pbc]
    return not bool(((lengths > 0) & (lengths <= ISOLATED)).any())  # a missing lattice vector is no image


def without_open_stress(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return frames, those that are not periodic in three directions without a stress: some programs write zeros."""
    found = []
    for atoms in frames:
        if "stress" in atoms.info and not atoms.pbc.all():
            atoms = atoms.copy()
            del atoms.info["stress"]
        found.append(atoms)
    return found


def broken_cell(atoms: Atoms) -> str | None:
    """Say what is wrong with the cell of a periodic frame; None: nothing, or it is an isolated atom."""
    if not atoms.pbc.any() or is_isolated_atom(atoms):
        return None
    vectors = atoms.cell.array[atoms.pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.all():
        return "is periodic without a lattice vector there: complete its cell"
    # The planes of a lattice are further apart than this in any crystal.
    heights = np.linalg.svd(vectors, compute_uv=False)[-1]
    if heights < FLAT or np.linalg.svd(vectors / lengths[:, None], compute_uv=False)[-1] < 1e-3:
        return f"has a cell without volume (its flattest direction is {heights:.2g} Å thick): correct its lattice"
    return None


def _numbers(value: Any) -> int:
    """How many real numbers with fractions a value has; integers and words are no labels."""
    array = np.asarray(value) if isinstance(value, (float, list, tuple, np.ndarray, np.generic)) else np.zeros(0)
    return array.size if array.dtype.kind == "f" else 0


Hit = tuple[str, str, Any]


def _stores(atoms: Atoms) -> dict[str, dict[str, Any]]:
    """Return every place where labels may be, in the order of search."""
    arrays = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    results = dict(getattr(atoms.calc, "results", None) or {})
    return {"info": dict(atoms.info), "arrays": arrays, "calculator": results}


def _find(stores: dict[str, dict[str, Any]], key: str | None, names: tuple[str, ...]) -> Hit | None:
    """Return store, key and value of the first name that is there."""
    for name in (key,) if key else names:
        for store, content in stores.items():
            for candidate, value in content.items():
                if value is not None and (candidate == name or (not key and candidate.lower() == name)):
                    return store, candidate, value
    return None


def _rival(stores: dict[str, dict[str, Any]], taken: Hit | None, names: tuple[str, ...]) -> str | None:
    """Return another usual name under which a frame has other values than those that are taken."""
    if taken is None:
        return None
    for store, content in stores.items():
        for name, value in content.items():
            usual = name.lower() in names and name.lower() != "free_energy"
            if usual and (store, name) != taken[:2] and _numbers(value) and _unlike(value, taken[2]):
                return name if store != "calculator" else f"{name} of the calculator"
    return None


def _rival_virial(
    atoms: Atoms, stores: dict[str, dict[str, Any]], taken: Hit, energy: float, stress: float
) -> str | None:
    """Return the name of a virial of a frame that says another stress than the one that is taken."""
    other = None if taken[1].lower() in VIRIAL_NAMES or atoms.cell.rank < 3 else _find(stores, None, VIRIAL_NAMES)
    if other is None:
        return None
    try:
        found = _stress(atoms, other[1], other[2], energy, stress)
    except DataError:  # of what is not used
        return None
    return None if np.allclose(found, atoms.info["stress"], rtol=0.01, atol=1e-5) else other[1]


def _unlike(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.size != b.size or not np.allclose(a.reshape(-1), b.reshape(-1), rtol=1e-6, atol=1e-3)


def _detach(atoms: Atoms, stores: dict[str, dict[str, Any]], found: dict[str, Hit | None]) -> None:
    """Take the labels that were found from their old places, and keep what was not used under another name."""
    taken = {(hit[0], hit[1]) for hit in found.values() if hit is not None}
    for store, name in taken:
        if store == "info":
            atoms.info.pop(name, None)
        elif store == "arrays":
            del atoms.arrays[name]
    for name, value in stores["calculator"].items():
        if ("calculator", name) not in taken and value is not None:
            atoms.info[f"calculator_{name}"] = value
    # A second energy under the canonical name would be overwritten.
    for label in ("energy", "stress"):
        if label in atoms.info:
            atoms.info[f"other_{label}"] = atoms.info.pop(label)
    if "forces" in atoms.arrays:
        atoms.set_array("other_forces", atoms.arrays.pop("forces"))


def _scalar(atoms: Atoms, value: Any) -> float:
    try:
        if np.asarray(value).dtype.kind == "b":  # a name without a value in extended XYZ
            raise TypeError
        (number,) = np.asarray(value, dtype=float).reshape(-1)
    except (ValueError, TypeError):
        raise DataError(f"the energy of {frame_name(atoms)} is {value!r}, not one number") from None
    return float(number)


def _forces(atoms: Atoms, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=float).reshape(len(atoms), 3)
    except (ValueError, TypeError):
        raise DataError(
            f"the forces of {frame_name(atoms)} have shape {np.shape(value)}; expected ({len(atoms)}, 3)"
        ) from None


def _stress(atoms: Atoms, name: str, value: Any, energy: float, stress: float) -> np.ndarray:
    """Return a 3×3 stress in eV/Å³ from 6 (xx yy zz yz xz xy), 9 or 3×3 numbers; a virial is −V times the stress."""
    try:
        if isinstance(value, str):  # [[xx, xy, xz], [yx, …]] of extended XYZ, which ASE does not take apart
            value = re.findall(r"[^\s,\[\]]+", value)
        flat = np.asarray(value, dtype=float).reshape(-1)
        tensor = np.asarray(voigt_6_to_full_3x3_stress(flat)) if flat.size == 6 else flat.reshape(3, 3)
    except (ValueError, TypeError):
        raise DataError(
            f"the stress of {frame_name(atoms)} has shape {np.shape(value)}; expected (3, 3), (9,) or Voigt (6,)"
        ) from None
    if "virial" in name.lower():
        if atoms.cell.rank < 3:
            raise DataError(f"{frame_name(atoms)} has a virial ({name}) but no cell to divide it by")
        return -tensor * energy / atoms.get_volume()
    return tensor * stress
