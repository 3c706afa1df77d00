"""Relax a structure, and its cell if asked to; writes the relaxed structure.

python md_protocols/relax.py aspirin.pt
python md_protocols/relax.py silica.pt quartz.cif --cell full --write relaxed.cif
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

import ase.io
from tqdm import tqdm

from asecalc_mlip.commands.probe_script import load_calculator, load_structure, parser, report, run
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_structure, check_writable
from asecalc_mlip.probes import relax
from asecalc_mlip.stopping import SoftStop


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Relax a structure.", figure=False)
    made.add_argument("--fmax", type=float, default=1e-3, metavar="EV/A", help="largest force, eV/Å (default 0.001)")
    made.add_argument("--steps", type=int, default=500, metavar="N", help="at most (default 500)")
    made.add_argument("--cell", choices=["fixed", "full", "volume"], default="fixed", help="volume keeps the shape")
    made.add_argument("--keep-symmetry", action="store_true", help="keep the space group")
    made.add_argument("--optimizer", choices=["bfgs", "fire"], default="bfgs")
    made.add_argument("--write", metavar="FILE", help="relaxed structure, in the format its name says")
    return made


def probe(chosen: argparse.Namespace) -> int:
    """Relax, report, write; 1 where it did not relax, 128 + signal where it was interrupted."""
    check_writable(chosen.output)
    check_structure(chosen.write)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    with SoftStop() as interrupt, tqdm(unit="step", disable=None) as bar:

        def tell(step: int, force: float) -> bool:
            bar.update(step - bar.n)
            bar.set_postfix_str(f"largest force {force:.3g} eV/Å")
            return interrupt.signal is not None

        result = relax(
            atoms,
            calc,
            fmax_eV_per_A=chosen.fmax,
            steps=chosen.steps,
            cell=chosen.cell,
            keep_symmetry=chosen.keep_symmetry,
            optimizer=chosen.optimizer,
            tell=tell,
        )
    report(result, chosen.output)
    if chosen.write:
        try:
            ase.io.write(chosen.write, result.atoms)
        except Exception as error:  # ASE's writers raise anything
            raise InputError(f"{chosen.write} cannot be written: {error or type(error).__name__}") from None
        print(chosen.write)
    if interrupt.signal and not result.converged:
        print("interrupted; the structure is as far as it came", file=sys.stderr)
        return 128 + interrupt.signal
    return 0 if result.converged else 1


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 relaxed, 1 not, 2 bad input, 128 + signal if stopped)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
