"""Weak supervision in trainings: every method trains, logs, resumes and refuses what cannot be meant."""

import json

import numpy as np
import pytest
import torch
from ase.io import write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import build_potential, predict
from tests import teacher
from tests.cases import DIRECT, SIZES, make_potential, make_structure
from tests.small_runs import analytic_teacher, config, rows, weak_losses, weights

pytest.importorskip("schnetpack")
from training import train as training  # noqa: E402
from training.config import LossConfig, WeakConfig  # noqa: E402
from training.losses import PISC, PITC  # noqa: E402
from training.losses.displaced import Displacements  # noqa: E402
from training.losses.methods import METHODS, make_weak  # noqa: E402
from training.losses.weak import NoisyNodes, WeakSupervision  # noqa: E402
from training.perturb import Perturbation, largest_relative_shift, uniform  # noqa: E402
from training.results.card import _weak  # noqa: E402
from training.task import PotentialAdapter, make_outputs  # noqa: E402

SMALL = (
    "data.n_train=20",
    "data.n_val=5",
    "model.hyperparameters.n_features=8",
    "run.max_epochs=2",
    "optimizer.lr=0.002",
)
REACH = 4.0 + largest_relative_shift(0.05)
DIRECT_FORCES = "model.hyperparameters.direct_forces=true"


def metrics_of(method):
    """What log.csv says beside the supervised errors."""
    if method in ("plain", "sam", "asam"):
        return set()
    return {"train_pitc_rmse", "train_pisc_rmse"} if method == "piwsl" else {f"train_{NAMES.get(method, method)}_rmse"}


NAMES = {"noisy_nodes": "noise"}


def fitted(tmp_path, data, *overrides, output="run"):
    """A training without its results: figures and tests take longer than the steps."""
    run = training.prepare(config(tmp_path, data, *SMALL, *overrides, output=output))
    training.fit(run)
    return run


def graphs(*names, reach=REACH):
    return batch_graphs([graph_from_atoms(make_structure(name, seed=k), reach) for k, name in enumerate(names)])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_logs(method, molecules, tmp_path):
    # Coefficients at which labels that are eV away do not drown the rest of so short a training.
    settings = ["weak.rho=0.01", "weak.pitc=0.01", "weak.coefficient=0.001", "run.max_epochs=4"]
    if method == "curvature_label":
        settings += [f"weak.teacher={analytic_teacher(tmp_path)}"]
    fitted(tmp_path, molecules, f"weak.method={method}", *settings)
    first, *_, last = rows(tmp_path / "run")
    assert {key for key in first if key.endswith("_rmse") and key.startswith("train")} == metrics_of(method)
    assert float(last["val_forces_mae"]) < float(first["val_forces_mae"])
    assert all(np.isfinite(float(value)) for value in last.values())


@pytest.mark.parametrize("direct", [False, True])
def test_energies_alone(direct, tmp_path):
    """Without a force label anywhere; the head of a direct model is held by PITC."""
    frames = teacher.as_reference(teacher.molecule_frames(30))
    for atoms in frames:
        del atoms.arrays["REF_forces"]
    write(tmp_path / "train.xyz", frames, format="extxyz")
    settings = ["loss.forces_weight=0", "weak.method=piwsl", f"weak.pisc={0 if direct else 0.1}"]
    settings += [DIRECT_FORCES] if direct else []
    run = fitted(tmp_path, tmp_path / "train.xyz", *settings, "weak.order=trapezoid", "run.max_epochs=6")
    log = rows(tmp_path / "run")
    assert "val_forces_mae" not in log[0]
    assert float(log[-1]["val_energy_mae"]) < float(log[0]["val_energy_mae"])
    assert float(log[-1]["train_pitc_rmse"]) != float(log[0]["train_pitc_rmse"])
    if direct:
        # Zero at the start.
        assert run.potential.network.force_head.last.context[2].bias.abs().max() > 0


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("architecture", ["escn", "equiformer_v2"])
def test_networks_on_the_sphere(architecture, direct, molecules, tmp_path):
    """Trained by the published loss, whose second derivatives go through the rotations of edges."""
    sizes = [f"model.hyperparameters.{name}={value}" for name, value in SIZES[architecture].items()]
    settings = [f"model.architecture={architecture}", *sizes, "weak.method=piwsl", "run.max_epochs=3"]
    fitted(tmp_path, molecules, *settings, *([DIRECT_FORCES] if direct else []))
    first, *_, last = rows(tmp_path / "run")
    assert metrics_of("piwsl") <= set(first)
    assert float(last["val_forces_mae"]) < float(first["val_forces_mae"])


@pytest.mark.parametrize("method", ["piwsl", "noisy_nodes"])
def test_resumed_run_equals_uninterrupted(method, molecules, tmp_path):
    settings = (f"weak.method={method}", "run.steps_per_epoch=3", "run.batch_size=4")
    fitted(tmp_path, molecules, *settings, "run.max_epochs=5", output="whole")
    fitted(tmp_path, molecules, *settings, "run.max_epochs=2", output="parts")
    torch.rand(17)  # what another process would have drawn meanwhile
    fitted(tmp_path, molecules, *settings, "run.max_epochs=5", output="parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole[1], parts[1], strict=True))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"method": "piwsl", "pitc": 0.5, "pisc": 0.25, "order": "trapezoid", "epsilon": 0.02},
            {"perturbation": "uniform", "remove_translation": False, "normalisation": "total", "distance": "mse"},
        ),
        ({"method": "noisy_nodes", "coefficient": 0.5}, {"epsilon": 0.05}),
        ({"method": "asam", "rho": 0.1}, {}),
    ],
)
def test_card_says_what_it_was(settings, expected, molecules, tmp_path):
    overrides = [f"weak.{key}={value}" for key, value in settings.items()]
    result = training.train(config(tmp_path, molecules, *SMALL, *overrides))
    assert PIWSLCalculator.load(result.model, device="cpu").card["weak"] == {**settings, **expected}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["card"]["weak"] == {**settings, **expected}
    # The head that tells noise is no part of the model.
    assert not [name for name in load(result.model).potential.state_dict() if "head" in name]
    saved = weights(tmp_path / "run")[0]["state_dict"]
    assert bool([name for name in saved if "weak.head" in name]) == (settings["method"] == "noisy_nodes")


def test_plain_cards_say_nothing_of_it():
    assert _weak(WeakConfig(pitc=3.0)) == {}


# --- what a step computes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "per_atom", "expected"),
    [(None, False, "total"), (None, True, "per_atom"), ("total", True, "total"), ("per_atom", False, "per_atom")],
)
def test_residuals_count_as_the_energies_do_unless_it_is_said(given, per_atom, expected):
    weak = make_weak(
        WeakConfig(method="piwsl", normalisation=given), LossConfig(energy_per_atom=per_atom), make_potential("painn")
    )
    assert {loss.normalisation for loss in weak.losses} == {expected}


@pytest.mark.parametrize("forces", [False, True])
@pytest.mark.parametrize("architecture", ["painn", "schnet", DIRECT])
def test_step_is_labels_points_and_losses(architecture, forces):
    model, graph = make_potential(architecture), graphs("molecule", "slab", "crystal")
    losses = [PITC(order="trapezoid"), PISC(normalisation="per_atom")]
    weak = WeakSupervision(losses, Perturbation(0.05))
    torch.manual_seed(4)
    out = weak(model, graph, {}, forces=forces)
    torch.manual_seed(4)
    at = Displacements(uniform(graph, 0.05), uniform(graph, 0.05))
    plain = predict(model, graph.within(4.0))
    assert torch.allclose(out["energy"], plain.energy, rtol=1e-12)
    assert torch.allclose(out["forces"], plain.forces, atol=1e-10)
    for loss in losses:
        expected = loss(model, graph, displacements=at)
        assert out[loss.name].shape == (3,)
        assert out[loss.name].square().mean().item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("name", weak_losses())
def test_stress_beside_weak_losses(name):
    model, graph = make_potential("painn", trainable=True), graphs("crystal", "skewed")
    labels = {"energy": torch.zeros(2).double(), "forces": torch.zeros(graph.n_atoms, 3).double()}
    weak = WeakSupervision([weak_losses()[name]()], Perturbation(0.05))
    torch.manual_seed(1)
    out = weak(model, graph, labels, forces=True, stress=True)
    torch.manual_seed(1)
    without = weak(model, graph, labels, forces=True)
    plain = predict(model, graph.within(4.0), stress=True)
    assert torch.allclose(out["stress"], plain.stress, atol=1e-10)
    for key in ("energy", "forces", name):
        assert torch.allclose(out[key], without[key], rtol=1e-9, atol=1e-9)
    (out["stress"].square().sum() + out[name].square().sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    assert model.network.embedding.weight.grad.norm() > 0


def test_total_loss_is_the_weighted_sum():
    model, graph = make_potential("painn"), graphs("molecule", "slab")
    config = WeakConfig(method="piwsl", pitc=3.0, pisc=0.5, distance="mae")
    weak = make_weak(config, LossConfig(), model)
    out = weak(model, graph, {}, forces=True)
    targets = {"energy": out["energy"] + 2.0, "forces": out["forces"] + torch.tensor([0.3, 0.0, 0.4])}
    outputs = make_outputs(LossConfig(forces_weight=100.0), weak)
    total = sum(output.calculate_loss(out, targets) for output in outputs)
    expected = 2.0 + 100.0 * 0.5 + 3.0 * out["pitc"].abs().mean() + 0.5 * out["pisc"].abs().mean()
    assert total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("method", ["piwsl", "taylor_label", "noisy_nodes"])
def test_residuals_have_the_weights_of_their_frames(method):
    """Else atoms that overlap, in structures far from the data, would be all that a training sees."""
    model, graph = make_potential("painn"), graphs("molecule", "slab")
    weak = make_weak(WeakConfig(method=method, pisc=0.5), LossConfig(), model).double()
    plain = predict(model, graph.within(4.0))
    out = weak(model, graph, {"energy": plain.energy + 1.0, "forces": plain.forces}, forces=True)
    targets = {"_frame_weight": torch.tensor([0.25, 0.0], dtype=torch.float64), "_idx_m": graph.batch}
    for output in weak.outputs:
        squares = out[output.name].square().reshape(len(out[output.name]), -1).mean(1)
        first = squares[: int(graph.counts()[0]) if output.name == "noise" else 1].sum()
        expected = output.loss_weight * 0.25 * first / len(squares)
        assert output.calculate_loss(out, targets).item() == pytest.approx(expected.item())
        assert output.calculate_loss(out, {}).item() == pytest.approx(output.loss_weight * squares.mean().item())


def test_adversarial_step():
    model, graph = make_potential("painn"), graphs("molecule", "slab")
    plain = predict(model, graph.within(4.0))
    labels = {"forces": plain.forces + torch.randn_like(plain.forces)}
    perturbation = Perturbation(0.05, "adversarial")
    out = WeakSupervision([PITC(perturbation=perturbation)], perturbation)(model, graph, labels, forces=True)
    d = perturbation.first(graph, forces=plain.forces, reference=labels["forces"])
    expected = PITC()(model, graph, displacements=Displacements(d, d))
    assert out["pitc"].square().mean().item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("method", ["piwsl", "noisy_nodes"])
def test_lists_that_reach_too_little_are_made_anew(method):
    model = make_potential("painn")
    weak = make_weak(WeakConfig(method=method), LossConfig(), model)
    results = []
    for reach in (REACH, 4.0):
        torch.manual_seed(2)
        results.append(weak.double()(model, graphs("molecule", "slab", reach=reach), {}, forces=True))
    for key, value in results[0].items():
        assert torch.allclose(value, results[1][key], atol=1e-9), key


def test_noise_is_told_in_units_of_epsilon():
    model, graph = make_potential("painn"), graphs("molecule", "slab")
    weak = NoisyNodes(1.0, 0.05, 16).double()
    torch.manual_seed(3)
    out = weak(model, graph, {}, forces=True)
    torch.manual_seed(3)
    noise = uniform(graph, 0.05)
    moved = [make_structure(name, seed=k) for k, name in enumerate(("molecule", "slab"))]
    for atoms, shift in zip(moved, noise.split(graph.counts().tolist()), strict=True):
        atoms.positions += shift.numpy()
    plain = predict(model, graph_from_atoms(moved, 4.0))
    assert torch.allclose(out["energy"], plain.energy) and torch.allclose(out["forces"], plain.forces, atol=1e-9)
    q, mu = model.network.features(graph_from_atoms(moved, 4.0))
    assert torch.allclose(out["noise"], weak.head(q, mu) - noise / 0.05, atol=1e-9)


def test_validation_has_no_part_of_it():
    model = make_potential("painn")
    weak = WeakSupervision([PITC()], Perturbation(0.05))
    adapter = PotentialAdapter(model, forces=True, stress=False, weak=weak)
    graph = graphs("molecule")
    batch = {
        "_atomic_numbers": graph.numbers,
        "_positions": graph.positions,
        "_idx_m": graph.batch,
        "_idx_i": graph.centers,
        "_idx_j": graph.neighbors,
        "_cell": graph.cell,
        "_pbc": torch.zeros(3, dtype=torch.bool),
    }
    before = torch.get_rng_state()
    out = adapter.eval()(batch)
    assert "pitc" not in out and torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(out["energy"], predict(model, graph.within(4.0)).energy)
    assert all(output.calculate_loss(out) == 0 for output in weak.outputs)
    assert "pitc" in adapter.train()(batch)


def test_steps_of_an_epoch(molecules, tmp_path):
    fitted(tmp_path, molecules, "run.steps_per_epoch=3", "run.batch_size=16", "run.max_epochs=3")
    assert [int(row["step"]) for row in rows(tmp_path / "run")] == [3, 6, 9]
    with pytest.raises(InputError, match=r"run\.steps_per_epoch was 3, is 4"):
        fitted(tmp_path, molecules, "run.steps_per_epoch=4", "run.batch_size=16", "run.max_epochs=4")


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["weak.method=piwl"], "weak.method is 'piwl'; allowed: plain, piwsl, two_point"),
        (["weak.order=second"], "weak.order is 'second'; allowed: first, trapezoid, antithetic"),
        (["weak.perturbation=gaussian"], "allowed: uniform, adversarial"),
        (["weak.normalisation=atom"], "allowed: total, per_atom"),
        (["weak.distance=l2mae"], "allowed: mse, mae, huber"),
        (["weak.pict=1"], "unknown setting weak.pict; did you mean weak.pitc"),
        (["weak.pitc=-1"], "weak.pitc is -1.0; expected a number from 0"),
        (["weak.pisc=-0.1"], "weak.pisc is -0.1; expected a number from 0"),
        (["weak.coefficient=-1"], "weak.coefficient is -1.0"),
        (["weak.epsilon=0"], "weak.epsilon is 0.0; expected a number above 0"),
        (["weak.rho=0"], "weak.rho is 0.0"),
        (["weak.pitc=0", "weak.pisc=0"], "weak.pitc and weak.pisc are both 0"),
        (
            ["weak.epsilon=0.1", "weak.skin=0.3"],
            r"epsilon 0\.1 Å is larger than weak\.skin 0\.3 .*Lower epsilon to 0\.086",
        ),
        (["weak.perturbation=adversarial", "loss.forces_weight=0"], "adversarial needs force labels"),
        (["weak.method=taylor_label", "loss.forces_weight=0"], "taylor_label needs force labels"),
        (["weak.method=taylor_label", "loss.energy_weight=0"], "taylor_label needs energy labels"),
        (["weak.method=two_point_label", "loss.energy_weight=0"], "two_point_label needs energy labels"),
        (["loss.forces_weight=0", DIRECT_FORCES], "weak.pisc with an energy-only training of a model with a force"),
        (["weak.method=curvature", "weak.coefficient=0"], "weak.coefficient is 0"),
        (["weak.method=noisy_nodes", DIRECT_FORCES], "noisy_nodes needs a conservative painn"),
        (["weak.method=noisy_nodes", "model.architecture=schnet"], "noisy_nodes needs a conservative painn"),
    ],
)
def test_misuse(overrides, message, molecules, tmp_path):
    with pytest.raises(InputError, match=message):
        training.prepare(config(tmp_path, molecules, *SMALL, "weak.method=piwsl", *overrides))
    assert not (tmp_path / "run").exists()


def test_a_skin_that_is_large_enough_is_used(molecules, tmp_path):
    settings = ("weak.method=piwsl", "weak.skin=0.5", "model.hyperparameters.cutoff=3.0")
    run = training.prepare(config(tmp_path, molecules, *SMALL, *settings))
    run.data.setup()
    sample = run.data.train_dataset[0]
    vectors = sample["_positions"][sample["_idx_j"]] - sample["_positions"][sample["_idx_i"]]
    assert 3.3 < vectors.norm(dim=-1).max() < 3.5


def test_stress_of_a_direct_model_is_refused_before_anything_is_trained():
    model = build_potential("painn", {"n_features": 8, "direct_forces": True}, reference_energies={1: 0.0})
    with pytest.raises(InputError, match="loss.stress_weight is 1.0, but a model with a force head has no stress"):
        make_weak(WeakConfig(), LossConfig(stress_weight=1.0), model)
