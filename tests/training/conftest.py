"""Data for training runs, which leave out the drawing."""

from contextlib import suppress
from pathlib import Path

import pytest
from ase.io import write

from asecalc_mlip import logs
from tests import teacher


@pytest.fixture(autouse=True)
def messages():
    """Shown as the commands show them, for tests that read them."""
    logs.show()
    yield
    logs.hide()


# Where trainings and searches find what draws their figures.
FIGURES = (
    "training.results.finish.parity",
    "training.results.finish.learning_curve",
    "training.tune.trials.tune_figure",
)


@pytest.fixture(autouse=True, scope="module")
def without_figures():
    """Figures are empty files: to draw them takes longer than these trainings. `figures` brings them back."""

    def empty(*_, path, **__):
        Path(path).write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        for name in FIGURES:
            with suppress(ImportError):
                patch.setattr(name, empty)
        # Those of the dynamics of a learning; tests/md looks at them.
        patch.setattr("asecalc_mlip.md.summary._figure", lambda *_: b"")
        yield


@pytest.fixture
def figures(monkeypatch):
    """Figures are drawn."""
    from asecalc_mlip.plots import training, tune

    for name in FIGURES:
        function = name.rpartition(".")[2]
        with suppress(ImportError):
            monkeypatch.setattr(name, getattr(tune if function == "tune_figure" else training, function))


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "train.xyz"
    write(path, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    return path
