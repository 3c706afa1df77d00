"""Replicas that move in a batch: the steps of the integrators alone."""

import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.batch_integrators import Flat, batched
from asecalc_mlip.md.ensembles import make_integrator
from asecalc_mlip.md.integrators import maxwell_boltzmann
from asecalc_mlip.md.settings import MDSettings
from tests.md import toys


def springs(seed, settings, atoms=None):
    """One replica on springs: its atoms and the integrator alone."""
    atoms = (atoms or toys.ethanol()).copy()
    atoms.calc = toys.Springs(atoms)
    rng = np.random.default_rng(seed)
    maxwell_boltzmann(atoms, settings.temperature_K, rng)
    return atoms, make_integrator(atoms, settings, rng)


@pytest.mark.parametrize("thermostat", [None, "langevin", "nose-hoover"])
@pytest.mark.parametrize("fixed", [[], [0, 4]])
def test_batched_steps_are_those_of_the_integrators_alone(thermostat, fixed):
    """Three replicas of two molecules at different temperatures, one maybe with fixed atoms, against ASE alone."""
    all_settings = [
        MDSettings(ensemble="nvt" if thermostat else "nve", thermostat=thermostat, temperature_K=t)
        for t in (200.0, 300.0, 600.0)
    ]
    molecules = [toys.ethanol(), molecule("H2O"), toys.ethanol()]
    molecules[2].set_constraint(FixAtoms(fixed) if fixed else None)
    alone = [springs(k, s, m) for k, (s, m) in enumerate(zip(all_settings, molecules, strict=True))]
    together = [springs(k, s, m) for k, (s, m) in enumerate(zip(all_settings, molecules, strict=True))]
    flat = Flat.gather([atoms for atoms, _ in together])
    cuts = flat.starts[1:]

    def forces():
        for (atoms, _), positions in zip(together, np.split(flat.positions, cuts), strict=True):
            atoms.positions[:] = positions
        return np.concatenate([atoms.get_forces(apply_constraint=False) for atoms, _ in together])

    flat.forces = forces()
    batch = batched(flat, [integrator for _, integrator in together])
    for _ in range(200):
        batch.step(forces)
        for _, integrator in alone:
            integrator.step()
    expected = np.concatenate([atoms.positions for atoms, _ in alone])
    np.testing.assert_allclose(flat.positions, expected, atol=1e-9)
    assert np.array_equal(flat.positions[cuts[1] :][fixed], molecules[2].positions[fixed])
    np.testing.assert_allclose(flat.momenta, np.concatenate([a.get_momenta() for a, _ in alone]), atol=1e-8)
    if thermostat == "nose-hoover":
        batch.write_back(2)
        state, other = together[2][1].get_state(), alone[2][1].get_state()
        np.testing.assert_allclose(state["p_eta"], other["p_eta"], rtol=1e-6)


def test_replicas_of_other_kinds_do_not_mix():
    a, b = springs(0, MDSettings(thermostat="langevin")), springs(1, MDSettings(ensemble="nve"))
    with pytest.raises(InputError, match="same integrator"):
        batched(Flat.gather([a[0], b[0]]), [a[1], b[1]])
    c = springs(0, MDSettings(thermostat="bussi"))
    with pytest.raises(InputError, match="langevin or nose-hoover"):
        batched(Flat.gather([c[0]]), [c[1]])
