"""Write isolated atoms and dense curves of isolated dimers, for far.data and `asecalc dimers --table`.

    python benchmarks/recipes/dimers.py dimers.xyz [--elements H C] [--distances 60] [--cutoff 5]
    python benchmarks/recipes/dimers.py dimers.xyz --table atoms.xyz --e0 O=-1.9 --e0 Si=-0.8 --elements O Si

They are interpolated in the table of H, C and O at PBE/def2-SVP that comes with the package
(`asecalc_mlip/probes/dimers.json`), or in a file of `asecalc data atoms --dimers 30`. Data of another level have other
energies of isolated atoms: --e0 gives those, and the dimers keep what binds them.
"""

from __future__ import annotations

import argparse

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asecalc_mlip.additions.dimers import read_table
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.probes.dimers import reference_frames
from asecalc_mlip.teachers.structures import ATOM, DIMER


def main() -> None:
    """Read the options and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--elements", nargs="+", default=["H", "C", "O"])
    parser.add_argument("--distances", type=int, default=60)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--table", help="labelled isolated atoms and dimers")
    parser.add_argument("--e0", action="append", default=[], metavar="SYMBOL=eV", help="energy of an isolated atom")
    options = parser.parse_args()
    asked = {atomic_numbers[symbol] for symbol in options.elements}
    atoms, curves = read_table(read_frames(options.table) if options.table else reference_frames())
    atoms |= {atomic_numbers[symbol]: float(energy) for symbol, energy in (text.split("=") for text in options.e0)}
    if not asked <= set(atoms):
        parser.error(
            f"the table has the elements {', '.join(chemical_symbols[z] for z in sorted(atoms))}, not all asked"
        )
    frames = [_atom(number, atoms[number]) for number in sorted(asked)]
    for (a, b), curve in curves.items():
        if not {a, b} <= asked:
            continue
        even = np.geomspace(curve.distances[0], options.cutoff, options.distances)
        distances = np.unique(np.concatenate([even, curve.distances]).round(4))
        for r, energy, slope in zip(distances, *curve(distances, options.cutoff), strict=True):
            frame = Atoms([a, b], [[0.0, 0.0, 0.0], [0.0, 0.0, r]])
            frame.info |= {"energy": float(energy) + atoms[a] + atoms[b], "config_type": DIMER}
            frame.arrays["forces"] = np.array([[0.0, 0.0, slope], [0.0, 0.0, -slope]])
            frames.append(frame)
    ase.io.write(options.output, frames, format="extxyz")
    print(f"{options.output}: {len(frames)} frames of {', '.join(options.elements)}")


def _atom(number: int, energy: float) -> Atoms:
    atom = Atoms([number], info={"energy": energy, "config_type": ATOM})
    atom.arrays["forces"] = np.zeros((1, 3))
    return atom


if __name__ == "__main__":
    main()
