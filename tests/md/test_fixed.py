"""Fixed atoms: they stand still to the bit, the others are at the temperature, and what cannot be is refused."""

from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixCom
from ase.io import read, write

from asecalc_mlip import md
from asecalc_mlip.analysis.kinetics import temperatures
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.fixed import settle_fixed
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.thermostats import THERMOSTATS
from tests.md import toys
from tests.md.commands import call
from tests.md.models import random_model
from tests.md.restarts import assert_same_run, go_on, killed_at

HELD = [0, 4]


def held(indices=HELD):
    """Ethanol on springs, some of whose atoms are fixed."""
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    atoms.set_constraint(FixAtoms(indices))
    return atoms


def settings(thermostat, **changes):
    given = {"temperature_K": 300.0, "timestep_fs": 0.5, "interval": 20, "thermostat": thermostat}
    return MDSettings(ensemble="nvt" if thermostat else "nve", **{**given, **changes})


def test_velocities_and_degrees_of_freedom_are_those_of_the_atoms_that_move():
    atoms, energies = held(), []
    for seed in range(200):
        md.maxwell_boltzmann(atoms, 300.0, np.random.default_rng(seed))
        energies.append(atoms.get_kinetic_energy())
    assert not atoms.get_momenta()[HELD].any() and np.abs(atoms.get_momenta().sum(axis=0)).max() > 0.1
    assert md.degrees_of_freedom(atoms) == md.degrees_of_freedom(atoms, spins=True) == 21
    scaled = 2 * np.array(energies) / (units.kB * 300.0)  # chi-squared
    assert scaled.mean() == pytest.approx(21, abs=4 * np.sqrt(42 / 200))


@pytest.mark.parametrize("thermostat", list(THERMOSTATS))
def test_thermostats_hold_the_temperature_of_the_others(thermostat):
    atoms = held()
    first, rng, kinetic = atoms.positions.copy(), np.random.default_rng(1), []
    md.maxwell_boltzmann(atoms, 300.0, rng)
    dynamics = md.make_integrator(atoms, settings(thermostat, tau_fs=20.0), rng)
    for step in range(4500):
        dynamics.step()
        if step >= 500:
            kinetic.append(atoms.get_kinetic_energy())
    # With 27 degrees of freedom it would be at 386 K, with the noise of the fixed atoms too hot as well.
    assert 2 * np.mean(kinetic) / (21 * units.kB) == pytest.approx(300.0, abs=30.0)
    assert np.array_equal(atoms.positions[HELD], first[HELD]) and not atoms.get_momenta()[HELD].any()
    assert np.abs(atoms.positions - first).max() > 0.05


@pytest.mark.parametrize("thermostat", [None, "nose-hoover", "bussi"])
def test_energy_is_conserved(tmp_path, thermostat):
    atoms = held()
    first = atoms.positions[HELD].copy()
    result = run_md(atoms, settings(thermostat, steps=1000), tmp_path / "run")
    drift = result.summary["energy_drift"]
    assert abs(drift["slope_mev_per_atom_ps"]) < 0.5 and drift["fluctuation_mev_per_atom"] < 1.0
    assert drift["n_atoms"] == 7 and result.summary["n_fixed"] == 2
    assert "2 of 9 atoms fixed" in result.report() and "meV/mobile atom/ps" in result.report()
    frames = read(result.trajectory, ":")
    assert all(np.allclose(frame.positions[HELD], first, atol=1e-8) for frame in frames)
    # Frames say what is fixed, so that their temperature is right, and keep the forces of the model.
    np.testing.assert_allclose(temperatures(frames), result.log()["temperature_K"], rtol=1e-5)
    assert frames[-1].get_forces(apply_constraint=False)[HELD].any() and not frames[-1].get_forces()[HELD].any()


@pytest.mark.parametrize("thermostat", [None, *THERMOSTATS])
def test_restart_is_bit_for_bit(tmp_path, thermostat):
    chosen = settings(thermostat, steps=260)
    run_md(held(), chosen, tmp_path / "whole")
    with killed_at(250):
        run_md(held(), chosen, tmp_path / "cut")
    assert go_on(toys.Springs(toys.ethanol()), chosen, tmp_path / "cut")["n_fixed"] == 2
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(InputError, match="the start structure is not the one"):
        run_md(held([0]), settings(thermostat, steps=300), tmp_path / "cut")


def test_files_that_fix_atoms(tmp_path, monkeypatch):
    """One column of move_mask, or three, in which ASE sees a constraint on each atom."""
    monkeypatch.chdir(tmp_path)
    atoms = held()
    write("one.extxyz", atoms)
    atoms.set_constraint([FixCartesian([k], mask=[k in HELD] * 3) for k in range(9)])
    write("three.extxyz", atoms)
    for name in ("one", "three"):
        given = ("--structure", f"{name}.extxyz", "--steps", 40, "--interval", 20, "-o", name)
        result = call("nvt", *given, calculator=toys.Springs(atoms))
        assert result.exit_code == 0 and "2 of 9 atoms fixed" in result.stdout, result.stderr
    for name in ("trajectory.extxyz", "log.csv"):
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes()
    # The last frame of a run is a start with the same fixed atoms.
    assert settle_fixed(read("one/trajectory.extxyz")).nonzero()[0].tolist() == HELD


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([FixAtoms([0]), FixBondLength(1, 2)], r"constraints \(FixBondLengths\).*FixAtoms is allowed"),
        ([FixCartesian([0], mask=(True, False, True))], "FixCartesian in one or two directions"),
        ([FixAtoms([0]), FixCom()], r"constraints \(FixCom\)"),
        ([FixAtoms(range(9))], "all 9 atoms are fixed"),
    ],
)
def test_other_constraints_are_refused(constraints, message, tmp_path):
    atoms = held()
    atoms.set_constraint(constraints)
    for thermostat in (None, "langevin"):
        with pytest.raises(InputError, match=message):
            md.MDRun(atoms, settings(thermostat, steps=10), tmp_path / "run")
    with pytest.raises(InputError, match=message):
        md.maxwell_boltzmann(atoms, 300.0, np.random.default_rng(0))


def test_constant_pressure_has_no_fixed_atoms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = toys.copper()
    atoms.set_constraint(FixAtoms([0]))
    write("start.extxyz", atoms)
    result = call("npt", "--structure", "start.extxyz", "-o", "run", calculator=toys.EMT())
    assert result.exit_code == 2 and "constraints (FixAtoms), and constant pressure moves all" in result.stderr
    assert "run nvt" in result.stderr and not Path("run").exists()
    atoms.calc = toys.EMT()
    with pytest.raises(InputError, match="constant pressure moves all"):
        md.MDRun(atoms, MDSettings(ensemble="npt", temperature_K=300.0, steps=10), tmp_path / "run")


def test_the_monitor_leaves_out_what_fixed_atoms_do_among_themselves():
    atoms = held()
    atoms.positions[4] = atoms.positions[0] + 0.2  # two fixed atoms that overlap
    monitor = md.Monitor(atoms, temperature_K=300.0, ndof=21, bond_rule=False)
    forces = np.zeros((9, 3))
    forces[0] = 50.0
    assert monitor.check(atoms, forces=forces) is None and monitor.extremes.largest_force == 0.0
    atoms.positions[5] = atoms.positions[0] + 0.1
    assert monitor.check(atoms).kind == "collapse"


def test_replicas_of_a_campaign_keep_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_model(tmp_path / "model.pt")
    write("start.extxyz", [held(), toys.ethanol()])
    common = ("model.pt", "--structure", "start.extxyz", "--temperature", "20", "--seeds", "1", "--no-bond-rule")
    common = (*common, "--timestep", "0.1", "--steps", "20", "--interval", "10", "--thermostat", "langevin")
    result = call("campaign", *common, "-o", "c")
    assert result.exit_code == 0, result.stderr
    frames = read("c/model-start000-20K-seed0/trajectory.extxyz", ":")
    moved = np.abs(frames[-1].positions - frames[0].positions).max(axis=1)
    assert not moved[HELD].any() and (np.delete(moved, HELD) > 0).all()
    assert not frames[-1].get_momenta()[HELD].any()
    assert np.abs(read("c/model-start001-20K-seed0/trajectory.extxyz").get_momenta()).min() > 0
    wrong = held()
    wrong.set_constraint(FixCartesian([0], mask=(True, False, False)))
    write("start.extxyz", wrong)
    result = call("campaign", *common, "-o", "d")
    assert result.exit_code == 2 and "structure 0 of start.extxyz: the structure has constraints" in result.stderr
