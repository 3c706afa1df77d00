"""PITC, PISC, their variants and rivals: exact where the answer is known, and the same however they are computed."""

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

pytest.importorskip("schnetpack")

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import native_library, plain_kernels
from asecalc_mlip.models import predict
from tests.cases import DIRECT, DIRECTS, MODELS, make_potential, make_structure
from tests.small_runs import weak_losses
from training.losses import PISC, PITC
from training.losses.displaced import Displacements, evaluate_points
from training.losses.variants import Curvature, Endpoint, TaylorLabel, TwoPoint, TwoPointLabel
from training.perturb import Perturbation, largest_relative_shift

CUTOFF = 4.0
EPSILON = 0.05
SKIN = largest_relative_shift(EPSILON)
ORDERS = ["first", "trapezoid", "antithetic"]
LOSSES = {
    **{f"{cls.name}-{order}": (cls, {"order": order}) for cls in (PITC, PISC) for order in ORDERS},
    **{cls.name: (cls, {}) for cls in (TwoPoint, TwoPointLabel, TaylorLabel, Endpoint, Curvature)},
}
# E and F: energy and forces of the model as functions of the displacement; the labels are E_ref and F_ref.
FORMULAS = {
    "pitc-first": lambda E, F, d, e, ref: E(d) - (E(0 * d) - (d * F(0 * d)).sum()),
    "pitc-trapezoid": lambda E, F, d, e, ref: E(d) - E(0 * d) + 0.5 * (d * (F(0 * d) + F(d))).sum(),
    "pitc-antithetic": lambda E, F, d, e, ref: E(d) - E(-d) + 2 * (d * F(0 * d)).sum(),
    "pisc-first": lambda E, F, d, e, ref: E(d) - (E(e) - ((d - e) * F(e)).sum()),
    "pisc-trapezoid": lambda E, F, d, e, ref: E(d) - E(e) + 0.5 * ((d - e) * (F(d) + F(e))).sum(),
    "pisc-antithetic": lambda E, F, d, e, ref: E(d) - E(e) + ((d - e) * F((d + e) / 2)).sum(),
    "two_point": lambda E, F, d, e, ref: E(0 * d) - (E(d) + (d * F(d)).sum()),
    "two_point_label": lambda E, F, d, e, ref: ref["energy"] - (E(d) + (d * F(d)).sum()),
    "taylor_label": lambda E, F, d, e, ref: E(d) - (ref["energy"] - (d * ref["forces"]).sum()),
    "endpoint": lambda E, F, d, e, ref: E(0 * d) - (d * F(0 * d)).sum() - (E(e) - ((d - e) * F(e)).sum()),
    "curvature": lambda E, F, d, e, ref: -0.5 * (d * (F(0.1 * d) - F(-0.1 * d))).sum() / 0.2,
}


class Quadratic:
    """E = ½ xᵀHx of copies of one structure, x the displacement from where it was made."""

    cutoff = CUTOFF

    def __init__(self, graph, seed=0):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(graph.n_atoms * 3, graph.n_atoms * 3, generator=generator, dtype=torch.float64)
        self.hessian, self.start = a + a.T, graph.positions.clone()

    def __call__(self, graph):
        x = graph.positions.reshape(graph.n_structures, -1) - self.start.reshape(-1)
        return 0.5 * (x * (x @ self.hessian)).reshape(-1, 3).sum(-1)

    def work(self, d):
        """½ dᵀHd."""
        return 0.5 * d.reshape(-1) @ self.hessian @ d.reshape(-1)


def make_loss(name, **options):
    cls, fixed = LOSSES[name]
    return cls(**{"epsilon": EPSILON, **fixed, **options})


def graph_of(structure, *, reach=CUTOFF + SKIN, **options):
    return graph_from_atoms(make_structure(structure, **options), reach)


def shifts(graph, seed=0, size=EPSILON):
    """Random d and d' of up to `size` along each axis."""
    generator = torch.Generator().manual_seed(seed)
    d, e = size * (2 * torch.rand(2, *graph.positions.shape, generator=generator, dtype=torch.float64) - 1)
    return Displacements(d, e)


def labels_of(graph, seed=1):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(graph.n_structures + 3 * graph.n_atoms, generator=generator, dtype=torch.float64)
    energies, forces = numbers[: graph.n_structures], numbers[graph.n_structures :].reshape(-1, 3)
    return {"energy": -3000 + energies, "forces": forces}


def residual_of(loss, model, graph, at, labels=None):
    field = evaluate_points(model, graph, loss.needs, at)
    return loss.residual(field, graph, at, labels)


def mixed_graphs():
    """Unlike sizes, periodic and not, and one atom alone."""
    lone = graph_from_atoms(Atoms("C"), CUTOFF + SKIN)
    return [*(graph_of(name, seed=k) for k, name in enumerate(["molecule", "crystal", "slab", "skewed"])), lone]


def test_residuals_of_a_quadratic_potential_are_exact():
    graph = graph_of("molecule")
    model = Quadratic(graph)
    at = shifts(graph)
    expected = {
        "pitc-first": model.work(at.d),
        "pisc-first": model.work(at.d - at.d_prime),
        "two_point": model.work(at.d),
        "curvature": model.work(at.d),
        "endpoint": model.work(at.d - at.d_prime) - model.work(at.d),
        **{f"{loss}-{order}": 0.0 for loss in ("pitc", "pisc") for order in ORDERS[1:]},
    }
    for name, value in expected.items():
        residual = residual_of(make_loss(name), model, graph, at).item()
        assert residual == pytest.approx(float(value), rel=1e-9, abs=1e-12), name
    assert abs(expected["pitc-first"]) > 1e-3


@pytest.mark.parametrize("structure", ["molecule", "slab"])
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith(("pitc", "pisc"))])
def test_residuals_of_conservative_models_fall_with_their_order(name, architecture, structure):
    # At 4.25 Å no pair of these structures is near the cutoff, where the second derivative of the cosine has a step.
    model, graph = make_potential(architecture, cutoff=4.25), graph_of(structure, reach=5.0)
    sizes = np.array([0.02, 0.01, 0.005])
    whole = [shifts(graph, seed, 1.0) for seed in range(8)]
    rms = []
    for size in sizes:
        at = [Displacements(size * one.d, size * one.d_prime) for one in whole]
        residuals = [residual_of(make_loss(name), model, graph, one).item() for one in at]
        rms.append(np.sqrt(np.mean(np.square(residuals))))
    slope = np.polyfit(np.log(sizes), np.log(rms), 1)[0]
    assert slope == pytest.approx(2 if "first" in name else 3, abs=0.1)


@pytest.mark.parametrize("structure", ["molecule", "slab"])
@pytest.mark.parametrize("architecture", [*MODELS, *DIRECTS, "spinconv"])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_formula(name, architecture, structure):
    model, atoms, graph = make_potential(architecture), make_structure(structure), graph_of(structure)
    at, labels = shifts(graph), labels_of(graph)

    def predicted(shift):
        moved = atoms.copy()
        moved.positions += shift.numpy()
        return predict(model, graph_from_atoms(moved, CUTOFF))

    def energy(shift):
        return predicted(shift).energy

    def forces(shift):
        return predicted(shift).forces

    expected = FORMULAS[name](energy, forces, at.d, at.d_prime, labels).squeeze()
    scale = {"total": 1, "per_atom": len(atoms)}
    for normalisation, atoms_in_it in scale.items():
        r = expected / atoms_in_it
        huber = 0.5 * r**2 if abs(r) < 0.01 else 0.01 * (abs(r) - 0.005)
        for distance, value in {"mse": r**2, "mae": abs(r), "huber": huber}.items():
            loss = make_loss(name, normalisation=normalisation, distance=distance)
            result = loss(model, graph, labels, displacements=at)
            assert result.shape == ()
            assert result.item() == pytest.approx(value.item(), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("normalisation", ["total", "per_atom"])
@pytest.mark.parametrize("architecture", [*MODELS, DIRECT])
def test_mixed_batch_is_the_mean_of_single_structures(architecture, normalisation):
    model, graphs = make_potential(architecture), mixed_graphs()
    at, labels = [shifts(graph, k) for k, graph in enumerate(graphs)], [labels_of(graph) for graph in graphs]
    together = Displacements(torch.cat([one.d for one in at]), torch.cat([one.d_prime for one in at]))
    names = {name: torch.cat([one[name] for one in labels]) for name in labels[0]}
    for name in LOSSES:
        loss = make_loss(name, normalisation=normalisation)
        batch = loss(model, batch_graphs(graphs), names, displacements=together).item()
        single = [loss(model, *one, displacements=d).item() for *one, d in zip(graphs, labels, at, strict=True)]
        assert batch == pytest.approx(np.mean(single), rel=1e-6), name


@pytest.mark.parametrize("architecture", [*MODELS, DIRECT, "escn", "equiformer_v2"])
def test_gradients_are_those_of_differences(architecture):
    model = make_potential(architecture, trainable=True, n_features=8).train()
    graph = batch_graphs([graph_of("molecule"), graph_of("crystal")])
    at, labels, weights = shifts(graph), labels_of(graph), list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    along = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    step = 1e-5
    for name in LOSSES:
        # Of the size of one for every loss, so that rounding means the same for all of them.
        loss = make_loss(name, normalisation="per_atom", distance="mae")
        gradients = torch.autograd.grad(loss(model, graph, labels, displacements=at), weights, allow_unused=True)
        slope = sum((g * v).sum() for g, v in zip(gradients, along, strict=True) if g is not None).item()
        values = []
        for sign in (1, -2):  # from w to w + h v, and from there to w − h v
            with torch.no_grad():
                for weight, v in zip(weights, along, strict=True):
                    weight.add_(sign * step * v)
            values.append(loss(model, graph, labels, displacements=at).item())
        with torch.no_grad():
            for weight, v in zip(weights, along, strict=True):
                weight.add_(step * v)
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-4, abs=1e-7), name
        assert abs(slope) > 1e-6, name


@pytest.mark.parametrize("architecture", [*MODELS, DIRECT])
def test_periodic_cell_is_its_supercell(architecture):
    model, atoms = make_potential(architecture), make_structure("crystal")
    cell, supercell = (graph_from_atoms(a, CUTOFF + SKIN) for a in (atoms, atoms * (2, 1, 1)))
    at, labels = shifts(cell), labels_of(cell)
    twice = Displacements(at.d.repeat(2, 1), at.d_prime.repeat(2, 1))
    double = {"energy": 2 * labels["energy"], "forces": labels["forces"].repeat(2, 1)}
    for name in LOSSES:
        for normalisation, factor in (("total", 2), ("per_atom", 1)):
            loss = make_loss(name, normalisation=normalisation, distance="mae")
            expected = factor * loss(model, cell, labels, displacements=at).item()
            result = loss(model, supercell, double, displacements=twice).item()
            assert result == pytest.approx(expected, rel=1e-6, abs=1e-10), (name, normalisation)


@pytest.mark.parametrize("architecture", [*MODELS, DIRECT])
def test_displacements_are_constants(architecture):
    """The gradient is that with the same numbers handed over, although adversarial ones come from the forces."""
    model, graph = make_potential(architecture, trainable=True), graph_of("molecule")
    labels, loss = labels_of(graph), PITC(perturbation=Perturbation(EPSILON, "adversarial"))
    forces = predict(model, graph.within(CUTOFF), create_graph=True).forces
    assert forces.requires_grad
    d = loss.perturbation.first(graph, forces=forces, reference=labels["forces"])
    assert not d.requires_grad and not loss.perturbation.uniform(graph).requires_grad
    weights = list(model.network.readout.parameters())
    drawn = torch.autograd.grad(loss(model, graph, labels), weights)
    given = torch.autograd.grad(loss(model, graph, labels, displacements=Displacements(d, d)), weights)
    assert all(torch.allclose(a, b, rtol=1e-8) for a, b in zip(drawn, given, strict=True))


@pytest.mark.parametrize("architecture", MODELS)
def test_curvature_is_that_of_the_hessian(architecture):
    model, graph = make_potential(architecture), graph_of("molecule")
    at = shifts(graph)

    def energy(positions):
        return model(replace(graph, positions=positions)).sum()

    with plain_kernels():
        hessian = torch.autograd.functional.hessian(energy, graph.positions).reshape(3 * graph.n_atoms, -1)
    d = at.d.reshape(-1)
    expected = (0.5 * d @ hessian @ d).item()
    assert residual_of(Curvature(), model, graph, at).item() == pytest.approx(expected, rel=1e-3)
    # In float32 the difference of forces is of few digits, but enough of them.
    single = residual_of(Curvature(), make_potential(architecture, dtype=torch.float32), graph, at)
    assert single.item() == pytest.approx(expected, rel=0.02)


def test_mean_of_curvature_is_half_the_variance_times_the_trace():
    graph = graph_of("molecule")
    model = Quadratic(graph)
    draws = [residual_of(Curvature(), model, graph, shifts(graph, seed)).item() for seed in range(400)]
    expected = 0.5 * EPSILON**2 / 3 * model.hessian.trace().item()
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / math.sqrt(len(draws)))


@pytest.mark.parametrize("structure", ["molecule", "skewed"])
def test_lists_that_reach_too_little_are_made_anew(structure):
    model, at = make_potential("painn"), shifts(graph_of(structure))
    lists = [graph_of(structure, reach=reach) for reach in (CUTOFF + SKIN, CUTOFF, CUTOFF + 2.0, 1.0)]
    lists += [replace(lists[0], reach=None), batch_graphs([lists[1]])]
    for name in LOSSES:
        values = [make_loss(name)(model, graph, labels_of(graph), displacements=at).item() for graph in lists]
        assert values == pytest.approx([values[0]] * len(values), rel=1e-9), name
    drawn = [PISC()(model, graph, generator=torch.Generator().manual_seed(3)).item() for graph in lists[:3]]
    assert drawn == pytest.approx([drawn[0]] * 3, rel=1e-9)


def test_an_unsorted_mixture_of_lists_that_reach_too_little():
    model, graphs = make_potential("schnet"), mixed_graphs()
    whole = batch_graphs(graphs)
    short = batch_graphs([graph.within(3.0) for graph in graphs])
    at = shifts(whole)
    loss = PITC()
    assert loss(model, short, displacements=at).item() == pytest.approx(loss(model, whole, displacements=at).item())


@pytest.mark.skipif(native_library() is None, reason="needs the native library")
@pytest.mark.parametrize("architecture", [*MODELS, DIRECT])
def test_native_and_plain_kernels_agree(architecture):
    model = make_potential(architecture, trainable=True)
    graph = batch_graphs([graph_of("molecule"), graph_of("slab")])
    at, labels, weights = shifts(graph), labels_of(graph), list(model.parameters())
    for name in LOSSES:
        results = []
        for kernels in (nullcontext(), plain_kernels()):
            with kernels:
                loss = make_loss(name)(model, graph, labels, displacements=at)
                results.append([loss, *torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)])
        assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-10) for a, b in zip(*results, strict=True)), name


def test_points_without_need_of_forces_have_none():
    graph = graph_of("molecule")
    at = shifts(graph)
    for loss in (PITC(), PISC(order="antithetic")):
        field = evaluate_points(make_potential("painn"), graph, loss.needs, at)
        assert set(field.energy) == set(loss.needs)
        assert set(field.forces) == {point for point, wanted in loss.needs.items() if wanted}
    # A head gives them in the same pass.
    direct = evaluate_points(make_potential(DIRECT), graph, PITC().needs, at)
    assert set(direct.forces) == {"r", "r+d"}


def test_generators_make_losses_repeatable():
    model, graph = make_potential("painn"), graph_of("molecule")
    first, same, other = (PISC()(model, graph, generator=torch.Generator().manual_seed(k)).item() for k in (0, 0, 1))
    assert first == same != other
    torch.manual_seed(5)
    loose = PISC()(model, graph).item()
    torch.manual_seed(5)
    assert PISC()(model, graph).item() == loose


@pytest.mark.parametrize("name", ["two_point_label", "taylor_label"])
def test_labels_are_asked_for(name):
    graph = graph_of("molecule")
    for labels in (None, {}, {"forces": labels_of(graph)["forces"]}):
        with pytest.raises(InputError, match=rf"{name} needs the labels \['energy'.*'pitc', which needs none"):
            make_loss(name)(make_potential("painn"), graph, labels)


def test_adversarial_displacements_ask_for_forces():
    loss = PITC(perturbation=Perturbation(EPSILON, "adversarial"))
    with pytest.raises(InputError, match="adversarial perturbation needs force labels"):
        loss(make_potential("painn"), graph_of("molecule"), {"energy": torch.zeros(1)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "pitc: weight is -1.0; expected 0"),
        ({"weight": math.nan}, "weight is nan"),
        ({"order": "second"}, "pitc: order is 'second'; allowed: first, trapezoid, antithetic"),
        ({"normalisation": "atom"}, "normalisation is 'atom'; allowed: total, per_atom"),
        ({"distance": "l2mae"}, "distance is 'l2mae'; allowed: mse, mae, huber"),
        ({"epsilon": 0.0}, "epsilon is 0.0; expected a length above 0"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(InputError, match=message):
        PITC(**options)


def test_every_loss_has_a_name_and_says_what_it_is():
    assert set(weak_losses()) == {name.split("-")[0] for name in LOSSES}
    text = repr(PITC(2.0, order="trapezoid", normalisation="per_atom"))
    assert text.startswith("PITC(order='trapezoid', weight=2") and "epsilon=0.05" in text and "per_atom" in text
