"""Curvature labels: the Hessian–vector products of a teacher as targets, from its labels to the model they change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import plain_kernels
from asecalc_mlip.models import predict
from asecalc_mlip.teachers import Failed, open_teacher
from tests import teacher
from tests.cases import make_potential, make_structure
from tests.small_runs import analytic_teacher, config, rows

pytest.importorskip("schnetpack")
from training import train as training  # noqa: E402
from training.curvature_labels import LABELLED_CURVATURE, Displaced, make_curvature_labels  # noqa: E402
from training.losses.curvature_label import CHANGES, DIRECTIONS, CurvatureLabel  # noqa: E402
from training.perturb import largest_relative_shift  # noqa: E402
from training.settings import WeakConfig  # noqa: E402

EPSILON = 0.05
REACH = 4.0 + largest_relative_shift(EPSILON)


@pytest.fixture
def own(tmp_path):
    """The name of the analytic potential as a teacher."""
    return analytic_teacher(tmp_path)


def settings(own, *more):
    return ("data.n_train=6", "data.n_val=4", "weak.method=curvature_label", f"weak.teacher={own}", *more)


def labels_of(potential, graph, d):
    """What a model says of itself as a teacher, for directions (N, k, 3)."""
    changes = torch.zeros_like(d)
    for k in range(d.shape[1]):
        minus, plus = (
            predict(potential, moved(graph, sign * d[:, k]), forces=True).forces.double() for sign in (-1, 1)
        )
        changes[:, k] = 0.5 * (minus - plus)
    return {DIRECTIONS: d, CHANGES: changes}


def moved(graph, shift):
    from training.losses.displaced import displaced

    return displaced(graph, shift).within(4.0)


def test_errors_are_those_of_hessian_vector_products():
    """Against the Hessian by automatic differentiation, of a batch of unlike structures."""
    potential = make_potential("painn").double()
    graphs = [graph_from_atoms(make_structure(name, seed=k), REACH) for k, name in enumerate(("molecule", "crystal"))]
    graph = batch_graphs(graphs)
    d = 0.002 * torch.rand(graph.n_atoms, 1, 3, dtype=torch.float64)
    loss = CurvatureLabel(1.0, 0.002)
    zero = {DIRECTIONS: d, CHANGES: torch.zeros_like(d)}
    found = loss(potential, graph, zero, forces=True)["curvature_label"]

    def energy(positions):
        return potential(replace(graph, positions=positions, reach=None).within(4.0)).sum()

    with plain_kernels():
        _, product = torch.autograd.functional.hvp(energy, graph.positions, d[:, 0] / 0.002)
    assert torch.allclose(found, product, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("forces", [True, False])
def test_a_model_has_no_error_against_itself(forces):
    potential = make_potential("painn").double()
    graph = batch_graphs([graph_from_atoms(make_structure("molecule", seed=k), REACH) for k in range(2)])
    d = EPSILON * (2 * torch.rand(graph.n_atoms, 3, 3, dtype=torch.float64) - 1)
    out = CurvatureLabel(1.0, EPSILON)(potential, graph, labels_of(potential, graph, d), forces=forces)
    assert out["curvature_label"].abs().max() < 1e-9
    assert ("forces" in out) == forces
    plain = predict(potential, graph.within(4.0), forces=True)
    assert torch.allclose(out["energy"], plain.energy)


def test_every_direction_is_drawn_and_one_for_all_atoms_of_a_structure():
    potential = make_potential("painn")
    graph = batch_graphs([graph_from_atoms(make_structure("molecule", seed=k), REACH) for k in range(2)])
    # Changes that name their direction; displacements of zero have a model without any change.
    d = torch.zeros(graph.n_atoms, 4, 3, dtype=torch.float64)
    changes = torch.arange(4, dtype=torch.float64)[None, :, None].expand_as(d)
    seen = set()
    for _ in range(40):
        error = CurvatureLabel(1.0, 1.0)(potential, graph, {DIRECTIONS: d, CHANGES: changes}, forces=False)
        of_structures = [part.unique() for part in error["curvature_label"].split(graph.counts().tolist())]
        assert all(len(values) == 1 for values in of_structures)
        seen.add(tuple(round(-values.item()) for values in of_structures))
    assert {k for pair in seen for k in pair} == {0, 1, 2, 3}
    assert any(a != b for a, b in seen)


def test_displaced_structures_come_in_pairs_and_bonds_hold_them_back():
    structures = [molecule("H2"), molecule("CH3CH2OH")]
    copies = Displaced(structures, WeakConfig(epsilon=1.0, directions=3), seed=5)
    assert len(copies) == 12 and len(copies[:]) == 12
    for k in range(0, 12, 2):
        start = structures[copies[k].info["structure"]].positions
        d = copies[k].positions - start
        assert np.allclose(copies[k + 1].positions - start, -d)
        bond = 0.30 * structures[copies[k].info["structure"]].get_all_distances()[0, 1:].min()
        assert np.linalg.norm(d, axis=1).max() <= bond + 1e-9
    assert not np.allclose(copies[0].positions, copies[2].positions)


def test_labels_are_differences_of_the_teacher_and_lead_the_model_to_its_curvature(own, molecules, tmp_path):
    """Errors of the products fall; the file is kept, and a second call makes nothing anew."""
    given = ("run.max_epochs=8", "run.steps_per_epoch=10", "weak.directions=2", "weak.coefficient=100", "run.seed=3")
    chosen = config(tmp_path, molecules, *settings(own, *given), output="taught")
    run = training.prepare(chosen)
    path = tmp_path / "taught" / LABELLED_CURVATURE
    frames, before = read_frames(path), path.read_bytes()
    assert len(frames) == 6 * 2 * 2
    place = run.split.train[0]
    sample = run.data._samples[place]
    truth = teacher.Teacher(molecule("CH3CH2OH"))
    forces = []
    for sign in (-1, 1):
        atoms = run.frames[place].copy()
        atoms.positions += sign * sample[DIRECTIONS][:, 1].numpy()
        forces.append(truth.get_forces(atoms))
    assert np.allclose(sample[CHANGES][:, 1], 0.5 * (forces[0] - forces[1]), atol=1e-5)
    assert not run.data._samples[run.split.val[0]][DIRECTIONS].any()
    training.fit(run)
    errors = [float(row["train_curvature_label_rmse"]) for row in rows(tmp_path / "taught")]
    print(errors)
    assert errors[-1] < 0.7 * errors[0]
    # A run that goes on has its labels.
    training.prepare(replace(chosen, run=replace(chosen.run, max_epochs=9)))
    assert path.read_bytes() == before


def test_directions_that_the_teacher_cannot_label_are_left_out(own, molecules, tmp_path, monkeypatch):
    class Sometimes:
        """The teacher, which fails for every fifth structure."""

        name = "sometimes"

        def __init__(self, inner):
            self.inner = inner

        def recipe(self):
            return self.inner.recipe()

        def label(self, structures):
            found = self.inner.label(structures)
            return [Failed("no") if k % 5 == 4 else one for k, one in enumerate(found)]

    monkeypatch.setattr(
        "training.curvature_labels.open_teacher", lambda name, **options: Sometimes(open_teacher(name, **options))
    )
    chosen = config(tmp_path, molecules, *settings(own, "weak.directions=2"))
    frames = read_frames(molecules)
    labels = make_curvature_labels(chosen, frames, list(range(6)), tmp_path)
    assert sum(map(len, labels.pairs.values())) < 12
    for place in range(6):
        found = labels.of(place, frames[place])[DIRECTIONS]
        assert bool(found.any()) == (place in labels.pairs)
        assert not found[:, 0].any() or found[:, 1].any()  # the one that is there comes twice


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("weak.method=curvature_label",), "name weak.teacher"),
        (("weak.method=curvature_label", "weak.teacher=base"), "name finetune.base"),
        (("weak.method=piwsl", "weak.teacher=xtb"), "has no effect with weak.method=piwsl"),
        (("weak.directions=7",), "has no effect with weak.method=plain"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(given, said, molecules, tmp_path):
    with pytest.raises(InputError, match=said):
        training.prepare(config(tmp_path, molecules, *given))
    assert not (tmp_path / "run").exists()


def test_the_card_names_the_teacher(own, molecules, tmp_path):
    run = training.prepare(config(tmp_path, molecules, *settings(own), "run.max_epochs=1"))
    training.fit(run)
    weak = PIWSLCalculator.load(run.model).card["weak"]
    assert weak["method"] == "curvature_label" and weak["teacher"]["teacher"].startswith("analytic.py")


def test_no_frames_of_one_atom(own, tmp_path):
    """Isolated atoms have E0 to give, and no curvature."""
    frames = teacher.as_reference(teacher.molecule_frames(12))
    write(tmp_path / "train.xyz", frames, format="extxyz")
    labels = make_curvature_labels(
        config(tmp_path, tmp_path / "train.xyz", *settings(own)),
        [molecule("H"), *read_frames(tmp_path / "train.xyz")],
        [0, 1, 2],
        tmp_path,
    )
    assert sorted(labels.pairs) == [1, 2]
