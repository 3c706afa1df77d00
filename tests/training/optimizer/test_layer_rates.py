"""Learning rates by layer, for every architecture."""

import pytest
import torch

from tests.cases import PHYSICAL, make_potential

pytest.importorskip("schnetpack")
from training.config import OptimizerConfig  # noqa: E402
from training.optimizer.layer_rates import depths, parameter_groups  # noqa: E402


@pytest.mark.parametrize("architecture", PHYSICAL)
def test_the_head_learns_fastest_and_the_embedding_slowest(architecture):
    potential = make_potential(architecture, trainable=True)
    names = dict(potential.network.named_parameters())
    found = depths(potential.network)
    assert set(found) == set(names.values())
    if architecture == "eam":
        assert set(found.values()) == {0}
        return
    depth = {name: found[p] for name, p in names.items()}
    assert all(k == 0 for name, k in depth.items() if "readout" in name)
    assert all(k == max(depth.values()) for name, k in depth.items() if name.endswith("embedding.weight"))
    blocks = {"torchmd_et": 3, "equiformer_v2": 1}.get(architecture, 2)
    assert set(depth.values()) == set(range(blocks + 2))
    groups = parameter_groups(potential, potential, OptimizerConfig(lr=0.1), 0.5)
    assert sorted({g["lr"] for g in groups}, reverse=True) == [0.1 * 0.5**k for k in range(blocks + 2)]
    assert groups[0]["factor"] == 1.0
    assert sum(len(g["params"]) for g in groups) == len(names)


def test_one_group_without_decay_and_none_for_what_is_frozen():
    potential = make_potential("sum", trainable=True)
    (network, physical) = parameter_groups(potential, potential, OptimizerConfig())
    assert physical["weight_decay"] == 0.0 and "weight_decay" not in network
    assert len(physical["params"]) == len(list(potential.network.parts[1].parameters()))
    potential.network.parts[1].requires_grad_(False)
    (alone,) = parameter_groups(potential, potential, OptimizerConfig(), 1.0)
    assert len(alone["params"]) == len(list(potential.network.parts[0].parameters()))


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_schedules_and_warm_up_keep_the_ratios(schedule, tmp_path):
    import pytorch_lightning as pl

    from tests.training.levels import files, tiny
    from training import train

    class Watch(pl.Callback):
        rates = []

        def on_train_batch_end(self, trainer, *_):
            self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    data, _ = files(tmp_path)
    watch, settings = Watch(), (f"optimizer.schedule={schedule}", "finetune.layer_decay=0.5", "optimizer.min_lr=0")
    train.fit(train.prepare(tiny(tmp_path, data, *settings, "run.max_epochs=3")), [watch])
    rates = torch.tensor(watch.rates)
    assert rates.shape[1] == 3 and rates[0, 0] < rates[2, 0]
    assert torch.allclose(rates[:, 1:], 0.5 * rates[:, :-1])
