"""Table of claims: what the PIWSL paper reports against what the rows of the study gave, and what was not run.

    python benchmarks/studies/piwsl_claims.py  # reads piwsl_published.json and piwsl_study.json, writes piwsl_claims.md

What can be compared is the factor, plain over PIWSL: data, sizes of networks and lengths of training are not the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.files import write_text  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PUBLISHED = Path(__file__).with_name("piwsl_published.json")
LOSSES = ("plain", "first", "antithetic", "first, per atom", "antithetic, per atom")
HEAD = (
    "published: data, model",
    "RMSE, kcal/mol (/Å)",
    "factor",
    "here: data, model",
    "RMSE, meV (/Å)",
    "factor",
    "runs",
)
Rows = dict[str, list[dict[str, Any]]]


@click.command(help=(__doc__ or "").partition("\n\n")[0])
def main() -> None:
    """Write the table."""
    text = table(json.loads(PUBLISHED.read_text()), json.loads((RESULTS / "piwsl_study.json").read_text()))
    write_text(RESULTS / "piwsl_claims.md", text)
    click.echo(text)


def table(published: dict[str, Any], study: dict[str, Any]) -> str:
    """Return the table of all claims, with rows of the study (by key) beside them."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for claim in published["claims"]:
        lines += _lines(claim, study)
    return "\n".join([*lines, "", f"Published: {published['source']}."]) + "\n"


def _lines(claim: dict[str, Any], study: dict[str, Any]) -> list[str]:
    """Return a line for energies and one for forces, where the paper or we have them."""
    ours, rows = claim.get("ours"), _rows(claim, study)
    per_atom = any("energy_per_atom" in row["rmse"] for row in sum(rows.values(), []))
    # Where few frames with huge forces would be all that a root mean square tells.
    error = (ours or {}).get("error", "rmse")
    found: list[str] = []
    for kind in ("energy", "forces"):
        pair = claim.get(kind)
        if pair is None:
            continue
        # Structures of unlike sizes: energies per atom.
        name = "energy_per_atom" if per_atom and kind == "energy" else kind
        means = {loss: _mean(row[error][name] for row in of_loss) for loss, of_loss in rows.items()}
        cells = ["" if found else claim["name"], f"{kind} {pair[0]:g} → {pair[1]:g}", f"{pair[0] / pair[1]:.2f}"]
        where = f"{ours['data']}, {ours['n_train']} frames, {ours['model']}" if ours else "–"
        cells += [
            "" if found else where,
            _ours(name, error, means),
            _factors(means),
            "" if found else _runs(claim, rows),
        ]
        found.append(_line(cells))
    return found


def _rows(claim: dict[str, Any], study: dict[str, Any]) -> Rows:
    """Rows of the study by loss, those that are there."""
    ours = claim.get("ours")
    if not ours:
        return {}
    same = {"forces_weight": ours.get("forces_weight", 100.0), **{k: ours[k] for k in ("data", "n_train", "model")}}
    rows = [row for row in study.values() if all(row[name] == value for name, value in same.items())]
    losses = [f"{loss}{ours.get('suffix', '')}" for loss in ours.get("losses", LOSSES)]
    found = {loss: [row for row in rows if row["loss"] == loss] for loss in losses}
    return {loss: of_loss for loss, of_loss in found.items() if of_loss}


def _ours(name: str, error: str, means: dict[str, float]) -> str:
    shown = ("energy per atom" if name == "energy_per_atom" else name) + (" (MAE)" if error == "mae" else "")
    means = {loss.partition(", 1000")[0]: mean for loss, mean in means.items()}
    return f"{shown}: {', '.join(f'{loss} {mean:.4g}' for loss, mean in means.items())}" if means else "not run"


def _factors(means: dict[str, float]) -> str:
    """First loss over each of the others."""
    first, *others = means.values() or [0.0]
    return " / ".join(f"{first / other:.2f}" for other in others) or "–"


def _runs(claim: dict[str, Any], rows: Rows) -> str:
    command = claim.get("command", f"piwsl_study.py run {claim.get('part')}")
    if not rows:
        return f"not run: `{command}`"
    seeds = [len(of_loss) for of_loss in rows.values()]
    steps = max(row["steps"] for row in sum(rows.values(), []))
    count = f"{seeds[0]}" if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"{count} seed{'s' * (max(seeds) > 1)}, {steps} steps: `{command}`"


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
