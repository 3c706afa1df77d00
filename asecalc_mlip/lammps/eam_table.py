r"""An EAM as a table for LAMMPS: `pair_style eam/fs`, the setfl format in Finnis and Sinclair's form.

    E = Σ_i F_a(Σ_j ρ_ab(r_ij)) + ½ Σ_{i≠j} φ_ab(r_ij)

That form is the one where the density an atom feels depends on both elements. F is B ρ (ρ − 2ρ0), which is zero for an
isolated atom as the format wants it, φ the Morse pair with its ZBL core, as r·φ in the file. The reference energies E0
have no place in it: energies are those relative to isolated atoms, and the comment lines say which E0 were left out.

Source: https://docs.lammps.org/pair_eam.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols, covalent_radii

from asecalc_mlip.calculators.eam import EAMCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_writable, write_text

__all__ = ["TableCheck", "check_eam_fs", "export_eam_fs"]

# Points of each function. Splines through them err by less than 1e-6 eV/atom on silica.
N_DISTANCES, N_DENSITIES = 8000, 8000
# Å; below, φ of the first point is kept, as no two atoms come so close and r·φ must end somewhere.
CLOSEST = 0.05
# Densities reach up to that of an atom whose neighbours, so many, are at this share of the covalent bond.
CROWD, SQUEEZED = 24, 0.6
PER_LINE = 5


@dataclass(frozen=True)
class TableCheck:
    """Largest difference between a table and the model it was made from, without E0.

    Attributes
    ----------
    reader : str
        What read the table.
    n_structures : int
    energy : float
        eV per atom.
    forces : float
        eV/Å.
    """

    reader: str
    n_structures: int
    energy: float
    forces: float

    def __repr__(self) -> str:
        return (
            f"{self.reader} against the model on {self.n_structures} structures: energies differ by at most "
            f"{self.energy:.1e} eV/atom, forces by {self.forces:.1e} eV/Å"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return dict(vars(self))


def export_eam_fs(
    calculator: EAMCalculator,
    path: str | Path,
    *,
    n_distances: int = N_DISTANCES,
    n_densities: int = N_DENSITIES,
    largest_density: float | None = None,
) -> Path:
    """Write an EAM as a table.

    Parameters
    ----------
    calculator : EAMCalculator
        On the CPU; of dtype float64 for all digits.
    path : path
        Ends with ``.eam.fs``, by which other programs know the format.
    n_distances, n_densities : int
        Points of φ and ρ, and of F.
    largest_density : float, optional
        Where F ends; by default beyond what any structure reaches.

    Raises
    ------
    InputError
        For another ending, and too few points.
    """
    path = Path(path)
    if not path.name.endswith(".eam.fs"):
        raise InputError(f"{path}: a table of this format ends with .eam.fs")
    check_writable(path)
    if min(n_distances, n_densities) < 100:
        raise InputError(f"{n_distances} distances and {n_densities} densities; at least 100 points of each are needed")
    network = calculator.network
    # The step is such that the last point is the cutoff, where everything is zero.
    distances = np.linspace(0.0, network.cutoff, n_distances)
    functions = {(a, b): _pair(calculator, a, b, distances) for a in network.numbers for b in network.numbers}
    top = largest_density or _largest_density(functions, distances)
    densities = np.linspace(0.0, top, n_densities)
    lines = [*_head(calculator, path.name, distances, densities)]
    for a in network.numbers:
        lines += [f"{a} {atomic_masses[a]:.6f} 0.0 none", *_numbers(_embedding(calculator, a, densities))]
        # The density that an atom of the second element feels of one of the first.
        lines += [line for b in network.numbers for line in _numbers(functions[a, b][1])]
    for k, a in enumerate(network.numbers):
        for b in network.numbers[: k + 1]:
            lines += _numbers(distances * functions[a, b][0])
    write_text(path, "\n".join(lines) + "\n")
    return path


def check_eam_fs(path: str | Path, calculator: EAMCalculator, structures: Sequence[Atoms]) -> TableCheck:
    """Compare a table, as ASE's own EAM calculator reads it, with the model on some structures.

    Give a calculator of dtype float64, or its rounding is what is measured.
    """
    from ase.calculators.eam import EAM

    energy = forces = 0.0
    for atoms in structures:
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        ours = calculator.evaluate([copy])[0]
        offset = calculator.components(copy)["offset"]
        copy.calc = EAM(potential=str(path))
        energy = max(energy, abs(copy.get_potential_energy() - ours["energy"] + offset) / len(copy))
        forces = max(forces, float(np.abs(copy.get_forces() - ours["forces"]).max()))
    return TableCheck("ASE's EAM calculator", len(structures), energy, forces)


def _pair(calculator: EAMCalculator, a: int, b: int, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ (eV) and ρ of two elements at distances (n,)."""
    network, scale = calculator.network, calculator.potential.scale
    r = torch.from_numpy(np.maximum(distances, CLOSEST)).to(network.bond.dtype)
    pairs = torch.full(r.shape, network.pair_index(a, b))
    with torch.no_grad():
        phi, rho = network.pair_terms(r, pairs)
        if network.zbl is not None:
            phi = phi + network.zbl.pair_energy(torch.full(r.shape, a), torch.full(r.shape, b), r)
    return scale * phi.double().numpy(), rho.double().numpy()


def _embedding(calculator: EAMCalculator, a: int, densities: np.ndarray) -> np.ndarray:
    """F (eV) of an element at densities (n,)."""
    network = calculator.network
    if not network.density:
        return np.zeros_like(densities)
    rho = torch.from_numpy(densities).to(network.bond.dtype)
    species = torch.full(rho.shape, network.numbers.index(a))
    with torch.no_grad():
        return calculator.potential.scale * network.embedding_energy(rho, species).double().numpy()


def _largest_density(functions: dict, distances: np.ndarray) -> float:
    squeezed = [
        float(np.interp(SQUEEZED * (covalent_radii[a] + covalent_radii[b]), distances, rho))
        for (a, b), (_, rho) in functions.items()
    ]
    return max(CROWD * max(squeezed), 1.0)


def _head(calculator: EAMCalculator, name: str, distances: np.ndarray, densities: np.ndarray) -> Iterator[str]:
    """Three comment lines, the elements, and the grids."""
    symbols = [chemical_symbols[z] for z in calculator.network.numbers]
    e0 = calculator.potential.reference_energies
    left_out = ", ".join(f"{s} {e0[z]:.6f}" for s, z in zip(symbols, calculator.network.numbers, strict=True))
    yield f"{name} made by asecalc eam export from {calculator.model.path.name}; LAMMPS: pair_style eam/fs, units metal"
    yield f"Without the reference energies E0, which this format cannot hold: add {left_out} eV per atom"
    yield "Morse pairs with their core, embedding B*rho*(rho - 2*rho0); doi 10.1021/acs.jcim.6c00826"
    yield f"{len(symbols)} {' '.join(symbols)}"
    steps = (densities[1] - densities[0], distances[1] - distances[0])
    yield f"{len(densities)} {steps[0]:.16e} {len(distances)} {steps[1]:.16e} {calculator.network.cutoff:.16e}"


def _numbers(values: np.ndarray) -> Iterator[str]:
    for start in range(0, len(values), PER_LINE):
        yield " ".join(f"{value:.16e}" for value in values[start : start + PER_LINE])
