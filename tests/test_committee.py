"""Committees: mean and spread of their members, thresholds, members that do not fit together."""

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.io import read
from ase.md.verlet import VelocityVerlet

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator
from asecalc_mlip.checkpoint import save
from asecalc_mlip.errors import CommitteeDisagreement, InputError
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.models import build_potential
from tests.cases import STRUCTURES, make_potential, make_structure


@pytest.fixture
def files(tmp_path):
    """Two PaiNNs of different seeds, and a SchNet that sees less far."""
    settings = [("painn", 0, 4.0), ("painn", 1, 4.0), ("schnet", 2, 3.2)]
    paths = [tmp_path / f"{k}.pt" for k in range(3)]
    for path, (architecture, seed, cutoff) in zip(paths, settings, strict=True):
        potential = make_potential(architecture, dtype=torch.float32, seed=seed, cutoff=cutoff)
        save(path, potential, card={"name": "test", "level_of_theory": "PBE/def2-SVP"})
    return paths


def load(files, **options):
    return CommitteeCalculator.load(files, device="cpu", dtype="float64", **options)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mean_and_spread(files, structure):
    atoms = make_structure(structure)
    members = [PIWSLCalculator.load(path, device="cpu", dtype="float64") for path in files]
    energies = np.array([member.get_potential_energy(atoms) for member in members])
    forces = np.array([member.get_forces(atoms) for member in members])
    atoms.calc = committee = load(files)
    assert atoms.get_potential_energy() == pytest.approx(energies.mean(), abs=1e-9)
    assert np.allclose(atoms.get_forces(), forces.mean(0), atol=1e-10)
    results = committee.results
    assert results["energy_std"] == pytest.approx(energies.std(), rel=1e-6)
    expected = np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0))
    assert results["forces_std"].shape == (len(atoms),)
    assert np.allclose(results["forces_std"], expected, atol=1e-10)
    assert np.array_equal(committee.get_property("forces_std", atoms), results["forces_std"])
    if atoms.pbc.all():
        stress = np.mean([member.get_stress(atoms) for member in members], axis=0)
        assert np.allclose(atoms.get_stress(), stress, atol=1e-12)
    assert committee.stats()["neighbor_builds"] == 1


def test_one_file_twice_has_no_spread(files):
    atoms = molecule("CH3CH2OH")
    atoms.calc = load([files[0], files[0]], threshold=1e-6, action="stop")
    atoms.get_forces()
    assert atoms.calc.results["energy_std"] < 1e-9
    assert atoms.calc.results["forces_std"].max() < 1e-12


def test_evaluate_gives_the_spread(files):
    structures = [make_structure(name) for name in STRUCTURES] + [Atoms("C")]
    committee = load(files, threshold=1e-9, action="stop")
    results = committee.evaluate(structures)
    committee.threshold = None
    for atoms, result in zip(structures, results, strict=True):
        assert result["energy"] == pytest.approx(committee.get_potential_energy(atoms), abs=1e-9)
        assert np.allclose(result["forces"], committee.get_forces(atoms), atol=1e-10)
        assert result["energy_std"] == pytest.approx(committee.results["energy_std"], abs=1e-9)
        assert np.allclose(result["forces_std"], committee.results["forces_std"], atol=1e-10)
    assert results[-1]["forces_std"] == [0]


def test_threshold_warns_or_stops(files):
    atoms = molecule("CH3CH2OH")
    atoms.calc = load(files)
    atoms.get_forces()
    spread = atoms.calc.results["forces_std"]
    worst, largest = int(spread.argmax()), float(spread.max())
    part = rf"atom {worst} \({atoms.symbols[worst]}\).*1 of 9 atoms"
    with pytest.warns(UserWarning, match=part):
        load(files, threshold=0.999 * largest).get_forces(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(files, threshold=1.001 * largest).get_forces(atoms)
    strict = load(files, threshold=0.999 * largest, action="stop")
    with pytest.raises(CommitteeDisagreement, match=part):
        strict.get_forces(atoms)
    # What it stopped at stays to be looked at, and cannot be taken for a good result.
    assert strict.results["forces_std"].max() == pytest.approx(largest) and strict.results["forces"].shape == (9, 3)
    with pytest.raises(CommitteeDisagreement, match=part):
        strict.get_potential_energy(atoms)
    atoms.calc = strict
    with pytest.raises(CommitteeDisagreement, match=f"{largest:.3g} eV/Å"):
        VelocityVerlet(atoms, 1.0).run(1)


def test_warnings_come_where_the_spread_grows(files):
    """Not at each step of a run beyond the threshold."""
    atoms, rng = molecule("CH3CH2OH"), np.random.default_rng(0)
    committee = load(files, threshold=1e-6)
    spreads, told = [], []
    for _ in range(20):
        atoms.positions += rng.normal(0, 0.02, (9, 3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            committee.get_forces(atoms)
        spreads.append(committee.results["forces_std"].max())
        told += [spreads[-1]] * len(caught)
    assert told[0] == spreads[0] and len(told) < 5
    assert all(b >= 1.5 * a for a, b in zip(told, told[1:], strict=False)) and 1.5 * told[-1] > max(spreads)
    with pytest.warns(UserWarning, match=f"next warning comes from {1.5 * spreads[-1]:.3g} eV/Å on"):
        load(files, threshold=1e-6).get_forces(atoms)


def test_a_member_that_says_nan_disagrees(files):
    atoms, committee = molecule("CH3CH2OH"), load(files, threshold=1e6, action="stop")
    engine = committee.engine.engine.engines[1]

    class Broken:
        def __call__(self, graph, **options):
            found = engine(graph, **options)
            return replace(found, forces=torch.full_like(found.forces, torch.nan))

        def bytes_needed(self, n_atoms, n_edges):
            return engine.bytes_needed(n_atoms, n_edges)

    committee.engine.engine.engines[1] = Broken()
    with pytest.raises(CommitteeDisagreement, match="disagree by nan"):
        committee.get_forces(atoms)


def test_print_card_and_copies(files):
    atoms = molecule("CH3CH2OH")
    committee = load(files, threshold=0.3)
    forces = committee.get_forces(atoms)
    for part in ("3 members: 0.pt, 1.pt, 2.pt", "warn from 0.3 eV/Å on", "float64"):
        assert part in str(committee)
    assert repr(committee).endswith("; 3 members)") and len(repr(committee)) < 200
    assert [card["name"] for card in committee.card["members"]] == ["test"] * 3
    for other in (copy.deepcopy(committee), pickle.loads(pickle.dumps(committee))):
        other.reset()
        assert np.array_equal(other.get_forces(atoms), forces)


def test_members_must_fit(files, tmp_path):
    alien = build_potential("painn", {"n_features": 16}, reference_energies={1: 0.0, 26: 0.0})
    save(tmp_path / "iron.pt", alien, card={})
    save(tmp_path / "other.pt", make_potential("painn"), card={"level_of_theory": "CCSD(T)"})
    for paths, message in [
        ([files[0]], "two models or more, and got 1"),
        ([], "got 0"),
        ([files[0], tmp_path / "iron.pt"], r"0.pt and iron.pt do not fit.*elements differ.*'Si'.*'Fe'"),
        ([files[0], tmp_path / "other.pt"], r"level of theory differ, PBE/def2-SVP and CCSD\(T\)"),
        (str(files[0]), "needs a list of model files"),
    ]:
        with pytest.raises(InputError, match=message):
            CommitteeCalculator.load(paths)
    for options in ({"threshold": 0}, {"threshold": -1.0}, {"threshold": float("nan")}, {"action": "shout"}):
        with pytest.raises(InputError, match="threshold is|action is"):
            load(files, **options)


@pytest.mark.parametrize("dispersion", [False, True])
def test_a_run_ends_where_members_disagree_and_keeps_the_frame(files, tmp_path, dispersion):
    """Also where the committee is a part of the calculator."""
    atoms = molecule("CH3CH2OH")
    committee = load(files)
    spread = committee.evaluate([atoms])[0]["forces_std"].max()
    committee.threshold, committee.action = float(spread) + 1e-9, "stop"
    atoms.calc = SumCalculator([committee, LennardJones(epsilon=0.0)]) if dispersion else committee
    settings = MDSettings(temperature_K=50.0, timestep_fs=0.2, steps=40, interval=5, bond_rule=False)
    result = run_md(atoms, settings, tmp_path / "run")
    failure = result.summary["failure"]
    assert (result.exit_code, failure["kind"]) == (1, "uncertain")
    assert failure["value"] > failure["limit"] == committee.threshold
    assert "UNSTABLE" in result.report() and "3 models disagree" in result.report()
    frame = read(tmp_path / "run" / "unstable.extxyz")
    there = committee.evaluate([frame])[0]
    assert there["forces_std"].max() == pytest.approx(failure["value"], rel=1e-4)
    assert dispersion or np.allclose(frame.get_forces(), there["forces"], atol=1e-4)
    assert run_md(atoms, settings, tmp_path / "run").had_ended
