"""Lines of an input script that end a run of LAMMPS when its physics broke, with the limits of our own monitor."""

from __future__ import annotations

from asecalc_mlip.errors import InputError

__all__ = ["monitor_block"]

_BLOCK = """\
# Ends the run, and lets the script write what it writes at its end, when two atoms come closer than {collapse:g} of the
# sum of their covalent radii{hot}. A lost atom or an energy that is not finite ends LAMMPS.
compute         asecalc_pair all pair asecalc
variable        asecalc_closest equal c_asecalc_pair[1]
variable        asecalc_share equal c_asecalc_pair[2]
fix             asecalc_collapse all halt {every} v_asecalc_share < {collapse:g} error soft message yes
thermo_modify   lost error
"""
_TEMPERATURE = """\
variable        asecalc_temperature equal c_thermo_temp
fix             asecalc_hot all halt {every} v_asecalc_temperature > {most:g} error soft message yes
"""


def monitor_block(*, temperature_K: float | None = None, every: int = 100) -> str:
    """Return lines that watch the closest approach, lost atoms and the temperature of a run with `pair_style asecalc`.

    Parameters
    ----------
    temperature_K : float, optional
        Of the run, K; ten times as much ends it. Without it the temperature is not watched.
    every : int
        Steps between two looks.

    Raises
    ------
    InputError
        For a temperature that is not above 0, and fewer than one step.
    """
    from asecalc_mlip.analysis.limits import COLLAPSE
    from asecalc_mlip.md.monitor import TEMPERATURE_FACTOR

    if (temperature_K is not None and not temperature_K > 0.0) or every < 1:
        raise InputError(f"temperature {temperature_K} K, every {every} steps: both must be above 0")
    hot = f", or the temperature is above {TEMPERATURE_FACTOR:g} times {temperature_K:g} K" if temperature_K else ""
    block = _BLOCK.format(collapse=COLLAPSE, every=every, hot=hot)
    if temperature_K:
        block += _TEMPERATURE.format(every=every, most=TEMPERATURE_FACTOR * temperature_K)
    return block
