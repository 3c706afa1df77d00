"""Results of a search: one record per trial, as a table, trials.csv, best.yaml and a figure."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from asecalc_mlip.files import write_text
from asecalc_mlip.plots.tune import Panel, tune_figure
from asecalc_mlip.units import ERROR_UNITS
from training.config import TrainConfig, replace_values
from training.run.log import read_rows
from training.run.useless import without_useless
from training.tune.space import Parameter

__all__ = ["TrialRecord", "TuneResult", "trial_folder", "trial_values"]

ORDER = ("complete", "pruned", "running", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """One training of a search.

    Attributes
    ----------
    number : of its folder; 0 is the training with which the others are compared
    state : complete, pruned (ended early as hopeless), running (to be continued) or failed
    values : section.key → value that was tried; empty for trial 0
    loss : lowest validation loss of the supervised losses, or None before the first epoch
    best_epoch : of that loss, counted from 1
    epochs : trained
    mae : quantity → validation error at that epoch, meV, meV/Å, meV/Å³
    seconds : trained
    note : why it failed
    """

    number: int
    state: str
    values: dict[str, Any]
    loss: float | None = None
    best_epoch: int = 0
    epochs: int = 0
    mae: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""

    @classmethod
    def read(cls, folder: Path, number: int, state: str, values: Mapping[str, Any], note: str = "") -> TrialRecord:
        """Read the log of the run in `folder`, a folder of a search."""
        rows = read_rows(trial_folder(folder, number) / "log.csv")
        if not rows:
            return cls(number, state, dict(values), note=note)
        best = min(rows, key=lambda row: float(row["val_loss"]))
        mae = {name: 1000 * float(best[f"val_{name}_mae"]) for name in ERROR_UNITS if f"val_{name}_mae" in best}
        epoch, seconds = int(best["epoch"]) + 1, float(rows[-1]["seconds"])
        return cls(number, state, dict(values), float(best["val_loss"]), epoch, len(rows), mae, seconds, note)


@dataclass
class TuneResult:
    """All trials of a search, and the best settings."""

    config: TrainConfig
    parameters: list[Parameter]
    trials: list[TrialRecord]
    folder: Path

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the lowest validation loss."""
        return min((t for t in self.trials if t.state == "complete"), key=_loss, default=None)

    @property
    def first(self) -> str:
        """What trial 0 is called."""
        weak = self.config.weak.method != "plain" and not any(p.key.startswith("weak.") for p in self.parameters)
        return "training with the given settings" if weak else "plain training"

    @property
    def plain(self) -> TrialRecord | None:
        """Trial 0, with which the others are compared, once it is complete."""
        return next((t for t in self.trials if t.number == 0 and t.state == "complete"), None)

    def __repr__(self) -> str:
        best, plain = self.best, self.plain
        if best is None or best.loss is None or plain is None or plain.loss is None:
            return f"{self._table()}\nno trial is complete yet; run the same command again to continue"
        change = 100 * (best.loss / plain.loss - 1)
        verdict = f"no trial is better than the {self.first}"
        if best.number != 0:
            verdict = (
                f"trial {best.number} is the best, its validation loss {change:+z.1f} % of that of the {self.first}"
            )
        settings = shlex.quote(str(self.folder / "best.yaml"))
        number = self.config.data.n_val or "the"
        return (
            f"{self._table()}\n{verdict}\nIt was chosen on {number} validation frames and one seed: "
            f"train it with others before you trust a small difference\n"
            f"its settings:  asecalc train {settings}\ntable and figure in {self.folder}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {"trials": [trial.__dict__ for trial in self.trials], "best": self.best and self.best.number}

    def write(self) -> None:
        """Write trials.csv, and once there is one, best.yaml and tune.png."""
        write_text(self.folder / "trials.csv", self._csv())
        best = self.best
        if best is None:
            return
        # A folder of its own: that of the settings searched from may hold a training with those.
        values = {**trial_values(best.number, best.values, self.parameters), "run.output": str(self.folder / "best")}
        config = without_useless(replace_values(self.config, values))
        text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(self.folder / "best.yaml", f"# Trial {best.number}, validation loss {best.loss:.6g}\n{text}")
        self._draw(best)

    def _csv(self) -> str:
        keys = [parameter.key for parameter in self.parameters]
        units = [name for name in ERROR_UNITS if any(name in trial.mae for trial in self.trials)]
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        errors = [f"val_{name}_mae_{ERROR_UNITS[name].replace('/', '_per_').replace('Å', 'A')}" for name in units]
        writer.writerow(["trial", "state", "val_loss", *keys, *errors, "best_epoch", "epochs", "seconds", "note"])
        for t in sorted(self.trials, key=_rank):
            mae = [t.mae.get(name) for name in units]
            values = [t.values.get(key) for key in keys]
            writer.writerow([t.number, t.state, t.loss, *values, *mae, t.best_epoch, t.epochs, t.seconds, t.note])
        return buffer.getvalue()

    def _table(self) -> str:
        keys = [parameter.key for parameter in self.parameters]
        units = [name for name in ERROR_UNITS if any(name in trial.mae for trial in self.trials)]
        head = [
            "trial",
            *keys,
            "val loss",
            *(f"{name.replace('_', ' ')}, {ERROR_UNITS[name]}" for name in units),
            "s",
            "",
        ]
        lines = [head]
        for t in sorted(self.trials, key=_rank):
            values = [_short(t.values.get(key, "–")) for key in keys]
            mae = [f"{t.mae[name]:.1f}" if name in t.mae else "–" for name in units]
            loss = "–" if t.loss is None else f"{t.loss:.4g}"
            lines.append([str(t.number), *values, loss, *mae, f"{t.seconds:.0f}", _remark(t)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [[text.rjust(w) for text, w in zip(line[:-1], widths, strict=False)] + line[-1:] for line in lines]
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def _draw(self, best: TrialRecord) -> None:
        shown = [t for t in self.trials if t.number > 0 and t.loss is not None and t.state in ("complete", "pruned")]
        if not shown:
            return
        panels = [
            Panel(p.key, [t.values[p.key] for t in shown], extremes=p.extremes, log=p.log, choices=p.kind == "choice")
            for p in self.parameters
        ]
        tune_figure(
            panels,
            [_loss(t) for t in shown],
            complete=[t.state == "complete" for t in shown],
            numbers=[t.number for t in shown],
            best=best.number,
            plain=None if self.plain is None else self.plain.loss,
            path=self.folder / "tune.png",
        )


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of the run of a trial."""
    return folder / "trials" / f"{number:04d}"


def trial_values(number: int, values: Mapping[str, Any], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the settings that a trial changes; of trial 0 none, but where weak supervision is searched it has none."""
    if number > 0:
        return dict(values)
    return {"weak.method": "plain"} if any(p.key.startswith("weak.") for p in parameters) else {}


def _loss(trial: TrialRecord) -> float:
    return float("inf") if trial.loss is None else trial.loss


def _rank(trial: TrialRecord) -> tuple[int, float, int]:
    return ORDER.index(trial.state), _loss(trial), trial.number


def _remark(trial: TrialRecord) -> str:
    if trial.state == "complete":
        return "to compare with" if trial.number == 0 else ""
    if trial.state == "failed":
        return f"failed: {trial.note}"
    return f"{'pruned' if trial.state == 'pruned' else 'to be continued'} after {trial.epochs} epochs"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
