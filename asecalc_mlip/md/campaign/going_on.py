"""Whether the plan of a campaign is the one that the options of a restart ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asecalc_mlip import zoo
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structures
from asecalc_mlip.md.campaign.runs import STARTS, Run, pick_frames

__all__ = ["check_plan"]


def check_plan(
    directory: Path,
    runs: Sequence[Run],
    *,
    models: Sequence[str | Path] = (),
    structures: Sequence[str | Path] = (),
    starts: int | None = None,
    temperatures_K: Sequence[float] = (),
    seeds: Sequence[int] | None = None,
    reference: str | Path | None = None,
    **settings: Any,
) -> None:
    """Refuse options that a plan was not made with; what is not given is not compared.

    Parameters
    ----------
    directory : Path
        Folder of the campaign.
    runs : sequence of Run
    **settings
        The others as for `plan_campaign`; None: not given.

    Raises
    ------
    InputError
        Naming what differs.
    """
    planned = {
        "temperature_K": {run.settings["temperature_K"] for run in runs},
        "seeds": {int(run.name.rpartition("seed")[2]) for run in runs},
    }
    wanted = {
        "temperature_K": set(temperatures_K) or None,
        "seeds": set(seeds) if seeds else None,
    }
    differences = [
        f"{name} were {_list(planned[name])}, now {_list(values)}"
        for name, values in wanted.items()
        if values is not None and values != planned[name]
    ]
    if starts is not None and starts != (number := 1 + max(run.start for run in runs)):
        differences.append(f"starts was {number}, now {starts}")
    for name, value in settings.items():
        before = {run.settings[name] for run in runs}
        if value is not None and before != {value}:
            differences.append(f"{name} was {_list(before)}, now {value}")
    if models and {sha256_of(zoo.find(model)) for model in models} != {run.sha256 for run in runs}:
        differences.append(f"the models were {_list({run.model for run in runs})}")
    if structures:
        given = pick_frames(read_structures(*structures), starts, ", ".join(map(str, structures)))
        if (directory / STARTS).read_bytes() != xyz_bytes(given):
            differences.append("its start structures were others")
    if reference is not None and {str(Path(reference).resolve())} != {run.reference for run in runs}:
        differences.append(f"the reference was {_list({run.reference or 'that of each model' for run in runs})}")
    if differences:
        raise InputError(
            f"the campaign in {directory} was begun with other settings ({'; '.join(differences)}): give the same ones "
            "or none, or leave --restart out and give another --output for a new campaign"
        )


def _list(values: set) -> str:
    return ", ".join(map(str, sorted(values, key=lambda value: (str(type(value)), value))))
