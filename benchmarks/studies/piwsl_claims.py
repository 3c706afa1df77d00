"""Table of claims: what the PIWSL paper reports against what the rows of the study gave, and what was not run.

    python benchmarks/studies/piwsl_claims.py  # reads piwsl_published.json and piwsl_study.json

Writes the table piwsl_claims.md and the figure piwsl_claims.png.

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
from benchmarks.studies.dots import Dots, dots_figure  # noqa: E402
from benchmarks.studies.markdown_tables import table as markdown_table  # noqa: E402

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
# Of claims that have the nearest case of ours beside them.
BESIDE = "beside it: "
# Of the figure.
TITLES = {"energy": "Energies", "forces": "Forces"}
NETWORKS = {"painn": "PaiNN", "escn": "eSCN", "equiformer": "EquiformerV2", "spinconv": "SpinConv"}
SETS = {"aspirin": "aspirin", "3bpa": "3BPA", "tio2": "TiO2"}
Rows = dict[str, list[dict[str, Any]]]


@click.command(help=(__doc__ or "").partition("\n\n")[0])
def main() -> None:
    """Write the table."""
    published, study = (json.loads(path.read_text()) for path in (PUBLISHED, RESULTS / "piwsl_study.json"))
    text = table(published, study)
    write_text(RESULTS / "piwsl_claims.md", text)
    title = "Error of models with a force head without PIWSL, over that with it"
    dots_figure(panels(published, study), title=title, path=RESULTS / "piwsl_claims.png")
    click.echo(text)


def table(published: dict[str, Any], study: dict[str, Any]) -> str:
    """Return the table of all claims, with rows of the study (by key) beside them."""
    cells = [row for claim in published["claims"] for row in _cells(claim, study)]
    return "\n".join([*markdown_table(HEAD, cells), "", f"Published: {published['source']}."]) + "\n"


def panels(published: dict[str, Any], study: dict[str, Any]) -> list[Dots]:
    """Return factors of energies and forces: as published, and for each network with a force head and its data."""
    claims = [claim for claim in published["claims"] if _of_the_figure(claim, _rows(claim, study))]
    names = {_short(claim): claim for claim in sorted(claims, key=lambda claim: claim["ours"]["data"])}
    # Those with cases of ours beside them; a claim whose own case we ran is among them once more.
    marked = [claim for claim in claims if claim["name"].startswith(BESIDE)]
    before = {claim["name"].removeprefix(BESIDE): claim for claim in marked}
    found = []
    for kind in ("energy", "forces"):
        values: dict[str, dict[str, list[float]]] = {"published": {}, "first": {}, "antithetic": {}}
        values["published"] = {f"paper: {name}": [claim[kind][0] / claim[kind][1]] for name, claim in before.items()}
        for name, claim in names.items():
            for loss, factors in _by_seed(claim, kind, _rows(claim, study)).items():
                # Where both were run, those whose energies and residuals count alike.
                values[loss.partition(",")[0]][name] = factors
        rows = [*values["published"], *names]
        found.append(Dots(TITLES[kind], "factor", rows, values, 1.0, log=True, ticks=(0.5, 1, 2, 3)))
    return found


def _of_the_figure(claim: dict[str, Any], rows: Rows) -> bool:
    ours = claim.get("ours", {})
    compared = len(rows) > 1 and next(iter(rows)).startswith("plain")
    return compared and ours.get("model", "").endswith("direct") and "losses" not in ours and "energy" in claim


def _short(claim: dict[str, Any]) -> str:
    """Name of network and data, as an axis has room for."""
    ours = claim["ours"]
    network = ours["model"].partition("-")[0].partition(",")[0]
    base, _, width = network.partition(" ")
    ended = ", converged" if "convergence" in ours.get("suffix", "") else ""
    return f"{' '.join(filter(None, (NETWORKS[base], width)))}, {SETS[ours['data']]} {ours['n_train']}{ended}"


def _by_seed(claim: dict[str, Any], kind: str, rows: Rows) -> dict[str, list[float]]:
    """Return the factors of each loss, one for each seed that has both trainings."""
    error = claim["ours"].get("error", "rmse")
    pairs = {loss: _pairs(rows, loss, error, _quantity(kind, rows)) for loss in list(rows)[1:]}
    return {loss: [before / after for before, after in found] for loss, found in pairs.items() if found}


def _pairs(rows: Rows, loss: str, error: str, name: str) -> list[tuple[float, float]]:
    """Return the errors of the first loss, plain, and of another, for each seed that has both."""
    first = {row["seed"]: row[error][name] for row in next(iter(rows.values()))}
    return [(first[row["seed"]], row[error][name]) for row in rows[loss] if row["seed"] in first]


def _quantity(kind: str, rows: Rows) -> str:
    """Return the name of an error; of structures of unlike sizes energies count per atom."""
    per_atom = any("energy_per_atom" in row["rmse"] for row in sum(rows.values(), []))
    return "energy_per_atom" if per_atom and kind == "energy" else kind


def _cells(claim: dict[str, Any], study: dict[str, Any]) -> list[list[str]]:
    """Return a row for energies and one for forces, where the paper or we have them."""
    ours, rows = claim.get("ours"), _rows(claim, study)
    # Where few frames with huge forces would be all that a root mean square tells.
    error = (ours or {}).get("error", "rmse")
    found: list[list[str]] = []
    for kind in ("energy", "forces"):
        pair = claim.get(kind)
        if pair is None:
            continue
        name = _quantity(kind, rows)
        means = {loss: _mean(row[error][name] for row in of_loss) for loss, of_loss in rows.items()}
        cells = ["" if found else claim["name"], f"{kind} {pair[0]:g} → {pair[1]:g}", f"{pair[0] / pair[1]:.2f}"]
        where = f"{ours['data']}, {ours['n_train']} frames, {ours['model']}" if ours else "–"
        cells += [
            "" if found else where,
            _ours(name, error, means, (ours or {}).get("suffix", "")),
            _factors(name, error, rows),
            "" if found else _runs(claim, rows),
        ]
        found.append(cells)
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


def _ours(name: str, error: str, means: dict[str, float], suffix: str) -> str:
    shown = ("energy per atom" if name == "energy_per_atom" else name) + (" (MAE)" if error == "mae" else "")
    means = {loss.removesuffix(suffix): mean for loss, mean in means.items()}
    return f"{shown}: {', '.join(f'{loss} {mean:.4g}' for loss, mean in means.items())}" if means else "not run"


def _factors(name: str, error: str, rows: Rows) -> str:
    """First loss over each of the others, in the mean over the seeds that have both."""
    found = []
    for loss in list(rows)[1:]:
        before, after = np.array(_pairs(rows, loss, error, name)).reshape(-1, 2).T
        found.append(f"{before.mean() / after.mean():.2f}" if len(before) else "–")
    return " / ".join(found) or "–"


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


if __name__ == "__main__":
    main()
