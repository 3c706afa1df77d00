"""Runs leave out the drawing."""

import pytest


@pytest.fixture(autouse=True)
def without_figure(request):
    """The figure of a run is an empty file: to draw it takes longer than these runs. `figure` brings it back."""
    if "figure" in request.fixturenames:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asecalc_mlip.md.summary._figure", lambda *arguments: b"")
        yield


@pytest.fixture
def figure():
    """The figure is drawn."""
