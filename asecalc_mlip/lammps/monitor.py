"""Lines of an input script that end a run of LAMMPS when its physics broke, with the limits of our own monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asecalc_mlip.errors import InputError

if TYPE_CHECKING:
    from asecalc_mlip.analysis.references import Reference

__all__ = ["monitor_block"]

_BLOCK = """\
# Ends the run, and lets the script write what it writes at its end, when two atoms come closer than {collapse:g} of the
# sum of their covalent radii{near}{hot}. A lost atom or an energy that is not finite ends LAMMPS.
compute         asecalc_pair all pair asecalc
variable        asecalc_closest equal c_asecalc_pair[1]
variable        asecalc_share equal c_asecalc_pair[2]
fix             asecalc_collapse all halt {every} v_asecalc_share < {collapse:g} error soft message yes
thermo_modify   lost error
"""
_DATA = """\
variable        asecalc_of_data equal c_asecalc_pair[3]
fix             asecalc_contact all halt {every} v_asecalc_of_data < {factor:.4f} error soft message yes
"""
_TEMPERATURE = """\
variable        asecalc_temperature equal c_thermo_temp
fix             asecalc_hot all halt {every} v_asecalc_temperature > {most:g} error soft message yes
"""


def monitor_block(reference: Reference | None = None, *, temperature_K: float | None = None, every: int = 100) -> str:
    """Return lines that watch the closest approach, lost atoms and the temperature of a run with `pair_style asecalc`.

    Parameters
    ----------
    reference : Reference, optional
        Of the training data of the model (`asecalc_mlip.analysis.references`). With it, pairs of elements may not come
        closer than the share of their closest approach in the data that `asecalc_mlip.analysis.limits` states.
    temperature_K : float, optional
        Of the run, K; ten times as much ends it. Without it the temperature is not watched.
    every : int
        Steps between two looks.

    Raises
    ------
    InputError
        For a temperature that is not above 0 or is missing beside a reference, and fewer than one step.
    """
    from asecalc_mlip.analysis.limits import COLLAPSE, contact_factor
    from asecalc_mlip.md.monitor import TEMPERATURE_FACTOR

    if (temperature_K is not None and not temperature_K > 0.0) or every < 1:
        raise InputError(f"temperature {temperature_K} K, every {every} steps: both must be above 0")
    near, of_data = "", ""
    if reference is not None and reference.closest:
        if temperature_K is None:
            raise InputError(
                "how close atoms may come depends on the temperature of the run: give it (--temperature), or leave out "
                "the model for the limits of the covalent radii"
            )
        span = reference.temperatures_K
        factor = contact_factor(temperature_K, span[1] if span else None)
        near = f",\n# or of {factor:.2f} of their closest approach in the training data"
        of_data = _DATA.format(every=every, factor=factor)
    hot = f", or the temperature is above {TEMPERATURE_FACTOR:g} times {temperature_K:g} K" if temperature_K else ""
    block = _BLOCK.format(collapse=COLLAPSE, every=every, near=near, hot=hot) + of_data
    if temperature_K:
        block += _TEMPERATURE.format(every=every, most=TEMPERATURE_FACTOR * temperature_K)
    return block
