"""From nothing to molecular dynamics: make data, train a model, run it.

    python examples/from_zero.py                 # everything goes to ./from_zero

Needs the extras train and xtb. TIME_HERE
ERROR_HERE
The same command continues what was interrupted.
"""

import os
import subprocess
import sys
from pathlib import Path

from ase.build import molecule

from asecalc_mlip.analysis import MoleculeReference
from training.readers import read_frames

HERE = Path(__file__).resolve().parent


def main(folder: str = "from_zero", frames: int = 200, steps: int = 5000, settings: tuple[str, ...] = ()) -> int:
    """Run the whole line in `folder`; returns the exit code of the dynamics: 0 when they were stable."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    molecule("CH3CH2OH").write(f"{folder}/ethanol.xyz")

    # 1. Labelled structures: dynamics at 500 K with GFN2-xTB, a quick quantum-chemical method.
    asecalc(folder, "data", "xtb", "ethanol.xyz", "-n", frames, "-T", 500, "-o", "ethanol_xtb.xyz")
    # What the molecule looks like in the data; the dynamics are compared with it.
    MoleculeReference.from_frames(read_frames(f"{folder}/ethanol_xtb.xyz"), "GFN2-xTB").save(f"{folder}/reference.json")

    # 2. A small PaiNN model on them.
    asecalc(folder, "train", HERE / "from_zero.yaml", *settings)

    # 3. Dynamics with the model, at the temperature of the data; a model is only asked for what it has seen.
    if Path(folder, "nvt", "restart.npz").exists():
        return asecalc(folder, "nvt", "--restart", "--output", "nvt", check=False)
    run = ["--model", "model/ethanol_xtb.pt", "--structure", "ethanol.xyz", "--reference", "reference.json"]
    return asecalc(folder, "nvt", *run, "--temperature", 500, "--steps", steps, "--output", "nvt", check=False)


def asecalc(folder: str, *arguments: object, check: bool = True) -> int:
    """Run `asecalc` in `folder` as in a shell, and show the command."""
    words = [str(argument) for argument in arguments]
    print("\n$ asecalc", *words, flush=True)
    # A checkout that is not installed is found as well.
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "asecalc_mlip.cli", *words]
    return subprocess.run(command, cwd=folder, check=check, env={**os.environ, "PYTHONPATH": paths}).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
