"""The device by its name, in one place; what is not measured is said once."""

import logging

import pytest
import torch

from asecalc_mlip.engine import device
from asecalc_mlip.engine.device import checked_device
from asecalc_mlip.errors import InputError


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    device._say_not_measured.cache_clear()
    yield
    device._say_not_measured.cache_clear()


def test_auto_says_once_that_a_gpu_is_not_measured(with_gpu, caplog):
    with caplog.at_level(logging.INFO, logger="asecalc_mlip"):
        assert checked_device("cpu").type == "cpu"
        assert checked_device("cuda").type == checked_device("cuda:0").type == "cuda"
        assert caplog.messages == []
        assert checked_device("auto").type == checked_device("auto").type == "cuda"
    assert len(caplog.messages) == 1 and "measured" in caplog.messages[0] and "device='cpu'" in caplog.messages[0]


def test_auto_without_a_gpu_says_nothing(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, logger="asecalc_mlip"):
        assert checked_device("auto").type == "cpu"
    assert caplog.messages == []
    with pytest.raises(InputError, match="'cuda': torch sees no GPU here"):
        checked_device("cuda")


@pytest.mark.parametrize(
    ("name", "message"), [("tpu", "allowed: auto, cpu, cuda"), ("cuda:7", r"sees 1 GPU\(s\)"), ("mps", "unknown")]
)
def test_what_is_no_device(with_gpu, name, message):
    with pytest.raises(InputError, match=message):
        checked_device(name)
