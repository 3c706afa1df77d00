"""How long do models of few labels hold aspirin together, at 500 K and far hotter?

    python benchmarks/studies/sparse_md.py [ROW...] [--jobs 2]   # of all trainings or those named, what is missing
    python benchmarks/studies/sparse_md.py --only 1200           # one temperature

A ROW is that of a training, as in `sparse.py list`; one whose model is not there is trained first.

24 trajectories of each method, 8 with velocities of their own for each of three models (seeds): Nosé-Hoover, 0.5 fs,
50 ps at 500 K and 20 ps at 1200 K, judged by the monitor. The trajectories of a model advance together. Runs go to
runs/sparse-md; the same command continues what was interrupted. Results: benchmarks/results/sparse_md.json; the table
is one of those of `sparse.py table`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.locks import locked  # noqa: E402
from benchmarks.studies.campaigns import campaign_summary, run_campaign  # noqa: E402
from benchmarks.studies.grid import add_result, run_rows  # noqa: E402
from benchmarks.studies.sparse import RESULTS as ERRORS  # noqa: E402
from benchmarks.studies.sparse import RUNS, train_row  # noqa: E402
from benchmarks.studies.sparse_rows import DYNAMICS, PICOSECONDS, Row  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "sparse_md.json"
ZOO = ROOT / "asecalc_mlip" / "zoo"
TRAJECTORIES = 8
STEPS_PER_PS = 2000


@dataclass(frozen=True)
class Campaign:
    """The trajectories of one model at one temperature."""

    row: Row
    temperature: int

    @property
    def key(self) -> str:
        """That of the training, and the temperature."""
        return f"{self.row.key}/{self.temperature} K"

    @property
    def model(self) -> Path:
        """Model of the training."""
        return RUNS / self.row.folder / "model.pt"


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--only", type=click.Choice([str(t) for t in PICOSECONDS]), help="One temperature, K.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Models at once, one thread each.")
def main(names: tuple[str, ...], only: str | None, jobs: int) -> None:
    """Run what is missing."""
    known = {row.key: row for row in DYNAMICS}
    if unknown := sorted(set(names) - set(known)):
        raise click.BadParameter(f"{', '.join(unknown)}: no such training; there are {', '.join(known)}")
    asked = [int(only)] if only else list(PICOSECONDS)
    campaigns = [Campaign(known[name], temperature) for name in names or known for temperature in asked]
    run_rows(campaigns, run, RESULTS, jobs=jobs, say=campaign_summary)


def run(campaign: Campaign) -> dict[str, Any]:
    """Run or continue the trajectories of a model."""
    row, temperature = campaign.row, campaign.temperature
    with locked(campaign.model.parent.with_suffix(".lock"), wait=True):
        if not campaign.model.exists():
            add_result(ERRORS, row.key, train_row(row))
    # Velocities of no two trajectories of a method are alike.
    seeds = ",".join(str(100 * row.seed + k) for k in range(TRAJECTORIES))
    steps = PICOSECONDS[temperature] * STEPS_PER_PS
    start, reference = (str(ZOO / f"{row.data}_painn.{end}") for end in ("xyz", "reference.json"))
    arguments = ["--model", str(campaign.model), "--structure", start, "--seeds", seeds]
    arguments += ["--reference", reference, "--protocol", "md17"]
    arguments += ["--steps", str(steps), "--temperature", str(temperature)]
    names = ("runs", "stable", "failures", "h_error", "temperature_mean_K", "ms_per_replica_step")
    result = run_campaign(ROOT / "runs" / "sparse-md" / campaign.key.replace("/", "_"), arguments, names)
    return result if "failed" in result else {**row.to_dict(), "temperature_K": temperature, **result}


if __name__ == "__main__":
    main()
