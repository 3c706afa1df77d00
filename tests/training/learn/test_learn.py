"""The whole loop, with a toy labeller and networks that learn next to nothing."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from asecalc_mlip import workers
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.locks import locked
from asecalc_mlip.workers import Workers
from tests.commands import asecalc
from tests.figures import blank_figures

pytest.importorskip("schnetpack")
from training.learn import LearnSettings, Until, final, learn, loop  # noqa: E402
from training.learn import committee as committees  # noqa: E402
from training.learn.state import Folder  # noqa: E402

TOY = """
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

class Springs(Calculator):
    implemented_properties = ["energy", "forces"]
    lengths = None

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = atoms.positions
        if x[0, 2] < 0.08:
            raise RuntimeError("SCF not converged")
        energy, forces = 0.0, np.zeros_like(x)
        for i, j, r0 in ((0, 1, 0.97), (0, 2, 0.97), (1, 2, 1.53)):
            d = x[j] - x[i]
            r = np.linalg.norm(d)
            energy += 15.0 * (r - r0) ** 2
            pull = 30.0 * (r - r0) * d / r
            forces[i] += pull
            forces[j] -= pull
        self.results = {"energy": energy, "forces": forces}

calculator = Springs()
"""


def _settings(folder, **given):
    (folder / "toy.py").write_text(TOY)
    defaults = {
        "labels": f"{folder / 'toy.py'}:calculator", "temperature_K": 300.0, "until": Until(2, 0.05), "interval": 10,
        "budget": 8, "members": 2, "initial": 6, "per_round": 2, "steps_first": 20, "steps": 20, "steps_last": 20,
        "tolerance": 0.01, "training": ("model.hyperparameters.n_features=16", "run.threads=1", "run.device=cpu"),
    }  # fmt: skip
    return LearnSettings(**{**defaults, **given})


@pytest.fixture(scope="module", autouse=True)
def short_epochs():
    """Epochs of 10 steps, of which trainings of 20 have two."""
    with pytest.MonkeyPatch.context() as patch:
        for place in (committees, final):
            patch.setattr(place, "STEPS_PER_EPOCH", 10)
        yield


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A learning to its end: 6 structures, a round of 2 more, the budget, the final model."""
    folder, lines = tmp_path_factory.mktemp("learn"), []
    result = learn(_settings(folder), [molecule("H2O")], folder / "out", tell=lines.append)
    return folder, result, lines


def test_a_learning_ends_with_its_budget_a_model_and_a_page(learned):
    folder, result, lines = learned
    assert result.status == "budget" and len(result.rounds) == len(lines) == 2
    assert result.labels + result.failed == 8 and result.failed >= 1
    assert all(text in lines[0] for text in ("round 0", "labels", "replicas quiet", "threshold", "training"))
    assert PIWSLCalculator.load(result.model).get_potential_energy(molecule("H2O")) is not None
    page = result.report.read_text()
    for part in (
        "Course",
        "Survival by round",
        "What the spread is worth",
        "Frames taken",
        "SCF not converged",
        "Isolated pairs",
    ):
        assert part in page, part
    taken = [one for r in result.rounds for one in r["taken"]]
    assert len(taken) == 2 and all(one["reason"] for one in taken)
    assert result.final["stable_ps"] and "forces" in result.final["errors"]
    assert json.loads((folder / "out" / "result.json").read_text())["labels"] == result.labels


def test_a_label_that_fails_is_told_and_in_no_training(learned):
    folder, result, _ = learned
    data = read_frames(folder / "out" / "round01" / "data.xyz")
    assert len(data) == result.labels
    assert min(atoms.positions[0, 2] for atoms in data) > 0.08


def test_the_card_says_what_made_the_labels(learned):
    folder, result, _ = learned
    card = load(result.model).card
    assert card["level_of_theory"] == "toy.py:calculator"
    assert card["learning"]["labels"]["calculator"] == "Springs" and card["learning"]["structures"] == result.labels
    assert card["learning"]["until"] == "2 x 0.05 ps" and card["learning"]["rounds"] == 2


def test_held_out_labels_stay_held_out(learned):
    folder, _, _ = learned
    splits = [json.loads((folder / "out" / f"round0{k}" / "split.json").read_text()) for k in range(2)]
    assert not set(splits[0]["val"]) & set(splits[1]["train"])
    assert 2 in splits[0]["val"], "the third of five; the most strongly rattled structure, the last, is trained on"
    assert max(splits[0]["train"]) > max(splits[0]["val"])
    assert not set(splits[1]["val"]) & set(splits[1]["train"])


def test_an_interrupted_learning_goes_on_to_the_same_labels_and_model(learned, tmp_path, monkeypatch):
    """An error stands for a kill: before a label, between trainings, in the dynamics, before the end of a round."""
    folder, whole, _ = learned
    (tmp_path / "toy.py").write_text(TOY)
    bombs = {
        (loop, "label_structures"): 4, (committees, "train"): 2, (loop, "candidates_of"): 1, (loop, "write_json"): 3,
        (loop, "final_model"): 1,
    }  # fmt: skip
    settings = _settings(folder)  # the same labeller, by its path
    with blank_figures():
        for (place, name), count in bombs.items():
            with monkeypatch.context() as patch:
                patch.setattr(place, name, _fails_at(getattr(place, name), count))
                with pytest.raises(ZeroDivisionError):
                    learn(settings, [molecule("H2O")], tmp_path / "out")
            if name == "label_structures":
                labels = tmp_path / "out" / "round00" / "labels.xyz"
                labels.write_bytes(labels.read_bytes()[:-20])  # killed while it wrote the last one
        result = learn(settings, [molecule("H2O")], tmp_path / "out")
    for name in ("round00/labels.xyz", "round01/labels.xyz", "round01/data.xyz"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "out" / name).read_bytes(), name
    one, two = (PIWSLCalculator.load(r.model).get_potential_energy(molecule("H2O")) for r in (whole, result))
    assert one == two
    assert [r["threshold"] for r in result.rounds] == [r["threshold"] for r in whole.rounds]


def _fails_at(function, count):
    calls = 0

    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count:
            raise ZeroDivisionError
        return function(*arguments, **options)

    return wrapped


def test_with_dask_the_labels_and_replicas_are_the_same(learned, tmp_path):
    """Of the first round: a budget without more labels leaves the replicas, and ends there."""
    distributed = pytest.importorskip("distributed")
    folder, whole, _ = learned
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, blank_figures():
        settings, means = _settings(folder, budget=6, final=False), Workers(dask=cluster.scheduler_address)
        result = learn(settings, [molecule("H2O")], tmp_path / "out", workers=means)
    assert result.rounds[0]["failed"] == whole.rounds[0]["failed"] and len(result.rounds) == 1
    runs = [f"runs/replica00{k}/trajectory.extxyz" for k in range(2)]
    for name in ("labels.xyz", "data.xyz", *runs):
        one, two = (path / "out" / "round00" / name for path in (folder, tmp_path))
        assert one.read_bytes() == two.read_bytes(), name
    assert not list((tmp_path / "out").glob(".*work*"))
    assert not list((tmp_path / "out").glob("*/labels.ahead*"))


def test_a_finished_learning_is_read_and_other_settings_are_refused(learned):
    folder, result, _ = learned
    again = learn(_settings(folder), [molecule("H2O")], folder / "out", tell=pytest.fail)
    assert (again.status, again.labels, again.final) == (result.status, result.labels, result.final)
    # The model is that of this result, also where one of other settings was made in between.
    model = again.model.read_bytes()
    again.model.write_bytes((folder / "out" / "round00" / "member0" / "member.pt").read_bytes())
    assert learn(_settings(folder), [molecule("H2O")], folder / "out").model.read_bytes() == model
    with pytest.raises(InputError, match="temperature_K was 300.0, is 310.0"):
        learn(_settings(folder, temperature_K=310.0), [molecule("H2O")], folder / "out")
    with pytest.raises(InputError, match="start structures"):
        learn(_settings(folder), [molecule("NH3")], folder / "out")


def test_a_learning_of_another_version_is_refused(learned, tmp_path):
    folder, _, _ = learned
    settings = json.loads((folder / "out" / "learn.json").read_text())
    (tmp_path / "learn.json").write_text(json.dumps({**settings, "version": 1}))
    with pytest.raises(InputError, match="another version.*--data"):
        learn(_settings(folder), [molecule("H2O")], tmp_path)


def test_another_process_in_the_folder_is_refused(learned):
    folder, _, _ = learned
    with locked(folder / "out"), pytest.raises(InputError, match="in use by another"):
        learn(_settings(folder), [molecule("H2O")], folder / "out")


def test_a_signal_ends_softly_before_the_next_label(tmp_path, monkeypatch):
    class Pressed(loop.SoftStop):
        signal = property(
            lambda self: 2 if (tmp_path / "out/round00/labels.xyz").exists() else None, lambda *given: None
        )

    monkeypatch.setattr(loop, "SoftStop", Pressed)
    result = learn(_settings(tmp_path), [molecule("H2O")], tmp_path / "out")
    assert (result.status, result.labels, result.model) == ("interrupted", 1, None)
    assert "give the same command again to continue: 1 labels, 0 failed" in result.describe()
    assert [path.name for path in (tmp_path / "out").glob("round*")] == ["round00"]


def test_a_scheduler_that_is_not_there_is_told_before_anything_begins(tmp_path, monkeypatch):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(TOY)
    write("water.xyz", molecule("H2O"))
    words = ["learn", "water.xyz", "--labels", "toy.py:calculator", "--dask", "tcp://127.0.0.1:9"]
    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}):
        found = asecalc(*words)
    assert found.exit_code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in found.output
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    found = asecalc(*words)
    assert found.exit_code == 2 and "--dask needs distributed" in found.output
    assert not (tmp_path / "learn").exists()


def test_labels_that_all_fail_end_in_one_message(tmp_path):
    start = molecule("H2O")
    start.positions[:, 2] -= 1.0
    with pytest.raises(InputError, match="0 of the structures .*labels.failed.jsonl"):
        learn(_settings(tmp_path, initial=3), [start], tmp_path / "out")


def test_given_frames_without_forces_are_named(tmp_path):
    frames = [molecule("H2O"), Atoms("O")]
    for atoms in frames:
        atoms.info["REF_energy"] = -1.0
    write(tmp_path / "given.xyz", frames, format="extxyz")
    with pytest.raises(InputError, match="--data: frame 0 of given.xyz has no forces"):
        learn(_settings(tmp_path, data=str(tmp_path / "given.xyz")), [molecule("H2O")], tmp_path / "out")


def test_given_molecules_have_no_stress(tmp_path):
    atoms = molecule("H2O")
    atoms.info |= {"REF_energy": -1.0, "REF_stress": np.zeros((3, 3))}
    atoms.arrays["REF_forces"] = np.zeros((3, 3))
    write(tmp_path / "some.xyz", atoms, format="extxyz")
    loop._Loop._take_given(SimpleNamespace(folder=Folder(tmp_path)), str(tmp_path / "some.xyz"))
    (given,) = read_frames(tmp_path / "given.xyz")
    assert "energy" in given.info and "stress" not in given.info


def test_dry_run_tells_the_cost_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(TOY)
    write("water.xyz", molecule("H2O"))
    before = sorted(tmp_path.iterdir())
    found = asecalc("learn", "water.xyz", "--labels", "toy.py:calculator", "--until", "2 x 0.1 ps", "--dry-run")
    assert found.exit_code == 0, found.output
    (value,) = re.findall(r"one label of H2O by toy.py:calculator: ([0-9.]+) ms\n", found.output)
    assert float(value) > 0 and "budget of 200 labels" in found.output
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--labels", "xtb"], "name a file with the structure"),
        (["water.xyz", "--labels", "xtb", "--until", "forever"], "8 x 50 ps"),
        (["water.xyz", "--labels", "psi4:b3lyp"], "names no teacher"),
        (["water.xyz", "--labels", "xtb", "--members", "1"], "--members"),
        (["water.xyz"], "--labels is missing, the source of energies and forces; give xtb, pyscf:PBE/def2-SVP"),
        (["water.xyz", "--labels", "xtb", "--processes", "0"], "--processes is '0'"),
    ],
)
def test_bad_input_is_told_in_one_message(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("water.xyz", molecule("H2O"))
    found = asecalc("learn", *(words if "water.xyz" in words else ["run.seed=1", *words]))
    assert found.exit_code == 2 and told in found.output, found.output
    assert not (tmp_path / "learn").exists()
