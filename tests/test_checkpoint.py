"""The .pt file: exact round trip, clear errors for everything else, nothing ever executed."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from asecalc_mlip import PIWSLCalculator, checkpoint
from asecalc_mlip.additions.core import add_core
from asecalc_mlip.analysis import make_reference
from asecalc_mlip.analysis.references import reference_from_dict
from asecalc_mlip.checkpoint import FORMAT_VERSION, CheckpointError, describe, load, plain_text, save
from asecalc_mlip.file_format import archive
from asecalc_mlip.files import read_json
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import ARCHITECTURES, build_potential, predict
from tests.cases import MODELS, make_potential, make_structure, model_file

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", MODELS)
def test_round_trip_is_exact(architecture, dtype, tmp_path):
    potential = make_potential(architecture, dtype=dtype)
    card = {"name": "x", "numbers": [1, 2.5, None], "nested": {"yes": True}}
    save(tmp_path / "m.pt", potential, card=card, reference_energies={"method": "given", "source": "here"})
    model = load(tmp_path / "m.pt")
    graph = graph_from_atoms(make_structure("molecule"), potential.cutoff)
    assert predict(model.potential, graph).energy.item() == predict(potential, graph).energy.item()
    assert model.potential.dtype == dtype
    assert model.potential.reference_energies == potential.reference_energies
    assert {**model.card, "code_version": None} == {**card, "code_version": None}
    assert model.reference_energies["method"] == "given"


def test_saving_does_not_touch_the_model(tmp_path):
    potential = make_potential("painn", trainable=True)
    before = {k: v.clone() for k, v in potential.state_dict().items()}
    save(tmp_path / "m.pt", potential)
    assert all(torch.equal(before[k], v) for k, v in potential.state_dict().items())
    assert all(p.requires_grad for p in potential.parameters())


def test_card_as_text(tmp_path):
    text = describe(model_file(tmp_path))
    for part in ("painn", "H, C, O, Si", "4 Å", "licence", "MIT", "-13.600", "E0 source"):
        assert part in text


def test_entries_of_a_card_are_told_without_brackets_and_once():
    far = {"teacher": {"teacher": "GFN2-xTB", "charge": 0.0}, "sources": ["bonds", "two_step"]}
    assert plain_text(far) == "teacher GFN2-xTB, charge 0, sources bonds, two_step"


def test_reference_of_the_training_data_travels_in_the_file(tmp_path):
    frames = [molecule("CH3CH2OH") for _ in range(3)]
    reference = make_reference(frames, "made up").to_dict()
    save(tmp_path / "m.pt", make_potential("painn"), reference=reference)
    model = load(tmp_path / "m.pt")
    assert model.reference == reference
    assert reference_from_dict(model.reference).matches(frames[0])
    (line,) = [line for line in describe(tmp_path / "m.pt").splitlines() if line.startswith("  reference ")]
    assert "bond lengths, h(r), closest approach (" in line and "3 frames" in line
    added, _ = add_core(model)
    assert added.reference == reference
    assert load(model_file(tmp_path)).reference is None and "  reference " not in describe(model_file(tmp_path))


def test_a_reference_that_is_none_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"reference\.a is a set"):
        save(tmp_path / "m.pt", make_potential("painn"), reference={"a": {1}})
    path = model_file(tmp_path)
    with pytest.raises(CheckpointError, match="entry 'reference' is a list"):
        load(changed(path, reference=[1]))
    changed(path, reference={"format": "later"})
    assert "no reference" in describe(path)  # of a later version: the model itself is whole


def test_card_with_any_text(tmp_path):
    path = changed(model_file(tmp_path), card={1: {2: "Größe µ 中文"}, "nothing": None})
    assert "Größe µ 中文" in describe(path)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("v*/*.pt")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_golden_files_keep_their_energies(file):
    """Files are written by the code of their version (tools/make_golden.py) and never again."""
    content = read_json(file.with_name("expected.json"))
    calculator = PIWSLCalculator.load(file, dtype="float64", device="cpu")
    for name, description in content["structures"].items():
        atoms = Atoms.fromdict({key: np.array(value) for key, value in description.items()})
        (result,) = calculator.evaluate([atoms])
        expected = content["models"][file.stem][name]
        assert result["energy"] == pytest.approx(expected["energy"], abs=1e-6)
        np.testing.assert_allclose(result["forces"], expected["forces"], rtol=0, atol=1e-6)
    assert calculator.card["licence"] == "MIT"
    assert reference_from_dict(load(file).reference).matches(molecule("CH3CH2OH"))


def test_every_architecture_has_a_golden_file_of_this_version():
    """If not: python tools/make_golden.py, and commit what it writes."""
    files = {file.stem for file in (GOLDEN / f"v{FORMAT_VERSION}").glob("*.pt")}
    assert set(ARCHITECTURES) | {"painn_direct_forces"} <= files


def test_the_first_golden_file_loads():
    # Written by the first code of version 1, before the optional entries were there.
    model = load(GOLDEN / "painn_v1.pt")
    expected = torch.load(GOLDEN / "painn_v1.expected.pt", weights_only=True)
    atoms = make_structure("molecule")
    atoms.positions[:] = expected["positions"].numpy()
    result = predict(model.potential.double(), graph_from_atoms(atoms, model.potential.cutoff))
    assert result.energy.item() == pytest.approx(expected["energy"].item(), abs=1e-9)
    assert torch.allclose(result.forces, expected["forces"], atol=1e-9)


def test_older_formats_pass_through_every_upgrade(tmp_path, monkeypatch):
    path = model_file(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", FORMAT_VERSION + 2)
    calls = []
    for version in (FORMAT_VERSION, FORMAT_VERSION + 1):

        def upgrade(content, version=version):
            calls.append(version)
            return {**content, "version": version + 1, "card": {**content["card"], f"from_{version}": True}}

        monkeypatch.setitem(checkpoint.UPGRADES, version, upgrade)
    assert {f"from_{v}" for v in calls} <= set(load(path).card)
    assert calls == [FORMAT_VERSION, FORMAT_VERSION + 1]


def changed(path, **entries):
    """Change entries of a file, and its checksum with them."""
    content = torch.load(path, weights_only=True)
    for name, value in entries.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    if "state_dict" in content:
        content["checksum"] = checkpoint.checksum(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"version": FORMAT_VERSION + 1}, "pip install -U asecalc-mlip"),
        ({"version": "one"}, "format version 'one'"),
        ({"architecture": "gpt"}, "architecture 'gpt'; this version has cgcnn, eam, equiformer_v2, escn, m3gnet"),
        ({"hyperparameters": {"n_feature": 3}}, "no hyper-parameter"),
        ({"hyperparameters": {"cutoff": 4.0, "n_features": 8}}, "does not fit its own description"),
        ({"units": {"energy": "kcal/mol"}}, "kcal/mol"),
        ({"dtype": "float16"}, "float16"),
        ({"scale": "big"}, "entry 'scale' is a str"),
        ({"reference_energies": {"values": {"Xx": 1.0}}}, "does not fit its own description"),
        ({"reference_energies": {"values": {"Fm": 1.0}}}, "does not fit its own description"),
        ({"reference_energies": {"values": {}}}, "missing or not finite"),
        ({"reference_energies": {"values": {"H": float("nan")}}}, "missing or not finite"),
        ({"scale": float("nan")}, "scale nan"),
        ({"cutoff": 9.0}, "cutoff or elements"),
        ({"elements": ["H"]}, "cutoff or elements"),
        ({"state_dict": None}, "no entry 'state_dict'"),
        ({"format": "other"}, "not of asecalc-mlip"),
    ],
)
def test_what_is_wrong_is_named(entries, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load(changed(model_file(tmp_path), **entries))


def test_nan_weights_are_refused(tmp_path):
    potential = make_potential("painn")
    with torch.no_grad():
        next(potential.parameters())[0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        save(tmp_path / "m.pt", potential)
    state = torch.load(model_file(tmp_path), weights_only=True)["state_dict"]
    state["embedding.weight"][3, 1] = torch.inf
    with pytest.raises(CheckpointError, match="'embedding.weight' is not finite"):
        load(changed(model_file(tmp_path), state_dict=state))


def test_weights_beyond_all_measure_are_refused(tmp_path):
    potential = make_potential("painn")
    with torch.no_grad():
        next(potential.parameters())[0] = 1e30
    with pytest.raises(CheckpointError, match=r"reaches 1e\+30; energies of weights beyond 1e\+06 overflow"):
        save(tmp_path / "m.pt", potential)


class Bomb:
    """Pickle that writes a file when it is opened."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def test_code_in_a_file_is_never_executed(tmp_path):
    target = tmp_path / "executed"
    torch.save({"format": "asecalc-mlip", "version": 1, "card": Bomb(target)}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Bomb(target)))
    torch.save(make_potential("painn"), tmp_path / "module.pt")
    unexecuted = "[Nn]othing was executed"
    for name, message in (("zip", unexecuted), ("pickle", "no zip archive"), ("module", unexecuted)):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / f"{name}.pt")
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_file(share, tmp_path):
    path = model_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="cut off|damaged"):
        load(path)


def test_flipped_bytes_never_give_another_error(tmp_path):
    path = model_file(tmp_path)
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), max(1, len(content) // 60)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load(path)
        except CheckpointError:
            pass


def test_missing_file_names_the_shipped_models(tmp_path):
    with pytest.raises(CheckpointError, match=r"does not exist.*aspirin\.pt"):
        load("nosuch.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "aspirin.pt")


@pytest.mark.parametrize("name", ["aspirin.pt", "aspirin"])
def test_shipped_models_are_found_by_name(name):
    assert load(name).potential.elements == [1, 6, 8]


def test_cards_hold_plain_types_only(tmp_path):
    with pytest.raises(CheckpointError, match=r"card\.when is a Bomb"):
        save(tmp_path / "m.pt", make_potential("painn"), card={"when": Bomb("x")})


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = model_file(tmp_path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save(path, make_potential("painn"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_checksum_is_in_the_file_and_shown(tmp_path):
    path = model_file(tmp_path)
    content = torch.load(path, weights_only=True)
    assert load(path).checksum == content["checksum"] == checkpoint.checksum(content)
    assert f"SHA-256 {content['checksum']}" in describe(path)
    assert load(GOLDEN / "v1" / "painn.pt").checksum is None and "format version 1" in describe(
        GOLDEN / "v1" / "painn.pt"
    )


@pytest.mark.parametrize("entry", ["state_dict", "card", "scale", "reference_energies", "checksum"])
def test_a_change_without_its_checksum_is_refused(entry, tmp_path):
    path = model_file(tmp_path)
    content = torch.load(path, weights_only=True)
    if entry == "state_dict":
        content[entry]["embedding.weight"][1, 2] += 1e-6
    elif entry == "card":
        content[entry]["licence"] = "mit"
    else:
        content[entry] = {"scale": 1.31, "reference_energies": {"values": {"H": -13.6}}, "checksum": None}[entry]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="is damaged: its weights and metadata have the checksum"):
        load(path)


def test_equal_models_make_equal_files(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
    assert model_file(tmp_path / "a").read_bytes() == model_file(tmp_path / "b").read_bytes()


def test_files_of_torch_are_read_as_torch_reads_them():
    for path in sorted(GOLDEN.glob("v*/*.pt")):
        ours, theirs = archive.read(path), torch.load(path, weights_only=True)
        weights, expected = ours.pop("state_dict"), theirs.pop("state_dict")
        assert repr(ours) == repr(theirs) and list(weights) == list(expected)
        assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.half(), r"'state_dict.readout.2.bias' is a tensor of 'torch.HalfStorage'; a weight is a dense"),
        (lambda w: w.long(), "is of torch.int64; expected torch.float32"),
        (lambda w: w.double(), "is of torch.float64; the file declares float32"),
        (lambda w: w.to_sparse(), "made by 'torch._utils._rebuild_sparse_tensor'"),
        (lambda w: torch.zeros(1).expand(10**12), "is a view of a tensor"),
        (lambda w: torch.zeros(2, 3).t(), "is a view of a tensor"),
        (lambda w: torch.zeros(3), "size mismatch"),
    ],
)
def test_weights_of_other_kinds_are_named(change, message, tmp_path):
    path = model_file(tmp_path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["readout.2.bias"] = change(content["state_dict"]["readout.2.bias"])
    if not message.startswith(("made by", "is a view")):  # those have no checksum
        content["checksum"] = checkpoint.checksum(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"n_interactions": 10**6}, "n_interactions is 1000000; expected a whole number of 1 to 64"),
        ({"n_features": 2048, "n_interactions": 60}, "ask for more weights than the file holds"),
        ({"cutoff": 1e30}, r"cutoff is 1e\+30; expected 0.1 to 100.0 Å"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(hyperparameters, message, tmp_path):
    path = model_file(tmp_path)
    before = torch.load(path, weights_only=True)["hyperparameters"]
    with pytest.raises(CheckpointError, match=message):
        load(changed(path, hyperparameters={**before, **hyperparameters}))


def test_loading_draws_no_random_numbers(tmp_path):
    path, state = model_file(tmp_path), torch.get_rng_state()
    load(path)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_of_many_elements_loads(tmp_path):
    """Of more than 25 points torch.cdist rounds distances of 0, which were taken for pairs."""
    potential = build_potential(
        "painn",
        {"cutoff": 3.0, "n_features": 4, "n_interactions": 1, "n_rbf": 4},
        reference_energies={z: -1.0 * z for z in range(1, 90)},
    )
    save(tmp_path / "all.pt", potential, card={})
    assert len(load(tmp_path / "all.pt").potential.elements) == 89
