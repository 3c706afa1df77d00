"""Whole trainings on a simulated GPU, by Lightning: results are those of the CPU, and each goes on on the other one."""

import pytest
import pytorch_lightning as pl
import torch

from asecalc_mlip.checkpoint import save
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import build_potential
from asecalc_mlip.teachers import model as teachers
from tests.simulated_gpu import OnGPU, simulated_gpu
from tests.small_runs import rows, weights
from tests.training.levels import E0, files, tiny

pytest.importorskip("schnetpack")
from pytorch_lightning.accelerators import CPUAccelerator  # noqa: E402
from pytorch_lightning.strategies import SingleDeviceStrategy  # noqa: E402

from training import train as training  # noqa: E402
from training.learn.settings import LearnSettings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be used", "ignore:vesin makes no", "ignore:no CUDA graph")
FAR = ("far.sources=[dimers]", "far.n=4", "far.dimers=4", "far.share=0.25")
STRESS, SHORT = "loss.stress_weight=1", "weak.epsilon=0.01"


class _Simulated(CPUAccelerator):
    def setup_device(self, device):
        """Take what Lightning takes for no CPU."""


@pytest.fixture
def gpu(monkeypatch):
    """Stand for Lightning's accelerator; the devices it was asked for."""
    asked, original = [], pl.Trainer.__init__

    def patched(self, *given, **options):
        if options["accelerator"] == "gpu":
            asked.append(options["devices"])
            there = SingleDeviceStrategy(device="cuda:0", accelerator=_Simulated())
            options |= {"accelerator": "auto", "devices": "auto", "strategy": there}
        original(self, *given, **options)

    monkeypatch.setattr(pl.Trainer, "__init__", patched)
    return asked


def run(folder, data, device, *options, output="run"):
    """Train on a device, and return the weights."""
    settings = tiny(folder, data, f"run.device={device}", *options, output=output)
    if device == "cpu":
        training.train(settings)
    else:
        with simulated_gpu():
            training.train(settings)
    return weights(folder / output)[1]


def close(found, right):
    """Whether weights agree; those without a gradient move by what is rounded."""
    pairs = list(zip(found, right, strict=True))
    return sum(torch.allclose(a, b, atol=1e-6) for a, b in pairs) >= len(pairs) - 3


@pytest.mark.parametrize(
    "options",
    [
        ("weak.method=piwsl", SHORT, "weak.order=antithetic", "weak.perturbation=adversarial", STRESS),
        ("far.teacher=eam.pt", *FAR, "finetune.delta=eam.pt"),
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_a_training_is_that_of_the_cpu(options, gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, _ = files(tmp_path)
    found, right = (run(tmp_path, data, at, *options, "run.max_epochs=1", output=at) for at in ("cuda", "cpu"))
    assert close(found, right) and gpu == [1]


def test_fine_tuning_with_replay_goes_on_on_the_other_device(gpu, tmp_path):
    """What one device wrote, the other one takes up: weights, optimiser, schedule, average and random numbers."""
    data, _ = files(tmp_path)
    shape = {"cutoff": 4.0, "n_features": 8, "n_interactions": 1, "n_rbf": 8}
    save(tmp_path / "base.pt", build_potential("painn", shape, reference_energies=E0), card={"name": "base"})
    replay = (f"finetune.base={tmp_path / 'base.pt'}", "finetune.replay=0.3", f"finetune.old_data={data}")
    options = (*replay, "finetune.n_old=3", "finetune.layer_decay=0.5", "weak.method=asam")
    ends = []
    for name, devices in {"there": ("cuda", "cpu"), "back": ("cpu", "cuda")}.items():
        for epochs, device in enumerate(devices, 1):
            end = run(tmp_path, data, device, *options, f"run.max_epochs={epochs}", output=name)
        ends.append(end)
        assert len(rows(tmp_path / name)) == 2
    assert close(*ends)


def test_a_gpu_by_its_number_is_the_one(gpu, tmp_path):
    """A number of devices alone would be that of the first ones."""
    data, _ = files(tmp_path)
    with simulated_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        prepared = training.prepare(tiny(tmp_path, data, "run.device=cuda:1", "run.max_epochs=1"))
        with pytest.raises(InputError, match=r"run.device is cuda:1, one GPU, but run.devices is 2; take cuda"):
            training.prepare(tiny(tmp_path, data, "run.device=cuda:1", "run.devices=2"))
        training.fit(prepared)
    assert gpu == [[1]]  # and not 1, which is the first one


def test_the_teachers_of_a_training_on_the_cpu_are_there_too(gpu, tmp_path, monkeypatch):
    data, eam = files(tmp_path)
    loaded, load = [], teachers.load_calculator
    monkeypatch.setattr(teachers, "load_calculator", lambda *given, **o: loaded.append(load(*given, **o)) or loaded[-1])
    hot = (f"pretrain.teacher={eam}", "pretrain.rounds=1", f"far.teacher={eam}", *FAR)
    with simulated_gpu():
        training.prepare(tiny(tmp_path, data, "run.device=cpu", *hot))
    assert len(loaded) == 2 and not any(isinstance(one.potential.e0, OnGPU) for one in loaded)
    assert LearnSettings(labels="xtb", training=("run.device=cpu",)).device == "cpu"
    assert LearnSettings(labels="xtb").device == "auto"
