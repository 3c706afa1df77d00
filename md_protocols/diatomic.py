"""Energy and force of two lone atoms over their distance: where does a model attract that should repel?

python md_protocols/diatomic.py aspirin.pt
python md_protocols/diatomic.py plain.pt --against piwsl.pt pretrained.pt --pairs Si-O O-O Si-Si --training train.xyz
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

from asecalc_mlip.commands.probe_script import load_calculator, parser, run, write_json
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_figure, check_writable
from asecalc_mlip.plots.diatomic import diatomic_figure
from asecalc_mlip.probes import diatomic_report, shortest_distances


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Diatomic curves of a model: metrics, unphysical features, a figure.", structure=False)
    made.add_argument("--pairs", nargs="+", metavar="A-B", help="default: all pairs of elements of the model")
    made.add_argument("--against", nargs="+", default=[], metavar="MODEL", help="other models, in the same figure")
    made.add_argument("--names", nargs="+", metavar="NAME", help="names of the models in the figure, in their order")
    made.add_argument("--training", metavar="FILE", help="training data: attraction below 0.8 times their shortest "
                      "distance of a pair is a hole (default: below 0.6 times the covalent radii)")  # fmt: skip
    made.add_argument("--grid", choices=["full", "arena"], default="full",
                      help="full: 0.3 Å to past the cutoff (default); arena: 0.9 R_cov to 3.1 R_vdW; metrics are those "
                      "of arena either way")  # fmt: skip
    made.add_argument("--title", default="Diatomic curves", help="of the figure")
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Curves of all models; prints a table each and writes what is asked for."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    models = [chosen.model, *chosen.against]
    names = chosen.names or [Path(model).stem for model in models]
    if len(names) != len(models):
        raise InputError(f"--names gives {len(names)} names for {len(models)} models: give one for each")
    shortest = shortest_distances(_frames(chosen.training)) if chosen.training else None
    reports = []
    for model, name in zip(models, names, strict=True):
        calc = load_calculator(model, device=chosen.device, dtype=chosen.dtype)
        reports.append(diatomic_report(calc, chosen.pairs, grid=chosen.grid, shortest_A=shortest, name=name))
        print(reports[-1])
        for flags, curve in zip(reports[-1].flags, reports[-1].curves, strict=True):
            for flag in flags:
                print(f"    {curve.pair}: {flag.name}: {flag.text}")
    if chosen.output:
        write_json(chosen.output, [report.to_dict() for report in reports])
    if chosen.figure:
        diatomic_figure(reports, path=chosen.figure, title=chosen.title)
        print(chosen.figure)


def _frames(path: str) -> list:
    try:
        return list(ase.io.iread(path, ":"))
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}") from None


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
