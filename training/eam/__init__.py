"""Embedded-atom potentials: fitted to labelled structures, and as a source of labels."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.eam.fit import EAMFit, fit_eam
    from training.eam.labelling import label
    from training.eam.settings import FitSettings

__all__ = ["EAMFit", "FitSettings", "fit_eam", "label"]


def __getattr__(name: str) -> Any:
    # A process that labels structures (training.eam.worker) would import the trainer with this package.
    if name in ("EAMFit", "fit_eam"):
        from training.eam import fit

        return getattr(fit, name)
    if name == "label":
        from training.eam.labelling import label

        return label
    if name == "FitSettings":
        from training.eam.settings import FitSettings

        return FitSettings
    raise AttributeError(f"module 'training.eam' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
