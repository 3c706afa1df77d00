"""Every kind of failure, planted in a frame and in a run."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import read

from asecalc_mlip.analysis import MoleculeReference
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.monitor import Monitor
from asecalc_mlip.md.settings import MDSettings
from tests.md import toys


def molecule_monitor(atoms):
    reference = MoleculeReference.from_frames(atoms)
    return Monitor(atoms, temperature_K=300.0, ndof=3 * len(atoms) - 6, reference=reference)


def test_a_whole_molecule_passes():
    atoms = toys.ethanol()
    monitor = molecule_monitor(atoms)
    assert monitor.check(atoms, energy=-1.0, forces=np.zeros((9, 3)), temperature=300.0) is None


def test_broken_bond_names_bond_and_lengths():
    atoms = toys.ethanol()
    monitor = molecule_monitor(atoms)
    i, j = monitor.reference.bonds[1]
    atoms.positions[j] += 0.6 * (atoms.positions[j] - atoms.positions[i])
    failure = monitor.check(atoms)
    assert failure.kind == "bond break" and j in failure.atoms and failure.value > failure.limit == 0.5
    assert f"{atoms.symbols[j]}{j}" in failure.message and "Å" in failure.message


@pytest.mark.parametrize("what", ["energy", "forces", "positions", "momenta"])
def test_nan_anywhere(what):
    atoms = toys.ethanol()
    monitor = molecule_monitor(atoms)
    forces = np.zeros((9, 3))
    if what == "forces":
        forces[4, 1] = np.inf
    elif what != "energy":
        atoms.arrays["momenta"] = np.zeros((9, 3))
        atoms.arrays[what][4, 1] = np.nan
    failure = monitor.check(atoms, energy=np.nan if what == "energy" else 0.0, forces=forces)
    assert failure.kind == "not finite"
    assert what == "energy" or failure.atoms == (4,)


def test_collapse_is_seen_through_the_boundary():
    atoms = Atoms("Cu2", [[0.1, 0, 0], [9.0, 0, 0]], cell=[10, 10, 10], pbc=True)
    monitor = Monitor(atoms, temperature_K=300.0, ndof=3)
    assert monitor.check(atoms).kind == "collapse"  # 1.1 Å apart through the face
    atoms.positions[1, 0] = 5.0
    assert monitor.check(atoms) is None


def test_evaporation_from_a_surface_but_not_of_what_was_alone():
    slab = fcc111("Cu", (2, 2, 2), vacuum=15.0)
    monitor = Monitor(slab, temperature_K=300.0, ndof=21)
    slab.positions[-1, 2] += 3.0
    assert monitor.check(slab) is None
    slab.positions[-1, 2] += 7.0
    failure = monitor.check(slab)
    assert failure.kind == "evaporation" and failure.atoms == (7,)
    alone = Monitor(slab, temperature_K=300.0, ndof=21)
    assert alone.check(slab) is None


def test_temperature_runaway_and_freezing():
    atoms = toys.copper()
    monitor = Monitor(atoms, temperature_K=300.0, ndof=93)
    assert monitor.check(atoms, temperature=2999.0) is None
    hot, cold = monitor.check(atoms, temperature=3001.0), monitor.check(atoms, temperature=29.0)
    assert hot.kind == cold.kind == "temperature" and hot.limit == 3000.0 and cold.limit == 30.0


def test_few_degrees_of_freedom_are_judged_by_an_average():
    """The temperature of one atom leaves [T/10, 10 T] by chance in 1 frame of 25: that is no failure."""
    atoms = Atoms("Ar")
    monitor = Monitor(atoms, temperature_K=300.0, ndof=3)
    temperatures = 300.0 * np.random.default_rng(0).chisquare(3, 2000) / 3
    assert temperatures.min() < 30.0
    assert all(monitor.check(atoms, temperature=t) is None for t in temperatures)
    assert any(monitor.check(atoms, temperature=5.0) for _ in range(30))


def test_atoms_flung_far_away_cost_no_memory():
    atoms = molecule("C6H6")
    monitor = molecule_monitor(atoms)
    atoms.positions[3] = 1e12
    assert monitor.check(atoms).kind == "bond break"


def push(atoms, forces):
    """Drive two bonded atoms apart."""
    forces = forces.copy()
    forces[0] += [30.0, 0.0, 0.0]
    return forces


def poison(atoms, forces):
    forces = forces.copy()
    forces[2] = np.nan
    return forces


def leave(atoms, forces):
    """Switch all springs off and let one hydrogen go, gently: the molecule must not look hot."""
    forces = np.zeros_like(forces)
    outward = atoms.positions[4] - atoms.get_center_of_mass()
    forces[4] = 0.3 * outward / np.linalg.norm(outward)
    return forces


def pull_together(atoms, forces):
    """Drive atoms 3 and 4 (hydrogens that are not bonded to each other) into one another."""
    forces = forces.copy()
    vector = atoms.positions[4] - atoms.positions[3]
    forces[3] += 4.0 * vector
    forces[4] -= 4.0 * vector
    return forces


def heat(atoms, forces):
    """A negative friction that heats all atoms without breaking a bond at once."""
    return forces + 3.0 * atoms.get_velocities() * atoms.get_masses()[:, None]


def settings(**changes):
    return MDSettings(**{"ensemble": "nve", "temperature_K": 300.0, "steps": 400, "interval": 10, **changes})


@pytest.mark.parametrize(
    "kind, change, bond_rule",
    [
        ("bond break", push, True),
        ("not finite", poison, True),
        ("collapse", pull_together, False),
        ("evaporation", leave, False),
        ("temperature", heat, False),
    ],
)
def test_a_run_stops_within_its_window_and_keeps_the_frame(tmp_path, kind, change, bond_rule):
    atoms = toys.ethanol()
    # Loose springs let atoms meet. The failure starts at force call 105, that is near step 100.
    atoms.calc = toys.Springs(atoms, *([0.3, 0.0] if kind == "collapse" else [20.0, 0.5]))
    atoms.calc.failures = {105: change}
    summary = run_md(atoms, settings(bond_rule=bond_rule), tmp_path / "run").summary
    failure = summary["failure"]
    assert summary["status"] == "unstable" and failure["kind"] == kind
    assert 100 <= failure["step"] < 400
    assert 90 <= summary["stable_ps"] / 0.5e-3 < failure["step"]
    frame = read(tmp_path / "run" / "unstable.extxyz")
    assert len(frame) == 9 and frame.info["step"] == failure["step"]
    last = read(tmp_path / "run" / "trajectory.extxyz", index=-1)
    assert last.info["step"] == failure["step"] - 10 or kind == "not finite"


def test_a_calculator_that_refuses_the_broken_geometry_is_a_failure_of_the_run(tmp_path):
    class Strict(toys.Springs):
        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            if not np.isfinite(atoms.positions).all():
                raise InputError("positions are not finite")
            super().calculate(atoms, properties, system_changes)

    atoms = toys.ethanol()
    atoms.calc = Strict(atoms, failures={57: poison})
    summary = run_md(atoms, settings(), tmp_path / "run").summary
    assert summary["failure"]["kind"] == "not finite" and 50 <= summary["failure"]["step"] <= 60


def test_a_calculator_that_fails_for_another_reason_is_not_called_unstable(tmp_path):
    def crash(atoms, forces):
        raise RuntimeError("out of memory")

    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms, failures={57: crash})
    with pytest.raises(RuntimeError, match="out of memory"):
        run_md(atoms, settings(), tmp_path / "run")


def test_a_broken_start_is_bad_input_and_leaves_no_files(tmp_path):
    atoms = toys.copper()
    atoms.positions[1] = atoms.positions[0] + 0.5
    atoms.calc = EMT()
    with pytest.raises(InputError, match="start structure is broken already"):
        run_md(atoms, settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("breaks", [False, True])
def test_the_last_step_is_judged_where_it_is_no_frame(tmp_path, breaks):
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms, failures={105: poison} if breaks else {})
    result = run_md(atoms, settings(steps=107, interval=50), tmp_path)
    steps = [frame.info["step"] for frame in read(tmp_path / "trajectory.extxyz", ":")]
    assert steps == [0, 50, 100]  # frames keep their spacing
    assert result.summary["stable_ps"] == pytest.approx((100 if breaks else 107) * 0.5e-3)
    assert result.summary["failure"] is None if not breaks else result.summary["failure"]["step"] == 107
    if not breaks:
        longer = run_md(toys_ethanol_with_springs(), settings(steps=150, interval=50), tmp_path)
        assert longer.summary["stable_ps"] == pytest.approx(0.075) and longer.summary["frames"] == 4


def toys_ethanol_with_springs():
    atoms = toys.ethanol()
    atoms.calc = toys.Springs(atoms)
    return atoms
