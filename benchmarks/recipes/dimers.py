"""Write isolated atoms and dense curves of isolated dimers of H, C and O at PBE/def2-SVP, for far.data.

    python benchmarks/recipes/dimers.py dimers.xyz [--elements H C] [--distances 60] [--cutoff 5]

They are interpolated in the table that comes with the package (`asecalc_mlip/probes/dimers.json`), and fall to zero
between its last distance and the cutoff.
"""

from __future__ import annotations

import argparse

import ase.io
import numpy as np
from ase import Atoms
from scipy.interpolate import CubicHermiteSpline

from asecalc_mlip.files import read_json
from asecalc_mlip.probes.dimers import TABLE, ReferenceDimer, reference_dimers

# 1/Å, of the fall beyond the table: not slower than this.
SLOWEST = 1.0
# Å, of the differences that forces are taken by.
STEP = 1e-4


def main() -> None:
    """Read the options and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--elements", nargs="+", default=["H", "C", "O"])
    parser.add_argument("--distances", type=int, default=60)
    parser.add_argument("--cutoff", type=float, default=5.0)
    options = parser.parse_args()
    atoms = {s: energy for s, energy in read_json(TABLE)["atoms_eV"].items() if s in options.elements}
    frames = [frame([s], [0.0], energy, [0.0]) for s, energy in atoms.items()]
    for pair, dimer in reference_dimers().items():
        a, b = pair.split("-")
        if not {a, b} <= set(atoms):
            continue
        first = dimer.distances_A[0]
        even = np.geomspace(first + STEP, options.cutoff, options.distances)
        for r in np.unique(np.concatenate([even, dimer.distances_A[1:]]).round(4)):
            below, at, above = energies(dimer, np.array([r - STEP, r, r + STEP]), options.cutoff)
            force = -(above - below) / (2 * STEP)
            frames.append(frame([a, b], [0.0, r], at + atoms[a] + atoms[b], [-force, force]))
    ase.io.write(options.output, frames, format="extxyz")
    print(f"{options.output}: {len(frames)} frames of {', '.join(atoms)}")


def energies(dimer: ReferenceDimer, distances: np.ndarray, cutoff: float) -> np.ndarray:
    """Return energies (eV) of a dimer, less those of its atoms."""
    last, energy, force = dimer.distances_A[-1], dimer.energies_eV[-1], dimer.forces_eV_per_A[-1]
    inside = CubicHermiteSpline(dimer.distances_A, dimer.energies_eV, -dimer.forces_eV_per_A)
    rate = max(force / energy, SLOWEST)  # of an exponential with the slope of the last point
    s = np.clip((cutoff - distances) / (cutoff - last), 0.0, 1.0)
    beyond = energy * np.exp(-rate * (distances - last)) * s**3 * (10 + s * (6 * s - 15))
    return np.where(distances <= last, inside(np.minimum(distances, last)), beyond)


def frame(symbols: list[str], places: list[float], energy: float, forces: list[float]) -> Atoms:
    """Return atoms on the z axis with energy (eV) and forces (eV/Å)."""
    atoms = Atoms(symbols, [[0.0, 0.0, z] for z in places])
    atoms.info |= {"energy": float(energy), "config_type": "IsolatedDimer" if len(symbols) > 1 else "IsolatedAtom"}
    atoms.arrays["forces"] = np.array([[0.0, 0.0, f] for f in forces])
    return atoms


if __name__ == "__main__":
    main()
