"""Frames that hold one atom are E0s, and frames may have weights by their kind."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read, write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from tests import teacher
from tests.small_runs import config, rows, weights

pytest.importorskip("schnetpack")
from asecalc_mlip.data.labels import is_isolated_atom  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from training import train as trained  # noqa: E402
from training.config import replace_values  # noqa: E402
from training.data.digests import fingerprint  # noqa: E402
from training.data.module import FramesDataModule, Replay  # noqa: E402
from training.data.samples import MOST_KEPT, FramesDataset  # noqa: E402
from training.data.split import Split, make_split  # noqa: E402
from training.losses.supervised import DISTANCES, distance  # noqa: E402
from training.run.useless import without_useless  # noqa: E402

ATOMS = {"H": -13.6, "C": -1027.0, "O": -2041.0}
E0_TEXT = "{H: -13.6, C: -1027.0, O: -2041.0}"
E0 = {1: -13.6, 6: -1027.0, 8: -2041.0}


def with_atoms(path, symbols, n=60, at=0):
    """Molecules with frames of isolated atoms among them, without forces, in a large box, as in sets for MACE."""
    frames = teacher.as_reference(teacher.molecule_frames(n))
    lone = []
    for symbol in symbols:
        atom = Atoms(symbol, cell=[20, 20, 20], pbc=True)
        atom.info.update(REF_energy=ATOMS[symbol], config_type="IsolatedAtom")
        lone.append(atom)
    frames[at:at] = lone
    write(path, frames, format="extxyz")
    return path


def test_isolated_atoms_are_e0s_and_no_structures(molecules, tmp_path, capsys):
    path = with_atoms(tmp_path / "mace.xyz", "HCO", at=7)
    result = trained.train(config(tmp_path, path, "run.max_epochs=1"))
    told = capsys.readouterr().out
    assert "isolated atoms: 3 frames (C, H, O) are E0s" in told and "50 train, 10 validation" in told
    assert "Reference energies (isolated; isolated atoms in the data for H, C, O)" in told
    assert load(result.model).potential.reference_energies == E0
    frames, split = read_frames(path), Split.load(tmp_path / "run" / "split.json", 63)
    assert not any(is_isolated_atom(frames[i]) for i in (*split.train, *split.val, *split.test))
    # The split is that of the structures alone.
    trained.train(config(tmp_path, molecules, "run.max_epochs=1", output="plain"))
    plain = Split.load(tmp_path / "plain" / "split.json", 60)
    assert [i if i < 7 else i + 3 for i in plain.train] == split.train


def test_a_split_of_isolated_atoms_alone_is_refused(tmp_path):
    path = with_atoms(tmp_path / "mace.xyz", "HC", n=10)
    (tmp_path / "split.json").write_text(json.dumps({"train": list(range(2, 12)), "val": [0, 1], "test": []}))
    with pytest.raises(InputError, match="nothing but isolated atoms to train or to validate on"):
        trained.prepare(config(tmp_path, path, f"data.split_file={tmp_path / 'split.json'}"))


def test_numbers_of_frames_beside_a_split_file_are_refused(molecules, tmp_path):
    split = replace_values(config(tmp_path, molecules), {"data.split_file": "split.json"})
    with pytest.raises(InputError, match="data.n_val=10 has no effect beside data.split_file"):
        trained.prepare(split)
    with pytest.raises(InputError, match="data.n_train=8 and data.n_val=10 have no effect"):
        trained.prepare(replace_values(split, {"data.n_train": 8}))


@pytest.mark.parametrize("given", ["model.given.H=-13.6", "pretrain.temperature=500", "data.n_train=9"])
def test_a_run_that_was_begun_with_what_has_no_effect_goes_on(given, molecules, tmp_path):
    plain = config(tmp_path, molecules)
    if given.startswith("data."):
        (tmp_path / "split.json").write_text(json.dumps({"train": [0, 1, 2], "val": [3], "test": []}))
        plain = config(tmp_path, molecules, f"data.split_file={tmp_path / 'split.json'}")
    name, _, value = given.rpartition("=")
    unread = replace_values(plain, {name: float(value) if "." in value or "model" in name else int(value)})
    trained.prepare(plain)
    with pytest.raises(InputError, match="and there is none|has no effect"):
        trained.prepare(unread)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(unread.to_dict()))  # as versions before wrote it
    (tmp_path / "run" / "last.ckpt").touch()
    trained.prepare(unread)
    trained.prepare(plain)
    assert without_useless(unread) == without_useless(plain) == plain


def kinds_changed(path, kind):
    frames = read(path, ":")
    for atoms in frames[::2]:
        atoms.info["config_type"] = kind
    write(path, teacher.as_reference(frames), format="extxyz")


def begun(run):
    """Make a run that was prepared one that got somewhere."""
    (run.folder / "last.ckpt").touch()
    return run.folder / "split.json"


def test_a_kind_that_weighs_frames_does_not_change_in_a_run(molecules, tmp_path):
    kinds_changed(molecules, "liquid")
    for name, given in (("plain", "run.seed=0"), ("weighted", "data.weights={liquid: 2, default: 1}")):
        begun(trained.prepare(config(tmp_path, molecules, given, output=name)))
    # Of a run of an older version: one digest, without kinds.
    old = tmp_path / "weighted" / "split.json"
    now = json.loads(old.read_text())
    kinds_changed(molecules, "solid")
    trained.prepare(config(tmp_path, molecules, output="plain"))  # which does not read them
    weighted = config(tmp_path, molecules, "data.weights={liquid: 2, default: 1}", output="weighted")
    with pytest.raises(InputError, match="no frame has the config_type liquid"):
        trained.prepare(weighted)
    kinds_changed(molecules, "liquid")
    frames = read(molecules, ":")
    frames[0].info["config_type"] = "gas"
    write(molecules, teacher.as_reference(frames), format="extxyz")
    with pytest.raises(InputError, match=r"the kinds of frames \(config_type\) have changed"):
        trained.prepare(weighted)
    assert now["data_sha256"] == fingerprint(read_frames(molecules))
    old.write_text(json.dumps({name: value for name, value in now.items() if name != "beside_sha256"}))
    trained.prepare(weighted)


def test_an_atom_that_its_kind_makes_an_e0_stays_one(tmp_path):
    path = with_atoms(tmp_path / "mace.xyz", "HCO")
    frames = read(path, ":")
    frames[0].set_cell([7.0, 7.0, 7.0])  # too small to be alone without its kind
    frames[0].arrays["REF_forces"] = np.zeros((1, 3))
    write(path, frames, format="extxyz")
    begun(trained.prepare(config(tmp_path, path, "data.trust=true")))
    frames[0].info["config_type"] = "gas"
    write(path, frames, format="extxyz")
    with pytest.raises(InputError, match="the kinds of frames .* have changed"):
        trained.prepare(config(tmp_path, path, "data.trust=true"))


def test_runs_of_older_versions_with_other_files_go_on(molecules, tmp_path, monkeypatch):
    atoms = with_atoms(tmp_path / "atoms.xyz", "HCO", n=0)
    settings = config(tmp_path, molecules, f"model.isolated_atoms={atoms}")
    path = begun(trained.prepare(settings))
    with monkeypatch.context() as patch:  # of a large file, all of it in memory is what only they need
        patch.setattr("training.splitting._contents", None)
        trained.prepare(settings)
    whole = fingerprint(read_frames(molecules), atoms.read_bytes())  # as versions before had it
    split = {name: value for name, value in json.loads(path.read_text()).items() if name != "beside_sha256"}
    path.write_text(json.dumps({**split, "data_sha256": whole}))
    trained.prepare(settings)
    atoms.write_text(2 * atoms.read_text())
    with pytest.raises(InputError, match="have changed, or the other files that it starts from"):
        trained.prepare(settings)
    path.write_text(json.dumps({**split, "data_sha256": whole}))
    with pytest.raises(InputError, match="have changed, or those of the other files that it starts from"):
        trained.prepare(settings)


def test_isolated_atoms_without_an_energy_are_named(tmp_path, capsys):
    path = with_atoms(tmp_path / "mace.xyz", "HC")
    frames = read(path, ":")
    for atoms in frames:
        if len(atoms) == 1 and atoms.symbols[0] == "C":
            del atoms.info["REF_energy"]
    write(path, frames, format="extxyz")
    run = trained.prepare(config(tmp_path, path))
    told = capsys.readouterr()
    assert "the isolated atoms C have no energy" in told.out + told.err and run.e0.fitted == [6, 8]


def test_what_isolated_atoms_leave_open_is_fitted(tmp_path, capsys):
    path = with_atoms(tmp_path / "mace.xyz", "HC")
    run = trained.prepare(config(tmp_path, path))
    assert run.e0.values[1] == -13.6 and run.e0.values[6] == -1027.0 and run.e0.fitted == [8]
    said = capsys.readouterr().out
    assert "isolated atoms in the data for H, C; least squares on 49 energies for O, without 1 that are far" in said
    *rest, far = sorted(a.info["energy"] - sum(run.e0.values[z] for z in a.numbers) for a in run.training)
    assert np.mean(rest) == pytest.approx(0.0, abs=1e-9) and far > rest[-1] + 1.0


def test_isolated_atoms_serve_where_no_file_of_them_is_given(tmp_path):
    path = with_atoms(tmp_path / "mace.xyz", "HCO")
    run = trained.prepare(config(tmp_path, path, "model.reference_energies=isolated"))
    assert run.e0.method == "isolated" and run.e0.values == E0


def test_isolated_atoms_of_another_level_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(ATOMS, "O", -2441.0)
    path = with_atoms(tmp_path / "mace.xyz", "HCO")
    with pytest.raises(DataError, match="another level of theory.*leave them out"):
        trained.prepare(config(tmp_path, path))


def test_isolated_atoms_alone_are_nothing_to_train_on(tmp_path):
    with pytest.raises(DataError, match="every frame is one isolated atom"):
        trained.prepare(config(tmp_path, with_atoms(tmp_path / "atoms.xyz", "HCO", n=0)))


def test_one_composition_says_that_its_e0_describe_no_atom(molecules, tmp_path, capsys):
    run = trained.prepare(config(tmp_path, molecules))
    assert "these E0 describe no atom" in capsys.readouterr().out
    assert run.e0.undetermined and run.e0.to_dict()["undetermined"] is True


def test_one_frame_is_too_few(tmp_path):
    write(tmp_path / "one.xyz", teacher.as_reference(teacher.molecule_frames(1)), format="extxyz")
    with pytest.raises(DataError, match="a training needs 2 frames or more"):
        trained.prepare(config(tmp_path, tmp_path / "one.xyz"))


def kinds(path):
    frames = teacher.as_reference(teacher.molecule_frames(60))
    for number, atoms in enumerate(frames):
        atoms.info["config_type"] = "hot" if number % 2 else "cold"
    write(path, frames, format="extxyz")
    return path


def test_weights_of_one_change_nothing_and_others_do(tmp_path):
    path, found = kinds(tmp_path / "kinds.xyz"), {}
    for name, factor in {"none": "{}", "ones": "{hot: 1, default: 1}", "hot": "{hot: 5}"}.items():
        trained.train(config(tmp_path, path, f"data.weights={factor}", "run.max_epochs=2", output=name))
        found[name] = weights(tmp_path / name)[1]
    assert all(torch.equal(a, b) for a, b in zip(found["none"], found["ones"], strict=True)) or all(
        torch.allclose(a, b, atol=1e-4) for a, b in zip(found["none"], found["ones"], strict=True)
    )
    assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found["none"], found["hot"], strict=True))


def test_the_last_shift_is_that_of_the_frames_with_a_weight(tmp_path):
    found = []
    for spoiled in (False, True):
        frames = read_frames(kinds(tmp_path / "kinds.xyz"))
        for atoms in frames[1::2]:
            atoms.info["energy"] += 0.3 * spoiled
        path, output = tmp_path / "spoiled.xyz", f"run{spoiled}"
        write(path, teacher.as_reference(frames), format="extxyz")
        settings = ("data.weights={hot: 0}", "run.max_epochs=1", "model.final_shift=true")
        result = trained.train(config(tmp_path, path, *settings, output=output))
        left = PIWSLCalculator.load(result.model, device="cpu").evaluate(frames[::2])
        chosen = set(Split.load(tmp_path / output / "split.json", 60).train)
        errors = [a.info["energy"] - r["energy"] for a, r in zip(frames[::2], left, strict=True)]
        found.append(np.mean([e for k, e in enumerate(errors) if 2 * k in chosen]))
    assert np.allclose(found, 0.0, atol=1e-5)


def test_frames_of_weight_zero_are_not_learned(tmp_path):
    """Their labels may be anything."""
    results = []
    for spoiled in (False, True):
        frames = read_frames(kinds(tmp_path / "kinds.xyz"))
        for atoms in frames[1::2]:
            atoms.info["energy"] += 0.3 * spoiled
            atoms.arrays["forces"] = atoms.arrays["forces"] * (1.0 - 0.5 * spoiled)
        path, output = tmp_path / "spoiled.xyz", f"run{spoiled}"
        write(path, teacher.as_reference(frames), format="extxyz")
        given = ("model.reference_energies=given", f"model.given={E0_TEXT}", "loss.energy_weight=1")
        settings = ("data.weights={hot: 0}", "run.max_epochs=2", "data.n_train=40", "optimizer.gradient_clip=1e6")
        run = trained.prepare(config(tmp_path, path, *given, *settings, output=output))
        trained.fit(run)
        results.append(weights(tmp_path / output)[1])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert rows(tmp_path / "runTrue")[0]["val_loss"] == rows(tmp_path / "runFalse")[0]["val_loss"]


@pytest.mark.parametrize("name", DISTANCES)
def test_weighted_distances(name):
    torch.manual_seed(0)
    prediction, target, factors = torch.randn(7, 3), torch.randn(7, 3), torch.rand(7)
    each = torch.stack([DISTANCES[name](p[None], t[None]) for p, t in zip(prediction, target, strict=True)])
    assert distance(name)(prediction, target, factors).item() == pytest.approx((factors * each).mean().item())
    ones = distance(name)(prediction, target, torch.ones(7))
    assert ones.item() == pytest.approx(distance(name)(prediction, target).item())


def test_each_energy_is_a_row_of_l2mae():
    prediction, target = torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3)
    assert distance("l2mae")(prediction, target).item() == pytest.approx(7 / 3)
    assert distance("l2mae")(prediction, target, torch.tensor([1.0, 1.0, 0.0])).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("periodic", "value"), [(True, np.nan), (False, 0.0)])
def test_wrong_labels_without_a_weight_do_not_end_a_training_at_its_test(periodic, value, tmp_path):
    frames = teacher.as_reference(teacher.crystal_frames(14) if periodic else teacher.molecule_frames(14))
    for atoms in frames:
        atoms.info["REF_stress"] = np.full((3, 3), value)
    write(tmp_path / "all.xyz", frames, format="extxyz")
    given = ("data.n_train=8", "data.n_val=4", "run.max_epochs=1")
    result = trained.train(config(tmp_path, tmp_path / "all.xyz", *given))
    assert set(result.errors.mae) - {"energy_per_atom"} == {"energy", "forces"}
    # NaN in a file for the test is refused before the training.
    with pytest.raises(DataError, match="is NaN") if periodic else nullcontext():
        trained.prepare(config(tmp_path, tmp_path / "all.xyz", *given, f"data.test={tmp_path / 'all.xyz'}"))


def test_a_stress_without_a_volume_is_refused(tmp_path):
    frames = teacher.as_reference(teacher.crystal_frames(14))
    for atoms in frames[5:]:
        atoms.pbc = (True, True, False)
    write(tmp_path / "slabs.xyz", frames, format="extxyz")
    with pytest.raises(DataError, match=r"frame \d+ of slabs.xyz has pbc \[True, True, False\] and so no volume"):
        trained.prepare(config(tmp_path, tmp_path / "slabs.xyz", "data.n_val=4", "loss.stress_weight=1"))


@pytest.mark.parametrize(
    ("factors", "message"),
    [("{warm: 2}", "no frame has the config_type warm; they have cold, hot"), ("{hot: -1}", "expected a number of 0"),
     ("{hot: much}", "data.weights.hot is 'much'")],
)  # fmt: skip
def test_weights_that_cannot_be(factors, message, tmp_path):
    with pytest.raises(InputError, match=message):
        trained.prepare(config(tmp_path, kinds(tmp_path / "kinds.xyz"), f"data.weights={factors}"))


def test_weights_must_leave_something_to_validate_on_and_to_replay(tmp_path):
    frames = read_frames(kinds(tmp_path / "kinds.xyz"))
    split = {"train": list(range(40)), "val": [41, 43, 45], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    given = ("data.weights={hot: 0}", f"data.split_file={tmp_path / 'split.json'}")
    with pytest.raises(InputError, match="data.weights are 0 for all 3 validation frames"):
        trained.prepare(config(tmp_path, tmp_path / "kinds.xyz", *given))
    more = [Replay([atoms.copy()], 0.5) for atoms in frames[:1]]
    more[0].frames[0].info["config_type"] = "far_dimers"
    options = {"labels": ["energy"], "cutoff": 4.0, "batch_size": 4, "seed": 0}
    with pytest.raises(InputError, match="data.weights are 0 for all 1 replayed or far frames"):
        FramesDataModule(frames, Split([0], [2], []), replay=more, weights={"cold": 1.0, "default": 0.0}, **options)


@pytest.mark.parametrize(("frames", "n_train", "expected"), [(2, None, 1), (30, None, 7), (100, None, 10),
                         (300, None, 30), (5000, None, 50), (60, 55, 5)])  # fmt: skip
def test_validation_frames_follow_the_size_of_the_set(frames, n_train, expected):
    split = make_split(frames, n_train, None, seed=0)
    assert len(split.val) == expected and len(split.train) == (n_train or frames - expected)


def test_frames_without_weight_have_no_part_in_the_reference_energies(molecules, tmp_path):
    frames = read(molecules, index=":")
    for atoms in frames[::2]:
        atoms.info.update(config_type="bad", REF_energy=atoms.info["REF_energy"] + 2.0)
    write(tmp_path / "mixed.xyz", frames)
    runs = [
        trained_run(tmp_path / name, tmp_path / "mixed.xyz", *more)
        for name, more in (("all", ()), ("good", ("data.weights={bad: 0}",)))
    ]
    means = [np.mean([run.e0.total(a.numbers) for a in run.training]) for run in runs]
    assert means[0] - means[1] == pytest.approx(1.0, abs=0.5)


def trained_run(folder, data, *more):
    from training.prepare import prepare

    folder.mkdir()
    return prepare(config(folder, data, "data.trust=true", *more))


def test_labels_that_contradict_each_other_need_trust(molecules, tmp_path, caplog):
    from training.prepare import prepare

    frames = read(molecules, index=":")
    for atoms in frames:
        atoms.arrays["REF_forces"] = -atoms.arrays["REF_forces"]
    write(tmp_path / "gradients.xyz", frames)
    with pytest.raises(DataError, match=r"opposite sign.*data\.trust=true \(--trust-data\)"):
        prepare(config(tmp_path, tmp_path / "gradients.xyz"))
    prepare(config(tmp_path, tmp_path / "gradients.xyz", "data.trust=true"))
    assert "opposite sign" in caplog.text


def test_a_test_file_of_training_frames_is_told(molecules, tmp_path, caplog):
    from training.prepare import prepare

    prepare(config(tmp_path, molecules, f"data.test={molecules}"))
    assert "are in the training set too" in caplog.text


def test_lists_of_neighbours_are_kept_while_memory_allows(monkeypatch):
    frames = teacher.molecule_frames(3)
    size = sum(value.nbytes for value in FramesDataset(frames, ["energy"], 5.0)[0].values())
    monkeypatch.setattr("training.data.samples.available_bytes", lambda _: 2.5 * size / MOST_KEPT)
    samples = FramesDataset(frames, ["energy"], 5.0)
    first = [samples[i] for i in range(3)]
    assert [samples[i] is first[i] for i in range(3)] == [True, True, False]
    assert torch.equal(samples[2]["_idx_j"], first[2]["_idx_j"])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"train": [1e400], "val": [1], "test": []}'])
def test_a_split_file_that_is_none(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match="delete it"):
        Split.load(tmp_path / "split.json", 3)
