"""The mean binding energy of a run whose E0 are isolated atoms, as a part of the potential that is not trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from asecalc_mlip.additions.dimers import fit_cohesion
from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.plausibility import far_energies
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import Potential

__all__ = ["cohesion_of"]

# eV per atom; a smaller mean is learned at once.
LEAST = 0.1


def cohesion_of(
    frames: Sequence[Atoms],
    e0: Mapping[int, float],
    cutoff: float,
    *,
    counted: Sequence[Atoms] | None = None,
    least: float = LEAST,
) -> Potential | None:
    """Make the cohesion that gives frames their mean energy.

    Parameters
    ----------
    frames : sequence of Atoms
        With what is left to be learned as ``info["energy"]``, eV, E0 included.
    e0 : mapping
        Atomic number → energy of the isolated atom, eV.
    cutoff : float
        Å, of the network.
    counted : sequence of Atoms, optional
        Frames whose neighbours are counted; default: those with energies.
    least : float
        eV per atom; no cohesion for a smaller mean.

    Returns
    -------
    Potential or None
        None where no frame has an energy, the mean is small, and where the data hold atoms with so few neighbours that
        they are like those of isolated dimers.
    """
    labelled = [atoms for atoms in frames if has_label(atoms, "energy")]
    odd = set(far_energies(labelled))
    labelled = [atoms for k, atoms in enumerate(labelled) if k not in odd]
    if not labelled:
        return None
    left = np.array([a.info["energy"] - sum(e0[int(z)] for z in a.numbers) for a in labelled])
    mean = float(left.sum() / sum(map(len, labelled)))
    if abs(mean) < least:
        return None
    found = fit_cohesion(labelled, left, cutoff, counted=frames if counted is None else counted)
    if found is None:
        LOGGER.info("no cohesion: the data hold atoms with hardly a neighbour, and the network has to learn all energy")
    else:
        LOGGER.info(f"cohesion: {mean:+z.3f} eV/atom on average, none for an atom alone or with one neighbour")
    return found
