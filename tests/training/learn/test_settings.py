"""Settings of a learning, and what its members and dynamics make of them."""

import pytest

from asecalc_mlip.checkpoint import save
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import add_potentials, build_potential
from training.learn.committee import (
    configured,
    member_config,
)
from training.learn.settings import LearnSettings, Until
from training.learn.state import Folder


@pytest.mark.parametrize(
    ("text", "replicas", "ps"),
    [("8 x 50 ps", 8, 50.0), ("4x5ps", 4, 5.0), (" 2 × 0.5 ns", 2, 500.0), ("1*20 fs", 1, 0.02)],
)
def test_until_is_read(text, replicas, ps):
    assert Until.read(text) == Until(replicas, pytest.approx(ps))


@pytest.mark.parametrize(
    "text", ["", "8 x 50", "x 50 ps", "0 x 5 ps", "8 x 0 ps", "8 x -5 ps", "1e3 x 5 ps", "8 x inf ps"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="8 x 50 ps"):
        Until.read(text)


def test_settings_that_the_loop_sets_itself_are_refused():
    with pytest.raises(InputError, match="run.output.*leave it out"):
        LearnSettings("xtb", training=("run.output=elsewhere",))
    with pytest.raises(InputError, match="--members is 1"):
        LearnSettings("xtb", members=1)
    with pytest.raises(InputError, match="ramp"):
        LearnSettings("xtb", pressure_GPa=0.0, temperature_end_K=900.0)


@pytest.mark.parametrize(
    ("given", "architecture", "size"),
    [
        ((), "tensornet", {"n_features": 32, "n_interactions": 2}),
        (("model.architecture=painn",), "painn", {"n_features": 32, "n_interactions": 2}),
        (("model.hyperparameters.n_features=8",), "tensornet", {"n_features": 8, "n_interactions": 2}),
        (("model.architecture=schnet",), "schnet", {}),
    ],
)
def test_members_are_small_tensornets_unless_the_user_names_others(given, architecture, size, tmp_path):
    folder, settings = Folder(tmp_path), LearnSettings("xtb", training=given)
    folder.path.mkdir(exist_ok=True)
    first = member_config(folder, folder.round(0), settings, 0, "GFN2-xTB")
    assert (first.model.architecture, dict(first.model.hyperparameters)) == (architecture, size)
    final = configured({"data.train": "data.xyz"}, settings)
    assert final.model.architecture == architecture
    assert "n_interactions" not in final.model.hyperparameters


def test_a_model_to_start_from_is_added_to_the_potential_that_the_user_names(tmp_path):
    energies, folder = {1: 0.0, 8: 0.0}, Folder(tmp_path)
    network = build_potential("tensornet", {"n_features": 8, "n_interactions": 1}, reference_energies=energies)
    fitted = build_potential("eam", {"elements": [1, 8]}, reference_energies=energies)
    save(tmp_path / "alone.pt", network)
    save(tmp_path / "added.pt", add_potentials([network, fitted], reference_energies=energies))
    for name, number, delta in (("alone.pt", 0, "zbl"), ("added.pt", 0, None), ("alone.pt", 1, None)):
        settings = LearnSettings("xtb", model=str(tmp_path / name), training=("finetune.delta=zbl",))
        assert member_config(folder, folder.round(number), settings, 0, "x").finetune.delta == delta


@pytest.mark.parametrize(
    ("given", "ensemble", "together"),
    [({}, "nvt", True), ({"pressure_GPa": 1.0}, "npt", False), ({"temperature_end_K": 900.0}, "anneal", False)],
)
def test_conditions_are_those_of_the_dynamics(given, ensemble, together):
    settings = LearnSettings("xtb", temperature_K=321.0, until=Until(2, 1.0), timestep_fs=0.5, interval=30, **given)
    dynamics = settings.dynamics("m.pt", 7)
    assert (dynamics.ensemble, dynamics.temperature_K, dynamics.seed, settings.together) == (
        ensemble,
        321.0,
        7,
        together,
    )
    assert dynamics.steps == 2010 and dynamics.steps % settings.interval == 0  # 1 ps, up to whole intervals
