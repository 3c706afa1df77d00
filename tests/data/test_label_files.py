"""Files of labels that grow: what a kill leaves, what is not theirs, and what is written in them."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from asecalc_mlip.data.label_files import open_label_file
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers.base import Labels, labelled

RECIPE = {"teacher": "toy"}


def _labelled(atoms):
    return labelled(atoms, Labels(1.5, np.zeros((len(atoms), 3))))


def test_a_first_frame_that_was_cut_off_goes_wherever_it_ends(tmp_path):
    path = tmp_path / "labels.xyz"
    open_label_file(path, RECIPE).append([_labelled(bulk("Cu", cubic=True) * (6, 6, 6))])
    whole = path.read_bytes()
    assert len(whole) > 65536
    for end in (0, 1, 3, 4, 20, 60, 300, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert open_label_file(path, RECIPE).count() == 0
        assert path.stat().st_size == 0
    path.write_bytes(whole)
    assert open_label_file(path, RECIPE).count() == 1


@pytest.mark.parametrize("text", ["my notes\n", "\n3\n", "3\nwater, to be finished\nO 0 0 0\n", "7" * 40])
def test_a_short_file_of_something_else_is_refused_and_kept(text, tmp_path):
    path = tmp_path / "mine.xyz"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.xyz is no file of labelled structures"):
        open_label_file(path, RECIPE).count()
    assert path.read_text() == text


def test_numbers_of_numpy_are_read_as_they_were(tmp_path):
    ion = molecule("OH")
    ion.info["charge"] = np.float64(-1.0)
    open_label_file(tmp_path / "labels.xyz", RECIPE).append([_labelled(ion)])
    (found,) = read_frames(tmp_path / "labels.xyz")
    assert found.info["charge"] == -1.0
