"""Runs that end as by a kill and go on, and what is the same then."""

from contextlib import contextmanager

import numpy as np
import pytest

from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.lifecycle import continue_run
from asecalc_mlip.md.run import MDRun

__all__ = ["assert_same_run", "go_on", "killed_at"]


@contextmanager
def killed_at(step):
    """The run within ends at `step` like a process that is killed: nothing is written any more."""

    class Killed(BaseException):
        pass

    advance = MDRun._advance

    def dying(self):
        if self.state.step == step:
            raise Killed
        advance(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MDRun, "_advance", dying)
        yield


def go_on(calculator, chosen, directory, **options):
    """Continue a run; its summary."""
    return continue_run(directory, calculator, **chosen.to_dict(), **options).summary


def assert_same_run(a, b):
    for name in ("trajectory.extxyz", "log.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    (first, meta_a), (second, meta_b) = RunFiles(a).load_restart(), RunFiles(b).load_restart()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for meta in (meta_a, meta_b):
        del meta["wall_s"], meta["restarts"]
    assert meta_a == meta_b
