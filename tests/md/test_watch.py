"""Limits from the data: contacts by pair and temperature, coordination, bonds in a box, g(r) of like conditions."""

import json
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from asecalc_mlip import md
from asecalc_mlip.analysis import ContactReference, MoleculeReference, PeriodicReference, make_reference, stability
from asecalc_mlip.analysis.bonds import bond_lengths, find_bonds, holds_molecules, is_boxed_molecule, whole
from asecalc_mlip.analysis.limits import COLLAPSE, ContactLimits, contact_factor
from asecalc_mlip.analysis.references import unlike
from asecalc_mlip.analysis.shells import shells_of
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.monitor import Monitor, start_bonds
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.summary import summary_text
from asecalc_mlip.zoo import FOLDER
from tests.md import toys


def silica():
    """The shipped start structure and reference."""
    found = md.resolve("silica.pt")
    return found.atoms, found.reference


def watch(atoms, reference, temperature_K=2000.0):
    return Monitor(atoms, temperature_K=temperature_K, ndof=3 * len(atoms) - 3, reference=reference)


def boxed(shift=(0.0, 0.0, 0.0)):
    """Ethanol in a box of 12 Å, cut by its faces where `shift` moves it there."""
    atoms = toys.ethanol()
    atoms.set_cell([12.0, 12.0, 12.0])
    atoms.pbc = True
    atoms.positions += shift
    atoms.wrap()
    return atoms


def closest_of(atoms, first, second):
    """The two atoms of these elements that are closest."""
    d = atoms.get_all_distances(mic=True) + 99.0 * np.eye(len(atoms))
    symbols = np.array(atoms.get_chemical_symbols())
    d[~((symbols[:, None] == first) & (symbols == second))] = 99.0
    return np.unravel_index(int(np.argmin(d)), d.shape)


@pytest.mark.parametrize(("pair", "distance"), [(("Si", "Si"), 1.47), (("O", "O"), 1.3), (("O", "Si"), 1.1)])
def test_a_collapse_that_covalent_radii_allow_is_caught_by_the_data(pair, distance):
    _, reference = silica()
    atoms = Atoms(pair, [[0, 0, 0], [3.0, 0, 0]])
    old, new = watch(atoms, None), watch(atoms, reference)
    atoms.positions[1, 0] = distance
    failure = new.check(atoms)
    assert failure.kind == "collapse" and failure.value == pytest.approx(distance) and distance < failure.limit
    assert "closest approach in the training data" in failure.rule and failure.rule in failure.message
    assert all(part in failure.brief for part in ("collapse", pair[0], f"{failure.limit:.3g}", "Å"))
    assert old.check(atoms) is None and old.contacts.describe(2000.0)["rule"] == "covalent radii"


def test_limits_fall_with_temperature_and_never_below_the_covalent_ones():
    assert contact_factor(300.0, 300.0) == contact_factor(100.0, 300.0) == pytest.approx(0.85)
    assert contact_factor(600.0, 300.0) == pytest.approx(0.85 / 2 ** (1 / 8))
    assert contact_factor(1e6, 300.0) == 0.6 and contact_factor(300.0, None) == 0.7
    atoms, reference = silica()
    limits = ContactLimits.of(atoms, reference.closest, 1000.0)
    cold, hot, unknown = limits.by_pair(1000.0), limits.by_pair(4000.0), ContactLimits.of(atoms, {}).by_pair(300.0)
    assert all(cold[pair] > hot[pair] >= unknown[pair] for pair in ("O-O", "O-Si", "Si-Si"))
    assert unknown["Si-Si"] == pytest.approx(COLLAPSE * 2.22) and "0.6 of the sum" in ContactLimits.of(atoms, {}).rule(
        "Si-Si", 300.0
    )


def test_a_ramp_takes_the_limits_of_its_temperature():
    atoms, reference = silica()
    monitor = watch(atoms, reference, 500.0)
    i, j = closest_of(atoms, "Si", "Si")
    atoms.set_distance(i, j, 2.1, fix=1, mic=True)
    assert monitor.check(atoms).kind == "collapse"
    monitor.temperature_K = 4000.0
    failure = monitor.check(atoms)
    assert failure is None or failure.pair != f"Si{i}-Si{j}"


def test_every_shipped_model_carries_its_closest_approaches():
    for path in sorted(FOLDER.glob("*.pt")):
        found = md.resolve(path.name)
        assert found.known_reference.closest and found.reference_name == f"in {path.name}"
        beside = path.with_suffix("").with_suffix(".reference.json")
        if beside.exists():
            assert found.known_reference.closest == pytest.approx(json.loads(beside.read_text())["closest"], rel=1e-5)


def test_contacts_alone_excuse_a_start_that_the_data_do_not_know(caplog):
    peroxide = Atoms("O2", [[0, 0, 0], [0, 0, 1.45]])
    data = ContactReference({"O-O": 2.2}, 100, "alcohols", (300.0, 300.0))
    with caplog.at_level(logging.WARNING):
        monitor = watch(peroxide, data, 300.0)
    assert "O-O at 1.45 Å, closer than the training data" in caplog.text
    assert monitor.check(peroxide) is None and monitor.rules()["contacts"]["excused_A"] == {"O-O": 1.45}
    apart = Atoms("O2", [[0, 0, 0], [0, 0, 3.0]])
    monitor = watch(apart, data, 300.0)
    apart.positions[1, 2] = 1.45
    assert monitor.check(apart).kind == "collapse"


def test_a_start_structure_says_nothing_about_how_close_atoms_may_come():
    atoms = toys.ethanol()
    monitor = Monitor.for_run(atoms, MDSettings())
    assert monitor.rules()["contacts"]["rule"] == "covalent radii" and monitor.rules()["bonds"]["number"] == 8


# --- coordination ---


def test_shells_of_copper_and_silica():
    frames = [bulk("Cu", cubic=True) * 2 for _ in range(5)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.08, seed=k)
    (shell,) = make_reference(frames).shells.values()
    assert shell["low"] == shell["high"] == 12.0 and 2.6 < shell["cutoff"] < 3.6
    atoms, reference = silica()
    assert {name: round(s["low"]) for name, s in shells_of([atoms], reference.rdfs).items()}["O-Si"] == 2


def test_a_network_that_comes_apart_without_any_contact_is_caught_by_coordination():
    atoms, reference = silica()
    monitor = watch(atoms, reference)
    assert monitor.rdf is None and "298 to 1000 K and the run is at 2000 K" in monitor.not_used["g(r)"]
    sound = [monitor.check(_thermal(atoms, k)) for k in range(30)]
    assert sound == [None] * 30
    opened = atoms.copy()
    for oxygen in np.flatnonzero(atoms.symbols == "O")[::2]:  # each leaves one of its two silicon atoms
        silicon = closest_of(atoms[[oxygen, *np.flatnonzero(atoms.symbols == "Si")]], "O", "Si")[1]
        partner = np.flatnonzero(atoms.symbols == "Si")[silicon - 1]
        away = atoms.get_distance(partner, oxygen, mic=True, vector=True)
        opened.positions[oxygen] += 0.75 * away / np.linalg.norm(away)
    found = [monitor.shells.check(_thermal(opened, k), *_pairs(opened, k, monitor)) for k in range(40)]
    failure = next(f for f in found if f is not None)
    assert failure.kind == "coordination" and failure.pair in ("O-Si", "Si-Si", "O-O")
    assert "training data and the start" in failure.message and np.isfinite(failure.value)


def _thermal(atoms, seed):
    moved = atoms.copy()
    moved.positions += 0.06 * np.random.default_rng(seed).standard_normal(moved.positions.shape)
    return moved


def _pairs(atoms, seed, monitor):
    from asecalc_mlip.neighbors.pairs import pairs_within

    return pairs_within(_thermal(atoms, seed), monitor._radius)


def test_the_window_of_coordination_survives_a_restart():
    atoms, reference = silica()
    first, second = watch(atoms, reference), watch(atoms, reference)
    for k in range(7):
        first.check(_thermal(atoms, k))
    second.set_state(json.loads(json.dumps(first.get_state())), first.get_window())
    np.testing.assert_array_equal(first.shells.array(), second.shells.array())
    assert second.get_state() == first.get_state()


# --- g(r) of like conditions ---


def _crystals(temperatures_K, scale=1.0):
    frames = [bulk("Cu", cubic=True) * 2 for _ in range(12)]
    for k, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.rattle(0.1, seed=k)
    return PeriodicReference.from_frames(frames, temperatures_K=temperatures_K)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (_crystals((300.0, 300.0)), None),
        (_crystals((290.0, 310.0)), "290 to 310 K, not of one temperature"),
        (_crystals((500.0, 500.0)), "of 500 K and the run is at 300 K"),
        (_crystals(None), "state no temperature"),
        (_crystals((300.0, 300.0), scale=1.03), "atoms per Å³"),
    ],
    ids=["alike", "several", "hotter", "unknown", "thinner"],
)
def test_g_of_r_is_a_rule_only_under_like_conditions(reference, reason, tmp_path):
    atoms = bulk("Cu", cubic=True) * 2
    monitor = watch(atoms, reference, 300.0)
    assert (monitor.rdf is None) == (reason is not None)
    assert reason is None or reason in monitor.rules()["not_used"]["g(r)"]
    gold = bulk("Au", a=3.61, cubic=True) * 2
    assert "Cu and the run is of Au" in (unlike(_crystals((300.0, 300.0)), gold, 300.0) or "")


def test_displaced_structures_as_reference_do_not_stop_a_crystal():
    """Random displacements have another g(r) than a crystal at rest: that was called unstable."""
    frames = [bulk("NaCl", "rocksalt", a=5.64, cubic=True) for _ in range(20)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.35, seed=k)
    start = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    monitor = watch(start, PeriodicReference.from_frames(frames, kind="solid"), 300.0)
    for k in range(40):
        moved = start.copy()
        moved.rattle(0.05, seed=k)
        assert monitor.check(moved) is None


# --- molecules in a box ---


def test_one_molecule_in_a_box_is_told_from_crystals_and_from_several():
    for shift in ([0, 0, 0], [0, 6, 0], [5.8, 11.9, 0.3]):
        assert is_boxed_molecule(boxed(shift))
    two = boxed()
    two += boxed([6.0, 0, 0])
    chain = Atoms("C4", [[1.3 * k, 0, 0] for k in range(4)], cell=[5.2, 10, 10], pbc=True)
    for other in (two, chain, bulk("Cu") * 2, bulk("Cu"), Atoms("He", cell=[9, 9, 9], pbc=True), toys.ethanol()):
        assert not is_boxed_molecule(other)


def several():
    """Two ethanols and a hydrogen molecule in a box, both ethanols cut by its faces."""
    atoms = boxed([5.8, 0.3, 11.9])
    atoms += boxed([0.2, 6.1, 5.7])
    atoms += Atoms("H2", [[6.0, 0.1, 4.0], [6.0, 11.4, 4.0]])
    return atoms


def test_several_molecules_in_a_box_are_told_from_crystals_and_ions():
    assert holds_molecules(several()) and holds_molecules(boxed()) and not is_boxed_molecule(several())
    ion = several() + Atoms("Na", [[6.0, 6.0, 9.9]])
    chain = Atoms("C4", [[1.3 * k, 0, 0] for k in range(4)], cell=[5.2, 10, 10], pbc=True)
    both = chain.repeat((1, 1, 1)) + Atoms("H2", [[0, 5, 5], [0, 5, 5.74]])
    for other in (ion, chain, both, bulk("Cu") * 2, toys.ethanol()):
        assert not holds_molecules(other)
    found = several()
    bonds = find_bonds(found)
    lengths = np.linalg.norm(np.diff(whole(found.positions, bonds, found)[bonds], axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(lengths, bond_lengths(found.positions, bonds, found), atol=1e-9)


def test_a_bond_of_one_of_several_molecules_that_breaks_is_a_failure():
    atoms, bonds = several(), start_bonds(several())
    monitor = Monitor(atoms, temperature_K=300.0, ndof=3 * len(atoms) - 3, reference=None, bonds=bonds)
    assert monitor.check(atoms) is None
    assert "coordination and g(r)" in monitor.rules()["not_used"] and "bonds" not in monitor.rules()["not_used"]
    moved = atoms.copy()
    moved.positions += [3.0, 4.0, 5.0]
    moved.wrap()
    assert monitor.check(moved) is None
    moved.positions[-1, 1] -= 0.6  # of the hydrogen molecule, of 0.7 Å
    failure = monitor.check(moved)
    assert failure is not None and failure.kind == "bond break"


def test_the_bonds_of_a_cut_molecule_are_those_of_the_whole_one():
    cut, reference = boxed([5.8, 11.9, 0.3]), toys.ethanol()
    np.testing.assert_array_equal(find_bonds(cut), find_bonds(reference))
    again = whole(cut.positions, find_bonds(cut), cut)
    d = np.linalg.norm(again[:, None] - again, axis=-1)
    np.testing.assert_allclose(d, reference.get_all_distances(), atol=1e-9)
    made = MoleculeReference.from_frames([cut, boxed()])
    np.testing.assert_allclose(made.mean_lengths, MoleculeReference.from_frames(reference).mean_lengths, atol=1e-9)
    assert isinstance(make_reference([cut, boxed()]), MoleculeReference)
    assert stability([boxed(), cut], made, dt_fs=1.0).stable


@pytest.mark.parametrize("shift", [[0, 0, 0], [5.8, 11.9, 0.3]], ids=["inside", "across faces"])
def test_a_molecule_in_a_box_that_dissociates_is_stopped_as_an_open_one(shift, tmp_path):
    atoms = boxed(shift)
    monitor = Monitor.for_run(atoms, MDSettings())
    assert monitor.check(atoms) is None and monitor.rules()["bonds"]["number"] == 8
    moved = atoms.copy()
    moved.positions[0] += [12.0, 0, 0]
    assert monitor.check(moved) is None  # an image is the same atom
    i, j = monitor.reference.bonds[2]
    vector = moved.get_distance(i, j, mic=True, vector=True)
    moved.positions[j] += 0.6 * vector / np.linalg.norm(vector)
    moved.wrap()
    assert monitor.check(moved).kind == "bond break"


def test_a_run_in_a_box_compares_its_distances(tmp_path):
    settings, errors = MDSettings(ensemble="nve", temperature_K=1.0, steps=20, interval=10), {}
    for name, start in {"open": toys.ethanol(), "box": boxed([5.8, 11.9, 0.3])}.items():
        frames = [start.copy() for _ in range(60)]
        for k, atoms in enumerate(frames):
            atoms.rattle(0.02, seed=k)
        start.calc = toys.Free()
        errors[name] = run_md(start, settings, tmp_path / name, reference=make_reference(frames)).summary["h_error"]
    assert errors["box"] == pytest.approx(errors["open"], abs=0.05) and errors["open"] > 0.0


# --- what people read ---


def test_summary_log_and_figure_say_which_rule_fired(tmp_path, caplog, figure):
    class Squeeze(toys.Free):
        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            i, j = pair
            vector = atoms.get_distance(i, j, mic=True, vector=True)
            self.results["forces"][i], self.results["forces"][j] = 3.0 * vector, -3.0 * vector

    atoms, reference = silica()
    pair = closest_of(atoms, "O", "O")
    atoms.calc = Squeeze()
    settings = MDSettings(ensemble="nve", temperature_K=300.0, steps=400, interval=2)
    with caplog.at_level(logging.INFO, "asecalc_mlip"):
        summary = run_md(atoms, settings, tmp_path / "run", reference=reference).summary
    failure, text = summary["failure"], summary_text(summary, "run")
    assert failure["kind"] == "collapse" and failure["pair"] == "O{}-O{}".format(*sorted(pair))
    for told in (failure["message"], f"{failure['time_ps']:g} ps", "Watched: contacts (0.85 of the closest approach"):
        assert told in text
    assert "Not watched: g(r) (the frames of the reference are of 298 to 1000 K" in text
    assert "Watched" not in summary_text(summary, "run", rules=False)  # a command told it when the run began
    early = summary_text(summary | {"stable_ps": 0.0, "temperature_mean_K": 222.0, "temperature_std_K": 0.0}, "run")
    assert "Only the start was stable; " in early and "temperature 222 K in one frame" in early
    assert "Watched: contacts" in caplog.text and f"limit {failure['limit']:.2f} Å" in failure["message"]
    assert summary["extremes"]["margin"] < 1.0 and summary["extremes"]["margin_limit_A"] == failure["limit"]
    assert (tmp_path / "run" / "figure.png").stat().st_size > 1e4
