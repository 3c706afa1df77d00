"""LAMMPS: a pair style over MPI, any calculator as the forces of a run, embedded-atom potentials as its tables."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asecalc_mlip.lammps.bridge import Bridge, attach, new_lammps, run_script
    from asecalc_mlip.lammps.plugin import load_pair_style

__all__ = ["Bridge", "attach", "load_pair_style", "new_lammps", "run_script"]


def __getattr__(name: str) -> Any:
    # Each start of LAMMPS asks the file plugin for its folder, and must not wait for torch.
    if name == "load_pair_style":
        from asecalc_mlip.lammps.plugin import load_pair_style

        return load_pair_style
    if name in __all__:
        from asecalc_mlip.lammps import bridge

        return getattr(bridge, name)
    raise AttributeError(f"module 'asecalc_mlip.lammps' has no attribute {name!r}; it has {', '.join(__all__)}")
