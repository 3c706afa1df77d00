"""A core added to a trained model: nothing changes in the data, a wall beyond them, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.additions.core import add_core, check_core
from asecalc_mlip.checkpoint import load
from asecalc_mlip.cli import main
from asecalc_mlip.errors import InputError
from tests.cases import model_file


def frames(n=4):
    rng, ethanol = np.random.default_rng(0), molecule("CH3CH2OH")
    moved = [ethanol.copy() for _ in range(n)]
    for atoms in moved:
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
    return moved


@pytest.mark.parametrize("architecture", ["painn", "schnet", "cgcnn"])
def test_same_in_the_data_and_a_wall_beyond(architecture, tmp_path):
    path = model_file(tmp_path, architecture)
    write(tmp_path / "data.xyz", frames())
    result = CliRunner().invoke(
        main, ["core", str(path), "-o", str(tmp_path / "cored.pt"), "--data", str(tmp_path / "data.xyz")]
    )
    assert result.exit_code == 0, result.output
    assert "the core acts in 0 of 4 structures" in result.output
    plain, cored = (PIWSLCalculator.load(p, device="cpu") for p in (path, tmp_path / "cored.pt"))
    for one, other in zip(plain.evaluate(frames()), cored.evaluate(frames()), strict=True):
        assert other["energy"] == pytest.approx(one["energy"], abs=1e-9)
        assert np.allclose(one["forces"], other["forces"], atol=1e-6)
    core = cored.card["core"]
    assert core["kind"].startswith("ZBL") and core["checked"]["touched"] == 0 and "core" in repr(cored)
    assert cored.card["reference_energies"]["method"] == plain.card["reference_energies"]["method"]
    bond = covalent_radii[[6, 8]].sum()
    pairs = [Atoms("CO", [[0, 0, 0], [0, 0, share * bond]]) for share in (0.3, 0.81)]
    walls = [b["energy"] - a["energy"] for a, b in zip(plain.evaluate(pairs), cored.evaluate(pairs), strict=True)]
    # Unscreened nuclei repel by 14.4 eV Å · 48 / r; the screening leaves some hundred eV.
    assert 100.0 < walls[0] < 14.4 * 48 / (0.3 * bond) and walls[1] == pytest.approx(0.0, abs=1e-9)


def test_what_is_refused(tmp_path):
    model = load(model_file(tmp_path, "painn"))
    close = frames()
    close[2].positions[1] += 0.35 * (close[2].positions[0] - close[2].positions[1])
    assert check_core(close).touched == 1
    with pytest.raises(InputError, match=r"acts in 1 of 4 structures.*finetune.delta=zbl"):
        add_core(model, close)
    cored, found = add_core(model)
    assert found is None and cored.card["core"]["checked"] == "against no data"
    with pytest.raises(InputError, match="has a ZBL core already"):
        add_core(cored)
    direct = load(model_file(tmp_path, "painn", direct_forces=True))
    with pytest.raises(InputError, match="force head"):
        add_core(direct)
