"""The PaiNN of aspirin in whole protocols: md17 (500 K, 300 ps) and piwsl (NVE from 300 K, 300 ps), 3 seeds each.

    python benchmarks/studies/protocols.py [--model aspirin_painn.pt] [--protocol md17 ...]

The seeds of a protocol advance together in one campaign on one thread; the wall time of each is its share. The
same command continues what was interrupted and skips what is done. Results: benchmarks/results/protocols.json, .md
and a figure for each model.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.files import write_json  # noqa: E402
from asecalc_mlip.md.files import SUMMARY  # noqa: E402
from asecalc_mlip.plots.style import figure_bytes  # noqa: E402
from benchmarks.studies.markdown_tables import table as markdown_table  # noqa: E402
from benchmarks.studies.stability import machine  # noqa: E402
from benchmarks.studies.stability_report import Run, measure, runs_figure  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@click.command(help=__doc__)
@click.option("--model", default="aspirin_painn.pt", show_default=True, help="Shipped model or path of a .pt file.")
@click.option("--protocol", "protocols", multiple=True, default=["md17", "piwsl"], show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "runs" / "protocols", help="For the runs.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="For the results.")
def main(model: str, protocols: tuple[str, ...], runs: Path, output: Path) -> None:
    """Run what is missing and report all there is."""
    path, name = output / "protocols.json", Path(model).stem
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    output.mkdir(parents=True, exist_ok=True)
    done: list[Run] = []
    for protocol in protocols:
        folder = runs / name / protocol
        run(model, protocol, folder)
        done += (finished := _finished(folder))
        found.setdefault(name, {})[protocol] = {
            "model_sha256": json.loads((folder / "campaign.json").read_text())["runs"][0]["sha256"],
            "date": datetime.date.today().isoformat(),
            "machine": {**machine(), "threads_per_run": 1},
            "runs": [{**_settings(row[3]), **measure(*row)} for row in finished],
        }
        write_json(path, found)
    title = f"{name}.pt: md17 (left; 500 K) and piwsl (right; constant energy, velocities of 300 K), 0.5 fs"
    study = {"model": f"{name}.pt", "temperature_K": 500.0, "timestep_fs": 0.5, "title": title}
    (output / f"protocols_{name}.png").write_bytes(figure_bytes(runs_figure(study, done, [measure(*r) for r in done])))
    (output / "protocols.md").write_text(text := table(found))
    click.echo(text)


def run(model: str, protocol: str, folder: Path) -> None:
    """Run or continue a campaign; one that is done ends at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = ["--model", model, "--protocol", protocol]
    arguments = ["--restart"] if (folder / "campaign.json").exists() else start
    command = [sys.executable, "-m", "asecalc_mlip.cli", "campaign", *arguments, "--output", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def _finished(folder: Path) -> list[Run]:
    """Return the runs of a protocol, by seed."""
    runs = []
    for path in folder.glob(f"*/{SUMMARY}"):
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        runs.append((settings["ensemble"], settings["seed"], settings["dtype"], path.parent))
    return sorted(runs)


def _settings(folder: Path) -> dict[str, Any]:
    """Return what `measure` leaves out."""
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    settings = summary["settings"]
    names = ("temperature_K", "thermostat", "timestep_fs", "interval")
    length = settings["steps"] * settings["timestep_fs"] / 1e3
    return {**{name: settings[name] for name in names}, "length_ps": length, "h_error": summary["h_error"]}


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown."""
    heads = ["model", "protocol", "seed", "stable, ps", "mean T, K", "h(r) error", "drift, meV/atom/ps", "wall, min"]
    rows = []
    for model, by_protocol in found.items():
        for protocol, part in by_protocol.items():
            for row in part["runs"]:
                drift = row.get("drift_mev_per_atom_ps")
                cells = [model, protocol, str(row["seed"]), f"{row['stable_ps']:g} of {row['length_ps']:g}"]
                cells += [_number(row["temperature_mean_K"], ".0f"), _number(row["h_error"], ".3f")]
                cells += [_number(drift, "+.5f"), f"{row['wall_s'] / 60:.0f}"]
                rows.append(cells)
    return "\n".join(markdown_table(heads, rows)) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
