"""The i-PI client, with ASE's server at the other end of the socket."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.socketio import SocketClosed, SocketIOCalculator
from ase.constraints import FixAtoms
from ase.io import write

from asecalc_mlip import PIWSLCalculator, zoo
from asecalc_mlip.errors import InputError
from asecalc_mlip.ipi import serve
from tests.commands import asecalc


@pytest.mark.parametrize("name", ["silica", "ethanol"])
def test_a_server_gets_what_the_calculator_says(tmp_path, name):
    atoms = zoo.structure(name)
    start = atoms.copy()
    start.set_constraint(FixAtoms([0, 1]))  # of the file alone; the forces are those on all atoms
    write(tmp_path / "start.xyz", start, format="extxyz")
    socket, answers = f"asecalc-{uuid.uuid4().hex[:8]}", []
    arguments = ("ipi", f"{name}.pt", tmp_path / "start.xyz", "--unix", socket, "--dtype", "float64", "--wait", 20)
    client = threading.Thread(target=lambda: answers.append(asecalc(*arguments)), daemon=True)
    reference = PIWSLCalculator.load(f"{name}.pt", dtype="float64")
    with SocketIOCalculator(unixsocket=socket, timeout=60) as server:
        client.start()
        for seed in range(3):
            atoms.rattle(0.02, seed=seed)
            if atoms.pbc.all():
                atoms.set_cell(atoms.cell * 1.002, scale_atoms=True)
            atoms.calc = server
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            stress = atoms.get_stress() if atoms.pbc.all() else None
            atoms.calc = reference
            assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-8)
            if stress is not None:
                np.testing.assert_allclose(stress, atoms.get_stress(), atol=1e-9)
    client.join(timeout=20)
    assert answers and answers[0].exit_code == 0
    assert "the server ended after 3 structures" in answers[0].stdout


def test_a_server_with_other_atoms_is_told():
    socket, answers = f"asecalc-{uuid.uuid4().hex[:8]}", []
    arguments = ("ipi", "ethanol_painn.pt", "--unix", socket, "--wait", 20)
    client = threading.Thread(target=lambda: answers.append(asecalc(*arguments)), daemon=True)
    with SocketIOCalculator(unixsocket=socket, timeout=60) as server:
        client.start()
        with pytest.raises((SocketClosed, OSError)):
            server.get_potential_energy(molecule("CH4"))
    client.join(timeout=20)
    assert answers[0].exit_code == 2
    assert "the client computes C2H6O, 9 atoms: give it the structure of the server" in answers[0].stderr


def test_no_server_is_told_with_its_address():
    with pytest.raises(InputError, match=r"no server answers at localhost:9 .*start it first"):
        serve("ethanol.pt", port=9, wait_s=0.0)
