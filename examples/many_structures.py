"""Evaluate many structures at once: batches go through the model together.

python examples/many_structures.py [MODEL] [STRUCTURE]
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from ase.io import read

from asecalc_mlip import PIWSLCalculator, zoo


def main(model: str = "aspirin.pt", structure: str | None = None, number: int = 64) -> None:
    """Shake a molecule `number` times; compare one by one with batched."""
    atoms, rng = read(structure) if structure else zoo.structure("aspirin"), np.random.default_rng(0)
    shaken = [atoms.copy() for _ in range(number)]
    for copy in shaken:
        copy.positions += 0.03 * rng.standard_normal(copy.positions.shape)
    calc = PIWSLCalculator.load(model)

    results = calc.evaluate(shaken)  # structures of unlike size and composition may be mixed
    energies = np.array([result["energy"] for result in results])
    print(f"{number} structures: energy {energies.mean():.3f} ± {energies.std():.3f} eV")
    print(f"mean |F| {np.mean([np.linalg.norm(result['forces'], axis=1).mean() for result in results]):.3f} eV/Å")

    def one_by_one() -> None:
        for copy in shaken:
            copy.calc = calc
            copy.calc.results.clear()
            copy.get_forces()

    batched, single = _shortest(lambda: calc.evaluate(shaken)), _shortest(one_by_one)
    print(f"batched {1e3 * batched / number:.2f} ms, one by one {1e3 * single / number:.2f} ms per structure")


def _shortest(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of some times, in seconds: other programs take turns on the processor."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
