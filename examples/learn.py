"""Learn a potential from one geometry: labels by GFN2-xTB, only where they are needed.

python examples/learn.py [FOLDER]

The numbers here are small, so that it ends in a minute or two; for real work leave out all but the first four.
"""

import sys

from ase.build import molecule

from training.learn import LearnSettings, Until, learn

QUICK = {"budget": 16, "per_round": 4, "initial": 8, "members": 2, "steps_first": 200, "steps": 100, "steps_last": 300}


def main(folder: str = "learn-water", labels: str = "xtb", until: str = "2 x 0.5 ps", quick: dict | None = None) -> str:
    """Learn water at 300 K; return how it ended."""
    settings = LearnSettings(labels, temperature_K=300.0, until=Until.read(until), seed=0, **(quick or QUICK))
    result = learn(settings, [molecule("H2O")], folder, tell=print)
    print(result.describe())
    return result.status


if __name__ == "__main__":
    main(*sys.argv[1:])
