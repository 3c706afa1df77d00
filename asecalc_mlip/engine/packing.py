"""Weights of a network in the order and layout that the native kernels expect."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from asecalc_mlip.models import EAM, PaiNN, SchNet
from asecalc_mlip.models.eam import TAIL
from asecalc_mlip.models.painn import PaiNNMixing
from asecalc_mlip.models.radial import BesselBasis
from asecalc_mlip.models.schnet import SchNetInteraction
from asecalc_mlip.models.zbl import COULOMB, INNER, OUTER, ZBL, screening_rate

__all__ = ["LANES", "PACKERS", "Packed"]

# Numbers of a dtype in the 64 bytes that the kernels treat at once.
LANES = {torch.float32: 16, torch.float64: 8}

# Largest error of a tabulated filter's derivative, relative to its largest value. Float64, asked for to see small
# differences, would need tables of hundreds of megabytes and is left to the eager engine.
_TABLE_TOLERANCE = {torch.float32: 2e-6}
_MOST_NODES = 65_537
# Å; no structure has atoms closer than this, so the table need not be exact there.
_CLOSEST = 0.1


@dataclass(frozen=True)
class Packed:
    """A network for the kernels.

    Attributes
    ----------
    kernel : str
        First part of the names of its functions in the library.
    sizes : tuple of int
        Features, blocks, radial functions or nodes, kind of basis, width of the readout; of an EAM: elements,
        exponentials, whether it has a core.
    reals : tuple of float
        Cutoff (Å) and bias of the readout; of an EAM: share of the cutoff in which its envelope falls.
    weights : list of Tensor
        Contiguous; matrices as (in, out), each with its transpose where the backward pass needs it.
    """

    kernel: str
    sizes: tuple[int, int, int, int, int]
    reals: tuple[float, float]
    weights: list[Tensor]


def _pack_painn(network: PaiNN) -> Packed:
    basis = network.radial.basis
    tensors, width = _embedding_and_readout(network)
    filters = torch.cat([network.filters.weight, network.filters.bias[:, None]], dim=1)
    for k, (message, mixing) in enumerate(zip(network.messages, network.mixings, strict=True)):
        assert isinstance(mixing, PaiNNMixing)
        # The vectors are zero before the first block, so their third of filters and messages is not there.
        rows, start = (3 if k else 2) * network.n_features, 3 * network.n_features * k
        a1, a2 = _dense(message, 0), _dense(message, 2)
        tensors += [filters[start : start + rows].t(), *_with_bias(a1)]
        tensors += [a2.weight[:rows].t(), a2.weight[:rows], a2.bias[:rows]]
        tensors += [mixing.channels.weight.t(), mixing.channels.weight]
        tensors += [*_with_bias(_dense(mixing.context, 0)), *_with_bias(_dense(mixing.context, 2))]
    sizes = (network.n_features, len(network.mixings), basis.n_rbf + 1, int(isinstance(basis, BesselBasis)), width)
    return _packed("painn", network, sizes, tensors)


def _pack_schnet(network: SchNet) -> Packed:
    tensors, width = _embedding_and_readout(network)
    tables, nodes = _filter_tables(network)
    for table, block in zip(tables, network.interactions, strict=True):
        assert isinstance(block, SchNetInteraction)
        tensors += [table, block.in2f.weight.t(), block.in2f.weight]
        tensors += [*_with_bias(_dense(block.f2out, 0)), *_with_bias(_dense(block.f2out, 2))]
    sizes = (network.embedding.embedding_dim, len(network.interactions), nodes, 0, width)
    return _packed("schnet", network, sizes, tensors)


def _pack_eam(network: EAM) -> Packed:
    n, dtype = len(network.numbers), network.bond.dtype
    pairs = network.pairs
    z = torch.tensor(network.numbers)
    za, zb = z.repeat_interleave(n), z.repeat(n)
    columns = [softplus(network.depth)[pairs], softplus(network.stiffness)[pairs], network.bond[pairs]]
    columns.append(network.radii.to(dtype)[pairs])
    if network.zbl is not None:
        columns += _core(network.zbl, za, zb, dtype)
    constants = torch.stack(columns, dim=1)
    shares = decays = torch.zeros(0, dtype=dtype)
    embedding, count = torch.zeros(n, 2, dtype=dtype), 0
    if network.density:
        missing = -network.share.shape[1] % LANES[dtype]
        shares, decays = (pad(softplus(one), (0, missing))[pairs] for one in (network.share, network.decay))
        embedding, count = torch.stack([network.embedding, network.rest], dim=1), shares.shape[1]
    tensors = [network.species.to(dtype), pad(constants, (0, 8 - constants.shape[1])), shares, decays, embedding]
    weights = [tensor.detach().contiguous().clone() for tensor in tensors]
    return Packed("eam", (n, count, int(network.zbl is not None), 0, 0), (float(network.cutoff), TAIL), weights)


def _pack_zbl(network: ZBL) -> Packed:
    """An EAM of all elements, without bonds and density."""
    n, dtype = len(network.radii), network.radii.dtype
    z = torch.arange(n)
    core = torch.stack(_core(network, z.repeat_interleave(n), z.repeat(n), dtype), dim=1)
    nothing = torch.zeros(0, dtype=dtype)
    tensors = [z.to(dtype), pad(core, (4, 0)), nothing, nothing, torch.zeros(n, 2, dtype=dtype)]
    return Packed("eam", (n, 0, 1, 0, 0), (network.cutoff, TAIL), [tensor.contiguous() for tensor in tensors])


def _core(zbl: ZBL, za: Tensor, zb: Tensor, dtype: torch.dtype) -> list[Tensor]:
    bond = (zbl.radii[za] + zbl.radii[zb]).to(dtype)
    return [OUTER * bond, INNER * bond, COULOMB * (za * zb).to(dtype), screening_rate(za, zb, dtype)]


PACKERS: dict[tuple[type[nn.Module], torch.dtype], Callable[[Any], Packed]] = {
    (PaiNN, torch.float32): _pack_painn,
    (PaiNN, torch.float64): _pack_painn,
    (SchNet, torch.float32): _pack_schnet,
    (EAM, torch.float32): _pack_eam,
    (EAM, torch.float64): _pack_eam,
    (ZBL, torch.float32): _pack_zbl,
    (ZBL, torch.float64): _pack_zbl,
}


def _packed(kernel: str, network: Any, sizes: tuple[int, int, int, int, int], tensors: list[Tensor]) -> Packed:
    reals = (float(network.cutoff), float(_dense(network.readout, 2).bias[0].detach()))
    return Packed(kernel, sizes, reals, [tensor.detach().contiguous().clone() for tensor in tensors])


def _embedding_and_readout(network: Any) -> tuple[list[Tensor], int]:
    first, last = _dense(network.readout, 0), _dense(network.readout, 2)
    lanes = LANES[first.weight.dtype]
    missing = -first.out_features % lanes
    r1 = pad(first.weight, (0, 0, 0, missing))
    tensors = [network.embedding.weight, r1.t(), r1, pad(first.bias, (0, missing)), pad(last.weight[0], (0, missing))]
    return tensors, first.out_features + missing


def _with_bias(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    return layer.weight.t(), layer.weight, layer.bias


def _dense(layers: Any, index: int) -> nn.Linear:
    return layers[index]


def _filter_tables(network: SchNet) -> tuple[list[Tensor], int]:
    """Filters and their slopes at evenly spaced distances, (nodes, 2, F) per block, as many as the dtype asks for."""
    dtype = network.embedding.weight.dtype
    filters = [_Filter(network, k) for k in range(len(network.interactions))]
    nodes = 513
    while True:
        # Not from zero itself, where a Bessel function is 0/0.
        distances = torch.linspace(0.0, network.cutoff, nodes, dtype=torch.float64).clamp(min=1e-3)
        step = network.cutoff / (nodes - 1)
        tables = [torch.stack([values, slopes * step], dim=1) for values, slopes in (f(distances) for f in filters)]
        errors = [_slope_error(table, f, distances, step) for table, f in zip(tables, filters, strict=True)]
        if max(errors) < _TABLE_TOLERANCE[dtype] or 2 * nodes - 1 > _MOST_NODES:
            return [table.to(dtype) for table in tables], nodes
        nodes = 2 * nodes - 1


class _Filter:
    """w(d) of one block in float64, with its derivative."""

    def __init__(self, network: SchNet, block: int):
        self.network = network
        interaction = network.interactions[block]
        assert isinstance(interaction, SchNetInteraction)
        self.layers = copy.deepcopy(interaction.filter_network).double().requires_grad_(False)

    def __call__(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            distances = distances.clone().requires_grad_()
            values = self.layers(self.network.radial_basis(distances)) * self.network.envelope(distances)[:, None]
            # Σ_f c_f w_f'(d) is linear in c, so its derivative in c is w_f'(d), for all features at once.
            c = torch.ones_like(values).requires_grad_()
            (slopes,) = torch.autograd.grad(values, distances, c, create_graph=True)
            return values.detach(), torch.autograd.grad(slopes.sum(), c)[0]


def _slope_error(table: Tensor, function: _Filter, distances: Tensor, step: float) -> float:
    """Largest error of the Hermite derivative a quarter way between nodes, relative to the largest derivative.

    There it is near its largest; half-way it vanishes by symmetry.
    """
    _, exact = function(distances[:-1] + 0.25 * step)
    values, slopes = table[:, 0], table[:, 1]
    between = (1.125 * (values[1:] - values[:-1]) + 0.1875 * slopes[:-1] - 0.3125 * slopes[1:]) / step
    error = (between - exact).abs()[distances[:-1] > _CLOSEST]
    return float(error.max() / exact.abs().max().clamp(min=1e-30))
