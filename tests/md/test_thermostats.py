"""Degrees of freedom, initial velocities, and whether each thermostat holds its temperature."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule

from asecalc_mlip.md.ensembles import make_integrator
from asecalc_mlip.md.integrators import degrees_of_freedom, maxwell_boltzmann
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.thermostats import THERMOSTATS
from tests.md import toys


@pytest.mark.parametrize(
    "atoms, thermostat, expected",
    [
        (molecule("CH3CH2OH"), "nose-hoover", 21),
        (molecule("CH3CH2OH"), "bussi", 21),
        (molecule("CH3CH2OH"), None, 21),
        (molecule("CH3CH2OH"), "langevin", 24),
        (molecule("CO2"), None, 4),
        (molecule("N2"), "bussi", 1),
        (Atoms("Ar"), "langevin", 3),
        (toys.copper(), "nose-hoover", 21),
    ],
)
def test_degrees_of_freedom(atoms, thermostat, expected):
    spins = thermostat is not None and THERMOSTATS[thermostat].spins
    assert degrees_of_freedom(atoms, spins=spins) == expected


def test_initial_velocities_are_maxwell_boltzmann_without_drift_or_spin():
    atoms = toys.ethanol()
    energies = []
    for seed in range(400):
        maxwell_boltzmann(atoms, 300.0, np.random.default_rng(seed))
        energies.append(atoms.get_kinetic_energy())
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-12
    scaled = 2 * np.array(energies) / (units.kB * 300.0)  # chi-squared with 21 degrees of freedom
    assert scaled.mean() == pytest.approx(21, abs=4 * np.sqrt(42 / 400))
    assert scaled.var() == pytest.approx(42, rel=0.3)


@pytest.mark.parametrize("thermostat", list(THERMOSTATS))
def test_thermostat_holds_temperature_and_centre_of_mass(thermostat):
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    settings = MDSettings(thermostat=thermostat, temperature_K=300.0, timestep_fs=0.5, tau_fs=20.0)
    rng = np.random.default_rng(1)
    maxwell_boltzmann(atoms, 300.0, rng)
    centre = atoms.get_center_of_mass()
    dynamics = make_integrator(atoms, settings, rng)
    kinetic = []
    for step in range(8_000):
        dynamics.step()
        if step > 1000:
            kinetic.append(atoms.get_kinetic_energy())
    temperature = 2 * np.mean(kinetic) / (degrees_of_freedom(atoms, spins=THERMOSTATS[thermostat].spins) * units.kB)
    # ASE's count of 3N would put Nosé-Hoover at 27/21 × 300 = 386 K.
    assert temperature == pytest.approx(300.0, abs=25.0)
    np.testing.assert_allclose(atoms.get_center_of_mass(), centre, atol=1e-9)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-9


@pytest.mark.parametrize("thermostat", [None, "nose-hoover", "bussi"])
def test_conserved_energy_is_conserved(tmp_path, thermostat):
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    settings = MDSettings(
        ensemble="nvt" if thermostat else "nve", thermostat=thermostat, temperature_K=300.0, steps=2000, interval=20
    )
    summary = run_md(atoms, settings, tmp_path / "run").summary
    assert abs(summary["energy_drift"]["slope_mev_per_atom_ps"]) < 0.5
    assert summary["energy_drift"]["fluctuation_mev_per_atom"] < 1.0


@pytest.mark.parametrize("thermostat", ["nose-hoover", "bussi"])
def test_a_new_target_changes_no_conserved_energy(thermostat):
    def start():
        atoms = toys.ethanol()
        atoms.calc = toys.Springs(atoms)
        maxwell_boltzmann(atoms, 300.0, np.random.default_rng(1))
        settings = MDSettings(thermostat=thermostat, temperature_K=300.0)
        return atoms, make_integrator(atoms, settings, np.random.default_rng(2))

    atoms, dynamics = start()
    for _ in range(40):
        dynamics.step()
    before = dynamics.conserved()
    dynamics.set_target(900.0)
    assert dynamics.conserved() == pytest.approx(before, abs=1e-9)
    again, other = start()
    again.positions[:] = atoms.positions
    again.set_momenta(atoms.get_momenta())
    other.set_state(json.loads(json.dumps(dynamics.get_state())))
    other.set_target(900.0)
    assert other.conserved() == pytest.approx(before, abs=1e-9)


def test_one_free_atom_under_langevin(tmp_path):
    atoms = Atoms("Ar")
    atoms.calc = toys.Free()
    settings = MDSettings(thermostat="langevin", temperature_K=300.0, steps=2000, interval=20)
    summary = run_md(atoms, settings, tmp_path / "run").summary
    assert summary["stable"] and summary["degrees_of_freedom"] == 3
