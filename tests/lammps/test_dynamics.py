"""Dynamics with pair_style asecalc: ASE's trajectory, atoms that change ranks, restarts, and the monitor's lines."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.io import read
from ase.md.verlet import VelocityVerlet

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.analysis.limits import contact_factor
from asecalc_mlip.analysis.references import ContactReference, reference_from_dict
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from asecalc_mlip.lammps.export import write_plain
from asecalc_mlip.lammps.monitor import monitor_block
from asecalc_mlip.zoo import FOLDER as ZOO
from tests.commands import asecalc
from tests.lammps.runs import built, header, lmp
from tests.lammps.test_pair_style import ELEMENTS, turned

SPEED = 20.0  # Å/ps: an atom crosses the 3 Å that are left to the wall in 150 steps of 1 fs


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    """Function that returns the lines of the shipped silica in a dtype, exported once."""
    built()
    folder = tmp_path_factory.mktemp("exported")
    for dtype in ("float32", "float64"):
        write_plain("silica.pt", folder / f"{dtype}.asecalc", dtype=dtype)
    return lambda dtype: f"pair_style asecalc {dtype}\npair_coeff * * {folder / dtype}.asecalc Si O\n"


def silica():
    atoms = turned(read(ZOO / "silica.xyz"))
    atoms.rattle(0.03, seed=1)
    return atoms


def dumped(run, name):
    """Positions and velocities, unwrapped, in the order of IDs."""
    lines = (run.folder / name).read_text().split("ITEM: ATOMS")[-1].splitlines()[1:]
    return np.array([line.split()[1:] for line in lines], dtype=float)


DUMP = "dump {0} all custom {1} {0}.dump id xu yu zu vx vy vz\ndump_modify {0} sort id format float %.12g\n"


def test_nve_on_two_ranks_is_that_of_ase_and_goes_on_from_a_restart_on_one(tmp_path, style):
    """All atoms fly through the walls between the ranks and of the box together."""
    atoms = silica()
    start = header(atoms, tmp_path, ELEMENTS).replace("atom_modify sort 0 0.0\n", "atom_modify sort 5 2.0\n")
    move = f"velocity all set {SPEED} {SPEED} {SPEED}\ntimestep 0.001\nneighbor 0.6 bin\n"
    output = "thermo_style custom step pe\nthermo_modify format float %.12g\n" + DUMP
    first = (
        start
        + style("float64")
        + move
        + output.format("two", 60)
        + "fix 1 all nve\nrun 30\nwrite_restart half.bin\nrun 30"
    )
    run = lmp(first, tmp_path, ranks=2)
    atoms.set_velocities(np.full((len(atoms), 3), SPEED / 1000 / units.fs))
    atoms.calc = PIWSLCalculator.load("silica.pt", dtype="float64")
    VelocityVerlet(atoms, 1.0 * units.fs).run(60)
    found = dumped(run, "two.dump")
    np.testing.assert_allclose(found[:, :3], atoms.positions, atol=1e-7)
    np.testing.assert_allclose(found[:, 3:], atoms.get_velocities() * 1000 * units.fs, atol=1e-5)
    assert run.thermo[-1]["PotEng"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    second = (
        "read_restart half.bin\n" + style("float64") + DUMP.format("one", 60) + "timestep 0.001\nfix 1 all nve\nrun 30"
    )
    again = dumped(lmp(second, tmp_path), "one.dump")
    np.testing.assert_allclose(again, found, atol=1e-7)


def test_barostats_move_the_cell_by_the_stress(tmp_path, style):
    script = header(silica(), tmp_path, ELEMENTS) + style("float32")
    script += "velocity all create 300 1\ntimestep 0.001\nfix 1 all npt temp 300 300 0.1 tri 0 0 1\n"
    script += "thermo_style custom step temp pe etotal vol press\nrun 40"
    thermo = lmp(script, tmp_path, ranks=2).thermo[0]
    volume = silica().get_volume()
    assert abs(thermo["Volume"] / volume - 1.0) > 1e-4
    assert 50.0 < thermo["Temp"] < 600.0


def test_the_monitor_ends_a_run_in_which_atoms_meet(tmp_path, style):
    """Two atoms are thrown at each other; the script goes on after the run, and the trajectory is read by ASE."""
    atoms = silica()
    (tmp_path / "monitor.in").write_text(monitor_block(temperature_K=300.0, every=1))
    script = header(atoms, tmp_path, ELEMENTS) + style("float32")
    # The nearest neighbour of the first atom comes at 1 Å/fs.
    j = int(np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1])
    way = atoms.get_distance(j, 0, mic=True, vector=True)
    x, y, z = 1000.0 * way / np.linalg.norm(way)
    script += (
        f"group one id {j + 1}\nvelocity one set {x} {y} {z}\ntimestep 0.0001\nfix 1 all nve\ninclude monitor.in\n"
    )
    script += "dump 1 all custom 1 x.dump id element x y z\ndump_modify 1 element Si O sort id\n"
    cold = script.replace("include monitor.in", "include monitor.in\nunfix asecalc_hot")
    run = lmp(cold + "run 50\nprint 'went on'", tmp_path)
    assert "asecalc_collapse" in run.text and "went on" in run.text
    frames = read(tmp_path / "x.dump", index=":", format="lammps-dump-text")
    assert 1 < len(frames) < 50 and set(frames[-1].symbols) == {"Si", "O"}
    radii = 0.66 + 1.11
    assert frames[-1].get_distance(0, j, mic=True) < 0.6 * radii < frames[-2].get_distance(0, j, mic=True) + 0.05
    assert "O-Si" in asecalc("rdf", tmp_path / "x.dump").stdout
    assert "asecalc_hot" in lmp(script + "run 50", tmp_path).text


def test_the_monitor_ends_a_run_where_a_pair_is_closer_than_its_data_allow(tmp_path, style):
    """The closest approaches of the data are in the exported file; the share that is allowed, in the lines."""
    atoms, known = silica(), reference_from_dict(load("silica.pt").reference)
    block = monitor_block(known, temperature_K=2000.0, every=1)
    factor = contact_factor(2000.0, known.temperatures_K[1])
    assert f"v_asecalc_of_data < {factor:.4f} " in block
    distances = atoms.get_all_distances(mic=True) + 9.0 * np.eye(len(atoms))
    nearest = min(
        distances[np.ix_(atoms.symbols == a, atoms.symbols == b)].min() / known.closest[f"{a}-{b}"]
        for a, b in [("O", "O"), ("O", "Si"), ("Si", "Si")]
    )
    script = header(atoms, tmp_path, ELEMENTS) + style("float32") + "include monitor.in\nfix 1 all nve\n"
    script += "thermo_style custom step c_asecalc_pair[3]\nthermo_modify lost error\nrun {}\n"
    (tmp_path / "monitor.in").write_text(block)
    assert lmp(script.format(0), tmp_path, ranks=2).thermo[0]["c_asecalc_pair[3]"] == pytest.approx(nearest, rel=1e-4)
    assert "asecalc_contact" not in lmp(script.format(5), tmp_path).text
    (tmp_path / "monitor.in").write_text(block.replace(f"{factor:.4f}", f"{1.2 * nearest:.4f}"))
    assert "asecalc_contact" in lmp(script.format(5), tmp_path).text


def test_limits_of_the_monitor():
    with pytest.raises(InputError, match="give it .--temperature"):
        monitor_block(ContactReference({"O-Si": 1.5}))
    assert "asecalc_hot" not in monitor_block()
    assert "> 3000 error" in monitor_block(temperature_K=300.0, every=10)
    with pytest.raises(InputError, match="both must be above 0"):
        monitor_block(temperature_K=-1.0)
