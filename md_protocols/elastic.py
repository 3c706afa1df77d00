"""Elastic constants of a crystal by stress over strain, after a relaxation of cell and atoms.

python md_protocols/elastic.py silica.pt quartz.cif --symmetry triclinic -o elastic.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    import asecalc_mlip  # noqa: F401
    import md_protocols  # noqa: F401
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asecalc_mlip.commands.probe_script import load_calculator, load_structure, parser, report, run
from asecalc_mlip.files import check_figure, check_writable
from asecalc_mlip.plots.probes import elastic_figure
from asecalc_mlip.probes import elastic_constants


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Elastic constants of a crystal.")
    made.add_argument("--symmetry", default="triclinic", help="cubic, hexagonal, trigonal_high, ... as matscipy names "
                      "them; triclinic (default) assumes nothing")  # fmt: skip
    made.add_argument("--strain", type=float, default=0.004, help="largest (default 0.004)")
    made.add_argument("--strains", type=int, default=5, metavar="N", help="number of each kind (default 5)")
    made.add_argument("--fmax", type=float, default=1e-3, metavar="EV/A", help="of relaxations, eV/Å (default 0.001)")
    made.add_argument("--as-is", action="store_true", help="take the cell as it is, do not relax it first")
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Relax, strain, fit, report."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    result = elastic_constants(
        atoms,
        calc,
        symmetry=chosen.symmetry,
        strain=chosen.strain,
        n_strains=chosen.strains,
        fmax_eV_per_A=chosen.fmax,
        relax_first=not chosen.as_is,
    )
    report(result, chosen.output)
    if chosen.figure:
        elastic_figure(result, path=chosen.figure, title=f"{result.formula}, {result.model}")
        print(chosen.figure)


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
