"""EAM and ZBL: the equations, number by number; pairs and elements; the calculator that shows components."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from asecalc_mlip import EAMCalculator, PIWSLCalculator
from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network, build_potential, predict
from asecalc_mlip.models.zbl import ZBL
from tests.cases import E0, make_potential, make_structure, model_file


@pytest.fixture
def calculator(tmp_path):
    return EAMCalculator.load(model_file(tmp_path, "eam"), dtype="float64")


def by_hand(calculator, atoms):
    """Energy of a molecule by the equations as they stand in the specification, with loops."""
    network = calculator.network
    depth, stiffness, decay, amplitude = (
        v.detach().numpy()
        for v in (
            *(torch.nn.functional.softplus(p) for p in (network.depth, network.stiffness, network.decay)),
            network.amplitudes(),
        )
    )
    rc, total = network.cutoff, 0.0
    for i in range(len(atoms)):
        rho = 0.0
        for j in range(len(atoms)):
            r = atoms.get_distance(i, j)
            if i == j or r >= rc:
                continue
            p = network.pair_index(atoms.numbers[i], atoms.numbers[j])
            s = (rc - r) / (0.34 * rc)
            fc = 1.0 if r <= 0.66 * rc else 6 * s**5 - 15 * s**4 + 10 * s**3
            morse = depth[p] * ((1 - math.exp(-stiffness[p] * (r - network.bond[p].item()))) ** 2 - 1)
            total += 0.5 * fc * morse + 0.5 * zbl_by_hand(atoms.numbers[i], atoms.numbers[j], r)
            rho += fc * sum(a * math.exp(-b * r) for a, b in zip(amplitude[p], decay[p], strict=True))
        k = network.numbers.index(atoms.numbers[i])
        b, rest = network.embedding[k].item(), network.rest[k].item()
        total += b * (rho - rest) ** 2 - b * rest**2
    return total


def zbl_by_hand(a, b, r):
    x = r * (a**0.23 + b**0.23) / 0.4685
    phi = sum(
        c * math.exp(-d * x) for c, d in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
    )
    bond = float(np.float32(covalent_radii[a]) + np.float32(covalent_radii[b]))
    s = min(max((0.8 * bond - r) / (0.4 * bond), 0.0), 1.0)
    return 14.399645 * a * b / r * phi * (6 * s**5 - 15 * s**4 + 10 * s**3)


def test_energy_is_that_of_the_equations(calculator):
    atoms = make_structure("molecule")
    atoms.positions[-1] = atoms.positions[0] + [0.6, 0.5, 0.1]  # within the reach of the core
    atoms.calc = calculator
    scale = calculator.potential.scale
    expected = scale * by_hand(calculator, atoms) + sum(E0[z] for z in atoms.numbers)
    # Weights in files are float32.
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-5)
    parts = calculator.components(atoms)
    assert set(parts) == {"density", "morse", "zbl", "offset", "total"}
    assert parts["total"] == pytest.approx(expected, abs=1e-5)
    assert parts["offset"] == pytest.approx(sum(E0[z] for z in atoms.numbers))
    assert parts["total"] == pytest.approx(sum(v for k, v in parts.items() if k != "total"))
    assert parts["zbl"] > 0.1


def test_start_values():
    network = build_network("eam", {"elements": ["O", 14]})
    assert network.cutoff == 8.0 and network.numbers == [8, 14] and network.zbl is None
    radius = {z: covalent_radii[z] for z in (8, 14)}
    for a, b in ((8, 8), (8, 14), (14, 8), (14, 14)):
        assert network.bond[network.pair_index(a, b)].item() == pytest.approx(radius[a] + radius[b])
    assert network.pair_index(8, 14) == network.pair_index(14, 8)
    decay = torch.nn.functional.softplus(network.decay)[0].detach().numpy()
    assert len(decay) == 10 and np.allclose(decay[[0, -1]], [0.5, 4.0])
    assert np.allclose(decay[1:] / decay[:-1], decay[1] / decay[0], rtol=1e-5)


def test_exponentials_get_unlike_gradients():
    """Equal ones would stay equal; unlike ones are pulled in unlike directions, so that all K are used."""
    potential = make_potential("eam", trainable=True, n_exponentials=10)
    predict(potential, graph_from_atoms(make_structure("crystal"), 4.0), create_graph=True).energy.sum().backward()
    gradients = potential.network.decay.grad[potential.network.pair_index(8, 14)]
    assert len(set(np.round(gradients.numpy(), 12))) == 10


def test_morse_only_has_no_density(tmp_path):
    potential = make_potential("eam", density=False, dtype=torch.float32)
    save(tmp_path / "morse.pt", potential)
    calculator = EAMCalculator.load(tmp_path / "morse.pt")
    parts = calculator.components(make_structure("molecule"))
    assert parts["density"] == 0.0 and parts["morse"] != 0.0
    assert not any(name.startswith(("decay", "share", "rest")) for name, _ in potential.network.named_parameters())


def test_zbl_is_inside_the_bonds_only():
    zbl = ZBL().double()
    bond = float(zbl.radii[14] + zbl.radii[8])
    distances = torch.linspace(0.02, 1.2, 500, dtype=torch.float64) * bond
    a, b = torch.full((500,), 14), torch.full((500,), 8)
    energy = zbl.pair_energy(a, b, distances)
    assert (energy[distances > 0.8 * bond] == 0).all()
    inner = distances < 0.799 * bond
    assert (torch.diff(energy[inner]) < 0).all() and (energy[inner] > 0).all()
    for k in (0, 50, 120, 300):
        assert energy[k].item() == pytest.approx(zbl_by_hand(14, 8, distances[k].item()), rel=1e-5)
    assert torch.equal(zbl.pair_energy(b, a, distances), energy)
    # Unscreened nuclei at 0.02 Å would have 14.4·112/0.02 eV; the literature value of the screening there is 0.87.
    near = zbl.pair_energy(a[:1], b[:1], torch.tensor([0.02], dtype=torch.float64)).item()
    assert 0.8 < near / (14.399645 * 112 / 0.02) < 0.95


def test_core_repels_where_morse_is_finite():
    bare, core = (make_potential("eam", core=core) for core in (None, "zbl"))
    pair = graph_from_atoms(Atoms("SiO", [[0, 0, 0], [0, 0, 0.3]]), 4.0)
    assert predict(core, pair).energy.item() > predict(bare, pair).energy.item() + 100
    assert predict(core, pair).forces[1, 2].item() > 100


def test_pair_curve_agrees_with_the_calculator(calculator):
    distances = np.linspace(0.6, 4.5, 12)
    curve = calculator.pair_curve("Si", "O", distances)
    for k, distance in enumerate(distances):
        atoms = Atoms("SiO", [[0, 0, 0], [0, 0, distance]], calculator=calculator)
        assert curve.total[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    other = calculator.pair_curve("O", "Si", distances)
    assert np.allclose(curve.total, other.total) and np.allclose(curve.density, other.density)
    assert curve.binding[-1] == pytest.approx(0.0, abs=1e-9)  # beyond the cutoff
    assert set(curve.to_dict()) == {"symbols", "distances", "density", "morse", "zbl", "offset", "total"}
    assert "Si–O" in repr(curve) and "lowest" in repr(curve)
    assert len(calculator.pair_curves(distances)) == 10


def test_files_keep_the_model(tmp_path):
    path = model_file(tmp_path, "eam")
    found, atoms = load(path), make_structure("crystal")
    assert found.potential.hyperparameters["elements"] == ["H", "C", "O", "Si"]
    graph = graph_from_atoms(atoms, 4.0)
    expected = predict(make_potential("eam", dtype=torch.float32), graph)
    again = predict(found.potential, graph)
    assert torch.equal(again.energies, expected.energies) and torch.equal(again.forces, expected.forces)
    assert "eam" in repr(PIWSLCalculator.load(path))


def test_in_pieces_says_the_same():
    potential, graph = make_potential("eam"), graph_from_atoms(make_structure("slab"), 4.0)
    whole, pieces = predict(potential, graph), ChunkedEngine(potential, edges_per_piece=50)(graph)
    assert torch.allclose(pieces.energies, whole.energies, atol=1e-10)
    assert torch.allclose(pieces.forces, whole.forces, atol=1e-10)


def test_many_structures_at_once(calculator):
    structures = [make_structure(name, seed=k) for k in range(3) for name in ("crystal", "molecule")]
    for atoms, result in zip(structures, calculator.evaluate(structures), strict=True):
        atoms.calc = calculator
        assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert (result["stress"] is not None) == bool(atoms.pbc.all())


@pytest.mark.parametrize(
    ("elements", "message"),
    [([], "each once"), (["Xx"], "each once"), (["O", 8], "each once"), ([0], "each once"), ([200], "each once")],
)
def test_elements_that_cannot_be(elements, message):
    with pytest.raises(InputError, match=message):
        build_network("eam", {"elements": elements})


def test_bad_input(calculator, tmp_path):
    with pytest.raises(InputError, match="core is 'wall'; allowed"):
        build_network("eam", {"elements": ["O"], "core": "wall"})
    potential = build_potential("eam", {"elements": ["O"]}, reference_energies={8: 0.0, 14: 0.0})
    with pytest.raises(InputError, match="no parameters for Si; it has them for O"):
        predict(potential, graph_from_atoms(Atoms("SiO", [[0, 0, 0], [0, 0, 2]]), 8.0))
    with pytest.raises(InputError, match="does not know the element Fe; it was trained on H, C, O, Si"):
        calculator.components(Atoms("Fe"))
    with pytest.raises(InputError, match="does not know the element Fe"):
        calculator.pair_curve("Fe", "O", [2.0])
    with pytest.raises(InputError, match="no element"):
        calculator.pair_curve("Q", "O", [2.0])
    with pytest.raises(InputError, match="above 0"):
        calculator.pair_curve("Si", "O", [0.0, 2.0])
    with pytest.raises(InputError, match="0.05"):
        calculator.components(Atoms("SiO", [[0, 0, 0], [0, 0, 0.05]]))
    with pytest.raises(InputError, match="is not an EAM but painn; load it with PIWSLCalculator.load"):
        EAMCalculator.load(model_file(tmp_path, "painn"))


def test_elements_are_symbols_or_numbers():
    names = build_network("eam", {"elements": ["Si", "O"]}).numbers
    assert names == build_network("eam", {"elements": [8, atomic_numbers["Si"]]}).numbers == [8, 14]


def test_morse_pairs_alone_in_pieces():
    """Where memory is short; there is no density that a derivative could come from."""
    potential = make_potential("eam", density=False)
    graph = graph_from_atoms(make_structure("crystal"), potential.cutoff)
    whole = predict(potential, graph)
    pieces = ChunkedEngine(potential, edges_per_piece=7)(graph)
    assert torch.allclose(whole.forces, pieces.forces, atol=1e-10)
