"""Fine-tuning: what a run starts from, what it replays, what it adds to, and that it goes on like any other."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.errors import InputError
from tests import teacher
from tests.cases import model_file
from tests.small_runs import rows, weights
from tests.training.levels import E0, files, tiny

pytest.importorskip("schnetpack")
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from training import train as training  # noqa: E402
from training.config import OF_BASE, ModelConfig  # noqa: E402
from training.finetune.replay import _shift  # noqa: E402
from training.start.reference_energies import ReferenceEnergies  # noqa: E402


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """Data, EAM, and the folder of a model that was pretrained on it."""
    folder = tmp_path_factory.mktemp("levels")
    data, eam = files(folder)
    made = ("pretrain.rounds=3", "pretrain.strength=0.2", "run.max_epochs=6")
    training.train(tiny(folder, data, f"pretrain.teacher={eam}", *made, output="pre"))
    return data, eam, folder / "pre"


def finetune(levels, tmp_path, *overrides, output="run"):
    return tiny(tmp_path, levels[0], f"finetune.base={levels[2] / 'model.pt'}", *overrides, output=output)


PIWSL = ("weak.method=piwsl", "weak.epsilon=0.01", "weak.normalisation=per_atom")
SAM, STRESS = ("weak.method=sam",), ("loss.stress_weight=1",)


def of_base(settings):
    """The settings without a model of their own."""
    return replace(settings, model=ModelConfig(OF_BASE))


@pytest.mark.parametrize(
    ("start", "method"), [("base", SAM), ("base", PIWSL), ("delta", SAM), ("delta", PIWSL), ("both", STRESS)]
)
def test_every_start_goes_with_other_methods_and_with_replay(start, method, levels, tmp_path, capsys):
    base, delta = f"finetune.base={levels[2] / 'model.pt'}", f"finetune.delta={levels[1]}"
    chosen = {"base": [base], "delta": [delta], "both": [base, delta]}[start]
    replay = ("finetune.replay=0.3", f"finetune.old_data={levels[2] / 'labelled.xyz'}", "finetune.n_old=5")
    run = training.prepare(tiny(tmp_path, levels[0], *chosen, *method, *replay, "run.max_epochs=1"))
    before = [p.detach().clone() for p in run.potential.parameters()]
    training.fit(run)
    moved = [not torch.equal(a, b) for a, b in zip(before, run.potential.parameters(), strict=True)]
    trained = [p.requires_grad for p in run.potential.parameters()]
    assert all(m <= t for m, t in zip(moved, trained, strict=True))
    assert sum(moved) > 0.7 * sum(trained)
    told = capsys.readouterr().err
    assert ("counts twice" in told) == (start == "both")


def test_all_is_told_and_kept(levels, tmp_path, capsys):
    run = ("finetune.replay=0.25", "finetune.n_old=6", f"data.test={levels[0]}")
    result = training.train(finetune(levels, tmp_path, *run))
    out = capsys.readouterr().out
    assert "shifted by least squares on 8 energies" in out and "change from model.pt: Na" in out
    assert "6 held back, 24 to replay" in out
    assert "MAE before → after" in repr(result)
    card = load(result.model).card
    assert card["finetuning"]["base_card"]["training_data"]["train"] == 24
    assert set(card["finetuning"]["e0_shift_eV"]) == {"Na", "Cl"}
    assert card["pretraining"]["teacher"] == "eam.pt" and card["pretraining"]["rounds"] == 3
    assert card["replay"]["share"] == 0.25 and card["replay"]["structures"] == 24
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["old_level"]
    for when in ("before", "after"):
        assert card["old_level"][when]["forces (meV/Å)"] == summary[when]["mae"]["forces"]
    assert summary["before"]["n_structures"] == 6
    # A finished run says the same when it is asked again.
    assert training.train(finetune(levels, tmp_path, *run)).old_level.card() == card["old_level"]


def test_it_starts_where_the_base_ended(levels, tmp_path):
    run = training.prepare(finetune(levels, tmp_path))
    base, frames = load(levels[2] / "model.pt"), [run.frames[i] for i in run.split.train]
    ours, theirs = run.potential.network.state_dict(), base.potential.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(p.requires_grad for p in run.potential.parameters())
    # Energies are right on average from the first step on; what they differ by is not that of two zeros.
    save(tmp_path / "start.pt", run.potential)
    calculator = PIWSLCalculator.load(tmp_path / "start.pt", device="cpu")
    left = [a.info["energy"] - r["energy"] for a, r in zip(frames, calculator.evaluate(frames), strict=True)]
    assert abs(np.mean(left)) < 1e-3
    for z, change in run.start.shift.items():
        assert run.potential.reference_energies[z] == pytest.approx(base.potential.reference_energies[z] + change)


def test_reference_energies_of_isolated_atoms_are_kept(levels, tmp_path):
    given = ("model.reference_energies=given", "model.given={Na: -4.2, Cl: -6.1}")
    run = training.prepare(finetune(levels, tmp_path, *given))
    assert run.potential.reference_energies == {11: -4.2, 17: -6.1}
    old = load(levels[2] / "model.pt").potential.reference_energies
    assert run.start.shift[11] == pytest.approx(-4.2 - old[11])


def test_replayed_energies_are_what_the_model_would_say(tmp_path):
    # A base that is exact on the old level leaves nothing to unlearn there, whatever the zero of the new one.
    data, eam = files(tmp_path)
    frames = read_frames(data)
    for atoms, result in zip(frames, PIWSLCalculator.load(eam, dtype="float64").evaluate(frames), strict=True):
        atoms.info["energy"], atoms.arrays["forces"] = result["energy"], result["forces"]
    # Isolated atoms of the old level, without forces, are no structures of it.
    alone = [Atoms([z], info={"REF_energy": -500.0}) for z in (11, 17)]
    write(tmp_path / "old.xyz", [*alone, *teacher.as_reference(frames)], format="extxyz")
    old = (f"finetune.base={eam}", f"finetune.old_data={tmp_path / 'old.xyz'}", "finetune.replay=0.5")
    run = training.prepare(of_base(tiny(tmp_path, data, *old, "finetune.n_old=4")))
    assert run.old is not None and len(run.old.held) == 4 and len(run.old.replay) == 10
    for z, change in run.old.shift.items():
        assert change == pytest.approx(run.start.shift[z], abs=1e-4)
    assert not np.isclose(run.start.shift[11], 0.0)
    save(tmp_path / "start.pt", run.potential)
    assert run.old.errors(tmp_path / "start.pt", of_new_level=True).mae["energy"] < 0.1
    assert run.old.errors(eam, of_new_level=False).mae["energy"] < 0.1


def test_replayed_energies_of_an_element_in_one_frame_are_shifted(monkeypatch):
    frames, old = teacher.crystal_frames(10), {1: 100.0, 11: 5.0, 17: 7.0}
    frames[1].numbers[0] = 1
    for atoms in frames:
        atoms.info["energy"] = sum(old[z] for z in atoms.numbers)
    monkeypatch.setattr("training.finetune.replay.COMPARED", 3)
    start = SimpleNamespace(known=[], e0=ReferenceEnergies({1: -1.0, 11: -2.0, 17: -3.0}, "given", "", 0.0))
    shift = _shift(start, frames, "cpu")
    moved = frames[1].info["energy"] + sum(shift[z] for z in frames[1].numbers)
    assert moved == pytest.approx(start.e0.total(frames[1].numbers), abs=1e-6)


def test_a_sum_learns_what_the_eam_leaves(levels, tmp_path):
    delta = ("model.architecture=cgcnn", f"finetune.delta={levels[1]}", "run.max_epochs=40", "optimizer.lr=0.01")
    result = training.train(tiny(tmp_path, levels[0], *delta, f"data.test={levels[0]}"))
    eam = PIWSLCalculator.load(levels[1], device="cpu")
    frames = read_frames(levels[0])
    alone = [r["forces"] - a.arrays["forces"] for a, r in zip(frames, eam.evaluate(frames), strict=True)]
    assert result.errors.mae["forces"] < 0.7 * 1000 * np.abs(np.concatenate(alone)).mean()
    model = load(result.model)
    assert model.card["delta"] == {"added_to": "eam.pt", "frozen": True}
    kept, was = model.potential.network.parts[1].state_dict(), load(levels[1]).potential.network.state_dict()
    assert all(torch.equal(kept[name], was[name]) for name in was)
    # A sum is a base like any other: its parts stay, and the EAM is free now.
    again = (delta[0], f"finetune.base={result.model}")
    free = ("finetune.delta_frozen=false", "optimizer.weight_decay=0.9")
    run = training.prepare(tiny(tmp_path, levels[0], *again, *free, output="again"))
    training.fit(run)
    assert not torch.equal(run.potential.network.parts[1].depth, was["depth"])
    with pytest.raises(InputError, match="sum of potentials already"):
        training.prepare(tiny(tmp_path, levels[0], *again, delta[1], output="twice"))


def test_scale_and_energies_of_a_sum_are_those_of_the_rest(levels, tmp_path):
    plain = training.prepare(tiny(tmp_path, levels[0], output="plain"))
    delta = training.prepare(tiny(tmp_path, levels[0], f"finetune.delta={levels[1]}", output="delta"))
    assert plain.potential.architecture == "painn" and delta.potential.architecture == "sum"
    assert delta.potential.network.scales[0] != plain.potential.scale and delta.potential.network.scales[1] == 1.0
    assert delta.potential.cutoff == 4.5
    # The same seed gives the network the same weights, with and without what it is added to.
    ours, theirs = delta.potential.network.parts[0].state_dict(), plain.potential.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_zbl_as_a_prior(levels, tmp_path):
    result = training.train(tiny(tmp_path, levels[0], "finetune.delta=zbl"))
    model = load(result.model)
    assert model.card["delta"]["added_to"] == "zbl"
    pair = read(levels[0], index=0)[:2]
    pair.positions[1] = pair.positions[0] + [0.4, 0, 0]
    pair.calc = PIWSLCalculator.load(result.model, device="cpu")
    assert pair.get_potential_energy() - sum(model.potential.reference_energies[z] for z in pair.numbers) > 50


@pytest.mark.parametrize("more", [(), ("weak.method=sam", "finetune.layer_decay=0.5")])
def test_resumed_fine_tuning_equals_uninterrupted(more, levels, tmp_path):
    from tests.training.test_interrupted import stop_after

    more = (*more, "finetune.replay=0.25", f"finetune.delta={levels[1]}", "finetune.delta_frozen=false")
    training.train(finetune(levels, tmp_path, *more, "run.max_epochs=4", output="whole"))
    parts = finetune(levels, tmp_path, *more, "run.max_epochs=4", output="parts")
    stop_after(parts, epochs=2)
    assert len(rows(tmp_path / "parts")) == 2
    training.train(parts)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole[1], parts[1], strict=True))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_base_that_changed_is_noticed(levels, tmp_path):
    base = tmp_path / "base.pt"
    shutil.copy(levels[2] / "model.pt", base)
    settings = (f"finetune.base={base}", "run.max_epochs=1")
    training.train(tiny(tmp_path, levels[0], *settings))
    model = load(base)
    save(base, model.potential, card={**model.card, "date": "another day"})
    training.train(tiny(tmp_path, levels[0], settings[0], "run.max_epochs=2"))
    with torch.no_grad():
        next(model.potential.parameters()).add_(0.1)
    save(base, model.potential, card=model.card)
    with pytest.raises(InputError, match="other files that it starts from"):
        training.train(tiny(tmp_path, levels[0], settings[0], "run.max_epochs=3"))


def test_what_is_refused(levels, tmp_path):
    data, eam, _ = levels
    other = model_file(tmp_path)  # of H, C, O, Si
    for overrides, message in [
        ((f"finetune.base={other}",), r"does not know Na, Cl, .*it knows H, C, O, Si.*Leave the structures"),
        ((f"finetune.base={tmp_path / 'absent.pt'}",), "does not exist"),
        (("finetune.replay=0.2",), "nothing to replay"),
        (("finetune.replay=1.0",), "at least 0 and below 1"),
        (("finetune.layer_decay=0",), "above 0, at most 1"),
        ((f"finetune.delta={other}",), "no parameters for Na, Cl"),
        (("finetune.replay=0.2", f"finetune.old_data={data}", "finetune.n_old=14"), "are held back"),
    ]:
        with pytest.raises(InputError, match=message):
            training.train(tiny(tmp_path, data, *overrides))
    for overrides, message in [
        (("model.architecture=schnet",), r"model.architecture is schnet, but finetune.base model.pt is painn"),
        (("model.hyperparameters.n_features=16",), "n_features is 16, that of the base 8"),
        (("model.hyperparameters.n_hidden=16",), "n_hidden is 16, that of the base not there"),
    ]:
        with pytest.raises(InputError, match=message):
            training.train(finetune(levels, tmp_path, *overrides))
    assert not (tmp_path / "run").exists()


def test_old_level_of_other_elements(levels, tmp_path):
    write(tmp_path / "old.xyz", teacher.as_reference(teacher.molecule_frames(5)), format="extxyz")
    with pytest.raises(InputError, match="has C, H, O, but the model knows Na, Cl"):
        training.train(finetune(levels, tmp_path, f"finetune.old_data={tmp_path / 'old.xyz'}"))


def test_elements_that_the_new_data_lack_keep_their_energy(levels, tmp_path):
    sodium = teacher.crystal_frames(14)
    for atoms in sodium:
        del atoms[[k for k, z in enumerate(atoms.numbers) if z == 17]]
    write(tmp_path / "na.xyz", teacher.as_reference([teacher.labelled(a) for a in sodium]), format="extxyz")
    run = training.prepare(of_base(tiny(tmp_path, tmp_path / "na.xyz", f"finetune.base={levels[1]}")))
    assert run.potential.reference_energies[17] == E0[17] and list(run.start.shift) == [11]
