"""Do the shipped models of silica hold zeolites together at 2000 K, twice the temperature of their data?

    python benchmarks/studies/silica_hot.py [--jobs 2]

The protocol eam-silica (Langevin, 2000 K, 2 fs, 10 ps) from 8 test structures, one of each topology, with 3 seeds, so
24 trajectories per model, watched by the present monitor with the reference in the file of the model. Interrupted runs
go on; results: benchmarks/results/silica_hot.json.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.campaigns import campaign_summary, run_campaign  # noqa: E402
from benchmarks.studies.grid import run_rows  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "silica_hot.json"
RUNS = ROOT / "runs" / "silica_hot"
STRUCTURES = ROOT.parent / "shared" / "data" / "silica_zeo22_test.xyz"
STARTS, SEEDS = 8, 3


@dataclass(frozen=True)
class Row:
    """One model."""

    key: str


@click.command(help=__doc__)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Models at once, one thread each.")
def main(jobs: int) -> None:
    """Run what is missing."""
    run_rows([Row("silica.pt"), Row("silica_tensornet.pt")], run_row, RESULTS, jobs=jobs, say=campaign_summary)


def run_row(row: Row) -> dict[str, Any]:
    """Run or continue the trajectories of a model in a process of its own."""
    from asecalc_mlip.digests import sha256_of
    from asecalc_mlip.zoo import find

    arguments = ["--model", row.key, "--structure", str(STRUCTURES), "--starts", str(STARTS), "--seeds", str(SEEDS)]
    names = ("runs", "stable", "failures", "rdf_error_percent", "closest_ratio", "temperature_K", "ms_per_replica_step")
    result = run_campaign(RUNS / Path(row.key).stem, [*arguments, "--protocol", "eam-silica", "--device", "cpu"], names)
    return result if "failed" in result else {"sha256": sha256_of(find(row.key)), **result}


if __name__ == "__main__":
    main()
