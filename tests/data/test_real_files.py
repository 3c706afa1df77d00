"""Files of real data, read once, through every check of labels: nothing is refused or told of them."""

from pathlib import Path

import pytest

from asecalc_mlip.data.broad_checks import check_mixing, check_stiff_bonds
from asecalc_mlip.data.census import census
from asecalc_mlip.data.consistency import check_agreement
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.symmetry_checks import check_symmetry

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def files(data_dir) -> dict[Path, list]:
    return {path: read_frames(path, index=":400") for path in sorted(data_dir.glob("*.xyz"))}


def test_the_census_passes(files):
    for path, frames in files.items():
        found = census(frames[:300])
        assert found.counts["energy"] == len(frames[:300]), path
        found.require({label: 1.0 for label, count in found.counts.items() if count})


def test_labels_agree_in_silence(files):
    for path, frames in files.items():
        problems, warnings = check_agreement(frames)
        assert problems == [] and warnings == [], path


@pytest.mark.parametrize("check", [check_stiff_bonds, check_mixing, check_symmetry])
def test_broad_checks_pass_in_silence(files, check):
    for path, frames in files.items():
        assert check(frames) == ([], []), path
