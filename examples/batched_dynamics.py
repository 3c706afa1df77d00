"""Molecular dynamics of many copies at once, by torch-sim: pip install "asecalc-mlip[torch-sim]".

python examples/batched_dynamics.py [MODEL] [STRUCTURE]
"""

import sys
import time

import torch_sim as ts
from ase.io import read
from torch_sim.quantities import calc_temperature

from asecalc_mlip import zoo
from asecalc_mlip.torchsim import PIWSLModel


def main(model: str = "aspirin.pt", structure: str | None = None, copies: int = 16, steps: int = 50) -> None:
    """Langevin dynamics at 500 K, each copy with velocities of its own."""
    atoms = [read(structure) if structure else zoo.structure("aspirin")] * copies
    begun = time.perf_counter()
    final = ts.integrate(
        atoms, PIWSLModel.load(model), integrator=ts.nvt_langevin, n_steps=steps, temperature=500.0, timestep=0.0005
    )  # timestep in ps
    seconds = time.perf_counter() - begun
    print(f"{copies} copies, energy {final.energy.mean():.3f} ± {final.energy.std():.3f} eV")
    kelvin = calc_temperature(velocities=final.velocities, masses=final.masses, system_idx=final.system_idx)
    print(f"mean temperature {kelvin.mean():.0f} K")
    print(f"{copies * steps / seconds:.0f} steps of a copy per second")


if __name__ == "__main__":
    main(*sys.argv[1:])
