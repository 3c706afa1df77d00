"""Our models in torch-sim: its own validator, the same numbers as through ASE, neighbour lists kept between steps."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel, save
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import build_potential
from asecalc_mlip.neighbors import batched
from tests.cases import MODELS, make_potential, make_structure, model_file
from tests.simulated_gpu import simulated_gpu

ts = pytest.importorskip("torch_sim", reason="needs torch-sim: pip install 'asecalc-mlip[torch-sim]'")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from asecalc_mlip.torchsim import PIWSLModel  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    return PIWSLModel.load(model_file(tmp_path, request.param), device="cpu", dtype="float64", compute_stress=True)


def state_of(structures, dtype=torch.float64):
    return ts.io.atoms_to_state(structures, CPU, dtype)


def crystals(number=3):
    structures = []
    for seed in range(number):
        atoms = bulk("SiO", "rocksalt", a=4.4 + 0.1 * seed, cubic=True) * (1, 1, 1 + seed % 2)
        atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
        structures.append(atoms)
    return structures


@pytest.mark.parametrize("architecture", MODELS)
def test_validator_of_torch_sim(architecture):
    torch.manual_seed(0)
    sizes = {"cutoff": 4.0, "n_features": 16, "n_interactions": 2}
    potential = build_potential(architecture, sizes, reference_energies={14: -1.0, 26: -2.0}).eval()
    calculator = PIWSLCalculator(LoadedModel(potential, {}, Path("test.pt")), device="cpu", dtype="float64")
    validate_model_outputs(PIWSLModel(calculator), CPU, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_same_as_ase(model, dtype):
    structures = crystals()
    found = model(state_of(structures, dtype))
    forces = np.concatenate([model.calculator.get_forces(atoms) for atoms in structures])
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert {value.dtype for value in found.values()} == {dtype}
    assert np.allclose(found["forces"], forces, atol=tolerance)
    for k, atoms in enumerate(structures):
        energy = model.calculator.get_potential_energy(atoms)
        assert float(found["energy"][k]) == pytest.approx(energy, rel=1e-14 if dtype == torch.float64 else 1e-6)
        assert np.allclose(
            found["stress"][k], voigt_6_to_full_3x3_stress(model.calculator.get_stress(atoms)), atol=tolerance
        )


def test_molecules_and_dictionaries(model):
    structures = [molecule("CH3CH2OH"), molecule("H2O")]
    state = state_of(structures)
    model.compute_stress = False
    found = model(state)
    fields = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    again = model({name: getattr(state, name) for name in fields})
    assert set(found) == {"energy", "forces"}
    assert torch.equal(found["forces"], again["forces"])
    assert np.allclose(found["forces"][:9], model.calculator.get_forces(structures[0]), atol=1e-10)


def test_lists_are_kept_and_right(model):
    """A walk with jumps across the cell, a strained cell, and structures that come and go."""
    rng, structures = np.random.default_rng(0), crystals(4)
    for step in range(12):
        for atoms in structures:
            atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        structures[0].wrap()
        structures[1].positions[step % 4] += structures[1].cell[step % 3]
        if step == 6:
            structures[2].set_cell(1.01 * structures[2].cell.array, scale_atoms=True)
        if step == 9:
            structures = structures[1:]
        fresh = PIWSLModel(model.calculator, compute_stress=True)
        kept, right = model(state_of(structures)), fresh(state_of(structures))
        for name in ("energy", "forces", "stress"):
            assert torch.allclose(kept[name], right[name], atol=1e-10, rtol=0), (step, name)
    assert model.neighbors.calls == 4 * 9 + 3 * 3
    assert model.neighbors.builds < 0.5 * model.neighbors.calls


def test_one_structure_alone_gets_a_new_list(model):
    structures = crystals(3)
    model(state_of(structures))
    structures[1].positions[0] += 0.3
    model(state_of(structures))
    assert (model.neighbors.calls, model.neighbors.builds) == (6, 4)


def test_dynamics_and_relaxation_of_torch_sim(model):
    structures = crystals(2)
    final = ts.integrate(structures, model, integrator=ts.nve, n_steps=20, temperature=300.0, timestep=0.0005)
    assert torch.isfinite(final.positions).all() and final.dtype == torch.float64
    before = model(state_of(structures))["energy"]
    # A random model has no minimum worth the name; downhill it must go.
    relaxed = ts.optimize(
        structures,
        model,
        optimizer=ts.gradient_descent,
        max_steps=5,
        steps_between_swaps=5,
        convergence_fn=lambda state, last: torch.zeros(state.n_systems, dtype=torch.bool),
        lr=1e-4,
    )
    assert (relaxed.energy < before).all()


def test_dynamics_with_lists_from_the_device(model, monkeypatch):
    """As on a GPU, with tensors on the CPU: the same trajectory."""
    options = {"integrator": ts.nve, "n_steps": 20, "temperature": 300.0, "timestep": 0.0005}
    torch.manual_seed(0)
    expected = ts.integrate(crystals(2), model, **options)
    monkeypatch.setattr(batched, "made_on", lambda device: True)
    torch.manual_seed(0)
    found = ts.integrate(crystals(2), PIWSLModel(model.calculator), **options)
    assert torch.allclose(found.positions, expected.positions, rtol=0, atol=1e-10)


def test_committee(tmp_path):
    for seed in range(2):
        save(tmp_path / f"{seed}.pt", make_potential("painn", seed=seed, dtype=torch.float32), card={})
    committee = CommitteeCalculator.load([tmp_path / "0.pt", tmp_path / "1.pt"], device="cpu", dtype="float64")
    found = PIWSLModel(committee)(state_of(crystals(2)))
    committee.get_forces(crystals(2)[1])
    assert np.allclose(found["forces_std"][8:], committee.results["forces_std"], atol=1e-10)


def test_bad_states_are_named(model):
    with pytest.raises(InputError, match="structure 1 of 2.*does not know the element Fe"):
        model(state_of([make_structure("crystal"), bulk("Fe", cubic=True)]))
    broken = crystals(2)
    model(state_of(broken))
    broken[1].positions[2] = np.nan
    with pytest.raises(InputError, match=r"structure 1 of 2: the positions of atoms \[2\] are not finite"):
        model(state_of(broken))
    broken[1].positions[2] = broken[1].positions[1]
    with pytest.raises(InputError, match="overlap"):
        model(state_of(broken))


@pytest.mark.filterwarnings("ignore:the fused kernels cannot be used")
def test_a_step_on_a_simulated_gpu_costs_one_wait(tmp_path):
    path, found = model_file(tmp_path, "schnet"), []
    for device in ("cpu", "cuda"):
        with simulated_gpu() if device == "cuda" else nullcontext([]) as waits:
            model = PIWSLModel.load(path, device=device, dtype="float64")
            state = ts.io.atoms_to_state(crystals(2), torch.device(device), torch.float64)
            for _ in range(3):  # of which the second captures
                waits.clear()
                forces = model(state)["forces"]
            seen = list(waits)
            found.append(forces.cpu())
    assert torch.allclose(*found, atol=1e-9) and seen == ["aten._to_copy.default"]
