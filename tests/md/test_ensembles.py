"""Does each integrator sample its ensemble? Kinetic energies and volumes of cheap harmonic systems against theory."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.io import read, write
from scipy.stats import chi2, kstest

from asecalc_mlip.analysis import block_average
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.lifecycle import continue_run, start_run
from asecalc_mlip.md.settings import MDSettings, make_settings
from asecalc_mlip.md.thermostats import degrees_of_freedom, make_integrator, maxwell_boltzmann
from md_protocols import anneal, npt
from tests.md import toys
from tests.md.test_restart import assert_same_run, kill_at

TEMPERATURE = 400.0


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    """Drawing takes longer than these runs."""
    monkeypatch.setattr("asecalc_mlip.md.summary._figure", lambda *arguments: b"")


def block(stiffness=4.0):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = toys.Block(atoms, stiffness)
    return atoms


def sample(atoms, settings, steps, measure, skip=500):
    rng = np.random.default_rng(settings.seed)
    maxwell_boltzmann(atoms, settings.temperature_K, rng)
    dynamics = make_integrator(atoms, settings, rng)
    values = []
    for step in range(steps):
        dynamics.step()
        if step >= skip:
            values.append(measure(atoms, dynamics))
    return np.array(values)


@pytest.mark.parametrize("thermostat", ["langevin", "nose-hoover", "bussi"])
def test_kinetic_energy_has_the_canonical_distribution(thermostat):
    """2 K / kT is χ² with f degrees of freedom: mean f, variance 2f, and the whole shape (Kolmogorov-Smirnov)."""
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    # A chain as fast as the vibrations (15 fs) locks in with them: the variance was then 57 ± 3 in place of 42.
    tau = 50.0 if thermostat == "nose-hoover" else 15.0
    settings = MDSettings(thermostat=thermostat, temperature_K=TEMPERATURE, timestep_fs=0.5, tau_fs=tau, seed=2)
    kinetic = sample(atoms, settings, 6000, lambda a, _: a.get_kinetic_energy())
    ndof = degrees_of_freedom(atoms, thermostat)
    scaled = 2 * kinetic / (units.kB * TEMPERATURE)
    average = block_average(scaled)
    assert abs(average.mean - ndof) < 4 * average.error and average.error < 0.08 * ndof
    spread = block_average((scaled - ndof) ** 2)
    assert abs(spread.mean - 2 * ndof) < 4 * spread.error and spread.error < 0.3 * 2 * ndof
    apart = scaled[:: max(1, int(2 * average.inefficiency))]
    assert kstest(apart, chi2(ndof).cdf).pvalue > 1e-3


@pytest.mark.parametrize("barostat", ["isotropic", "full"])
def test_volume_fluctuates_by_the_compressibility_and_the_cell_has_its_share_of_heat(barostat):
    """var(V) = kT V / B with B = C/3 of the block; a cell momentum has ½ kT for each of its 1 or 6 directions."""
    atoms = block()
    volume = atoms.get_volume()
    settings = MDSettings(
        ensemble="npt",
        barostat=barostat,
        temperature_K=TEMPERATURE,
        timestep_fs=4.0,
        tau_fs=40.0,
        tau_p_fs=300.0,
        seed=1,
    )
    degrees = 1 if barostat == "isotropic" else 6

    def measure(a, d):
        cell = d._p_eps**2 / (2 * d._barostat.W) if barostat == "isotropic" else d._get_cell_kinetic_energy()
        return a.get_volume(), cell, a.get_kinetic_energy()

    found = sample(atoms, settings, 7000, measure)
    unit = 0.5 * units.kB * TEMPERATURE
    variance = block_average((found[:, 0] - found[:, 0].mean()) ** 2)
    expected = units.kB * TEMPERATURE * volume * 3 / 4.0
    assert abs(variance.mean - expected) < 4 * variance.error + 0.05 * expected and variance.error < 0.3 * expected
    cell, kinetic = block_average(found[:, 1] / unit), block_average(found[:, 2] / unit)
    assert abs(cell.mean - degrees) < 4 * cell.error + 0.05 * degrees and cell.error < 0.15 * degrees
    assert abs(kinetic.mean - 9) < 4 * kinetic.error


def test_pressure_is_that_of_the_barostat_and_the_energy_is_conserved(tmp_path):
    atoms = block(1.0)
    settings = MDSettings(
        ensemble="npt", pressure_GPa=2.0, temperature_K=200.0, timestep_fs=4.0, tau_p_fs=100.0, steps=3000, interval=10
    )
    summary = start_run(atoms, settings, tmp_path / "run")
    assert summary["pressure_mean_GPa"] == pytest.approx(2.0, abs=0.5)
    assert summary["volume_mean_A3"] < 0.97 * block().get_volume()  # B = 1/3 eV/Å³ = 53 GPa
    assert abs(summary["energy_drift"]["slope_mev_per_atom_ps"]) < 0.3
    assert read(tmp_path / "run" / "trajectory.extxyz").get_volume() < 0.99 * block().get_volume()


def test_the_block_has_the_stress_of_its_energy():
    atoms = block()
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(atoms.cell.array * [1.02, 0.97, 1.01], scale_atoms=True)
    np.testing.assert_allclose(calculate_numerical_stress(atoms), atoms.get_stress(), atol=1e-8)


@pytest.mark.parametrize(
    "changes",
    [{"ensemble": "npt"}, {"ensemble": "npt", "barostat": "full"}, {"ensemble": "anneal", "thermostat": "bussi"}],
)
def test_restart_is_bit_for_bit(tmp_path, monkeypatch, changes):
    if changes["ensemble"] == "anneal":
        changes = {**changes, "temperature_end_K": 900.0}
    settings = make_settings(changes["ensemble"], {**changes, "steps": 600, "interval": 20, "timestep_fs": 2.0})
    start_run(block(), settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed = kill_at(patch, 390)
        with pytest.raises(killed):
            start_run(block(), settings, tmp_path / "cut")
    continue_run(block().calc, settings, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_ramp_heats_and_stays_at_its_end(tmp_path):
    settings = make_settings(
        "anneal",
        {
            "temperature_K": 100.0,
            "temperature_end_K": 900.0,
            "steps": 1500,
            "ramp_steps": 1000,
            "interval": 50,
            "tau_fs": 20.0,
        },
    )
    assert [settings.target_K(k) for k in (0, 500, 1000, 1500)] == [100.0, 500.0, 900.0, 900.0]
    summary = start_run(block(), settings, tmp_path / "run")
    from asecalc_mlip.md.files import RunFiles

    log = RunFiles(tmp_path / "run").read_log()
    np.testing.assert_allclose(log["target_K"], np.minimum(900.0, 100.0 + 0.8 * log["step"]))
    third = len(log["step"]) // 3
    assert log["temperature_K"][-third:].mean() > 2 * log["temperature_K"][:third].mean()
    assert summary["reached_K"] == 900.0


def test_scripts_and_their_messages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("block.xyz", bulk("Cu", cubic=True), format="extxyz")
    common = ["--structure", "block.xyz", "--steps", "100", "--interval", "10", "--timestep", "4"]
    assert npt.main([*common, "--pressure", "1", "--output", "a"], calculator=block().calc) == 0
    assert "Volume" in capsys.readouterr().out
    assert npt.main([*common, "--restart", "--output", "a", "--steps", "300"], calculator=block().calc) == 0
    assert json.loads(Path("a/summary.json").read_text())["steps_done"] == 300
    assert anneal.main([*common, "--end-temperature", "800", "--output", "b"], calculator=block().calc) == 0
    assert "The thermostat was at 800 K" in capsys.readouterr().out
    write("ethanol.xyz", toys.ethanol())
    springs = toys.Springs(toys.ethanol())
    assert npt.main(["--structure", "ethanol.xyz", "--output", "c"], calculator=springs) == 2
    assert "periodic in three directions" in capsys.readouterr().err
    assert npt.main([*common, "--output", "d"], calculator=toys.Free()) == 2
    assert "which Free does not give" in capsys.readouterr().err
    assert not Path("c").exists() and not Path("d").exists()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"ensemble": "nph"}, "nvt, nve, npt, anneal"),
        ({"ensemble": "npt", "barostat": "berendsen"}, "isotropic, full"),
        ({"ensemble": "npt", "thermostat": "bussi"}, "nose-hoover"),
        ({"ensemble": "npt", "tau_p_fs": 1.0}, "ten time steps"),
        ({"ensemble": "npt", "pressure_GPa": float("nan")}, "pressure_GPa"),
        ({"ensemble": "anneal", "temperature_end_K": -1.0}, "temperature_end_K"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises(InputError, match=message):
        MDSettings(**given)


def test_an_isolated_atom_has_no_pressure():
    with pytest.raises(InputError, match="Use nvt.py"):
        make_integrator(Atoms("Ar"), MDSettings(ensemble="npt"), np.random.default_rng(0))
