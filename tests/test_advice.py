"""Mistakes of somebody who begins: each message names the next step."""

import pytest
from ase.build import molecule
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator, cli
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.progress import rates

MISTAKES = {
    "structure in place of the model": ("nvt plain.xyz", "the model comes before the structures"),
    "no labels": ("evaluate aspirin.pt plain.xyz", "name them by --energy-key and --forces-key"),
    "no file": ("evaluate aspirin.pt absent.xyz", "no such file"),
    "model as a reference": ("nvt aspirin.pt --reference aspirin.pt", "asecalc reference"),
    "model to compare g(r) with": ("rdf plain.xyz --reference aspirin.pt", "asecalc reference"),
    "phonons of a molecule": ("phonons aspirin_painn.pt --as-is", "use 'asecalc vibrations'"),
    "pair of an unknown element": (
        "diatomic aspirin_painn.pt --pairs Si-O",
        "Error: aspirin_painn.pt does not know the element Si",
    ),
    "temperature with a unit": ("nvt aspirin.pt --temperature 300K", "expected a number above 0, at most 10⁶ K"),
    "misspelt command": ("evalute aspirin.pt plain.xyz", "Did you mean 'evaluate'?"),
    "unknown device": ("nvt aspirin.pt --device gpu", "allowed: auto, cpu, cuda"),
}
OF_TRAINING = {
    "setting as an option": ("train --data plain.xyz", "settings are KEY=VALUE, such as data.train=FILE"),
    "spaces around =": ("train data.train = plain.xyz", "write KEY=VALUE in one word"),
    "no unit of time": ("train data.train=plain.xyz run.time=30", "such as 30min, 2h or 1h30min, or null"),
    "fine-tuning without a model": ("finetune data.train=plain.xyz", "name the MODEL to start from first"),
    "British spelling": ("train data.train=plain.xyz optimiser.lr=0.1", "did you mean optimizer?"),
    "no data file": ("train data.train=absent.xyz", "or any other file of frames that ASE reads"),
    "program as the source of labels": ("learn plain.xyz --labels vasp", "my_vasp.py:calculator"),
}


def message(line, tmp_path, monkeypatch):
    """What a command says that must end with exit code 2, lines joined."""
    monkeypatch.chdir(tmp_path)
    molecule("CH3CH2OH").write("plain.xyz")
    result = CliRunner().invoke(cli.main, line.split())
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("line, advice", MISTAKES.values(), ids=MISTAKES)
def test_advice(line, advice, tmp_path, monkeypatch):
    assert advice in message(line, tmp_path, monkeypatch)


@pytest.mark.parametrize("line, advice", OF_TRAINING.values(), ids=OF_TRAINING)
def test_advice_of_training(line, advice, tmp_path, monkeypatch):
    pytest.importorskip("training.main")
    assert advice in message(line, tmp_path, monkeypatch)


def test_a_calculator_is_made_by_load():
    with pytest.raises(InputError, match=r"write PIWSLCalculator.load"):
        PIWSLCalculator("aspirin.pt")


def test_rates_of_a_run_are_named_in_words():
    assert rates({"neighbor_hit_rate": 0.914, "calls": 3}) == {"calls that reuse the neighbour list": "91 %"}
