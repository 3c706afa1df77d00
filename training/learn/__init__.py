"""On-the-fly learning: from a structure and a calculator to a potential that is stable; see `training.learn.loop`."""

from __future__ import annotations

from training.learn.loop import learn
from training.learn.settings import LearnSettings, Until
from training.learn.state import LearnResult

__all__ = ["LearnResult", "LearnSettings", "Until", "learn"]
