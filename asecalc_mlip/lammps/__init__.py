"""LAMMPS: any model as the forces of a run, and embedded-atom potentials as its tables."""

from asecalc_mlip.lammps.bridge import Bridge, attach, new_lammps, run_script

__all__ = ["Bridge", "attach", "new_lammps", "run_script"]
