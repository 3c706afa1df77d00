"""A method of weak supervision is its class and one row: a toy one trains, is searched, described and refused."""

import pytest

from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from tests.small_runs import config, rows

pytest.importorskip("schnetpack")
from training import train as training  # noqa: E402
from training.losses import WeakLoss, methods  # noqa: E402
from training.losses.methods import DISPLACED, METHODS, WeakMethod  # noqa: E402
from training.settings import WeakConfig  # noqa: E402


class Flat(WeakLoss):
    """Energies that do not change along d: R = E(r+d) − E(r). No physics; it needs energy labels to be refused for."""

    name = "flat"
    labels = ("energy",)
    needs = {"r": False, "r+d": False}

    def residual(self, field, graph, at, labels=None):
        return field.energy["r+d"] - field.energy["r"]


@pytest.fixture
def toy(monkeypatch):
    row = methods._one(Flat)
    monkeypatch.setitem(METHODS, "flat", row)
    return row


def test_a_toy_row_trains_and_is_on_the_card(toy, molecules, tmp_path):
    settings = ("weak.method=flat", "weak.coefficient=0.5", "data.n_train=20", "run.max_epochs=1")
    result = training.train(config(tmp_path, molecules, *settings))
    assert float(rows(tmp_path / "run")[0]["train_flat_rmse"]) > 0
    card = load(result.model).card["weak"]
    assert card["method"] == "flat" and card["coefficient"] == 0.5
    assert set(card) == {"method", "coefficient", *DISPLACED} - {"skin"}


def test_a_toy_row_is_searched_and_refused(toy, molecules, tmp_path):
    from training.tune.space import make_space

    settings = config(tmp_path, molecules, "weak.method=flat")
    assert [p.key for p in make_space([], settings)[0]] == ["weak.coefficient", "weak.epsilon"]
    with pytest.raises(InputError, match="no effect with weak.method=flat, which reads coefficient"):
        make_space(["weak.pitc=1:10"], settings)
    with pytest.raises(InputError, match="weak.method flat needs energy labels"):
        training.prepare(config(tmp_path, molecules, "weak.method=flat", "loss.energy_weight=0"))
    with pytest.raises(InputError, match="weak.method is 'flatt'; allowed: plain, .*asam, flat"):
        config(tmp_path, molecules, "weak.method=flatt")


@pytest.mark.parametrize("name", METHODS)
def test_rows_read_settings_that_exist_and_search_among_them(name):
    row = METHODS[name]
    assert isinstance(row, WeakMethod) and row.name == name
    assert set(row.reads) <= set(WeakConfig.__dataclass_fields__)
    assert {text.partition("=")[0].removeprefix("weak.") for text in row.space} <= set(row.reads)
    assert bool(row.space) == bool(row.reads)
