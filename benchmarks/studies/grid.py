"""A grid of trainings: run what is missing, one thread each, and write each result as it comes.

Shared by the studies. A row is an object with a unique `key`; a result is a dict of plain values, `failed` among them
where something went wrong, so that one bad row does not end a study of hours.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import click

from asecalc_mlip.files import write_json
from asecalc_mlip.locks import locked
from asecalc_mlip.stopping import end_with_parent

__all__ = [
    "add_result",
    "fit_model",
    "load_results",
    "run_rows",
    "select_rows",
    "settings_of",
    "show_parts",
    "to_convergence",
]

Result = dict[str, Any]


class Row(Protocol):
    """One training of a study."""

    @property
    def key(self) -> str:
        """Unique within the study."""
        ...


def load_results(path: Path) -> dict[str, Result]:
    """Results so far, by key."""
    return json.loads(path.read_text()) if path.exists() else {}


def select_rows(names: Sequence[str], known: Mapping[str, Callable[[], list[Any]]]) -> list[Any]:
    """Rows of these names, and of the parts of these names; of all parts without names; each once."""
    every = {row.key: row for rows_of in known.values() for row in rows_of()}
    if unknown := sorted(set(names) - set(known) - set(every)):
        raise click.BadParameter(f"{', '.join(unknown)}: no such part or row; the parts are {', '.join(known)}")
    chosen = [row for name in names or known for row in ([every[name]] if name in every else known[name]())]
    return list({row.key: row for row in chosen}.values())


def show_parts(known: Mapping[str, Callable[[], list[Any]]], path: Path) -> None:
    """Print how much of each part is done."""
    done = load_results(path)
    for part, rows_of in known.items():
        rows = rows_of()
        click.echo(f"{part:<20} {sum(row.key in done for row in rows):4d} of {len(rows)} done")


def run_rows(
    rows: Sequence[Row], work: Callable[[Any], Result], path: Path, *, jobs: int, say: Callable[[Result], str]
) -> None:
    """Work on the rows that `path` has no result of.

    Parameters
    ----------
    rows : sequence of Row
    work : callable
        Row to result; a function of a module, as it runs in other processes.
    path : Path
        JSON of all results, by key; rewritten after each.
    jobs : int
        Rows at once.
    say : callable
        Result to the text shown for it.
    """
    done = load_results(path)
    missing = [row for row in rows if row.key not in done]
    click.echo(f"{len(rows) - len(missing)} of {len(rows)} rows are done")
    for number, (row, result) in enumerate(_results(missing, work, jobs), start=1):
        if "failed" not in result:
            add_result(path, row.key, result)
        text = f"failed: {result['failed']}" if "failed" in result else say(result)
        click.echo(f"{number:4d}/{len(missing)} {row.key:<58} {text}")


def fit_model(settings: Mapping[str, Any], name: str) -> tuple[Path, Any, Any, float]:
    """Train with `settings` over the defaults of the studies and save the best average weights.

    The studies were made with version 0.1, whose defaults they keep.

    Returns
    -------
    (path of the .pt file, Run, AveragedWeights, processor seconds)
    """
    from asecalc_mlip.checkpoint import save
    from training.train import fit, prepare

    start = time.process_time()
    run = prepare(settings_of({**_defaults(settings), **settings}))
    average = fit(run)
    seconds = time.process_time() - start
    average.copy_to_module(average.best or average.average)
    path = Path(run.config.run.output) / "model.pt"
    save(path, run.potential, card={"name": name}, reference_energies=run.e0.to_dict())
    return path, run, average, seconds


def to_convergence(steps: int, stop: int, epoch: int) -> dict[str, Any]:
    """Return settings of a training that ends after `stop` epochs without a better validation error.

    Parameters
    ----------
    steps : int
        At most.
    stop : int
        Epochs; after a third of them without a better error, the learning rate halves.
    epoch : int
        Steps between two validations.
    """
    return {
        "optimizer.schedule": "plateau",
        "optimizer.plateau_patience": stop // 3,
        "optimizer.plateau_factor": 0.5,
        "run.steps_per_epoch": epoch,
        "run.max_epochs": steps // epoch,
        "run.early_stop": stop,
    }


def settings_of(settings: Mapping[str, Any]) -> Any:
    """Return the configuration of a training with these settings over the defaults of today."""
    from training.config import load_config

    return load_config([], [f"{key}={_yaml(value)}" for key, value in settings.items()])


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that the studies leave to the defaults of version 0.1; a base has its own sizes.

    Of sizes there are those that the architecture has.
    """
    from asecalc_mlip.models import hyperparameters_of
    from training.older import DEFAULTS_0_1

    flat = {f"{section}.{name}": value for section, values in DEFAULTS_0_1.items() for name, value in values.items()}
    has_base = "finetune.base" in settings
    sizes = flat.pop("model.hyperparameters")
    known = hyperparameters_of(str(settings.get("model.architecture", "painn")))
    if has_base:
        del flat["model.architecture"]
        return flat
    return {**flat, "model.hyperparameters": {name: v for name, v in sizes.items() if name in known}}


def _yaml(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _results(rows: Sequence[Row], work: Callable[[Any], Result], jobs: int) -> Iterator[tuple[Row, Result]]:
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    # A row that nobody waits for is not written down, and would be run beside the next study.
    with ProcessPoolExecutor(jobs, context, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        pending = {pool.submit(_quietly, work, row): row for row in rows}
        for future in as_completed(pending):
            yield pending[future], future.result()


def _quietly(work: Callable[[Any], Result], row: Row) -> Result:
    import torch

    torch.set_num_threads(1)
    try:
        return work(row)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def add_result(path: Path, key: str, result: Result) -> None:
    """Write the result of a row beside those that other runs of the study have added."""
    with locked(path.with_name(f".{path.name}.wait"), wait=True):
        write_json(path, dict(sorted({**load_results(path), key: result}.items())))
