"""From nothing to molecular dynamics: make data, train a model, run it.

    python examples/from_zero.py                 # everything goes to ./from_zero

About two minutes on one core: 15 s for 200 frames, 70 s of training, 20 s for 2.5 ps at 500 K. Expect errors of about
25 meV/Å in forces and 3 meV in energies on frames that were held back, and a molecule that stays whole. Needs the
extras train and xtb. The same command continues what was interrupted.
"""

import subprocess
import sys
from pathlib import Path

from ase.build import molecule

HERE = Path(__file__).resolve().parent


def main(folder: str = "from_zero", frames: int = 200, steps: int = 5000, settings: tuple[str, ...] = ()) -> int:
    """Run the whole line in `folder`; returns the exit code of the dynamics: 0 when they were stable."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    molecule("CH3CH2OH").write(f"{folder}/ethanol.xyz")

    # 1. Labelled structures: dynamics at 500 K with GFN2-xTB, a quick quantum-chemical method.
    asecalc(folder, "data", "xtb", "ethanol.xyz", "-n", frames, "-T", 500, "-o", "ethanol_xtb.xyz")

    # 2. A small TensorNet on them. Its file says what the molecule looks like in the data: dynamics are judged by it.
    asecalc(folder, "train", HERE / "from_zero.yaml", *settings)

    # 3. Dynamics with the model, at the temperature of the data; a model is only asked for what it has seen.
    run = ["model/ethanol_xtb.pt", "ethanol.xyz", "--temperature", 500, "--steps", steps, "--seed", 0]
    return asecalc(folder, "nvt", *run, "--output", "nvt", check=False)


def asecalc(folder: str, *arguments: object, check: bool = True) -> int:
    """Run `asecalc` in `folder` as in a shell, and show the command."""
    words = [str(argument) for argument in arguments]
    print("\n$ asecalc", *words, flush=True)
    return subprocess.run([sys.executable, "-m", "asecalc_mlip.cli", *words], cwd=folder, check=check).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
