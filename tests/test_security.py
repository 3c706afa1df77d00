"""States and settings of strangers: what would run code is an error, and nothing runs (models: tests/attack)."""

import os

import numpy as np
import pytest
import torch

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.files import RunFiles


class Bomb:
    """Makes a file when it is read by pickle."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def bomb(tmp_path):
    bomb = Bomb(tmp_path / "executed")
    yield bomb
    assert not bomb.target.exists()


def test_the_bomb_works(tmp_path):
    torch.save(Bomb(tmp_path / "executed"), tmp_path / "file")
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_model(bomb, protocol, tmp_path):
    from asecalc_mlip.checkpoint import CheckpointError, load

    torch.save({"format": "asecalc-mlip", "version": 2, "card": bomb}, tmp_path / "m.pt", pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match="othing was executed|damaged"):
        load(tmp_path / "m.pt")


def test_the_reader_of_models_knows_no_way_to_a_python_object():
    """Neither imports nor calls by name; what a pickle asks for is only noted."""
    import ast
    import inspect

    from asecalc_mlip.file_format import unpickling

    forbidden = {"eval", "exec", "getattr", "__import__", "import_module", "loads", "load", "find_class"}
    tree = ast.parse(inspect.getsource(unpickling))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & forbidden
    found = unpickling.interpreted(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    assert (found.name, found.arguments) == ("posix.system", ("ls",))


def test_state_of_a_run(bomb, tmp_path):
    np.savez(tmp_path / "restart.npz", meta=np.array("{}"), positions=np.array([bomb], dtype=object))
    with pytest.raises(InputError, match="damaged and cannot be read"):
        RunFiles(tmp_path).load_restart()


def test_state_of_a_training(bomb, tmp_path):
    from training.train import _readable

    torch.save({"epoch": 1, "state_dict": {}, "loops": bomb}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        _readable(tmp_path / "last.ckpt")


def test_a_flipped_bit_in_the_state_of_a_training_is_found(tmp_path):
    from training.train import _readable

    path, value = tmp_path / "last.ckpt", torch.arange(1000.0)
    torch.save({"epoch": 1, "state_dict": {"weight": value}}, path)
    assert torch.equal(_readable(path)["state_dict"]["weight"], value)
    content = bytearray(path.read_bytes())
    content[content.index(value.numpy().tobytes()) + 5] ^= 64
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["weight"], value)  # which torch takes
    with pytest.raises(InputError, match="damaged"):
        _readable(path)


@pytest.mark.parametrize("part", ["state.pt", "model.json", "SOURCE.txt"])
def test_a_folder_of_matgl(bomb, part, tmp_path):
    from asecalc_mlip.zoo.matgl import read_matgl
    from tests.attack.matgl_files import contents, folder_of_matgl

    folder = folder_of_matgl(tmp_path / "model", *contents())
    assert read_matgl(folder).potential.elements == [1, 6, 8]
    if part == "SOURCE.txt":  # text that is no UTF-8 is no reason to refuse a model
        (folder / part).write_bytes(b"Model  \xff")
        assert read_matgl(folder).card["model"] == "\ufffd"
        return
    if part == "state.pt":
        torch.save({**contents()[1], "data_std": bomb}, folder / part)
    else:
        (folder / part).write_text((folder / part).read_text().replace('"cutoff": 4.0', '"cutoff": {}'))
    with pytest.raises(InputError, match="holds Python objects|do not fit the description"):
        read_matgl(folder)


def test_settings(bomb, tmp_path):
    from training.config import load_config

    text = f"run:\n  output: !!python/object/apply:os.mkdir [{bomb.target}]\n"
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match="not valid YAML"):
        load_config([tmp_path / "settings.yaml"], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  hyperparameters: &a\n    x: *a\n", "not valid YAML: a group contains itself by an alias"),
        ("data:\n  weights: &a [[*a]]\n", "contains itself"),
        ("data:\n  weights: &a !!pairs [b: *a]\n", "contains itself"),
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{k + 1}: &a{k + 1} [{f'*a{k}, ' * 10}]\n" for k in range(9)),
            "aliases .* repeat values",
        ),
    ],
)
def test_aliases_in_settings(text, message, tmp_path):
    from training.config import load_config

    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config([tmp_path / "settings.yaml"], [])


def test_archives_of_arrays(bomb, tmp_path):
    from asecalc_mlip.data.readers import read_frames

    arrays = {"z": np.array([1, 1]), "R": np.zeros((1, 2, 3)), "F": np.zeros((1, 2, 3))}
    np.savez(tmp_path / "data.npz", E=np.array([bomb], dtype=object), **arrays)
    with pytest.raises(InputError):
        read_frames(tmp_path / "data.npz")


def test_a_description_of_lists_in_lists_is_refused_after_its_first_operations():
    from asecalc_mlip.file_format.unpickling import MOST_OPERATIONS, interpreted

    deep = b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."
    with pytest.raises(InputError, match=f"more than {MOST_OPERATIONS} operations"):
        interpreted(deep)


@pytest.mark.parametrize("pair", range(10))
def test_weights_of_each_pair_of_elements_that_overflow_are_refused(pair, tmp_path):
    from asecalc_mlip.checkpoint import CheckpointError, checksum, load
    from tests.attack.model_files import GOLDEN

    content = torch.load(GOLDEN / "eam.pt", weights_only=True)
    content["state_dict"]["bond"][pair] = 1000.0  # Å, of four elements
    content["checksum"] = checksum(content)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="not finite"):
        load(tmp_path / "model.pt")
