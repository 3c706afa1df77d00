"""Checks before a model is asked: known elements, no overlapping atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.quantities import shortened

__all__ = ["ElementCheck", "check_distances"]

# Å; below this distance no model has data and a division by the distance loses its digits.
CLOSEST = 0.1


class ElementCheck:
    """Refuses structures with elements that a model was not trained on.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers that the model knows.
    name : str
        Of the model, for messages.
    """

    def __init__(self, elements: Sequence[int], name: str):
        self.elements, self.name = list(elements), name
        self._known = np.zeros(len(chemical_symbols), dtype=bool)
        self._known[self.elements] = True

    def __call__(self, numbers: np.ndarray) -> None:
        """Check the atomic numbers (N,) of one structure.

        Raises
        ------
        InputError
            For an empty structure, for atomic numbers that are not whole, and for elements that do not exist or that
            the model does not know.
        """
        if len(numbers) == 0:
            raise InputError("the structure has no atoms; an energy needs at least one")
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise InputError(
                f"atomic numbers are an array of {numbers.dtype} and shape {numbers.shape}; expected one whole number "
                "per atom: atoms.numbers = atoms.numbers.astype(int)"
            )
        if numbers.min() < 0 or numbers.max() >= len(self._known):
            raise InputError(f"atomic numbers {numbers.min()} to {numbers.max()}: the elements have 1 to 118")
        known = self._known[numbers]
        if not known.all():
            if (ghosts := np.flatnonzero(numbers == 0)).size:
                raise InputError(
                    f"atoms {shortened(ghosts.tolist())} are X, which is no element: leave ghost atoms out"
                )
            unknown = sorted({chemical_symbols[z] for z in numbers[~known]})
            allowed = ", ".join(chemical_symbols[z] for z in self.elements)
            several = len(unknown) > 1
            raise InputError(
                f"{self.name} does not know the element{'s' * several} {', '.join(unknown)}; it was trained on "
                f"{allowed}. Use a model that was trained with {'them' if several else 'it'}"
            )


def check_distances(graph: AtomGraph) -> None:
    """Refuse atoms on top of each other.

    Raises
    ------
    InputError
        Naming the closest pair.
    """
    if graph.n_edges == 0:
        return
    smallest = graph.shortest()
    if not smallest >= CLOSEST:
        edge = int(graph.fixed_vectors().square().sum(-1).argmin())
        i, j = int(graph.centers[edge]), int(graph.neighbors[edge])
        raise InputError(
            f"atoms {i} and {j} are {smallest:.3f} Å apart, closer than {CLOSEST} Å: two atoms overlap, "
            "perhaps an atom given twice, a wrong cell, or scaled coordinates read as Å"
        )
