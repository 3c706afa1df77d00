"""SchNetPack's AtomisticTask around one of our potentials."""

from __future__ import annotations

import math
from typing import Any

import torch
from schnetpack import properties
from schnetpack.model.base import AtomisticModel
from schnetpack.task import AtomisticTask, ModelOutput
from torch import Tensor

from asecalc_mlip.errors import DataError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, predict
from training.config import LossConfig, OptimizerConfig, WeakConfig
from training.data.samples import FRAME_WEIGHT, ROWS, graph_from_batch, row_weights
from training.losses.methods import Weak, method_of
from training.losses.supervised import distance
from training.losses.weak import WeakOutput
from training.optimizer.layer_rates import parameter_groups
from training.optimizer.sam import SAM
from training.processes.malloc import keep_freed_memory
from training.processes.message import Link, Message
from training.processes.ranks import place, share, take_rows
from training.processes.sums import Sums
from training.run.callbacks import TimeBudget

__all__ = ["PotentialAdapter", "TrainingTask", "make_outputs"]


_ADVICE = "Lower optimizer.lr or optimizer.gradient_clip and start again in another run.output"


class PotentialAdapter(AtomisticModel):
    """Our potential behind SchNetPack's interface: dictionary in, dictionary out."""

    def __init__(
        self,
        potential: Potential,
        *,
        forces: bool,
        stress: bool,
        weak: Weak | None = None,
        reach: float | None = None,
    ):
        super().__init__()
        self.potential, self.weak = potential, weak
        self.forces, self.stress, self.reach = forces, stress, reach
        self.required_derivatives = ["_positions"] if forces or stress else []
        self.model_outputs = ["energy", "energy_per_atom", "forces", "stress"]

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return energy (B,), energy_per_atom (B,), forces (N, 3), stress (B, 3, 3); in training, weak residuals."""
        graph = graph_from_batch(inputs, self.reach)
        if self.weak is not None and self.training:
            out = self.weak(self.potential, graph, inputs, forces=self.forces, stress=self.stress)
        else:
            out = self._predict(graph)
        out["energy_per_atom"] = out["energy"] / graph.counts()
        return out

    def _predict(self, graph: AtomGraph) -> dict[str, Tensor]:
        result = predict(
            self.potential,
            graph.within(self.potential.cutoff) if self.weak is not None else graph,
            forces=self.forces,
            stress=self.stress,
            create_graph=self.potential.training,
        )
        named = {"energy": result.energy, "forces": result.forces, "stress": result.stress}
        return {name: value for name, value in named.items() if value is not None}


def make_outputs(loss: LossConfig, weak: Weak | None = None) -> list[ModelOutput]:
    """Make an output per label with a weight above zero and per weak loss, each with loss and weight (eV, Å).

    The weak losses have no part in validation: models are chosen by their errors alone.
    """
    energy = "energy_per_atom" if loss.energy_per_atom else "energy"
    wanted = [
        (energy, loss.energy_weight, loss.energy),
        ("forces", loss.forces_weight, loss.forces),
        ("stress", loss.stress_weight, loss.stress),
    ]
    supervised: list[ModelOutput] = [
        SupervisedOutput(
            name=name,
            loss_fn=distance(kind),
            loss_weight=weight,
            metrics={},
        )
        for name, weight, kind in wanted
        if weight > 0
    ]
    return supervised + ([] if weak is None else weak.outputs)


class SupervisedOutput(ModelOutput):
    """A label as an output of SchNetPack's task, in whose loss frames may have weights."""

    def calculate_loss(self, pred: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor | float:
        """Return the weighted loss."""
        weights, part = row_weights(target, self.name), share(pred[self.name], self.name)
        if weights is None:
            return part * super().calculate_loss(pred, target)
        return part * self.loss_weight * self.loss_fn(pred[self.name], target[self.target_property], weights)


class TrainingTask(AtomisticTask):
    """AtomisticTask whose schedule is part of its state, and which stops at a loss that is not a number.

    Lightning saves epoch-end checkpoints before it steps a plateau schedule and then skips that step on resuming, so
    the schedule is stepped here instead: a resumed run has the learning rates of one that was never interrupted.
    """

    def __init__(
        self,
        model: PotentialAdapter,
        outputs: list[ModelOutput],
        config: OptimizerConfig,
        max_epochs: int | None,
        weak: WeakConfig | None = None,
        layer_decay: float = 1.0,
        budget: TimeBudget | None = None,
        link: Link | None = None,
    ):
        arguments: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
        sharp = None if weak is None else method_of(weak).optimizer
        if weak is not None and sharp is not None:
            arguments |= sharp(weak)
        super().__init__(
            model,
            outputs,
            optimizer_cls=torch.optim.AdamW if sharp is None else SAM,
            optimizer_args=arguments,
            warmup_steps=config.warmup_steps,
        )
        self.config, self.layer_decay = config, layer_decay
        self.max_epochs = math.inf if max_epochs is None else max_epochs
        self.budget = TimeBudget(None) if budget is None else budget
        self.schedule: Any = None
        self._restored_schedule: dict[str, Any] | None = None
        self._means = Sums()
        self._link = link
        self._message: Message | None = None

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Save nothing: SchNetPack would pickle the model into every checkpoint; the settings are in config.yaml."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make AdamW, or SAM around it, with the learning rates of the layers."""
        assert self.optimizer_kwargs is not None
        groups = parameter_groups(self, self.model.potential, self.config, self.layer_decay)
        return self.optimizer_cls(groups, **self.optimizer_kwargs)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take a step, with the rates of the warm-up if it is one of its steps."""
        if self.global_step < self.warmup_steps:
            rate = self.lr * min(1.0, (self.global_step + 1) / self.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
        optimizer.step(closure=optimizer_closure)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch; the metrics of the training set are not worth their time in every step."""
        take_rows(batch.get(ROWS))  # type: ignore[arg-type]
        prediction = self.predict_without_postprocessing(batch)
        prediction, targets = self.apply_constraints(prediction, self._targets(batch))
        loss = self.loss_fn(prediction, targets)
        weak = [prediction[name].detach() for name in self._weak()]
        squares = [
            values.square().mean() * share(values, name) for values, name in zip(weak, self._weak(), strict=True)
        ]
        self._numbers, self._frames = torch.stack([loss.detach(), *squares]), batch["_idx"]
        return loss

    def on_after_backward(self) -> None:
        """Bring the processes together, and stop where the loss is not a number."""
        message = self._message
        loss, *squares = self._numbers.tolist() if message is None else message.average(self._numbers)
        if not math.isfinite(loss):
            raise DataError(self._diverged())
        self._means.add("train_loss", loss, 1)
        for name, square in zip(self._weak(), squares, strict=True):
            self._means.add(f"train_{name}_rmse", square, 1)

    def on_train_batch_end(self, *_: Any) -> None:
        """Log the means over the epoch at its last batch."""
        if self.trainer.is_last_batch:
            self.log_dict(self._means.take(self.device), on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add the supervised losses and errors of one batch."""
        torch.set_grad_enabled(self.grad_enabled)
        take_rows(None)
        prediction, targets = self.predict_without_postprocessing(batch), self._targets(batch)
        for output in self._supervised():
            name, error = output.name, prediction[output.name] - targets[output.target_property]
            rows = len(error)
            self._means.add(f"loss of {name}", output.calculate_loss(prediction, targets), rows)
            self._means.add(f"val_{name}_mae", error.abs().mean(), rows)
            self._means.add(f"val_{name}_rmse", error.square().mean(), rows)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the epoch."""
        means = self._means.take(self.device)
        loss = sum(means.pop(f"loss of {output.name}") for output in self._supervised())
        self.log_dict({"val_loss": loss, **means}, on_step=False, on_epoch=True, batch_size=1)

    def on_fit_start(self) -> None:
        """Keep the memory of a step for the next one."""
        keep_freed_memory()

    def on_train_start(self) -> None:
        """Make the schedule once the optimiser is there, in the state that was saved if there is one."""
        if place()[1] > 1:
            self._message = Message(self.parameters(), 1 + len(self._weak()), self._link)
        optimizer, config = self.trainer.optimizers[0], self.config
        if config.schedule == "plateau":
            self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=config.plateau_factor, patience=config.plateau_patience, min_lr=config.min_lr
            )
        elif config.schedule == "cosine":
            self.schedule = _Cosine(optimizer, config.lr, config.min_lr, self.max_epochs, self.budget)
        if self.schedule is not None and self._restored_schedule is not None:
            self.schedule.load_state_dict(self._restored_schedule)

    def on_train_epoch_end(self) -> None:
        """Step the schedule with the validation loss of this epoch."""
        loss = self.trainer.callback_metrics["val_loss"]
        if not torch.isfinite(loss):
            raise DataError(
                f"the validation loss is no longer a number after epoch {self.current_epoch + 1}. {_ADVICE}"
            )
        if self.schedule is not None:
            self.schedule.step(float(loss))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the schedule beside weights and optimiser."""
        checkpoint["schedule"] = None if self.schedule is None else self.schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hold the saved schedule until the optimiser exists."""
        self._restored_schedule = checkpoint["schedule"]

    def _targets(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        names = [output.target_property for output in self._supervised()]
        names += [FRAME_WEIGHT, properties.idx_m] if FRAME_WEIGHT in batch else []
        return {name: batch[name] for name in names}

    def _supervised(self) -> list[Any]:
        return [output for output in self.outputs if not isinstance(output, WeakOutput)]

    def _weak(self) -> list[str]:
        return [output.name for output in self.outputs if isinstance(output, WeakOutput)]

    def _diverged(self) -> str:
        has = "with" if place()[1] == 1 else "whose first part has"
        return (
            f"the loss is no longer a number at step {self.global_step}, in a batch {has} the frames "
            f"{self._frames.tolist()} of the data. {_ADVICE}"
        )


class _Cosine:
    """Half a cosine from `lr` to `min_lr` over `epochs` steps, or over the time of a budget where that ends sooner.

    It is a function of the epoch and the time, so it has no drift.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, lr: float, min_lr: float, epochs: float, budget: TimeBudget
    ) -> None:
        self.optimizer, self.lr, self.min_lr, self.epochs, self.epoch = optimizer, lr, min_lr, epochs, 0
        self.budget = budget

    def step(self, _metric: float) -> None:
        self.epoch += 1
        done = max(self.epoch / self.epochs, self.budget.fraction)
        fraction = torch.tensor(min(1.0, done) * torch.pi).cos().item()
        for group in self.optimizer.param_groups:
            rate = self.min_lr + 0.5 * (self.lr - self.min_lr) * (1.0 + fraction)
            group["lr"] = rate * group.get("factor", 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
