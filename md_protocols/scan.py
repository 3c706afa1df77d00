"""Scans of a molecule: along chosen bonds, angles and dihedrals, or along all bonds to see whether they are smooth.

python md_protocols/scan.py aspirin.pt --figure bonds.png
python md_protocols/scan.py ethanol.pt --bond 0,1 --angle 0,1,2 --dihedral 2,0,1,5 -o scans.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import asecalc_mlip  # noqa: F401
    import md_protocols  # noqa: F401
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asecalc_mlip.commands.probe_script import (
    load_calculator,
    load_structure,
    parser,
    report,
    run,
    write_json,
)
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_figure, check_writable
from asecalc_mlip.plots.probes import scan_figure
from asecalc_mlip.probes import angle_scan, bond_scan, bond_smoothness, dihedral_scan

KINDS: dict[str, tuple[Callable, int]] = {
    "bond": (bond_scan, 2),
    "angle": (angle_scan, 3),
    "dihedral": (dihedral_scan, 4),
}


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Rigid scans of a molecule; without any chosen, all bonds are stretched and judged.")
    for kind, (_, n) in KINDS.items():
        example = ",".join(str(k) for k in range(n))
        made.add_argument(f"--{kind}", action="append", default=[], metavar=example, help="atoms, counted from 0")
    made.add_argument("--stretch", type=float, nargs=2, default=[0.6, 1.6], metavar="X",
                      help="range of the bonds in their lengths (default 0.6 1.6)")  # fmt: skip
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Scan what is chosen, or all bonds."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    scans = []
    for kind, (function, n) in KINDS.items():
        for given in getattr(chosen, kind):
            scans.append(function(atoms, calc, *_indices(given, n)))
            print(scans[-1])
    if not scans:
        found = bond_smoothness(atoms, calc, stretch=tuple(chosen.stretch))
        report(found, chosen.output)
        scans = found.scans
    elif chosen.output:
        write_json(chosen.output, [scan.to_dict() for scan in scans])
    if chosen.figure:
        scan_figure(scans, path=chosen.figure, title=f"{atoms.get_chemical_formula()}, {scans[0].model}")
        print(chosen.figure)


def _indices(text: str, n: int) -> list[int]:
    try:
        indices = [int(part) for part in text.split(",")]
    except ValueError:
        indices = []
    if len(indices) != n:
        raise InputError(f"{text!r} is not {n} atoms: write their numbers, counted from 0, as {','.join('0123'[:n])}")
    return indices


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
