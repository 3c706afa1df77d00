"""Trajectories of one trained model, as a campaign in a process of its own: what the studies of dynamics share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["campaign_summary", "run_campaign"]

ROOT = Path(__file__).resolve().parents[2]


def run_campaign(folder: Path, arguments: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Run the campaign of `folder`, or continue it with the arguments that it was begun with.

    Parameters
    ----------
    folder : Path
    arguments : sequence of str
        Of `asecalc campaign`, for one that is not begun; without --output.
    names : sequence of str
        Entries of its group to return.

    Returns
    -------
    dict
        These, `stable_ps` and `length_ps` (of each run, and of the longest); or `failed` with the reason.
    """
    arguments = ["--restart"] if (folder / "campaign.json").exists() else list(arguments)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "asecalc_mlip.cli", "campaign", "--output", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    summary = folder / "campaign_summary.json"
    if done.returncode or not summary.exists():
        return {"failed": (done.stderr.strip() or done.stdout.strip())[-300:]}
    (group,) = json.loads(summary.read_text())["groups"]
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*/summary.json"))]
    return {
        "length_ps": max(run["time_ps"] for run in runs),
        "stable_ps": [run["stable_ps"] for run in runs],
        **{name: group[name] for name in names},
    }


def campaign_summary(result: dict[str, Any]) -> str:
    """Return stable runs, mean stable time and failures as text."""
    mean = sum(result["stable_ps"]) / len(result["stable_ps"])
    return f"{result['stable']} of {result['runs']} stable, {mean:.1f} ps; {result['failures']}"
