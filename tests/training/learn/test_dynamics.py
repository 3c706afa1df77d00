"""Replicas watched by a committee, of models with random weights: nothing is trained here."""

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms

from asecalc_mlip import checkpoint
from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.models import build_potential

pytest.importorskip("schnetpack")
from asecalc_mlip.errors import InputError  # noqa: E402
from asecalc_mlip.files import read_structures  # noqa: E402
from asecalc_mlip.stopping import Permit, at_work  # noqa: E402
from tests.inline import Inline  # noqa: E402
from training.learn import dynamics  # noqa: E402
from training.learn.committee import load_committee  # noqa: E402
from training.learn.dynamics import run_all  # noqa: E402
from training.learn.settings import LearnSettings, Until  # noqa: E402


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    return _members(tmp_path_factory.mktemp("members"), 8, 0)


@pytest.fixture(scope="module")
def wide_members(tmp_path_factory):
    """Of a width that the native engine serves, whose steps take a tenth of the time."""
    return _members(tmp_path_factory.mktemp("members"), 16, 2)


@pytest.fixture
def native_members(wide_members):
    """For batches of other compositions, by which other engines round."""
    if not NativeEngine.serves(checkpoint.load(wide_members[0]).potential):
        pytest.skip("the native library was not built")
    return wide_members


@pytest.fixture
def chosen(given, members, wide_members):
    """For batches those that run by torch; for replicas one by one, which take longer, by the native engine."""
    return members if _settings(**given).together else wide_members


def _members(folder, n_features, seed):
    paths = []
    for number in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            sizes = {"cutoff": 3.0, "n_features": n_features, "n_interactions": 2}
            potential = build_potential("painn", sizes, reference_energies={29: 0.0}, scale=0.5)
        checkpoint.save(folder / f"member{number}.pt", potential)
        paths.append(folder / f"member{number}.pt")
    return paths


def _crystal():
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.05, seed=1)
    return crystal


def _settings(**given):
    return LearnSettings("toy.py", temperature_K=300.0, until=Until(2, 0.25), timestep_fs=1.0, interval=10, **given)


CONDITIONS = [{}, {"pressure_GPa": 0.0}, {"temperature_end_K": 600.0}]


@pytest.fixture(scope="module", params=CONDITIONS, ids=["nvt", "npt", "ramp"])
def free(request, members, wide_members, tmp_path_factory):
    """Settings, members, folder and summaries of replicas that no committee ends."""
    folder, settings = tmp_path_factory.mktemp("free"), _settings(**request.param)
    # As the fixture `chosen`.
    chosen = members if settings.together else wide_members
    return settings, chosen, folder, run_all(folder, settings, [_crystal()], chosen, math.inf, 0)


def test_replicas_run_to_the_end_where_the_committee_is_sure(free):
    _, _, folder, runs = free
    assert [(run["status"], run["steps_done"]) for run in runs] == [("finished", 250)] * 2
    ends = [read_structures(folder / f"replica00{k}" / "trajectory.extxyz")[-1] for k in range(2)]
    assert np.abs(ends[0].positions - ends[1].positions).max() > 1e-3  # each has its own random numbers


def test_a_replica_ends_at_the_first_frame_of_which_the_committee_is_unsure(free, tmp_path):
    settings, chosen, folder, runs = free
    assert all(run["stable"] for run in runs)
    committee = load_committee(chosen)
    frames = read_structures(folder / "replica000" / "trajectory.extxyz")
    spreads = [float(result["forces_std"].max()) for result in committee.evaluate(frames)]
    later = spreads[1:]
    threshold = 0.5 * (min(later) + max(later))
    first = next(k for k, spread in enumerate(spreads) if k > 0 and spread >= threshold)
    run = run_all(tmp_path, settings, [_crystal()], chosen, threshold, 0)[0]
    assert run["failure"]["kind"] == "uncertain" and run["failure"]["step"] == 10 * first
    assert run["failure"]["value"] == pytest.approx(spreads[first], rel=1e-3)
    (last,) = read_structures(tmp_path / "replica000" / "trajectory.extxyz", index="-1:")
    np.testing.assert_allclose(last.positions, frames[first].positions, atol=1e-6)


def test_the_start_is_not_asked_about(members, tmp_path, caplog):
    caplog.set_level("INFO", logger="asecalc_mlip")
    runs = run_all(tmp_path, _settings(), [_crystal()], members, 1e-12, 0)
    assert [run["failure"]["step"] for run in runs] == [10, 10]
    # What is watched is told once, not by each replica.
    assert caplog.messages and len(set(caplog.messages)) == len(caplog.messages)


@pytest.mark.parametrize("given", [CONDITIONS[0], CONDITIONS[2]], ids=["nvt", "ramp"])
def test_fixed_atoms_stay_and_the_committee_is_not_asked_about_them(given, chosen, tmp_path):
    crystal, settings = _crystal(), replace(_settings(**given), until=Until(1, 0.01))
    sure = int(load_committee(chosen).evaluate([crystal])[0]["forces_std"].argmin())
    crystal.set_constraint(FixAtoms([k for k in range(4) if k != sure]))
    (run,) = run_all(tmp_path, settings, [crystal], chosen, 1e-12, 0)
    frames = read_structures(tmp_path / "replica000" / "trajectory.extxyz")
    moved = np.abs(frames[-1].positions - crystal.positions).max(axis=1)
    assert moved[sure] > 1e-3 and np.delete(moved, sure).max() < 1e-7
    assert run["failure"]["kind"] == "uncertain" and run["failure"]["atoms"] == [sure]


@pytest.mark.parametrize("given", CONDITIONS[:2], ids=["nvt", "npt"])
def test_replicas_that_were_stopped_go_on_to_the_same_frames(given, chosen, tmp_path):
    settings = _settings(**given)
    whole = run_all(tmp_path / "whole", settings, [_crystal()], chosen, math.inf, 3)
    steps = 0

    def stop():
        return steps > (300 if settings.together else 0)

    def tick(number):
        nonlocal steps
        steps += number

    parts = run_all(tmp_path / "parts", settings, [_crystal()], chosen, math.inf, 3, stop, tick)
    assert None in parts
    parts = run_all(tmp_path / "parts", settings, [_crystal()], chosen, math.inf, 3)
    for k in range(2):
        one, two = (tmp_path / name / f"replica00{k}" / "trajectory.extxyz" for name in ("whole", "parts"))
        assert one.read_bytes() == two.read_bytes()
    assert [run["stable_ps"] for run in parts] == [run["stable_ps"] for run in whole]


def test_replicas_of_another_model_are_not_gone_on_with(members, tmp_path):
    def stop():
        return True

    run_all(tmp_path, _settings(), [_crystal()], members, math.inf, 0, stop)
    with pytest.raises(InputError, match="model sha256 is not the one"):
        run_all(tmp_path, _settings(), [_crystal()], members[::-1], math.inf, 0)


@pytest.fixture(scope="module")
def whole(wide_members, tmp_path_factory):
    """Folder and summaries of replicas in one batch by the native engine."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_all(folder, _settings(), [_crystal()], wide_members, math.inf, 0)


def test_replicas_in_workers_are_those_of_one_process(native_members, whole, tmp_path):
    settings, pool = _settings(), Inline(tmp_path)
    parts = run_all(tmp_path / "parts", settings, [_crystal()], native_members, math.inf, 0, pool=pool)
    assert [numbers for *_, numbers in pool.tasks] == [[0], [1]]
    assert [run["stable_ps"] for run in parts] == [run["stable_ps"] for run in whole[1]]
    assert _trajectories(tmp_path / "parts", 2) == _trajectories(whole[0], 2)


@pytest.mark.parametrize("given", CONDITIONS[:2], ids=["nvt", "npt"])
def test_a_worker_that_is_asked_to_stop_leaves_a_replica_that_goes_on(given, chosen, tmp_path, monkeypatch):
    settings = replace(_settings(**given), until=Until(1, 0.22))
    whole = run_all(tmp_path / "whole", settings, [_crystal()], chosen, math.inf, 0)
    # The task asks once; then a batch at each step, a run before it begins and at its restart points.
    asked = iter([False] * (210 if settings.together else 3))
    with monkeypatch.context() as patch:
        patch.setattr(dynamics, "stop_wanted", lambda: next(asked, True))
        parts = run_all(tmp_path / "parts", settings, [_crystal()], chosen, math.inf, 0, pool=Inline(tmp_path))
    assert parts == [None] and (tmp_path / "parts" / "replica000" / "restart.npz").is_file()
    parts = run_all(tmp_path / "parts", settings, [_crystal()], chosen, math.inf, 0, pool=Inline(tmp_path))
    assert [run["stable_ps"] for run in parts] == [run["stable_ps"] for run in whole]
    assert _trajectories(tmp_path / "parts", 1) == _trajectories(tmp_path / "whole", 1)


def _trajectories(folder, number):
    return [(folder / f"replica{k:03d}" / "trajectory.extxyz").read_bytes() for k in range(number)]


def test_replicas_whose_worker_dies_end_the_command_and_stay(members, tmp_path):
    with pytest.raises(InputError, match="replicas of .* are not done: .*give the same command again"):
        run_all(tmp_path, _settings(), [_crystal()], members, math.inf, 0, pool=Inline(tmp_path, lost=(1,)))
    assert (tmp_path / "replica000" / "summary.json").is_file()


def test_replicas_of_a_killed_command_leave_to_the_one_that_goes_on(native_members, whole, tmp_path):
    """A task on a cluster outlives the command; the next one waits until it has left its replicas."""
    settings, starts = _settings(), [_crystal()]
    task = (tmp_path / "cut", (settings, starts, native_members, math.inf, 0), [0, 1])
    before = threading.Thread(target=at_work, args=(Permit.give(tmp_path / ".workers"), dynamics._run_part, task))
    before.start()
    while before.is_alive() and not (tmp_path / "cut" / "replica001" / "restart.npz").is_file():
        time.sleep(0.01)
    Permit.give(tmp_path / ".workers")
    dynamics._run_part(*task)
    before.join()
    assert _trajectories(tmp_path / "cut", 2) == _trajectories(whole[0], 2)
