"""Labels as other programs write them: in brackets, twice, or as a word without a value."""

import numpy as np
import pytest
from ase.io import write

from asecalc_mlip.data.census import census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError
from tests.teacher import as_reference


def test_a_virial_that_contradicts_the_stress_is_told(tmp_path, crystal_frames):
    frames = as_reference(crystal_frames[:2])
    for sign, atoms in zip((1.0, -1.0), frames, strict=True):
        atoms.info["virial"] = -sign * atoms.info["REF_stress"] * atoms.get_volume()
    write(tmp_path / "both.xyz", frames)
    (told,) = [text for text in census(read_frames(tmp_path / "both.xyz")).warnings if "virial" in text]
    assert told.startswith("1 frames have another stress as virial, which differs from REF_stress, e.g. frame 1 of")


def test_stress_in_brackets(tmp_path, crystal_frames):
    """As libAtoms writes it; ASE leaves it as text."""
    stress = crystal_frames[0].info["stress"]
    text = str(stress.tolist()).replace(" ", "")
    (tmp_path / "s.xyz").write_text(
        f'1\nLattice="3 0 0 0 4 0 0 0 5" Properties=species:S:1:pos:R:3 REF_stress={text}\nNa 0 0 0\n'
    )
    np.testing.assert_allclose(read_frames(tmp_path / "s.xyz")[0].info["stress"], stress, atol=1e-12)


def test_an_energy_without_a_value_is_refused(tmp_path):
    """ASE reads such a word as True, which would be 1 eV."""
    (tmp_path / "e.xyz").write_text("1\nProperties=species:S:1:pos:R:3 REF_energy\nNa 0 0 0\n")
    with pytest.raises(DataError, match="energy of frame 0 of e.xyz is True, not one number"):
        read_frames(tmp_path / "e.xyz")


def test_an_atom_with_a_number_is_named(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH1 0 0 0\n")
    with pytest.raises(DataError, match="frame 0 .* no chemical symbol or no column 'H1'; symbols are such as H"):
        read_frames(tmp_path / "a.xyz")
