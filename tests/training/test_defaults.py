"""What a training is that says little: its sizes, length, prior and last shift, and what older versions meant."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.analysis import MoleculeReference
from asecalc_mlip.analysis.references import reference_from_dict
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import ARCHITECTURES, has_core, parts_of
from asecalc_mlip.probes import attractive_hole, diatomic_curve
from asecalc_mlip.quantities import seconds_of
from tests import teacher
from tests.small_runs import config, rows
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
import training.settings  # noqa: E402
from training import older  # noqa: E402
from training import train as trained  # noqa: E402
from training.config import load_config  # noqa: E402
from training.data.split import Split  # noqa: E402
from training.explain import explain  # noqa: E402
from training.run import length  # noqa: E402
from training.settings import SECTIONS, RunConfig  # noqa: E402

DEFAULTS = Path(training.settings.__file__).with_name("defaults.yaml")
PRIOR = "model.prior=zbl"


def test_defaults_yaml_shows_every_setting_with_its_sentence():
    assert DEFAULTS.read_text() == explain(), "write it anew: training.explain.explain()"
    shown = yaml.safe_load(explain())
    assert load_config([DEFAULTS]) == load_config([])
    assert shown == load_config([]).to_dict()
    for section in SECTIONS.values():
        names = dict(training.explain._sentences(section))
        assert set(names) == set(section.__dataclass_fields__) and all(text.endswith(".") for text in names.values())


@pytest.mark.parametrize("architecture", ["painn", "schnet", "cgcnn", "torchmd_et"])
def test_sizes_are_those_of_the_class_and_are_stated(architecture, molecules, tmp_path):
    run = trained.prepare(load_config([], [f"data.train={molecules}", f"run.output={tmp_path / 'run'}",
                                           f"model.architecture={architecture}"]))  # fmt: skip
    learner = parts_of(run.potential)[0]
    defaults = ARCHITECTURES[architecture]().state_dict()
    assert {k: v.shape for k, v in learner.network.state_dict().items()} == {k: v.shape for k, v in defaults.items()}
    assert {"cutoff", "n_features", "n_rbf", "radial_basis"} <= set(learner.hyperparameters)


def test_an_eam_is_fitted_and_not_trained(molecules, tmp_path):
    with pytest.raises(InputError, match=r"'eam' is not trained.*asecalc eam fit"):
        trained.prepare(config(tmp_path, molecules, "model.architecture=eam"))


def test_a_prior_unless_there_is_a_core_or_none_is_wanted(molecules, tmp_path):
    result = trained.train(config(tmp_path, molecules, PRIOR, "run.max_epochs=1"))
    model = load(result.model)
    assert [part.architecture for part in parts_of(model.potential)] == ["painn", "zbl"]
    assert "ZBL" in model.card["prior"] and has_core(model.potential)
    for more in ("model.hyperparameters.direct_forces=true", "finetune.delta=zbl", "model.prior=none"):
        run = trained.prepare(config(tmp_path, molecules, PRIOR, more, output=more))
        assert not run.start.prior and has_core(run.potential) == ("zbl" in more)
    base = trained.prepare(load_config([], [f"data.train={molecules}", f"run.output={tmp_path / 'further'}",
                                            f"finetune.base={result.model}"]))  # fmt: skip
    assert len(parts_of(base.potential)) == 2


@pytest.mark.parametrize(("bond", "acts"), [(1.10, True), (1.30, False)])
def test_a_prior_that_acts_on_the_data_is_told(bond, acts, tmp_path, caplog):
    """The triple bond of N2 is shorter than the end of the core."""
    frames = [Atoms("N2", [[0, 0, 0], [0, 0, d]]) for d in np.linspace(bond - 0.02, bond + 0.02, 14)]
    for atoms in frames:
        stretch = atoms.get_distance(0, 1) - bond
        atoms.info["REF_energy"] = 70.0 * stretch**2 - 9.9
        atoms.arrays["REF_forces"] = np.outer([1.0, -1.0], [0.0, 0.0, 140.0 * stretch])
    write(tmp_path / "n2.xyz", frames, format="extxyz")
    with caplog.at_level("INFO", "asecalc_mlip"):
        start = trained.prepare(config(tmp_path, tmp_path / "n2.xyz", PRIOR, "data.n_val=4")).start
    assert ("some bonds of the data are shorter than 0.8 of the sum" in caplog.text) == acts
    found = re.fullmatch(
        r"ZBL, ends at 0\.8 of the sum of the covalent radii(; acts in 10 of 10 .*)?", start.prior_text
    )
    assert found and bool(found[1]) == acts
    assert not acts or 1e3 < start.core.largest_force_mev_per_A < 1e4


def test_no_hole_between_any_two_elements(molecules, tmp_path):
    """Far inside the shortest distances of the data, where networks say anything, atoms push each other away."""
    result = trained.train(config(tmp_path, molecules, PRIOR, "run.max_epochs=20"))
    calculator = PIWSLCalculator.load(result.model, dtype="float64")
    pairs = [("C", "C"), ("C", "H"), ("C", "O"), ("H", "O"), ("H", "H")]
    curves = [diatomic_curve(calculator, *pair, grid="full") for pair in pairs]
    assert {curve.pair: attractive_hole(curve) for curve in curves} == {curve.pair: None for curve in curves}


def test_a_base_with_a_prior_can_be_added_to_a_potential(tmp_path):
    data, eam = files(tmp_path)
    base = trained.train(tiny(tmp_path, data, PRIOR, "run.max_epochs=1", output="base")).model
    run = trained.prepare(tiny(tmp_path, data, f"finetune.base={base}", f"finetune.delta={eam}"))
    assert [part.architecture for part in parts_of(run.potential)] == ["painn", "zbl", "eam"]


@pytest.mark.parametrize(
    ("n", "batch", "epochs", "steps"),
    [
        (30, 5, 500, 6),
        (200, 5, 500, 40),
        (1000, 5, 100, 200),
        (950, 10, 210, 95),
        (100_000, 5, 20, 1000),
        (3, 5, 500, 1),
    ],
)
def test_length_by_the_number_of_frames(n, batch, epochs, steps):
    found = length.with_length(RunConfig(batch_size=batch), n)
    assert (found.max_epochs, length.steps_of(found, n)) == (epochs, steps)
    assert epochs * steps <= length.MOST_STEPS
    assert str(epochs * steps) in length.describe(found, n)


def test_a_given_length_stays():
    run = RunConfig(max_epochs=3)
    assert length.with_length(run, 10**6) is run
    assert length.with_length(RunConfig(time="2h"), 100).max_epochs is None
    # A quarter of each batch of 8 comes from elsewhere.
    assert length.steps_of(RunConfig(batch_size=8), 60, replay=0.25) == 10


@pytest.mark.parametrize(
    ("text", "seconds"), [("30min", 1800), ("2h", 7200), ("1h30min", 5400), ("90 s", 90), ("0.5d", 43200)]
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "2 hours", "min", "-2h", "0s", "2hx"])
def test_what_is_no_time(text, molecules, tmp_path):
    with pytest.raises(InputError, match="30min, 2h or 1h30min"):
        trained.prepare(config(tmp_path, molecules, f"run.time='{text}'"))


def test_time_ends_a_training_with_its_schedule(molecules, tmp_path, capsys):
    settings = ("run.max_epochs=null", "run.time=4s", "optimizer.schedule=cosine")
    result = trained.train(config(tmp_path, molecules, *settings))
    log = rows(tmp_path / "run")
    assert len(log) > 3 and float(log[-1]["lr"]) < 0.3 * float(log[1]["lr"])
    card = load(result.model).card["training"]
    assert card["time"] == "4s" and card["epochs"] == len(log)
    assert "within 4s" in capsys.readouterr().out
    trained.train(config(tmp_path, molecules, *settings))  # over is over
    assert rows(tmp_path / "run") == log
    trained.train(config(tmp_path, molecules, "run.max_epochs=2", "run.time=1h", output="short"))
    assert len(rows(tmp_path / "short")) == 2


def test_the_last_shift_takes_the_mean_error_off(molecules, tmp_path):
    results = {}
    for name in ("false", "true"):
        settings = (f"model.final_shift={name}", "run.max_epochs=8", "data.n_train=50")
        results[name] = trained.train(config(tmp_path, molecules, *settings, output=name))
    frames = [teacher.molecule_frames(60)[i] for i in Split.load(tmp_path / "true" / "split.json", 60).train]
    labels = np.array([atoms.info["energy"] for atoms in frames])
    mean = {}
    for name, result in results.items():
        energies = [found["energy"] for found in PIWSLCalculator.load(result.model).evaluate(frames)]
        mean[name] = float(np.mean(labels - energies))
    assert abs(mean["true"]) < 1e-5 < 1e-3 < abs(mean["false"])
    plain, shifted = (load(results[name].model) for name in ("false", "true"))
    assert "final_e0_shift_eV" in shifted.card and "shifted" in shifted.reference_energies["source"]
    a, b = plain.potential.network.state_dict(), shifted.potential.network.state_dict()
    assert all((a[key] == b[key]).all() for key in a)


def test_e0_of_isolated_atoms_are_not_shifted(molecules, tmp_path):
    given = (
        "model.reference_energies=given",
        "model.given={H: -13.6, C: -1027.0, O: -2041.0}",
        "model.final_shift=true",
    )
    result = trained.train(config(tmp_path, molecules, *given, "run.max_epochs=1"))
    assert load(result.model).potential.reference_energies == {1: -13.6, 6: -1027.0, 8: -2041.0}


def test_the_model_carries_how_its_data_look(molecules, tmp_path):
    result = trained.train(config(tmp_path, molecules, "run.max_epochs=1"))
    reference = reference_from_dict(load(result.model).reference)
    assert isinstance(reference, MoleculeReference) and reference.n_frames == 50
    assert reference.source == "train.xyz, 50 training frames"
    start = read(result.model.with_suffix(".xyz"))
    assert reference.matches(start) and not start.info.get("energy")


def old_settings(folder, data):
    """config.yaml of a run of version 0.1 (all settings, one that is newer than others left out)."""
    content = config(folder, data, "run.max_epochs=1").to_dict()
    content["weak"]["normalisation"] = "total"
    newer = {"model": ("prior", "final_shift"), "run": ("time",), "data": ("weights",), "far": ("weight", "structures")}
    for section, names in newer.items():
        for name in names:
            del content[section][name]
    return content


def test_settings_of_version_0_1_mean_what_they_meant(molecules, tmp_path):
    content = old_settings(tmp_path, molecules)
    del content["loss"]["forces_weight"], content["optimizer"]["lr"]
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(content))
    found = load_config([path])
    assert (found.loss.forces_weight, found.optimizer.lr, found.model.prior) == (100.0, 1e-3, "none")
    assert not found.model.final_shift
    path.write_text("run: {max_epochs: 3}\nmodel: {given: {}}\n")  # what a user writes
    assert load_config([path]).model.prior == "zbl"
    assert older.completed({"model": None}) == {"model": None}


def test_a_run_of_version_0_1_is_continued(molecules, tmp_path):
    trained.train(config(tmp_path, molecules, "run.max_epochs=1"))
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("normalisation: null", "normalisation: total"))  # its default of before
    trained.prepare(config(tmp_path, molecules, "run.max_epochs=2", "loss.energy_per_atom=false"))
    path.write_text(yaml.safe_dump(old_settings(tmp_path, molecules)))
    trained.train(load_config([path], ["run.max_epochs=2"]))
    assert len(rows(tmp_path / "run")) == 2
    with pytest.raises(InputError, match="with its own settings: asecalc train .*config.yaml"):
        trained.train(load_config([], [f"data.train={molecules}", f"run.output={tmp_path / 'run'}"]))


def test_stress_labels_that_are_not_used_are_told(tmp_path, capsys):
    path = tmp_path / "crystals.xyz"
    write(path, teacher.as_reference(teacher.crystal_frames(14)), format="extxyz")
    small = ("data.n_train=8", "data.n_val=4")
    trained.prepare(config(tmp_path, path, *small))
    told = capsys.readouterr().out
    assert "stress labels of all frames are not trained on: loss.stress_weight is 0; try loss.stress_weight=" in told
    weight = told.partition("loss.stress_weight=")[2].split()[0]
    trained.prepare(config(tmp_path, path, *small, f"loss.stress_weight={weight}", output="other"))
    assert "not trained on" not in capsys.readouterr().out


def test_a_shift_that_few_far_energies_spoil_is_left_out(tmp_path, capsys):
    frames = teacher.as_reference(teacher.molecule_frames(60))
    for atoms in frames[:4]:
        atoms.info["REF_energy"] += 100.0
    write(tmp_path / "far.xyz", frames, format="extxyz")
    e0 = ("model.reference_energies=fit", "run.max_epochs=20", "loss.energy=mae", "model.final_shift=true")
    trained.train(config(tmp_path, tmp_path / "far.xyz", *e0))
    told = capsys.readouterr()
    assert "come in two groups" in told.out + told.err
    assert "E0 stay as they are" in told.out
    assert "final_e0_shift_eV" not in load(tmp_path / "run" / "model.pt").card
