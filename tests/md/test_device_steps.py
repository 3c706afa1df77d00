"""Replicas that stay on a device between frames: the trajectories of the host, lists that hold, noise by the step."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read
from torch.utils._python_dispatch import TorchDispatchMode

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.engine import EagerEngine
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md import device_steps
from asecalc_mlip.md.batch_integrators import Flat
from asecalc_mlip.md.device_noise import SeededNoise, philox
from asecalc_mlip.md.device_steps import DeviceSteps
from asecalc_mlip.md.ensembles import make_integrator
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.integrators import maxwell_boltzmann
from asecalc_mlip.md.replicas import Batch, BatchedModel, Replica, run_replicas
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.models.potential import Prediction
from tests.cases import make_structure
from tests.md import toys
from tests.md.models import random_model
from tests.simulated_gpu import replayed, simulated_gpu

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    """Those that come with Random123."""
    words = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert tuple(map(int, words)) == expected


def noise(seeds, sizes, first, number):
    starts = torch.from_numpy(np.repeat(first, sizes))
    return SeededNoise(seeds, sizes, CPU).block(starts, number)


def test_noise_is_normal_and_depends_on_seed_step_and_atom_alone():
    drawn = noise([1, 2], [40, 60], [0, 0], 200)
    assert drawn.shape == (200, 2, 100, 3)
    flat = drawn.flatten()
    assert abs(float(flat.mean())) < 4 / len(flat) ** 0.5
    assert float(flat.square().mean()) == pytest.approx(1.0, abs=4 * (2 / len(flat)) ** 0.5)
    assert float(flat.pow(4).mean()) == pytest.approx(3.0, abs=4 * (96 / len(flat)) ** 0.5)
    numbers = drawn.permute(2, 0, 1, 3).reshape(100, -1)
    correlations = numbers @ numbers.T / numbers.shape[1] - torch.eye(100)
    assert float(correlations.abs().max()) < 5.5 / numbers.shape[1] ** 0.5 * 1.5
    # Another batch, other pieces.
    assert torch.equal(noise([2], [60], [150], 50), drawn[150:, :, 40:])
    assert not torch.equal(noise([3], [60], [150], 50), drawn[150:, :, 40:])


class Tied(PIWSLCalculator):
    """The random model, with springs to the start of each replica, so that they stay together."""

    def __init__(self, path, starts, skin=0.5, k=5.0):
        loaded = PIWSLCalculator.load(path, device="cpu", dtype="float64", skin=skin)
        self.__dict__.update(loaded.__dict__)
        self.inner, self.k, self.calls = loaded.engine, k, 0
        self.anchors = {len(atoms): torch.from_numpy(atoms.positions.copy()) for atoms in starts}
        self.engine = self.run

    def run(self, graph, **options):
        self.calls += 1
        prediction = self.inner(graph, **options)
        anchors = torch.cat([self.anchors[int(n)] for n in torch.bincount(graph.batch).tolist()])
        return replace(prediction, forces=prediction.forces - self.k * (graph.positions - anchors))


def replicas_of(folder, thermostat, starts, calculator, **changes):
    made = []
    for seed, atoms in enumerate(starts):
        options = {"steps": 60, "interval": 10, "temperature_K": 200.0, "seed": seed, **changes}
        settings = MDSettings(
            ensemble="nvt" if thermostat else "nve", thermostat=thermostat, bond_rule=False, **options
        )
        atoms = atoms.copy()
        atoms.calc = BatchedModel(calculator.card)
        made.append(Replica(atoms, settings, folder / f"{seed}"))
    return made


def run(folder, thermostat, starts, calculator, *, on_device, drawn=True, **changes):
    """Files of the replicas, and the batch."""
    batch = Batch(replicas_of(folder, thermostat, starts, calculator, **changes), calculator, on_device=on_device,
                  drawn=drawn)  # fmt: skip
    assert not batch.evaluate()
    steps = []
    real = batch._to_device
    batch._to_device = lambda: steps.append(real()) or steps[-1]
    for index, replica in enumerate(batch.replicas):
        batch.write_back(index)
        replica.begin()
    run_replicas(batch)
    return steps


def frames(folder, number):
    return [read(folder / f"{k}" / "trajectory.extxyz", ":") for k in range(number)]


@pytest.mark.parametrize(
    ("thermostat", "mixed"), [(None, True), ("langevin", True), ("nose-hoover", True), ("langevin", False)]
)
def test_same_trajectories_as_on_the_host(tmp_path, thermostat, mixed):
    """Of which one has fixed atoms."""
    starts = [toys.ethanol(), molecule("H2O") if mixed else toys.ethanol(), toys.ethanol()]
    starts[2].set_constraint(FixAtoms([0, 4]))
    calculator = Tied(random_model(tmp_path / "model.pt"), starts)
    assert run(tmp_path / "host", thermostat, starts, calculator, on_device=False) == []
    (steps,) = run(tmp_path / "device", thermostat, starts, calculator, on_device=True)
    assert steps.looks < 30
    for ours, theirs in zip(frames(tmp_path / "device", 3), frames(tmp_path / "host", 3), strict=True):
        assert len(ours) == len(theirs) == 7
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.positions, other.positions, atol=1e-8)
            np.testing.assert_allclose(one.get_momenta(), other.get_momenta(), atol=1e-7)
            assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-8)
    for k in range(3):
        logs = [
            np.genfromtxt(tmp_path / name / f"{k}" / "log.csv", delimiter=",")[1:, :6] for name in ("host", "device")
        ]
        np.testing.assert_allclose(*logs, atol=1e-6)


@pytest.mark.parametrize(("skin", "kind"), [(0.25, "short"), (0.004, "less than a step")])
def test_lists_that_do_not_last_are_made_anew(tmp_path, monkeypatch, skin, kind):
    """Each step counts only with a list that holds; here it is asked too late on purpose, or lasts no step."""
    monkeypatch.setattr(device_steps, "_SHARE", 1.6)
    starts = [make_structure("molecule", seed=k) for k in range(3)]
    calculator = Tied(random_model(tmp_path / "model.pt"), starts, skin=skin)
    run(tmp_path / "host", None, starts, calculator, on_device=False, temperature_K=500.0, steps=30)
    before = calculator.calls
    (steps,) = run(tmp_path / "device", None, starts, calculator, on_device=True, temperature_K=500.0, steps=30)
    again = calculator.calls - before - 30 - 1
    assert again > 0 and steps.lists > 3
    assert (steps.lists > 30) == (kind != "short")
    for ours, theirs in zip(frames(tmp_path / "device", 3), frames(tmp_path / "host", 3), strict=True):
        np.testing.assert_allclose(ours[-1].positions, theirs[-1].positions, atol=1e-8)


@pytest.mark.parametrize("on_device", [False, True])
def test_the_last_step_is_judged_where_it_is_no_frame(tmp_path, on_device):
    starts = [toys.ethanol()]
    calculator = Tied(random_model(tmp_path / "model.pt"), starts, skin=2.0)
    run(tmp_path / "runs", None, starts, calculator, on_device=on_device, steps=13)
    assert RunFiles(tmp_path / "runs" / "0").summary()["stable_ps"] == pytest.approx(0.0065)


def test_a_replica_that_breaks_stands_still_and_the_others_go_on(tmp_path):
    starts = [toys.ethanol()] * 3
    calculator = Tied(random_model(tmp_path / "model.pt"), starts, skin=2.0)
    run(tmp_path / "whole", None, starts, calculator, on_device=True)
    sound, calls = calculator.engine, []

    def poisoned(graph, **options):
        prediction = sound(graph, **options)
        calls.append(1)
        if len(calls) == 32:  # the first is that of the start
            prediction.forces[9:18] = np.nan
        return prediction

    calculator.engine = poisoned
    batch = Batch(replicas_of(tmp_path / "broken", None, starts, calculator), calculator, on_device=True)
    batch.evaluate()
    for index, replica in enumerate(batch.replicas):
        batch.write_back(index)
        replica.begin()
    kept, ended = list(batch.replicas), []
    run_replicas(batch, report=lambda replica, summary: ended.append(summary["status"]))
    assert sorted(ended) == ["finished", "finished", "unstable"]
    assert kept[1].state.failure.kind == "not finite"
    # Its forces were bad at step 31, so it is refused at the next.
    assert kept[1].state.failure_step == 32
    for k in (0, 2):
        ours, theirs = (read(tmp_path / name / f"{k}/trajectory.extxyz", "-1") for name in ("broken", "whole"))
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-10)


def harmonic(n_replicas, settings, *, done=0, state=None, k=8.0):
    """Ethanols, every atom on a spring."""
    all_atoms = []
    for seed in range(n_replicas):
        atoms = toys.ethanol()
        maxwell_boltzmann(atoms, settings.temperature_K, np.random.default_rng(seed))
        all_atoms.append(atoms)
    flat = Flat.gather(all_atoms)
    anchors = torch.from_numpy(flat.positions.copy())
    alone = [make_integrator(atoms, settings, np.random.default_rng(0)) for atoms in all_atoms]
    if state is not None:
        flat.positions, flat.momenta, flat.forces = state

    def predict(graph, step):
        moved = graph.positions - anchors
        energies = 0.5 * k * moved.square().sum(1)
        return Prediction(graph.sum_over_atoms(energies), energies, -k * moved)

    owner = torch.from_numpy(flat.owner)
    numbers = torch.from_numpy(np.concatenate([atoms.numbers for atoms in all_atoms]))
    graph = AtomGraph(numbers, anchors, owner, owner, owner, torch.zeros(n_replicas, 3, 3, dtype=torch.float64))
    seeds = [10 + k for k in range(n_replicas)]
    return DeviceSteps(flat, alone, seeds, [done] * n_replicas, graph, np.zeros(3, bool), 3.0, 1.0, predict)


def test_langevin_on_a_device_has_the_temperature():
    """½ f k_B T of springs, and of the kinetic energy, within the scatter of 64 replicas."""
    settings = MDSettings(thermostat="langevin", temperature_K=300.0, tau_fs=20.0, timestep_fs=0.5)
    steps, potential, kinetic = harmonic(64, settings), [], []
    for _ in range(24):
        steps.run(25)
        potential.append(steps.state.energies.numpy().copy())
        kinetic.append(steps.state.flat.sum((steps.state.flat.momenta**2 / steps.state.flat.masses).sum(1)).numpy() / 2)
    expected = 0.5 * (27 - 3) * 8.617333e-5 * 300.0
    for energies in (potential[6:], kinetic[6:]):
        means = np.mean(energies, axis=0)
        assert abs(means.mean() - expected) < 4 * means.std() / 8 and means.std() / 8 < 0.02 * expected


def test_pieces_are_the_whole():
    settings = MDSettings(thermostat="langevin", temperature_K=300.0)
    whole, first = harmonic(3, settings), harmonic(3, settings)
    whole.run(60)
    first.run(25)
    first.fetch()
    second = harmonic(3, settings, done=25, state=(first.host.positions, first.host.momenta, first.host.forces))
    second.run(35)
    assert torch.equal(second.state.flat.positions, whole.state.flat.positions)


class NoLook(TorchDispatchMode):
    """Refuses operations whose result the host waits for on a GPU."""

    waits = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique", "repeat_interleave.Tensor")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(name in str(function) for name in self.waits), f"the host waits for {function}"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("thermostat", [None, "langevin", "nose-hoover"])
def test_steps_wait_for_nothing(tmp_path, thermostat):
    """Neither the integrators nor the model: the GPU always has its next work."""
    calculator = PIWSLCalculator.load(random_model(tmp_path / "model.pt"), device="cpu", dtype="float64")
    calculator.engine = EagerEngine(calculator.potential)
    batch = Batch(
        replicas_of(tmp_path, thermostat, [toys.ethanol()] * 3, calculator, temperature_K=20.0), calculator,
        on_device=True,
    )  # fmt: skip
    batch.evaluate()
    steps = batch._to_device()
    steps.run(2)
    with NoLook():
        steps._launch(5)
        with pytest.raises(AssertionError, match="the host waits for aten._local_scalar_dense"):
            float(steps.state.farthest)
    assert 0 < float(steps.state.farthest) < 0.25


@pytest.mark.filterwarnings("ignore:the fused kernels cannot be used")
@pytest.mark.parametrize("thermostat", [None, "langevin", "nose-hoover"])
def test_recorded_steps_are_those_of_the_host(tmp_path, thermostat):
    """On the simulated GPU both halves of a step, and the model, are captured and replayed."""
    path, ends = random_model(tmp_path / "model.pt"), []
    for device in ("cpu", "cuda"):
        with simulated_gpu() if device == "cuda" else nullcontext():
            calculator, before = PIWSLCalculator.load(path, device=device, dtype="float64"), replayed()
            replicas = replicas_of(
                tmp_path / device, thermostat, [toys.ethanol(), molecule("H2O")], calculator, interval=8
            )
            batch = Batch(replicas, calculator, on_device=True)
            batch.evaluate()
            batch.advance()
            ends.append(batch.flat.positions)
    np.testing.assert_allclose(*ends, atol=1e-9)
    # Six of eight steps, each in three parts; the model is captured at its second call.
    assert replayed() - before >= 18


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_on_a_gpu(tmp_path, dtype):
    """The trajectories of the CPU, and no wait in between, also with CUDA graphs."""
    path, ends = random_model(tmp_path / "model.pt"), []
    for device in ("cpu", "cuda"):
        calculator = PIWSLCalculator.load(path, device=device, dtype=dtype)
        starts = [toys.ethanol()] * 3
        replicas = replicas_of(tmp_path / device, "langevin", starts, calculator, temperature_K=50.0, interval=20)
        batch = Batch(replicas, calculator, on_device=True)
        batch.evaluate()
        batch.advance()
        ends.append(batch.flat.positions)
    np.testing.assert_allclose(*ends, atol=1e-8 if dtype == "float64" else 1e-3)
    steps = batch._on_device
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps._launch(5)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert 0 < float(steps.state.farthest) < 0.25
