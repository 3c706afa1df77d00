"""Bond rule, molecule reference, energy drift."""

import json
import tracemalloc

import numpy as np
import pytest
from ase.build import bulk, molecule

from asecalc_mlip.analysis import MoleculeReference, energy_drift, stability
from asecalc_mlip.analysis.bonds import find_bonds
from asecalc_mlip.errors import InputError


def trajectory(n=20, seed=0):
    """Frames of ethanol that only jitter."""
    rng = np.random.default_rng(seed)
    frames = [molecule("CH3CH2OH") for _ in range(n)]
    for frame in frames:
        frame.positions += 0.03 * rng.standard_normal((9, 3))
    return frames


def test_bonds_of_ethanol():
    atoms = molecule("CH3CH2OH")
    names = sorted("".join(sorted(atoms.symbols[b])) for b in find_bonds(atoms))
    assert names == ["CC", "CH", "CH", "CH", "CH", "CH", "CO", "HO"]


def test_planted_bond_break_is_found_at_its_frame():
    frames = trajectory()
    reference = MoleculeReference.from_frames(frames, "made up")
    i, j = reference.bonds[3]
    for number in (12, 15):
        direction = frames[number].positions[j] - frames[number].positions[i]
        frames[number].positions[j] += 0.7 * direction / np.linalg.norm(direction)
    result = stability(frames, reference, dt_fs=50.0)
    assert not result.stable and result.unstable_frame == 12
    assert result.stable_ps == pytest.approx(11 * 0.05) and result.total_ps == pytest.approx(19 * 0.05)
    assert j in result.worst_atoms
    assert str(j) in result.worst_bond and "frame 12 broke" in repr(result)
    json.dumps(result.to_dict())


def test_stable_run_is_stable_as_array_atoms_or_generator():
    frames = trajectory()
    for form in (frames, np.array([f.positions for f in frames]), (f for f in frames)):
        result = stability(form, molecule("CH3CH2OH"), dt_fs=10.0)
        assert result.stable and result.unstable_frame is None
        assert result.stable_ps == result.total_ps == pytest.approx(0.19)
        assert "stable for all" in repr(result)


def test_short_bonds_and_nan_break_too():
    frames = np.array([f.positions for f in trajectory()])
    reference = MoleculeReference.from_frames(molecule("CH3CH2OH"))
    i, j = reference.bonds[0]
    squeezed, lost = frames.copy(), frames.copy()
    squeezed[7, j] = 0.5 * (frames[7, i] + frames[7, j])
    lost[5, 0, 0] = np.nan
    assert stability(squeezed, reference, dt_fs=1.0).unstable_frame == 7
    assert stability(lost, reference, dt_fs=1.0).unstable_frame == 5


def test_reference_ignores_one_stretched_frame_and_survives_json(tmp_path):
    frames = trajectory(50)
    frames[0].positions[5] += 3.0
    reference = MoleculeReference.from_frames(frames, "made up")
    np.testing.assert_array_equal(reference.bonds, find_bonds(molecule("CH3CH2OH")))
    reference.save(tmp_path / "r.json")
    again = MoleculeReference.load(tmp_path / "r.json")
    np.testing.assert_array_equal(again.mean_lengths, reference.mean_lengths)  # floats are exact
    assert again.histogram.error(reference.histogram) == 0.0
    assert again.matches(frames[0]) and again.n_frames == 50 and again.source == "made up"
    assert "8 bonds" in repr(again) and "50 frames" in repr(again)


@pytest.mark.parametrize(("n", "away", "watched"), [(100, 4, True), (100, 20, False), (10, 1, True)])
def test_a_proton_that_moves_in_the_data_has_no_bond_to_watch(n, away, watched):
    """The hydroxyl hydrogen of ethanol, taken 1.5 Å away in some frames."""
    ethanol = molecule("CH3CH2OH")
    (pair,) = (b for b in find_bonds(ethanol) if set(ethanol.numbers[b]) == {1, 8})
    proton = pair[ethanol.numbers[pair] == 1][0]
    frames = [ethanol.copy() for _ in range(n)]
    for frame in frames[:away]:
        frame.positions[proton] += [0.0, 0.0, 1.5]
    reference = MoleculeReference.from_frames(frames)
    assert (pair.tolist() in reference.bonds.tolist()) == watched
    assert len(reference.bonds) == len(find_bonds(ethanol)) - (not watched)


def test_bonds_of_a_cluster_take_no_memory_for_all_its_pairs():
    cluster = bulk("Cu", cubic=True) * 8
    cluster.pbc = False
    tracemalloc.start()
    reference = MoleculeReference.from_frames(cluster)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(reference.bonds, find_bonds(cluster))
    assert most < 30e6  # 2 million pairs have 150 MB


def test_bad_input_is_refused(tmp_path):
    reference = MoleculeReference.from_frames(molecule("CH3CH2OH"))
    with pytest.raises(InputError, match="dt_fs"):
        stability(trajectory(), reference, dt_fs=0.0)
    with pytest.raises(InputError, match="same molecule"):
        stability([molecule("H2O")], reference, dt_fs=1.0)
    with pytest.raises(InputError, match="at least one"):
        stability([], reference, dt_fs=1.0)
    with pytest.raises(InputError, match="one molecule in one order"):
        MoleculeReference.from_frames([molecule("H2O"), molecule("CO2")])
    (tmp_path / "bad.json").write_text('{"symbols": ["H"')
    (tmp_path / "other.json").write_text("[1, 2]")
    for name in ("bad.json", "other.json", "missing.json"):
        with pytest.raises(InputError, match=name):
            MoleculeReference.load(tmp_path / name)


def test_drift_is_the_slope_per_atom():
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 10.0, 501)
    kinetic = 1.0 + 0.2 * np.sin(30 * t)
    energy = -17617.0 + 2.1e-3 * t + 1e-4 * rng.standard_normal(501)  # 2.1 meV/ps of 21 atoms
    drift = energy_drift(t, energy, 21, kinetic=kinetic)
    assert drift.slope_mev_per_atom_ps == pytest.approx(0.1, rel=0.01)
    assert drift.relative_to_kinetic == pytest.approx(2.1e-2 / kinetic.std(), rel=0.01)
    assert drift.fluctuation_mev_per_atom == pytest.approx(0.1 / 21, rel=0.1)
    assert "meV/atom/ps over 10 ps" in repr(drift)
    assert energy_drift(t, -energy, 21).slope_mev_per_atom_ps == pytest.approx(-0.1, rel=0.01)


@pytest.mark.parametrize(
    "arguments",
    [([0, 1], [0, 1], 1), ([0, 1, 2], [0, np.nan, 1], 1), ([0, 0, 1], [1, 1, 1], 1), ([0, 1, 2], [0] * 4, 1)],
)
def test_drift_refuses_what_has_no_slope(arguments):
    with pytest.raises(InputError):
        energy_drift(*arguments)
