"""The large form of the attacks: make attack, or python -m tests.attack --help."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch

from asecalc_mlip._version import __version__
from asecalc_mlip.files import read_json, write_json
from tests.attack.catalogue import FAMILIES
from tests.attack.harness import Family, attack
from tests.attack.outcomes import OUTCOMES, Tally

OUTPUT = Path("benchmarks") / "results" / "attack.json"
EVERY = 20.0  # s between two states on the disk


@click.command(help="Run the large form of the attacks; an interrupted run goes on when it is started again.")
@click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, show_default=True)
@click.option("--seed", type=int, help="Default: that of the unfinished run in the output, else a new one.")
@click.option("--only", multiple=True, help="Families, by name or its beginning.")
@click.option("--share", type=click.FloatRange(0, 1), default=1.0, help="Of the large number of cases.")
@click.option("--case", "only_case", type=int, help="Run one case of the families alone, and show it.")
def main(output: Path, seed: int | None, only: tuple[str, ...], share: float, only_case: int | None) -> None:
    """Attack, count, write."""
    torch.set_num_threads(1)
    chosen = {n: f for n, f in FAMILIES.items() if not only or any(n.startswith(o) for o in only)}
    if not chosen:
        raise click.UsageError(f"--only: there is no such family; there are {', '.join(FAMILIES)}")
    if only_case is not None:
        for name, family in chosen.items():
            click.echo(f"{name}: {family.run(seed or 0, only_case)}")
        return
    content = _state(output, seed)
    click.echo(f"seed {content['seed']}")
    for family in chosen.values():
        _run(family, max(family.small, round(share * family.large)), content, output)
    content["complete"] = True
    write_json(output, content)
    sums = {outcome: sum(f["counts"][outcome] for f in content["families"].values()) for outcome in OUTCOMES}
    click.echo(f"{output}: {sums}")


def _state(output: Path, seed: int | None) -> dict:
    """Return the state of an unfinished run with this seed, or of a new one."""
    if output.is_file():
        found = read_json(output)
        if not found["complete"] and seed in (None, found["seed"]):
            return found
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    version = {"asecalc_mlip": __version__, "torch": torch.__version__}
    return {"seed": seed, "complete": False, "version": version, "families": {}}


def _run(family: Family, cases: int, content: dict, output: Path) -> None:
    tally, last = Tally(**content["families"].get(family.name, {})), time.monotonic()
    for case, result in attack(family, content["seed"], range(tally.cases, cases)):
        tally.add(case, result)
        if not result.well:
            click.echo(f"  {family.name}, case {case}: {result.outcome}: {result.what}: {result.told}")
        if time.monotonic() - last > EVERY or case == cases - 1:
            content["families"][family.name], last = asdict(tally), time.monotonic()
            write_json(output, content)
    click.echo(f"{family.name}: {tally}")


if __name__ == "__main__":
    main()
