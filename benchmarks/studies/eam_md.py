"""How long do the models of the EAM study hold crystals together, and do they keep their structure?

    python benchmarks/studies/eam_md.py [PART...] [--starts 8] [--jobs 2]

The published protocol (Langevin; silica 2000 K, 2 fs; Li-Mn-O and TiO2 1000 K, 1 fs; 5 000 steps) from test structures:
`--starts` of them for each of three models (seeds), so 24 trajectories per method. A run ends where atoms collapse,
fly off or overheat, or where g(r) over 1 ps leaves that of the ab-initio frames by 3.0 Å. It needs
the models of `benchmarks/studies/eam_study.py run`. Interrupted runs go on; results: benchmarks/results/eam_md.json.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.campaigns import campaign_summary, run_campaign  # noqa: E402
from benchmarks.studies.eam_rows import DATA, PARTS, RUNS, Row  # noqa: E402
from benchmarks.studies.eam_study import SHARED  # noqa: E402
from benchmarks.studies.grid import run_rows, select_rows  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "eam_md.json"
# Where the kinds of structure differ, g(r) is compared with that of the same kind.
GROUPS = {"silica": "topology"}


@click.command(help=__doc__)
@click.argument("parts", nargs=-1)
@click.option("--starts", type=click.IntRange(1), default=8, show_default=True, help="Structures for each model.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Models at once, one thread each.")
def main(parts: tuple[str, ...], starts: int, jobs: int) -> None:
    """Run what is missing."""
    rows = [row for row in select_rows(parts, PARTS) if (RUNS / row.key / "model.pt").exists()]
    for data in {row.data for row in rows}:
        _make_reference(data)
    run_rows(rows, partial(run_row, starts=starts), RESULTS, jobs=jobs, say=campaign_summary)


def run_row(row: Row, *, starts: int) -> dict[str, Any]:
    """Run or continue the trajectories of a model in a process of its own."""
    arguments = ["--model", str(RUNS / row.key / "model.pt"), "--reference", str(_reference(row.data))]
    arguments += ["--structure", str(SHARED / DATA[row.data]["test"]), "--starts", str(starts)]
    arguments += ["--protocol", "eam-silica" if row.data == "silica" else "eam-mptrj"]
    # Models of a row differ little, and under the same noise would make nearly the same trajectories.
    arguments += ["--seeds", f"{row.seed},"]
    names = ("runs", "stable", "failures", "rdf_error_percent", "closest_ratio", "force_frames", "frames")
    result = run_campaign(RUNS / "md" / row.key, arguments, (*names, "temperature_K", "ms_per_replica_step"))
    return result if "failed" in result else {**row.to_dict(), "noise_seed": row.seed, **result}


def _reference(data: str) -> Path:
    return RUNS / f"{data}.reference.json"


def _make_reference(data: str) -> None:
    """g(r) of the training file, closest distances and forces; no row has seen more than a part of it."""
    from asecalc_mlip.analysis.periodic_reference import PeriodicReference
    from asecalc_mlip.data.readers import read_frames

    if not _reference(data).exists():
        frames = read_frames(SHARED / DATA[data]["train"])
        # The data are colder than the dynamics: peaks of a sound crystal broaden by more than the limit of a solid.
        source, groups = DATA[data]["train"], GROUPS.get(data)
        reference = PeriodicReference.from_frames(frames, source, kind="liquid", group_by=groups)
        reference.save(_reference(data))


if __name__ == "__main__":
    main()
