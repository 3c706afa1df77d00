"""Digests of labelled structures and of the weights of a model: a run goes on with those it was begun with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.digests import digest_of, word_of
from asecalc_mlip.models import Potential
from asecalc_mlip.teachers.bare import states_of

__all__ = ["fingerprint", "structures_word", "weights_digest"]


def fingerprint(frames: Sequence[Atoms], *more: Any) -> str:
    """Return the SHA-256 of structures and labels, and of whatever else is handed over."""

    def parts() -> Iterator[bytes | str | np.ndarray]:
        yield repr(more)
        for atoms in frames:
            yield from (atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)
            for label in (atoms.info.get("energy"), atoms.arrays.get("forces"), atoms.info.get("stress")):
                yield b"-" if label is None else np.asarray(label, dtype=np.float64)

    return digest_of(parts())


def structures_word(structures: Sequence[Atoms], *more: Any) -> str:
    """Return a word for structures, their labels and electronic states, and whatever else is handed over."""
    return word_of(fingerprint(structures, *more, *states_of(structures)))


def weights_digest(potential: Potential) -> str:
    """Return the SHA-256 of weights, E0 and scale: a model file that is written again has another date, and these."""
    weights = sorted(potential.network.state_dict().items())
    values = (part for name, value in weights for part in (name, value.detach().cpu().double().numpy()))
    return digest_of([repr((sorted(potential.reference_energies.items()), potential.scale)), *values])
