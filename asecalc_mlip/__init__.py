"""Machine-learned interatomic potentials as ASE calculators.

>>> from asecalc_mlip import PIWSLCalculator
>>> atoms.calc = PIWSLCalculator.load("aspirin.pt")
"""

from typing import TYPE_CHECKING, Any

from asecalc_mlip._version import __version__

if TYPE_CHECKING:
    from asecalc_mlip.calculators.committee import CommitteeCalculator
    from asecalc_mlip.calculators.eam import EAMCalculator
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator

__all__ = ["CommitteeCalculator", "EAMCalculator", "PIWSLCalculator", "__version__"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `asecalc --help` and the analysis functions do not need it.
    if name == "PIWSLCalculator":
        from asecalc_mlip.calculators.piwsl import PIWSLCalculator

        return PIWSLCalculator
    if name == "CommitteeCalculator":
        from asecalc_mlip.calculators.committee import CommitteeCalculator

        return CommitteeCalculator
    if name == "EAMCalculator":
        from asecalc_mlip.calculators.eam import EAMCalculator

        return EAMCalculator
    raise AttributeError(f"module 'asecalc_mlip' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
