"""Write isolated atoms and dense curves of isolated dimers of H, C and O at PBE/def2-SVP, for far.data.

    python benchmarks/recipes/dimers.py dimers.xyz [--elements H C] [--distances 60] [--cutoff 5]

They are interpolated in the table that comes with the package (`asecalc_mlip/probes/dimers.json`).
"""

from __future__ import annotations

import argparse

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from asecalc_mlip.calculators.dimers import read_table
from asecalc_mlip.probes.dimers import reference_frames


def main() -> None:
    """Read the options and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--elements", nargs="+", default=["H", "C", "O"])
    parser.add_argument("--distances", type=int, default=60)
    parser.add_argument("--cutoff", type=float, default=5.0)
    options = parser.parse_args()
    asked = {atomic_numbers[symbol] for symbol in options.elements}
    atoms, curves = read_table(reference_frames())
    frames = [frame for frame in reference_frames() if len(frame) == 1 and set(frame.numbers) <= asked]
    for (a, b), curve in curves.items():
        if not {a, b} <= asked:
            continue
        even = np.geomspace(curve.distances[0], options.cutoff, options.distances)
        distances = np.unique(np.concatenate([even, curve.distances]).round(4))
        for r, energy, slope in zip(distances, *curve(distances, options.cutoff), strict=True):
            frame = Atoms([a, b], [[0.0, 0.0, 0.0], [0.0, 0.0, r]])
            frame.info |= {"energy": float(energy) + atoms[a] + atoms[b], "config_type": "IsolatedDimer"}
            frame.arrays["forces"] = np.array([[0.0, 0.0, slope], [0.0, 0.0, -slope]])
            frames.append(frame)
    ase.io.write(options.output, frames, format="extxyz")
    print(f"{options.output}: {len(frames)} frames of {', '.join(options.elements)}")


if __name__ == "__main__":
    main()
