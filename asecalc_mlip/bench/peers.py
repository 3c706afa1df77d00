"""Calculators of other packages: which there are, where they are installed, and the race of one against ours.

A peer is looked for in the interpreter that runs, unless another is named for it, as `--python PEER=PATH` of the
benchmarks does: their requirements (e3nn 0.4 here, 0.6 there) do not go into one environment. Either way a worker
(peer_worker.py) times the peer in a process of its own and ours is timed here, in turns of a few steps.

    python -m venv /tmp/venv-mace && /tmp/venv-mace/bin/pip install torch==2.13.0 mace-torch==0.3.16
    … chgnet==0.4.2
    … sevenn==0.13.0
    … torch_geometric lightning warp-lang h5py "setuptools>=77" setuptools_scm, then:
      pip install --no-build-isolation --no-deps torchmd-net==3.1.0
    … matgl==4.1.2
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asecalc_mlip.bench.measure import n_edges, our_walk
from asecalc_mlip.bench.structures import structure
from asecalc_mlip.bench.timing import Times, race
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import parts_of

if TYPE_CHECKING:
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator

__all__ = ["PEERS", "Worker", "interpreters", "race_peer"]

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("peer_worker.py")

# name of a row → package whose interpreter it runs in; the models are in peer_worker.py
PEERS = {
    "MACE 64x0e": "mace",
    "MACE 128x1o": "mace",
    "TorchMD-NET ET": "torchmdnet",
    "TorchMD-NET TensorNet": "torchmdnet",
    "matgl TensorNet": "matgl",
    "matgl M3GNet": "matgl",
    "CHGNet 0.3.0": "chgnet",
    "SevenNet-0": "sevenn",
}


def race_peer(
    ours: PIWSLCalculator, peer: str, python: str, system: str, *, steps: int | None = None, seconds: float = 5.0
) -> dict[str, Any]:
    """Measure milliseconds per step of a peer and of ours in turns.

    Parameters
    ----------
    ours : PIWSLCalculator
    peer, python : str
        One of `PEERS`, and the interpreter that has it.
    system : str
        Name or file of a structure.
    steps, seconds
        As for `asecalc_mlip.bench.timing.race`.

    Returns
    -------
    dict
        `peer_ms`, `ours_ms`, `ratio`, `atoms`, `edges`, and what both sides say of themselves.

    Raises
    ------
    RuntimeError
        When the peer fails.
    """
    import torch

    atoms = structure(system)
    worker = Worker(python, peer, system, torch.get_num_threads())
    try:
        times = race({"peer": worker, "ours": our_walk(ours, atoms)}, steps=steps, seconds=seconds)
    finally:
        worker.close()
    row = {key: value for name, taken in times.items() for key, value in taken.to_dict(f"{name}_").items()}
    return {
        **row,
        "ratio": round(row["peer_ms"] / row["ours_ms"], 2),
        "atoms": len(atoms),
        "edges": n_edges(atoms, ours.card["cutoff"]),
        "engine": ours.engine.describe(),
        "ours": _ours(ours),
        "peer": {**worker.info, "edges": n_edges(atoms, worker.info["cutoff"])},
    }


class Worker:
    """A peer on its walk in another process; called like a `Walk`.

    Raises
    ------
    RuntimeError
        When the process ends, with the last line that it wrote.
    """

    def __init__(self, python: str, peer: str, system: str, threads: int):
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        command, pipe = [python, str(WORKER), peer, system], subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        self.info: dict[str, Any] = self._answer()

    def __call__(self, steps: int) -> Times:
        """Let it go on for some steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return Times(**self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            told = self._process.stderr.read().strip().splitlines() or ["nothing"]
            code = self._process.wait()
            raise RuntimeError(f"the process ended with code {code} and said: {told[-1][:300]}")
        return json.loads(line)


def _ours(calculator: PIWSLCalculator) -> dict[str, Any]:
    first = parts_of(calculator.potential)[0]
    sizes = {k: v for k, v in first.hyperparameters.items() if k in ("n_features", "n_interactions")}
    return {
        "model": f"{calculator.model.path.name}, {first.architecture}, {sizes}",
        "parameters": sum(p.numel() for p in calculator.potential.parameters()),
        "cutoff": calculator.potential.cutoff,
    }


def interpreters(pythons: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Find the interpreter of each package: {"python": interpreter}, or {"not_installed": why}.

    Parameters
    ----------
    pythons : sequence of str
        PACKAGE=INTERPRETER for those that are not in this environment.

    Raises
    ------
    InputError
        For a package that no peer is in.
    """
    given = dict(entry.partition("=")[::2] for entry in pythons)
    packages = list(dict.fromkeys(PEERS.values()))
    unknown = sorted(set(given) - set(packages))
    if unknown:
        raise InputError(f"no peer is in the package {unknown[0]!r}; the packages are {', '.join(packages)}")
    return {package: _interpreter(package, given.get(package)) for package in packages}


def _interpreter(package: str, python: str | None) -> dict[str, str]:
    if python is None:
        if importlib.util.find_spec(package) is not None:
            return {"python": sys.executable}
        return {"not_installed": f"no {package} here; name an interpreter that has it: --python {package}=PATH"}
    try:
        command = [python, "-c", f"import importlib.util as u; assert u.find_spec({package!r})"]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return {"not_installed": f"{python} has no {package}"}
    return {"python": python}
