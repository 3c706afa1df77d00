"""Elastic constants by stress over strain (matscipy), and what follows from them.

    σ_i = Σ_j C_ij ε_j   (Voigt; atoms relaxed in every strained cell)
    Voigt   K = (C11+C22+C33 + 2(C12+C13+C23))/9,  G = (C11+C22+C33 − C12−C13−C23 + 3(C44+C55+C66))/15
    Reuss   the same of the compliance S = C⁻¹: K = 1/(S11+S22+S33 + 2(S12+S13+S23)), G = 15/(4(…) − 4(…) + 3(…))
    Hill    means of both; E = 9KG/(3K+G), ν = (3K−2G)/(2(3K+G))

The crystal is mechanically stable if all eigenvalues of C are positive (Mouhat, Coudert, PRB 90 (2014) 224104).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS

from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.probes.constraints import check_crystal, free_copy
from asecalc_mlip.probes.relax import relax
from asecalc_mlip.probes.single_points import model_name

__all__ = ["ElasticConstants", "elastic_constants"]


@dataclass(frozen=True, repr=False)
class ElasticConstants:
    """Answer of `elastic_constants`; axes are those of the cell that was given.

    Attributes
    ----------
    constants_GPa, errors_GPa : (6, 6) array
        And their standard errors of the fit.
    bulk_modulus_GPa, shear_modulus_GPa, youngs_modulus_GPa : float
        Hill means.
    poissons_ratio : float
        Hill mean.
    eigenvalues_GPa : (6,) array
        Of the constants, ascending.
    symmetry : str
        That was assumed.
    residual_stress_GPa : float
        Of the relaxed crystal, largest component.
    converged : bool
        Whether the crystal was relaxed, and its atoms in every strained cell.
    cell_A : (6,) lengths and angles of the relaxed crystal
    formula, model : str
        Names.
    """

    constants_GPa: np.ndarray
    errors_GPa: np.ndarray
    bulk_modulus_GPa: float
    shear_modulus_GPa: float
    youngs_modulus_GPa: float
    poissons_ratio: float
    eigenvalues_GPa: np.ndarray
    symmetry: str
    residual_stress_GPa: float
    converged: bool
    cell_lengths_A_angles_deg: np.ndarray
    formula: str
    model: str

    @property
    def stable(self) -> bool:
        """Whether no strain lowers the energy."""
        return bool(self.eigenvalues_GPa[0] > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        found = asdict(self)
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}
        return plain | {"stable": self.stable}

    def __repr__(self) -> str:
        assumed = "no symmetry assumed" if self.symmetry == "triclinic" else f"taken as {self.symmetry}"
        head = (
            f"{self.formula}, {self.model}, {assumed}: K {self.bulk_modulus_GPa:.1f}, G "
            f"{self.shear_modulus_GPa:.1f}, E {self.youngs_modulus_GPa:.1f} GPa, ν {self.poissons_ratio:.3f} (Hill)"
        )
        rows = ["  " + " ".join(f"{value:8.1f}" for value in row) for row in self.constants_GPa]
        notes = [] if self.stable else [f"  WARNING: unstable, lowest eigenvalue {self.eigenvalues_GPa[0]:.1f} GPa"]
        if not self.converged:
            notes.append("  WARNING: the crystal, or its atoms in a strained cell, were not fully relaxed")
        title = "  stiffness C, GPa, in Voigt order (xx yy zz yz xz xy):"
        return "\n".join([head, title, *rows, *notes])


def elastic_constants(
    atoms: Atoms,
    calc: Any,
    *,
    symmetry: str = "triclinic",
    strain: float = 0.004,
    n_strains: int = 5,
    fmax_eV_per_A: float = 1e-3,
    relax_first: bool = True,
    steps: int = 500,
) -> ElasticConstants:
    """Take the elastic constants of a crystal.

    Parameters
    ----------
    atoms : Atoms
    calc : ASE calculator
        With stress.
    symmetry : str
        As matscipy names it: "cubic", "hexagonal", "trigonal_high", "tetragonal_high", "orthorhombic", "triclinic"
        (which assumes nothing and strains all ways). For all others the crystal must lie as matscipy expects.
    strain : float
        Largest strain.
    n_strains : int
        Of each kind, 3 or more.
    fmax_eV_per_A : float
        For the cell and for the atoms in each strained one.
    relax_first : bool
        Relax cell and atoms before; False takes the crystal as it is.
    steps : int
        Of each relaxation, at most.

    Raises
    ------
    InputError
        For structures that are not crystals or have no stiffness, unknown symmetries, models without stress.
    """
    try:
        from matscipy.elasticity import fit_elastic_constants, strain_patterns
    except ModuleNotFoundError as error:
        raise needs("elastic constants", error) from None
    known = sorted(name for name in strain_patterns if name)
    if symmetry not in known:
        raise InputError(f"symmetry is {symmetry!r}; allowed: {', '.join(known)}")
    check_crystal(atoms, "elastic constants need")
    if n_strains < 3 or not 0 < strain < 0.1:
        raise InputError(f"{n_strains} strains up to {strain}: take 3 or more, up to 0.1, often 0.004")
    atoms = free_copy(atoms, "elastic constants")
    start = relax(
        atoms,
        calc,
        fmax_eV_per_A=fmax_eV_per_A,
        steps=steps if relax_first else 1,
        cell="full" if relax_first else "fixed",
    )
    crystal = start.atoms if relax_first else _with(atoms, calc)
    crystal.set_constraint()
    moving, ended = len(atoms) > 1, list[bool]()
    constants, errors = fit_elastic_constants(
        crystal,
        symmetry=symmetry,
        N_steps=n_strains,
        delta=2.0 * strain / (n_strains - 1),
        optimizer=partial(_Recorded, ended) if moving else None,
        verbose=False,
        **({"fmax": fmax_eV_per_A, "steps": steps} if moving else {}),
    )
    c, relaxed = np.asarray(constants) / units.GPa, start.converged and all(ended)
    return _result(c, np.asarray(errors) / units.GPa, crystal, relaxed, symmetry, calc)


class _Recorded(BFGS):
    """Optimizer that notes whether it reached its aim, which matscipy does not ask."""

    def __init__(self, ended: list[bool], atoms: Atoms, logfile: Any = None):
        super().__init__(atoms, logfile=logfile)
        self._ended = ended

    def run(self, *arguments: Any, **options: Any) -> bool:
        """Run and note."""
        self._ended.append(bool(super().run(*arguments, **options)))
        return self._ended[-1]


def _result(
    c: np.ndarray, errors: np.ndarray, crystal: Atoms, relaxed: bool, symmetry: str, calc: Any
) -> ElasticConstants:
    try:
        bulk, shear = hill_moduli(c)
    except np.linalg.LinAlgError:
        raise InputError(
            "a strain of this crystal needs no stress at all: the model does not hold it together, perhaps as its "
            "atoms are farther apart than the cutoff; look at its cell, or relax it first"
        ) from None
    return ElasticConstants(
        constants_GPa=c,
        errors_GPa=errors,
        bulk_modulus_GPa=bulk,
        shear_modulus_GPa=shear,
        youngs_modulus_GPa=9.0 * bulk * shear / (3.0 * bulk + shear),
        poissons_ratio=(3.0 * bulk - 2.0 * shear) / (2.0 * (3.0 * bulk + shear)),
        eigenvalues_GPa=np.linalg.eigvalsh(0.5 * (c + c.T)),
        symmetry=symmetry,
        residual_stress_GPa=float(np.abs(crystal.get_stress()).max() / units.GPa),
        converged=relaxed,
        cell_lengths_A_angles_deg=crystal.cell.cellpar(),
        formula=crystal.get_chemical_formula("metal"),
        model=model_name(calc),
    )


def hill_moduli(c: np.ndarray) -> tuple[float, float]:
    """Return bulk and shear modulus, Hill means, of elastic constants (6, 6), in their unit."""
    s = np.linalg.inv(c)

    def sums(m):
        return np.trace(m[:3, :3]), m[0, 1] + m[0, 2] + m[1, 2], np.trace(m[3:, 3:])

    (d, o, q), (sd, so, sq) = sums(c), sums(s)
    bulk = 0.5 * ((d + 2 * o) / 9.0 + 1.0 / (sd + 2 * so))
    shear = 0.5 * ((d - o + 3 * q) / 15.0 + 15.0 / (4 * sd - 4 * so + 3 * sq))
    return float(bulk), float(shear)


def _with(atoms: Atoms, calc: Any) -> Atoms:
    copy = atoms.copy()
    copy.calc = calc
    return copy
