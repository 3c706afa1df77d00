"""Labels that contradict each other are found, with the unit or the mistake that explains it; good ones pass."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units

from asecalc_mlip.analysis import make_reference
from asecalc_mlip.analysis.references import ContactReference
from asecalc_mlip.data import near
from asecalc_mlip.data.census import census
from asecalc_mlip.data.consistency import check_agreement
from asecalc_mlip.data.near import close_pairs, near_copies
from asecalc_mlip.data.pair_fit import exchanged_axes, fit_pairs
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.structure_checks import shared_structures
from asecalc_mlip.data.unit_guess import guess
from asecalc_mlip.errors import DataError
from tests.attack.wrong_data import CORRUPTIONS, verdict
from tests.teacher import as_reference, crystal_frames, molecule_frames


@pytest.fixture
def frames():
    return molecule_frames(80, seed=1, spread=0.05)


def test_good_sets_pass_in_silence(frames):
    for good in (frames, crystal_frames(60), molecule_frames(30)):
        found = census(good)
        assert found.warnings == [] and found.problems == []


def test_energies_change_by_the_work_of_the_forces(frames):
    pairs = close_pairs(frames)
    assert len(pairs) > 40
    assert np.corrcoef(pairs.work, pairs.energies)[0, 1] > 0.95
    assert np.median(pairs.energies / pairs.work) == pytest.approx(1.0, abs=0.1)
    assert np.all(pairs.stiffness > 0)


def test_molecules_that_went_a_long_way_are_not_judged_by_it(frames, monkeypatch):
    """Hydrogen turns around its neighbour, and a straight line between its places says nothing of the energy."""
    pairs, rng = close_pairs(frames), np.random.default_rng(0)
    assert np.all(pairs.farthest >= pairs.moved) and pairs.farthest.max() < 0.4
    unrelated = replace(pairs, energies=rng.permutation(pairs.energies))
    for farthest, scale, refused in ((0.8, None, None), (0.2, None, "energy"), (0.8, 1 / 23.06, "forces")):
        found = unrelated if scale is None else replace(pairs, energies=scale * pairs.energies)
        found = replace(found, farthest=np.full(len(pairs), farthest))
        monkeypatch.setattr("asecalc_mlip.data.consistency.close_pairs", lambda frames, found=found: found)
        problems, _ = check_agreement(frames)
        assert [problem.label for problem in problems] == ([] if refused is None else [refused])


def test_work_of_strained_crystals_counts_the_stress():
    pairs = close_pairs(crystal_frames(60, strain=0.01, spread=0.02))
    assert np.any(np.abs(pairs.stress_work) > 0.05)
    both = np.abs(pairs.energies - pairs.work - pairs.stress_work)
    assert np.median(both) < 0.2 * np.median(np.abs(pairs.energies - pairs.work))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forces in Hartree/Bohr", "data.force_unit=Hartree/Bohr"),
        ("forces in Hartree/Å", "data.force_unit=Hartree/Ang"),
        ("energies in kcal/mol", "data.energy_unit=kcal/mol"),
        ("gradients in place of forces", "opposite sign"),
        ("energies per atom", "per atom"),
        ("energies shuffled", "energies those of other frames"),
        ("forces shuffled", "those of other frames"),
        ("constant energies", "energy of all 80 frames is the same"),
    ],
)
def test_the_cause_is_named(name, words, frames):
    wrong = CORRUPTIONS[name](frames, np.random.default_rng(0))
    outcome, _ = verdict(wrong)
    found = census(wrong)
    assert outcome == "caught"
    assert any(words in problem.text for problem in found.problems), [p.text for p in found.problems]


def test_stress_of_the_other_sign_in_strained_crystals():
    crystals = crystal_frames(80, strain=0.02, spread=0.02)
    assert check_agreement(crystals) == ([], [])
    for atoms in crystals:
        atoms.info["stress"] = -atoms.info["stress"]
    problems, _ = check_agreement(crystals)
    assert [p.label for p in problems] == ["stress"] and "opposite sign" in problems[0].text


def test_forces_of_crystals_that_are_not_close_are_judged_by_the_pair_fit():
    crystals = crystal_frames(80, strain=0.01, spread=0.03)
    for factor, label, words in (
        (-1.0, "forces", "opposite sign"),
        (units.Bohr / units.Hartree, "forces", "data.force_unit=Hartree/Bohr"),
        (1e-3, "energy", "meV"),
    ):
        wrong = [atoms.copy() for atoms in crystals]
        for atoms in wrong:
            atoms.arrays["forces"] = factor * atoms.arrays["forces"]
        problems, _ = check_agreement(wrong)
        assert [p.label for p in problems] == [label] and words in problems[0].text


def test_a_pair_potential_predicts_energies_from_forces():
    frames = crystal_frames(60)
    fit = fit_pairs(frames)
    assert fit is not None and fit.forces > 0.9
    for h in (0, 1):
        some = fit.half == h
        energies = np.array([frames[i].info["energy"] for i in fit.places[some]])
        assert np.corrcoef(fit.energies[some], energies)[0, 1] > 0.9
        slope = np.std(energies) / np.std(fit.energies[some])
        assert 0.5 < slope < 2.5
    assert fit_pairs(frames[:5]) is None


def test_exchanged_axes_of_forces_are_named(frames):
    crystals = crystal_frames(60)
    for good in (frames, crystals):
        assert exchanged_axes(good) is None
        for atoms in good:
            atoms.arrays["forces"] = atoms.arrays["forces"][:, [1, 2, 0]]
        assert exchanged_axes(good) == (2, 0, 1)
        problems, _ = check_agreement(good)
        assert any("in the order zxy" in problem.text for problem in problems)


def test_units_are_guessed_by_their_factor():
    assert "Hartree/Bohr, 51.4 times too small" in guess(51.4, stiffness=0.2, per_atom=None).text
    assert guess(-1.02, stiffness=None, per_atom=None).label == "forces"
    assert "no unit known" in guess(7.3, stiffness=None, per_atom=None).text


def test_copies_turned_and_with_noise_are_found(frames):
    turned = frames[7].copy()
    turned.rotate(40, (1, 2, 3))
    noisy = frames[9].copy()
    noisy.positions += np.random.default_rng(0).normal(scale=1e-4, size=noisy.positions.shape)
    near = frames[11].copy()
    near.positions[0] += 0.05
    assert near_copies([*frames, turned, noisy, near]) == [(7, 80), (9, 81)]
    assert shared_structures(frames, [near, turned]) == [(7, 1)]


def test_copies_of_copies_and_thousands_of_them(frames, monkeypatch):
    rng = np.random.default_rng(0)
    steps = [frames[0].copy()]
    for _ in range(40):
        steps.append(steps[-1].copy())
        steps[-1].positions += rng.normal(scale=1e-4, size=steps[-1].positions.shape)
    shapes = near._chains(steps)
    close = np.sqrt(np.mean((shapes[:, None] - shapes) ** 2, axis=2)) < near.COPY
    assert not close.all()
    assert near_copies(steps) == [(int(np.argmax(close[b])), b) for b in range(1, 41)]
    # All pairs of them would be millions.
    asked = []
    mean = np.mean
    monkeypatch.setattr(np, "mean", lambda values, **k: (asked.append(len(values)), mean(values, **k))[1])
    assert near_copies(2000 * [frames[3]]) == [(0, k) for k in range(1, 2000)]
    assert sum(asked) < 10_000


def test_two_energies_in_one_frame_are_told(tmp_path, frames):
    from ase.io import write

    copies = as_reference(frames)
    for atoms in copies:
        atoms.info["energy_of_step"], atoms.info["dft_energy"] = 1.0, atoms.info["REF_energy"] - 3.0
    write(tmp_path / "two.xyz", copies)
    read = read_frames(tmp_path / "two.xyz")
    assert any("another energy as dft_energy" in text for text in census(read).warnings)
    assert census(read_frames(tmp_path / "two.xyz", energy_key="REF_energy")).warnings == []


def test_forces_of_a_frame_that_disagree_with_its_energy_are_named(frames):
    frames[20].info["energy"] += 3.0
    assert any("frame 20" in text for text in census(frames).warnings)


def test_cells_without_volume_are_named_with_file_and_frame(tmp_path):
    text = '2\nProperties=species:S:1:pos:R:3 energy=-1 pbc="T T T"{}\nH 0 0 0\nH 0 0 0.74\n'
    (tmp_path / "a.xyz").write_text(text.format(' Lattice="4 0 0 0 4 0 0 0 4"') + text.format(""))
    with pytest.raises(DataError, match=r"frame 1 of a\.xyz is periodic without a lattice vector"):
        read_frames(tmp_path / "a.xyz")
    (tmp_path / "a.xyz").write_text(text.format(' Lattice="4 0 0 8 0 0 0 0 4"'))
    with pytest.raises(DataError, match=r"frame 0 of a\.xyz has a cell without volume"):
        read_frames(tmp_path / "a.xyz")


def test_a_file_without_a_last_line_break_is_told(tmp_path, caplog):
    text = "1\nProperties=species:S:1:pos:R:3 energy=-1\nH 0 0 0.12"
    (tmp_path / "cut.xyz").write_text(text)
    read_frames(tmp_path / "cut.xyz")
    assert "ends without a line break" in caplog.text
    caplog.clear()
    (tmp_path / "cut.xyz").write_text(text + "\n")
    read_frames(tmp_path / "cut.xyz")
    assert caplog.text == ""


def test_a_reference_of_many_elements_has_no_g_of_r():
    frames = [Atoms([z, z + 1], [[0, 0, 0], [0, 0, 2]], cell=[5, 5, 5], pbc=True) for z in range(3, 40)]
    found = make_reference(frames)
    assert isinstance(found, ContactReference) and len(found.closest) >= 37


def test_units_are_named_beyond_those_in_which_a_file_was_read(frames, tmp_path):
    """A file in eV that is read in other units is told to be in eV, not in units that make up for the factor."""
    positions, forces = (np.array([a.arrays[name] for a in frames]) for name in ("positions", "forces"))
    energies = np.array([atoms.info["energy"] for atoms in frames])
    np.savez(tmp_path / "a.npz", z=frames[0].numbers, R=positions, E=energies, F=forces)
    (told,) = [
        text for text in census(read_frames(tmp_path / "a.npz", energy_unit="kJ/mol")).warnings if "look like" in text
    ]
    assert told.endswith("energies look like eV and forces like eV/Ang; set data.energy_unit=eV data.force_unit=eV/Ang")
    right = census(read_frames(tmp_path / "a.npz", energy_unit="eV"))
    assert right.warnings == [] and right.problems == []
    (mixed,) = census(read_frames(tmp_path / "a.npz", energy_unit="eV", force_unit="kcal/mol/Ang")).problems
    assert mixed.text.endswith("forces look like eV/Ang, 23.1 times too small; set data.force_unit=eV/Ang")
