"""The log of a training: log.csv with a row per epoch, and what is shown while it runs."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from asecalc_mlip.files import write_text
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.units import ERROR_UNITS
from training.run.callbacks import TimeBudget

__all__ = ["RunLog", "epochs_trained", "read_rows"]


class RunLog(pl.Callback):
    """One row per epoch in log.csv, and one progress bar over all epochs; without a terminal, a line a minute."""

    def __init__(self, folder: Path, *, progress: bool, budget: TimeBudget | None = None):
        self.path = folder / "log.csv"
        self.progress = progress
        self._budget = TimeBudget(None) if budget is None else budget
        self.seconds = 0.0
        self._bar: tqdm | None = None
        self._start = 0.0
        self._spoken = 0.0

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Open the bar, and drop the rows of epochs that will be run again."""
        self._start = time.monotonic() - self.seconds
        self._rows = [row for row in read_rows(self.path) if int(row["epoch"]) < trainer.current_epoch]
        _write_rows(self.path, self._rows)
        if self.progress and sys.stderr.isatty():
            start, total = trainer.current_epoch, _total(trainer)
            self._bar = tqdm(total=total, initial=start, unit="epoch", dynamic_ncols=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Add the row of this epoch."""
        self.seconds = time.monotonic() - self._start
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("train_", "val_"))}
        row = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 3),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **metrics,
        }
        self._rows.append(row)
        _append_row(self.path, row)
        self._speak(trainer, row)

    def on_train_end(self, *_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds trained so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.seconds = state["seconds"]

    def _speak(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        errors = [f"{name} {1000 * row[key]:.1f} {unit}" for name, key, unit in _SHOWN if key in row]
        text = f"validation: {', '.join(errors)}, lr {row['lr']:.1e}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        elif self.progress and time.monotonic() - self._spoken > 60:
            self._spoken = time.monotonic()
            done, total = trainer.current_epoch + 1, _total(trainer)
            by_epochs = math.inf if total is None else self.seconds / done * (total - done)
            left = min(by_epochs, self._budget.seconds - self._budget.used)
            LOGGER.info(f"epoch {done}{'' if total is None else f'/{total}'}, {text}, {left / 60:.0f} min left")


def _total(trainer: pl.Trainer) -> int | None:
    """Return the epochs of a training; None where only time ends it."""
    return trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None


_SHOWN = [(name.removesuffix("_per_atom"), f"val_{name}_mae", unit) for name, unit in ERROR_UNITS.items()]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a log.csv, values as text; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # A row cut off by a kill has no value in its last column.
        return [row for row in csv.DictReader(file) if None not in row.values() and row.get("epoch", "").isdigit()]


def epochs_trained(path: Path) -> int:
    """Return how many epochs a log.csv tells of; 0 where there is none."""
    return max((int(row["epoch"]) + 1 for row in read_rows(path)), default=0)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _append_row(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
