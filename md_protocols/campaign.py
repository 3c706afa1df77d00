"""Many runs as one plan: models × start structures × temperatures × seeds. nvt.py shows the parts of a single run.

python md_protocols/campaign.py                                # shipped aspirin at 500 K, three seeds
python md_protocols/campaign.py --temperature 300 --seeds 64 --output many

`asecalc campaign` does the same and has more options.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

try:
    from asecalc_mlip import md
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from asecalc_mlip import md

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.commands.run_options import RunCommand
from asecalc_mlip.quantities import parse_seeds


@click.command(cls=RunCommand, help="Run many simulations: models × starts × temperatures × seeds.")
@click.option("--model", "models", multiple=True, metavar="FILE", help="May be repeated; default aspirin.pt.")
@click.option("--structure", "structures", multiple=True, metavar="FILE", help="Start structures; may be repeated.")
@click.option(
    "--temperature",
    "temperatures_K",
    type=Number(q.TEMPERATURE),
    multiple=True,
    metavar="K",
    help="May be repeated.",
)
@click.option("--steps", type=Number(q.STEPS), metavar="N", help="Steps of each run.")
@click.option("--seeds", metavar="N|A,B,C", help="Number of seeds from 0 on, or the seeds; default 3.")
@click.option("--output", metavar="DIR", help="Folder; default campaign, or the next free name.")
@click.option("--restart", is_flag=True, help="Continue what is in --output; other settings come from there.")
def main(
    models: tuple[str, ...],
    structures: tuple[str, ...],
    temperatures_K: tuple[float, ...],
    steps: int | None,
    seeds: str | None,
    output: str | None,
    restart: bool,
) -> int:
    """Run a campaign; returns the exit code."""
    given: dict[str, Any] = {"structures": structures, "temperatures_K": temperatures_K, "steps": steps}
    given["seeds"] = parse_seeds(seeds)
    if restart:
        # What is given must be what the campaign was planned with.
        planned = md.Campaign.stored(output or "campaign", models=models, **given)
    else:
        # Each model is opened once. Every run gets a folder and random numbers of its own.
        planned = md.plan_campaign(models or ("aspirin.pt",), output=output, **given)
        click.echo(f"{len(planned.runs)} runs in {planned.directory}")

    # Replicas of a model advance together: the neighbours and forces of up to 64 in one call.
    report = md.run_campaign(planned, batch_size=64, processes=1, progress=None)
    click.echo(str(report))
    return report.exit_code


if __name__ == "__main__":
    main()
