"""The Optuna study of a search: its file, its sampler, and whether it is the search that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from asecalc_mlip.digests import digest_of, sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.files import write_text
from asecalc_mlip.quantities import derived_seed
from training.config import TrainConfig, load_config, replace_values
from training.older import completed
from training.run.useless import refuse_useless, without_useless
from training.splitting import other_contents
from training.tune.space import Parameter

try:
    import optuna
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    raise needs("asecalc tune", error) from None

__all__ = ["TrialState", "open_study", "optuna", "quiet_optuna", "sampler", "stored"]

# What may change between two parts of one search without making trials incomparable.
FREE = {"run.threads", "run.progress", "run.output", "run.name", "run.licence", "run.device"}
FREE |= {"data.test", "data.source", "data.level_of_theory"}


def open_study(config: TrainConfig, parameters: Sequence[Parameter], folder: Path) -> optuna.Study:
    """Open the study in a folder, new where nothing was trained yet.

    Raises
    ------
    InputError
        For a folder with trials of another search, and a file that cannot be read.
    """
    database, saved = folder / "study.db", folder / "search.yaml"
    now = {
        "space": [str(p) for p in parameters],
        "data": _digest(config.data.train),
        "others": _others(config),
        "config": config.to_dict(),
    }
    if any((folder / "trials").glob("*/log.csv")):
        _check_same(saved, now, config, folder)
    else:
        refuse_useless(config)
        database.unlink(missing_ok=True)
    write_text(saved, yaml.safe_dump(now, sort_keys=False, allow_unicode=True))
    # Half of the epochs: weak supervision learns more slowly at first.
    assert config.run.max_epochs is not None
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.run.max_epochs // 2)
    try:
        return optuna.create_study(
            storage=f"sqlite:///{database}", study_name="tune", pruner=pruner, direction="minimize", load_if_exists=True
        )
    except Exception as error:  # noqa: BLE001  of SQLAlchemy, of many kinds
        raise _of_file(database, error) from None


@contextmanager
def stored(folder: Path) -> Iterator[None]:
    """Turn errors of the study's file, such as a full disk, into InputError."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise _of_file(folder / "study.db", error.__cause__ or error) from error


def sampler(seed: int, number: int, n_parameters: int) -> Any:
    """Make a tree-structured Parzen estimator whose random numbers are those of trial `number` alone."""
    # The plain training has no values, and only groups are sampled together in spite of that.
    return optuna.samplers.TPESampler(
        n_startup_trials=2 + 2 * n_parameters,
        multivariate=True,
        group=True,
        constant_liar=False,
        seed=derived_seed(seed, number),
    )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's own log and its warnings that parts of the sampler may change."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)


def _of_file(database: Path, error: BaseException) -> InputError:
    return InputError(
        f"{database} cannot be read or written ({str(error).splitlines()[0][:120]}). Make room, or put a copy of it "
        "back, and run the same command again; or choose another -o"
    )


def _check_same(saved: Path, now: dict[str, Any], config: TrainConfig, folder: Path) -> None:
    try:
        before = yaml.safe_load(saved.read_text(encoding="utf-8"))
        old = replace_values(load_config([]), _flat(completed(before["config"])))  # newer settings have their defaults
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds trials, but {saved} does not say of which search: {error!r}") from None
    a, b = _flat(without_useless(old).to_dict()), _flat(without_useless(config).to_dict())
    changed = [f"{key} was {a.get(key)}, is {b.get(key)}" for key in {**a, **b} if a.get(key) != b.get(key)]
    changed = [text for text in changed if text.partition(" ")[0] not in FREE]
    if before["space"] != now["space"]:
        changed.append(f"--space was {' '.join(before['space'])}, is {' '.join(now['space'])}")
    if not changed and before["data"] != now["data"]:
        changed.append(f"the content of {b['data.train']}")
    if not changed and before.get("others") not in (None, now["others"]):  # None: of an older version
        changed.append("the content of the split file, or of the other files or models that trainings start from")
    if changed:
        raise InputError(
            f"{folder} holds a search with other settings: {'; '.join(changed)}. Choose another -o, or use the same "
            "settings to continue it"
        )


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, values in config.items() for key, value in values.items()}


def _others(config: TrainConfig) -> str:
    split = config.data.split_file
    return digest_of([repr((split and _digest(split), *other_contents(without_useless(config))))])


def _digest(path: str) -> str | None:
    return sha256_of(path) if Path(path).is_file() else None
