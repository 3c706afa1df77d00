"""Phonons of a crystal by finite displacements (phonopy): band structure, density of states, thermal properties.

The crystal is relaxed tightly first, cell included: phonons of a loosely relaxed cell have imaginary modes that the
model does not have. Imaginary frequencies are given as negative numbers and told in every report.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.probes.constraints import check_crystal, free_copy
from asecalc_mlip.probes.relax import relax
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

__all__ = ["IMAGINARY_THz", "PhononResult", "phonons", "supercell_for"]

# THz; the acoustic modes at Γ come out of finite displacements with up to this much, of either sign.
IMAGINARY_THz = 0.05
SHORTEST_A = 12.0


@dataclass(frozen=True, repr=False)
class PhononResult:
    """Phonons; frequencies in THz (1 THz is 33.36 cm⁻¹ or 4.136 meV), imaginary ones negative.

    Attributes
    ----------
    path_1_per_A : (n,) array
        Length along the path through the Brillouin zone, in 1/Å without 2π.
    frequencies_THz : (n, 3 N_prim) array
        Along the path.
    qpoints : (n, 3) array
        The same points in reciprocal lattice vectors of the primitive cell.
    labels, label_positions_1_per_A : list of str, array
        Names of the special points, and where they are.
    dos_frequencies_THz, dos_per_THz : array
        Total density of states, whose integral is 3 N_prim.
    temperatures_K, free_energy_kJ_per_mol, entropy_J_per_K_mol, heat_capacity_J_per_K_mol : array
        Of the primitive cell; imaginary modes are left out of these sums.
    lowest_THz, lowest_at : float, str
        The lowest frequency on path and mesh, and where.
    imaginary_percent : float
        Of all modes on the mesh.
    max_force_eV_per_A, relaxed : float, bool
        Of the crystal before it was displaced.
    primitive : Atoms
        Primitive cell.
    supercell : (int, int, int)
        (3,) repetitions.
    displacement_A, n_displacements : float, int
        Size and number of displaced cells.
    mesh : (int, int, int)
        (3,) points.
    spacegroup, model : str
        Names.
    phonopy : Any
        The `phonopy.Phonopy` object, for everything else.
    """

    path_1_per_A: np.ndarray
    frequencies_THz: np.ndarray
    qpoints: np.ndarray
    labels: list[str]
    label_positions_1_per_A: np.ndarray
    dos_frequencies_THz: np.ndarray
    dos_per_THz: np.ndarray
    temperatures_K: np.ndarray
    free_energy_kJ_per_mol: np.ndarray
    entropy_J_per_K_mol: np.ndarray
    heat_capacity_J_per_K_mol: np.ndarray
    lowest_THz: float
    lowest_at: str
    imaginary_percent: float
    max_force_eV_per_A: float
    relaxed: bool
    primitive: Atoms
    supercell: tuple[int, int, int]
    displacement_A: float
    n_displacements: int
    mesh: tuple[int, int, int]
    spacegroup: str
    model: str
    phonopy: Any

    @property
    def has_imaginary(self) -> bool:
        """Whether a frequency lies below what rounding does to the acoustic modes."""
        return self.lowest_THz < -IMAGINARY_THz

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names; without the phonopy object."""
        plain = {k: v for k, v in self.__dict__.items() if k not in ("phonopy", "primitive")}
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in plain.items()}
        return plain | {
            "has_imaginary": self.has_imaginary,
            "symbols": self.primitive.get_chemical_symbols(),
            "scaled_positions": self.primitive.get_scaled_positions().tolist(),
            "cell_A": self.primitive.cell.array.tolist(),
        }

    def __repr__(self) -> str:
        at_300 = int(np.abs(self.temperatures_K - 300.0).argmin())
        state = (
            f"IMAGINARY modes: {self.imaginary_percent:.2g} % of the mesh, lowest {self.lowest_THz:.3f} THz at "
            f"{self.lowest_at}: this crystal is not stable in this model, unless a larger supercell changes that "
            "(enlarge it until the phonons stay the same)"
            if self.has_imaginary
            else f"no imaginary modes, lowest {self.lowest_THz:+z.3f} THz at {self.lowest_at}"
        )
        forces = "" if self.relaxed else f"\n  WARNING: not relaxed, largest force {self.max_force_eV_per_A:.2g} eV/Å"
        return (
            f"{self.primitive.get_chemical_formula('metal')}, {self.spacegroup}, {self.model}: phonons up to "
            f"{self.frequencies_THz.max():.2f} THz; {state}\n  supercell {'×'.join(map(str, self.supercell))}, "
            f"{self.n_displacements} displacements of {self.displacement_A:g} Å, mesh {'×'.join(map(str, self.mesh))}; "
            f"at {self.temperatures_K[at_300]:g} K F {self.free_energy_kJ_per_mol[at_300]:.3f} kJ/mol, S "
            f"{self.entropy_J_per_K_mol[at_300]:.2f} and C_v {self.heat_capacity_J_per_K_mol[at_300]:.2f} J/K/mol per "
            f"primitive cell{forces}"
        )


def phonons(
    atoms: Atoms,
    calc: Any,
    *,
    supercell: tuple[int, int, int] | None = None,
    displacement_A: float = 0.01,
    mesh: tuple[int, int, int] = (12, 12, 12),
    points_per_segment: int = 40,
    temperatures_K: np.ndarray | None = None,
    relax_first: bool = True,
    fmax_eV_per_A: float = 1e-4,
    steps: int = 1000,
    symprec_A: float = 1e-3,
) -> PhononResult:
    """Take the phonons of a crystal.

    Parameters
    ----------
    atoms : Atoms
        A unit cell; its primitive cell is found by symmetry.
    calc : ASE calculator
        In float64. With `evaluate` all displaced cells go in batches.
    supercell : (3,) int, optional
        Repetitions of the given cell; default: as many as make every height 12 Å.
    displacement_A : float
        Å.
    mesh : (int, int, int)
        Of the density of states and thermal properties.
    points_per_segment : int
        Between special points of the path.
    temperatures_K : array, optional
        Default: 0 to 1000 K in steps of 10.
    relax_first : bool
        Relax cell and atoms before; False takes the crystal as it is and says how large its forces are.
    fmax_eV_per_A, steps : float, int
        Of that relaxation, which keeps the space group.
    symprec_A : float
        Å; for finding the symmetry.

    Raises
    ------
    InputError
        For structures that are not crystals or feel no force, and where phonopy is not installed.
    """
    _check(atoms, mesh, displacement_A)
    atoms = free_copy(atoms, "phonons")
    crystal, relaxed, force = _start(atoms, calc, relax_first, fmax_eV_per_A, steps)
    repeats = supercell_for(crystal) if supercell is None else _checked(supercell)
    found = _phonopy(crystal, repeats, symprec_A)
    n_displacements = _force_constants(found, calc, displacement_A)
    bands = _bands(found, points_per_segment)
    found.run_mesh(list(mesh), is_gamma_center=True)
    lowest, where, share = _lowest(found, bands)
    return PhononResult(
        **bands,
        **_density_of_states(found),
        **_thermal(found, temperatures_K),
        lowest_THz=lowest,
        lowest_at=where,
        imaginary_percent=share,
        max_force_eV_per_A=force,
        relaxed=relaxed,
        primitive=_as_atoms(found.primitive),
        supercell=repeats,
        displacement_A=displacement_A,
        n_displacements=n_displacements,
        mesh=tuple(int(n) for n in mesh),  # type: ignore[arg-type]
        spacegroup=str(found.symmetry.get_international_table()),
        model=model_name(calc),
        phonopy=found,
    )


def supercell_for(atoms: Atoms, shortest_A: float = SHORTEST_A) -> tuple[int, int, int]:
    """Return the repetitions that make every height of the cell `shortest_A` or more."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    a, b, c = (max(1, int(np.ceil(shortest_A / height - 1e-6))) for height in heights)
    return a, b, c


def _check(atoms: Atoms, mesh: tuple[int, int, int], displacement_A: float) -> None:
    if not atoms.pbc.all():
        raise InputError(
            f"phonons need a crystal, pbc is {atoms.pbc.tolist()}; for a molecule use 'asecalc vibrations'"
        )
    check_crystal(atoms, "phonons need")
    try:
        import phonopy  # noqa: F401
    except ModuleNotFoundError as error:
        raise needs("phonons", error) from None
    if len(tuple(mesh)) != 3 or min(mesh) < 1:
        raise InputError(f"mesh is {tuple(mesh)}; give three numbers from 1 on, such as 20 20 20")
    if not 0 < displacement_A < np.inf:
        raise InputError(f"displacement_A is {displacement_A} Å; it must be above 0, often 0.01")


def _start(atoms: Atoms, calc: Any, relax_first: bool, fmax: float, steps: int) -> tuple[Atoms, bool, float]:
    """Return the crystal to displace, whether it is relaxed, and its largest force (eV/Å)."""
    if relax_first:
        result = relax(atoms, calc, fmax_eV_per_A=fmax, steps=steps, cell="full", keep_symmetry=True)
        return result.atoms, result.converged, result.max_force_eV_per_A
    force = float(np.linalg.norm(energies_and_forces(calc, [atoms])[1][0], axis=1).max())
    return atoms.copy(), force <= max(fmax, 1e-3), force


def _checked(supercell: tuple[int, int, int]) -> tuple[int, int, int]:
    repeats = tuple(int(n) for n in supercell)
    if len(repeats) != 3 or min(repeats) < 1:
        raise InputError(f"supercell is {supercell}; give three numbers of repetitions from 1 on, such as 4 4 4")
    return repeats


def _phonopy(crystal: Atoms, repeats: tuple[int, int, int], symprec_A: float) -> Any:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    if crystal.cell.handedness < 0:
        # phonopy takes right-handed vectors only; all three turned round span the same lattice.
        crystal.set_cell(-crystal.cell.array)
    unit = PhonopyAtoms(
        symbols=crystal.get_chemical_symbols(),
        cell=crystal.cell.array,
        scaled_positions=crystal.get_scaled_positions(),
        masses=crystal.get_masses(),
    )
    with warnings.catch_warnings():
        # phonopy tells that it once had another default, also to those who say what they want.
        warnings.filterwarnings("ignore", message="primitive_matrix")
        return Phonopy(unit, np.diag(repeats), primitive_matrix="auto", symprec=symprec_A)


def _force_constants(found: Any, calc: Any, displacement_A: float) -> int:
    """Compute the force constants; return how many displaced cells that took."""
    found.generate_displacements(distance=displacement_A)
    cells = [_as_atoms(cell) for cell in found.supercells_with_displacements or []]
    found.forces = np.array(energies_and_forces(calc, cells)[1])
    if not np.any(found.forces):
        raise InputError(
            "no displacement of an atom gives a force: the model does not hold this crystal together, perhaps as its "
            "atoms are farther apart than the cutoff; look at its cell"
        )
    found.produce_force_constants()
    found.symmetrize_force_constants(show_drift=False)
    return len(cells)


def _density_of_states(found: Any) -> dict[str, Any]:
    found.run_total_dos()
    dos = found.get_total_dos_dict()
    return {
        "dos_frequencies_THz": np.asarray(dos["frequency_points"]),
        "dos_per_THz": np.asarray(dos["total_dos"]),
    }


def _thermal(found: Any, temperatures_K: np.ndarray | None) -> dict[str, Any]:
    temperatures = np.arange(0.0, 1001.0, 10.0) if temperatures_K is None else np.asarray(temperatures_K, float)
    # Imaginary modes have no thermal properties; phonopy leaves out what is below this.
    found.run_thermal_properties(temperatures=temperatures, cutoff_frequency=1e-3)
    thermal = found.get_thermal_properties_dict()
    return {
        "temperatures_K": np.asarray(thermal["temperatures"]),
        "free_energy_kJ_per_mol": np.asarray(thermal["free_energy"]),
        "entropy_J_per_K_mol": np.asarray(thermal["entropy"]),
        "heat_capacity_J_per_K_mol": np.asarray(thermal["heat_capacity"]),
    }


def _as_atoms(cell: Any) -> Atoms:
    return Atoms(cell.symbols, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True)


def _bands(found: Any, points: int) -> dict[str, Any]:
    """Frequencies along the path of the lattice (Setyawan, Curtarolo, Comput. Mater. Sci. 49 (2010) 299; by ASE)."""
    path = _as_atoms(found.primitive).cell.bandpath()
    segments, names = [], []
    for part in path.path.split(","):
        special = _names(part, path.special_points)
        names.append(special)
        segments += [
            np.linspace(path.special_points[a], path.special_points[b], points)
            for a, b in zip(special, special[1:], strict=False)
        ]
    # Parts that do not hang together continue where the last one ended, with both names at the joint.
    found.run_band_structure(segments)
    data = found.get_band_structure_dict()
    positions, labels, index = [], [], 0
    for special in names:
        for k, name in enumerate(special):
            segment = data["distances"][index + min(k, len(special) - 2)]
            positions.append(float(segment[0] if k < len(special) - 1 else segment[-1]))
            labels.append(name)
        index += len(special) - 1
    return {
        "path_1_per_A": np.concatenate(data["distances"]),
        "frequencies_THz": np.concatenate(data["frequencies"]),
        "qpoints": np.concatenate(data["qpoints"]),
        "labels": labels,
        "label_positions_1_per_A": np.array(positions),
    }


def _names(part: str, known: dict[str, Any]) -> list[str]:
    """Names of special points such as G, X, K1 out of "GXK1"."""
    found: list[str] = []
    while part:
        name = max((n for n in known if part.startswith(n)), key=len)
        found.append(name)
        part = part[len(name) :]
    return found


def _lowest(found: Any, bands: dict[str, Any]) -> tuple[float, str, float]:
    """Lowest frequency, where it is, and the share of imaginary modes on the mesh in per cent."""
    mesh = found.get_mesh_dict()
    weights = np.repeat(mesh["weights"][:, None], mesh["frequencies"].shape[1], axis=1)
    share = 100.0 * float(weights[mesh["frequencies"] < -IMAGINARY_THz].sum() / weights.sum())
    frequencies = np.concatenate([bands["frequencies_THz"].min(axis=1), mesh["frequencies"].min(axis=1)])
    qpoints = np.concatenate([bands["qpoints"], mesh["qpoints"]])
    k = int(frequencies.argmin())
    where = f"q = ({', '.join(f'{q:.3f}' for q in qpoints[k])})"
    if k < len(bands["qpoints"]):
        near = np.abs(bands["label_positions_1_per_A"] - bands["path_1_per_A"][k])
        if near.min() < 1e-8:
            where = f"{bands['labels'][int(near.argmin())]}, {where}"
    return float(frequencies[k]), where, share
