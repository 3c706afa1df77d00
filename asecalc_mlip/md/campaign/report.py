"""Results of a campaign: a row for each model and temperature, and survival curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asecalc_mlip.analysis.survival import Survival, survival
from asecalc_mlip.md.campaign.runs import Run, summary_of
from asecalc_mlip.md.files import RunFiles

REPORT = "campaign_summary.json"
FIGURE = "survival.png"


@dataclass(frozen=True, repr=False)
class CampaignReport:
    """Answer of `report_campaign`.

    Attributes
    ----------
    rows : list of dict
        For each model and temperature: runs, stable ones, survival, failures, errors of h(r) or g(r).
    n_runs, n_ended : int
        Of the whole campaign.
    directory : str
        Where it lies.
    signal : int or None
        The signal that stopped it.
    had_ended : bool
        Whether all runs had ended before it was asked for again.
    """

    rows: list[dict]
    n_runs: int
    n_ended: int
    directory: str
    signal: int | None = None
    had_ended: bool = False

    @property
    def exit_code(self) -> int:
        """0 all runs ended (stable or not), 128 + signal where one stopped it."""
        return 128 + self.signal if self.signal else 0

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return {"n_runs": self.n_runs, "n_ended": self.n_ended, "groups": self.rows}

    def __repr__(self) -> str:
        head = f"{'model':<20} {'T (K)':>7} {'runs':>5} {'stable':>7} {'stable time (ps)':>17} {'error':>16}  failures"
        told = [f"The campaign in {self.directory} was complete already; its result:"] if self.had_ended else []
        lines = [*told, head, *(_row(row) for row in self.rows)]
        if self.n_ended < self.n_runs:
            lines.append(
                f"{self.n_runs - self.n_ended} of {self.n_runs} runs are not finished; the same command continues them"
            )
        return "\n".join([*lines, f"Files: {self.directory}"])


def report_campaign(
    directory: Path, runs: Sequence[Run], signal: int | None = None, *, had_ended: bool = False
) -> CampaignReport:
    """Gather the summaries of the runs that ended, write campaign_summary.json and survival.png."""
    groups: dict[tuple[str, float], list[dict]] = {}
    ended = 0
    for run in runs:
        key = (Path(run.model).stem, run.settings["temperature_K"])
        summary = summary_of(directory, run)
        ended += summary is not None
        groups.setdefault(key, []).extend([summary] if summary else [])
    curves = {key: _curve(found) for key, found in groups.items() if found}
    rows = [_group(*key, found, curves[key]) for key, found in groups.items() if found]
    report = CampaignReport(rows, len(runs), ended, str(directory), signal, had_ended)
    RunFiles(directory).write_json(REPORT, report.to_dict())
    if curves:
        from asecalc_mlip.plots.style import figure_bytes
        from asecalc_mlip.plots.survival import survival_figure

        figure = survival_figure({f"{model}, {T:g} K": curve for (model, T), curve in curves.items()})
        RunFiles(directory).write_bytes(FIGURE, figure_bytes(figure))
    return report


def _curve(found: Sequence[dict]) -> Survival:
    times = [s["failure"]["time_ps"] if s["failure"] else s["time_ps"] for s in found]
    return survival(times, [s["failure"] is not None for s in found])


def _group(model: str, temperature_K: float, found: list[dict], curve: Survival) -> dict:
    stable = np.array([s["stable_ps"] for s in found])
    failures = Counter(s["failure"]["kind"] for s in found if s["failure"])
    seconds, steps = sum(s["wall_s"] for s in found), sum(s["steps_done"] for s in found)
    return {
        "model": model,
        "temperature_K": temperature_K,
        "runs": len(found),
        "stable": len(found) - curve.n_broken,
        "stable_ps_mean": float(stable.mean()),
        "stable_ps_std": float(stable.std(ddof=1)) if len(stable) > 1 else None,
        "stable_ps_min": float(stable.min()),
        "failures": dict(failures),
        "h_error": _mean([s["h_error"] for s in found]),
        "rdf_error_percent": _mean([(s["rdf_errors"] or {}).get("all", {}).get("error_percent") for s in found]),
        "temperature_mean_K": _mean([s["temperature_mean_K"] for s in found]),
        "closest_ratio": min((s["extremes"]["closest_ratio"] or np.inf for s in found), default=None),
        "force_frames": sum(s["extremes"]["force_frames"] for s in found),
        "frames": sum(s["frames"] for s in found),
        "steps": steps,
        "ms_per_replica_step": 1e3 * seconds / steps if steps else None,
        "survival": curve.to_dict(),
    }


def _mean(values: list) -> list[float] | None:
    """Mean and standard deviation of those that are there."""
    known = [v for v in values if v is not None]
    return [float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0] if known else None


def _row(row: dict) -> str:
    mean, std = row["stable_ps_mean"], row["stable_ps_std"]
    # Equal times differ by rounding.
    time = f"{mean:.3g}" + (f" ± {std:.2g}" if std is not None and std > 1e-9 * mean else "")
    error = ""
    if row["h_error"]:
        error = f"h(r) {row['h_error'][0]:.3f} ± {row['h_error'][1]:.3f}"
    elif row["rdf_error_percent"]:
        error = f"g(r) {row['rdf_error_percent'][0]:.0f} ± {row['rdf_error_percent'][1]:.0f} %"
    failures = ", ".join(f"{kind} {n}" for kind, n in row["failures"].items()) or "none"
    return (
        f"{row['model'][:20]:<20} {row['temperature_K']:>7g} {row['runs']:>5} {row['stable']:>7} {time:>17} {error:>16}"
        f"  {failures}"
    )
