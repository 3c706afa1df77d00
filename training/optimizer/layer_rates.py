r"""Learning rates by layer: the head learns fastest, the embedding slowest (as in ULMFiT, Howard, Ruder, ACL 2018).

    lr_k = lr · decay^k,    k = 0 for the head, 1 for the last block, … , n for the first, n + 1 for the embedding

Which layer a weight belongs to follows from the order in which a network makes its modules, whatever the architecture:
the entries of its lists of modules are the blocks, what comes after the lists is the head, and what comes before them,
the embedding and weights that the blocks share, the bottom.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import Parameter

from asecalc_mlip.models import EAM, Potential
from asecalc_mlip.models.sum import Sum
from training.config import OptimizerConfig

__all__ = ["depths", "parameter_groups"]


def parameter_groups(
    task: nn.Module, potential: Potential, config: OptimizerConfig, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Return the parameters of a task for its optimiser, those of the largest rate first.

    Each group has its `lr`, and its `factor` on the rate that schedules set.

    Parameters
    ----------
    task : nn.Module
        Has the potential among its modules, and maybe heads that only training needs, which learn like the head.
    potential : Potential
    config : OptimizerConfig
    layer_decay : float
        Above 0 and at most 1.
    """
    depth = depths(potential.network) if layer_decay < 1 else {}
    physical = _physical(potential.network)
    groups: dict[tuple[int, bool], list[Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad:
            groups.setdefault((depth.get(parameter, 0), parameter in physical), []).append(parameter)
    found = []
    for (k, is_physical), parameters in sorted(groups.items(), key=lambda item: item[0]):
        factor = layer_decay**k
        group: dict[str, Any] = {"params": parameters, "lr": factor * config.lr, "factor": factor}
        # Depths and lengths of bonds have no reason to be near zero.
        found.append(group | ({"weight_decay": 0.0} if is_physical else {}))
    return found


def depths(network: nn.Module) -> dict[Parameter, int]:
    """Return how many layers each parameter of a network is below the head, 0 for the head."""
    if isinstance(network, Sum):
        return {p: k for part in network.parts for p, k in depths(part).items()}
    children = list(network.named_children())
    lists = [i for i, (_, child) in enumerate(children) if isinstance(child, nn.ModuleList)]
    if not lists:
        return dict.fromkeys(network.parameters(), 0)
    blocks = max(len(children[i][1]) for i in lists)  # type: ignore[arg-type]
    found: dict[Parameter, int] = {}
    for i, (_, child) in enumerate(children):
        if isinstance(child, nn.ModuleList):
            found |= {p: blocks - k for k, block in enumerate(child) for p in block.parameters()}
        else:
            found |= dict.fromkeys(child.parameters(), blocks + 1 if i < lists[0] else 0)
    return found


def _physical(network: nn.Module) -> set[Parameter]:
    """Return the parameters that are physical quantities: those of EAMs that a network is added to."""
    parts = list(network.parts)[1:] if isinstance(network, Sum) else []
    return {p for part in parts if isinstance(part, EAM) for p in part.parameters()}
