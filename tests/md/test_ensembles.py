"""Does each integrator sample its ensemble? Kinetic energies and volumes of cheap harmonic systems against theory."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from scipy.stats import chi2, kstest

from asecalc_mlip.analysis import block_average
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.barostats import IsotropicNPT
from asecalc_mlip.md.ensembles import ENSEMBLES, Ensemble, make_integrator
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.integrators import degrees_of_freedom, maxwell_boltzmann
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.settings import MDSettings, make_settings
from asecalc_mlip.md.thermostats import THERMOSTATS, Ramp, Thermostat
from tests.md import toys
from tests.md.commands import call
from tests.md.restarts import assert_same_run, go_on, killed_at

TEMPERATURE = 400.0


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


@pytest.mark.parametrize("thermostat", list(THERMOSTATS))
def test_kinetic_energy_has_the_canonical_distribution(thermostat):
    """2 K / kT is χ² with f degrees of freedom: mean f, variance 2f, and the whole shape (Kolmogorov-Smirnov)."""
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    # A chain as fast as the vibrations (15 fs) locks in with them: the variance was then 57 ± 3 in place of 42.
    tau = 50.0 if thermostat == "nose-hoover" else 15.0
    settings = MDSettings(thermostat=thermostat, temperature_K=TEMPERATURE, timestep_fs=0.5, tau_fs=tau, seed=2)
    kinetic = sample(atoms, settings, 6000, lambda a, _: a.get_kinetic_energy())
    ndof = degrees_of_freedom(atoms, spins=THERMOSTATS[thermostat].spins)
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
    summary = run_md(atoms, settings, tmp_path / "run").summary
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
def test_restart_is_bit_for_bit(tmp_path, changes):
    if changes["ensemble"] == "anneal":
        changes = {**changes, "temperature_end_K": 900.0}
    settings = make_settings(changes["ensemble"], {**changes, "steps": 600, "interval": 20, "timestep_fs": 2.0})
    run_md(block(), settings, tmp_path / "whole")
    with killed_at(390):
        run_md(block(), settings, tmp_path / "cut")
    go_on(block().calc, settings, tmp_path / "cut")
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
    summary = run_md(block(), settings, tmp_path / "run").summary
    log = RunFiles(tmp_path / "run").read_log()
    np.testing.assert_allclose(log["target_K"], np.minimum(900.0, 100.0 + 0.8 * log["step"]))
    third = len(log["step"]) // 3
    assert log["temperature_K"][-third:].mean() > 2 * log["temperature_K"][:third].mean()
    assert summary["reached_K"] == 900.0


def test_commands_and_their_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("block.xyz", bulk("Cu", cubic=True), format="extxyz")
    common = ["--structure", "block.xyz", "--steps", "100", "--interval", "10", "--timestep", "4"]
    result = call("npt", *common, "--pressure", "1", "--output", "a", calculator=block().calc)
    assert result.exit_code == 0 and "Volume" in result.stdout
    more = call("npt", *common, "--restart", "--output", "a", "--steps", "300", calculator=block().calc)
    assert more.exit_code == 0
    assert json.loads(Path("a/summary.json").read_text())["steps_done"] == 300
    hot = call("anneal", *common, "--end-temperature", "800", "--output", "b", calculator=block().calc)
    assert hot.exit_code == 0 and "The thermostat was at 800 K" in hot.stdout
    write("ethanol.xyz", toys.ethanol())
    springs = toys.Springs(toys.ethanol())
    result = call("npt", "--structure", "ethanol.xyz", "--output", "c", calculator=springs)
    assert result.exit_code == 2 and "periodic in three directions" in result.stderr
    result = call("npt", *common, "--output", "d", calculator=toys.Free())
    assert result.exit_code == 2 and "which Free does not give" in result.stderr
    assert not Path("c").exists() and not Path("d").exists()


def test_the_log_of_npt_has_the_cell_and_an_old_log_goes_on_without(tmp_path, monkeypatch):
    settings = make_settings("npt", {"steps": 200, "interval": 20, "timestep_fs": 4.0})
    run_md(block(), settings, tmp_path / "run")
    log = RunFiles(tmp_path / "run").read_log()
    lengths = block().cell.lengths()
    assert list(log)[-5:] == ["volume_A3", "pressure_GPa", "a_A", "b_A", "c_A"]
    np.testing.assert_allclose([log[name][0] for name in ("a_A", "b_A", "c_A")], lengths)
    np.testing.assert_allclose(log["a_A"] * log["b_A"] * log["c_A"], log["volume_A3"])
    # As a version before 0.2 began it.
    monkeypatch.setattr(IsotropicNPT, "columns", ("volume_A3", "pressure_GPa"))
    monkeypatch.setattr(IsotropicNPT, "log_values", lambda self: (self.atoms.get_volume(), 0.0))
    run_md(block(), settings, tmp_path / "old")
    monkeypatch.undo()
    go_on(block().calc, replace(settings, steps=400), tmp_path / "old")
    log = RunFiles(tmp_path / "old").read_log()
    assert list(log)[-2:] == ["volume_A3", "pressure_GPa"] and len(log["step"]) == 21
    assert np.isfinite(log["volume_A3"]).all() and log["pressure_GPa"][-1] != 0.0


class Rescaling(Thermostat, VelocityVerlet):
    """A toy: velocities are scaled to the target after every step."""

    name = "rescaling"
    columns = ("scale",)
    default_tau_fs = 30.0
    scale = 1.0

    def _begin(self, atoms, dt, temperature_K, tau, rng):
        VelocityVerlet.__init__(self, atoms, dt)

    def step(self):
        VelocityVerlet.step(self)
        wanted = 0.5 * self.ndof * units.kB * self.target_K
        self.scale = float(np.sqrt(wanted / self.atoms.get_kinetic_energy()))
        self.atoms.set_momenta(self.scale * self.atoms.get_momenta())

    def conserved(self):
        return float("nan")

    def log_values(self):
        return (self.scale,)


def test_a_new_thermostat_and_ensemble_are_a_class_and_a_row(tmp_path, monkeypatch):
    """Settings, log, monitor and restart know them without another word."""

    def make(atoms, settings, rng):
        return Ramp(THERMOSTATS["rescaling"](atoms, timestep_fs=settings.timestep_fs, temperature_K=100.0), steps)

    def steps(step):
        return 100.0 if step < 100 else 200.0

    monkeypatch.setitem(THERMOSTATS, "rescaling", Rescaling)
    row = Ensemble(
        "jump", make, thermostats=("rescaling",), defaults={"thermostat": "rescaling", "temperature_K": 100.0}
    )
    monkeypatch.setitem(ENSEMBLES, "jump", row)
    monkeypatch.setitem(ENSEMBLES, "nvt", replace(ENSEMBLES["nvt"], thermostats=tuple(THERMOSTATS)))
    held = make_settings("nvt", {"thermostat": "rescaling", "temperature_K": 150.0, "steps": 100, "interval": 20})
    assert held.tau_fs == 30.0
    run_md(block(), held, tmp_path / "held")
    log = RunFiles(tmp_path / "held").read_log()
    np.testing.assert_allclose(log["temperature_K"][1:], 150.0)
    assert list(log)[-1] == "scale" and log["scale"][0] == 1.0 and (log["scale"][1:] != 1.0).all()
    jump = make_settings("jump", {"steps": 400, "interval": 20})
    assert jump.thermostat == "rescaling"
    summary = run_md(block(), jump, tmp_path / "whole").summary
    assert summary["reached_K"] == 200.0
    np.testing.assert_allclose(RunFiles(tmp_path / "whole").read_log()["temperature_K"][-1], 200.0)
    with killed_at(290):
        run_md(block(), jump, tmp_path / "cut")
    go_on(block().calc, jump, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(InputError, match="jump runs with the thermostat rescaling, not 'bussi'"):
        make_settings("jump", {"thermostat": "bussi"})


@pytest.mark.parametrize(
    "given, message",
    [
        ({"ensemble": "nph"}, "nvt, nve, npt, anneal"),
        ({"ensemble": "npt", "barostat": "berendsen"}, "isotropic, full"),
        ({"ensemble": "npt", "thermostat": "bussi"}, "nose-hoover"),
        ({"ensemble": "npt", "tau_p_fs": 1.0}, "ten time steps"),
        ({"ensemble": "npt", "pressure_GPa": float("nan")}, "pressure_GPa"),
        ({"ensemble": "anneal", "temperature_end_K": -1.0}, "temperature_end_K"),
        ({"pressure_GPa": 1.0}, "pressure_GPa is 1.0, and nvt does not read it: leave it out, or run npt"),
        ({"ramp_steps": 10}, "ramp_steps is 10, and nvt does not read it: leave it out, or run anneal"),
        ({"ensemble": "nve", "thermostat": "langevin"}, "thermostat is langevin, and nve has no thermostat: leave it"),
        ({"ensemble": "nve", "tau_fs": 50.0}, "tau_fs is 50.0, and nve has no thermostat: .* run nvt or npt or anneal"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises(InputError, match=message):
        MDSettings(**given)


def test_settings_stay_what_they_are_through_a_file():
    for ensemble in ("nvt", "nve", "npt", "anneal"):
        settings = make_settings(ensemble)
        assert MDSettings(**settings.to_dict()) == settings
    assert make_settings("nvt").thermostat == "nose-hoover" and make_settings("nve").thermostat is None


def test_an_isolated_atom_has_no_pressure():
    with pytest.raises(InputError, match="use nvt"):
        make_integrator(Atoms("Ar"), MDSettings(ensemble="npt"), np.random.default_rng(0))
