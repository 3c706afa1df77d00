"""Where the fit of an EAM starts: a density that is one on average, to which each exponential gives the same share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import softplus

from asecalc_mlip.models.eam import EAM, before_softplus, envelope
from training.eam.batches import FitBatch, collate

__all__ = ["scale_density"]

# Frames that the averages are taken over; more tell nothing new.
MOST = 50
# eV; the embedding starts with this curvature at the mean density, where it pulls nowhere.
EMBEDDING = 0.5


def scale_density(network: EAM, batches: Sequence[FitBatch]) -> None:
    """Set the shares of the exponentials, B and ρ0 from the distances in the data; other parameters stay.

    With equal amplitudes the slowest exponential, which reaches a hundred neighbours, would be the density alone.
    Pairs of elements that the data do not have keep what they had.
    """
    if not network.density:
        return
    batch = collate(batches[:: max(1, len(batches) // MOST)])
    n_pairs, n_exponentials = network.decay.shape
    with torch.no_grad():
        beyond = batch.distances - network.radii.to(batch.distances.dtype)[batch.pairs]
        terms = envelope(batch.distances, network.cutoff)[:, None] * torch.exp(
            -softplus(network.decay)[batch.pairs] * beyond[:, None]
        )
        sums = terms.new_zeros(n_pairs, n_exponentials).index_add(0, batch.pairs, terms)
        # Each pair counts at both of its atoms; atoms per structure that could have such a neighbour are all of them.
        means = 2.0 * sums / len(batch.species)
        share = 1.0 / (n_exponentials * max(1, int((means[:, 0] > 0).sum())))
        known = means > 0
        network.share[known] = before_softplus(share / means[known])
        network.embedding.fill_(EMBEDDING)
        network.rest.fill_(1.0)
