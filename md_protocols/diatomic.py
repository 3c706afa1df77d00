"""Energy of two isolated atoms over their distance: where does a model attract that should repel?

python md_protocols/diatomic.py aspirin.pt        # a table of all pairs of its elements, and diatomic.png

`asecalc diatomic` does the same with options, for several models beside each other.
"""

import sys

from asecalc_mlip.calculators.loading import load_calculator
from asecalc_mlip.plots.diatomic import diatomic_figure
from asecalc_mlip.probes import diatomic_report


def main(model: str = "aspirin.pt") -> None:
    """Print metrics and unphysical features of each pair, and draw its curve."""
    calculator = load_calculator(model, dtype="float64")
    report = diatomic_report(calculator)
    print(report)
    for curve, hole in zip(report.curves, report.holes.values(), strict=True):
        if hole is not None:
            print(f"{curve.pair} attracts from {hole.top_A:.2f} Å inwards, {hole.depth_eV:.2f} eV deep")
    diatomic_figure([report], path="diatomic.png", title=model)


if __name__ == "__main__":
    main(*sys.argv[1:])
