"""The labelled frames of a run: read, and refused where their labels cannot be right."""

from __future__ import annotations

from collections.abc import Mapping

from ase import Atoms

from asecalc_mlip.data.census import Census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from training.settings import DataConfig

__all__ = ["read_data", "require"]


def read_data(data: DataConfig) -> list[Atoms]:
    """Read all frames of `data.train`; InputError where that names none."""
    if not data.train:
        raise InputError("data.train is empty; name the file with the labelled structures, e.g. data.train=train.xyz")
    return read_frames(data.train, **data.reading())


def require(counts: Census, weights: Mapping[str, float], allowed: bool | tuple[str, ...]) -> None:
    """Refuse labels that cannot be right, with the way to go on all the same where there is one.

    Parameters
    ----------
    counts : Census
    weights : mapping
        Weight of each label in the loss.
    allowed : bool or tuple of str
        Labels whose implausible size is accepted, as for `Census.require`.

    Raises
    ------
    DataError
    """
    try:
        counts.require(weights, allow_implausible=allowed)
    except DataError as error:
        if any(problem.text == str(error) and problem.size_only for problem in counts.problems):
            raise DataError(f"{error}. If the labels are right as they are: data.trust=true (--trust-data)") from None
        raise
