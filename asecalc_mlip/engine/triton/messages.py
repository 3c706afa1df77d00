"""The kernels of messages in autograd: one operation forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.triton import convolve
from asecalc_mlip.engine.triton.edges import Edges
from asecalc_mlip.kernels.triton.blocks import Blocks

__all__ = ["painn_messages", "schnet_messages"]


def schnet_messages(edges: Edges, table: Tensor, x: Tensor, senders: Tensor, blocks: Blocks) -> Tensor:
    """Sum what neighbours send, y_i = Σ_j w(d_ij) x_j.

    Parameters
    ----------
    edges : Edges
    table : (rows, 2, F)
    x : (S, F)
        A row for each sender: atoms, or where it takes no gradient anything else.
    senders : (E,) int32
        Row of x of each edge; the neighbours where x takes a gradient.
    blocks : Blocks

    Returns
    -------
    (N, F)
    """
    made = _Messages.apply(edges, table, senders, blocks, edges.distances, edges.directions, x, None, None)
    return made[0]


def painn_messages(
    edges: Edges, table: Tensor, x: Tensor, senders: Tensor, q: Tensor, mu: Tensor | None, blocks: Blocks
) -> tuple[Tensor, Tensor]:
    """Return q_i + Σ_j (x_j w)₁ and μ_i + Σ_j (x_j w)₂ u_ij + (x_j w)₃ μ_j.

    Parameters
    ----------
    edges : Edges
    table : (rows, 2, 3F), where μ is None (rows, 2, 2F)
    x : (S, 3F) or (S, 2F)
    senders : (E,) int32
        As for `schnet_messages`.
    q : (N, F)
    mu : (N, 3, F) or None
    blocks : Blocks

    Returns
    -------
    (N, F), (N, 3, F)
    """
    made = _Messages.apply(edges, table, senders, blocks, edges.distances, edges.directions, x, q, mu)
    return made[0], made[1]


class _Messages(Function):
    @staticmethod
    def forward(
        ctx: Any,
        edges: Edges,
        table: Tensor,
        senders: Tensor,
        blocks: Blocks,
        distances: Tensor,
        directions: Tensor,
        x: Tensor,
        q: Tensor | None,
        mu: Tensor | None,
    ) -> tuple[Tensor, ...]:
        # Linear layers under autocast give fewer digits.
        x = x.to(table.dtype).contiguous()
        q, mu = (None if t is None else t.to(table.dtype).contiguous() for t in (q, mu))
        parts = 1 if q is None else 2 if mu is None else 3
        width, n = table.shape[-1] // parts, edges.n_atoms
        out_q = x.new_empty(n, width)
        out_m = x.new_empty(n, 3, width) if parts > 1 else out_q
        place = (edges.rows, senders, edges.place, edges.fraction, directions)
        convolve.convolve[blocks.grid(n, width)](
            *place, table, x, out_q if q is None else q, out_m if mu is None else mu, out_q, out_m,
            edges.n_edges, width, PARTS=parts, BASE=q is not None, **blocks.options(),
        )  # fmt: skip
        ctx.save_for_backward(table, senders, distances, directions, x, mu)
        ctx.rest = edges, blocks, parts, width
        return (out_q,) if parts == 1 else (out_q, out_m)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gq: Tensor, gm: Tensor | None = None) -> tuple[Tensor | None, ...]:
        table, senders, _, directions, x, mu = ctx.saved_tensors
        edges, blocks, parts, width = ctx.rest
        gq = gq.contiguous()
        gm = gq if gm is None else gm.contiguous()
        grid = blocks.grid(edges.n_atoms, width)
        by_edge = x.new_empty(grid[1], 1 if parts == 1 else 4, edges.n_edges)
        place = (edges.rows, senders, edges.place, edges.fraction, edges.stretch, directions)
        gx = gmu = None
        if ctx.needs_input_grad[6]:
            gx = torch.empty_like(x)
            gmu = None if mu is None else torch.empty_like(mu)
            convolve.convolve_backward[grid](
                *place, table, x, x if mu is None else mu, gq, gm, gx, gx if gmu is None else gmu, by_edge,
                edges.n_edges, width, PARTS=parts, **blocks.options(),
            )  # fmt: skip
        else:
            convolve.convolve_edges[grid](
                *place, table, x, gq, gm, by_edge, edges.n_edges, width, PARTS=parts, **blocks.options()
            )
        found = by_edge[0] if grid[1] == 1 else by_edge.sum(0)
        by_direction = found[1:] if parts > 1 else None
        return None, None, None, None, found[0], by_direction, gx, gq if parts > 1 else None, gmu
