"""`asecalc bench`: how fast one model is on this machine, as a table, as JSON and for a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asecalc_mlip.bench import peers as others
from asecalc_mlip.bench.measure import (
    batch_row,
    compare,
    knows,
    ns_per_day,
    schnetpack_calculator,
    size_row,
    sizes,
)
from asecalc_mlip.bench.structures import NAMES, enlarged, structure
from asecalc_mlip.bench.timing import is_busy, load_now, machine
from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.units import threads_text

if TYPE_CHECKING:
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator

__all__ = ["BATCHES", "BenchReport", "bench"]

BATCHES = (1, 8, 64, 256)
_COLUMNS = f"{'structure':<16}{'atoms':>7}{'edges':>8}{'step':>10}{'list':>8}{'rest':>9}{'ns/day':>9}"
_THEIR_COLUMNS = f"{'SchNetPack':>12}{'ratio':>8}"


@dataclass
class BenchReport:
    """Numbers of a benchmark.

    Attributes
    ----------
    model, machine : dict
        What ran, and where.
    timestep_fs : float
        For which `ns_per_day` is given.
    structures, scaling, batches : dict
        Name → row; see `asecalc_mlip.bench.measure`.
    schnetpack : str
        Its version, or why it was not measured.
    peers : dict
        Structure → peer → row of `asecalc_mlip.bench.peers.race_peer`, or {"failed": why}.
    absent : str
        Which peers are not installed.
    load : float
        Of the machine before the first row; on a busy machine all times are too long.
    """

    model: dict[str, Any]
    machine: dict[str, Any]
    timestep_fs: float
    schnetpack: str = "not measured"
    structures: dict[str, dict[str, Any]] = field(default_factory=dict)
    scaling: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    peers: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    absent: str = ""
    load: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for a JSON file."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        lines = [self.head()]
        lines += [_line(name, row) for name, row in self.structures.items()]
        lines += [_peer_line(name, peer, row) for name, rows in self.peers.items() for peer, row in rows.items()]
        lines += [self.absent] if self.absent else []
        lines += [_size_line(name, row) for name, row in self.scaling.items()]
        lines += [_batch_line(name, row) for name, row in self.batches.items()]
        return "\n".join(lines)

    def head(self) -> str:
        """Tell what runs where, and name the columns."""
        compared = not self.schnetpack.startswith("not ")
        cores = self.machine.get("cores")
        busy = f"the machine is busy (load {self.load:.1f} on {cores} cores): steps take less on an idle one"
        return "\n".join(
            [
                f"{self.model['name']}: {self.model['engine']}, {self.model['dtype']}, {self.model['device']}",
                f"{self.machine['processor']}, {threads_text(self.machine['threads'])}, torch {self.machine['torch']}",
                *([busy] if is_busy(self.load, cores) else []),
                f"SchNetPack {self.schnetpack}{', SpkCalculator with the same weights' if compared else ''}",
                f"milliseconds per step, neighbour list included and apart; ns/day at {self.timestep_fs:g} fs",
                _COLUMNS + (_THEIR_COLUMNS if compared else ""),
            ]
        )


def bench(
    calculator: PIWSLCalculator,
    names: Sequence[str] = (),
    *,
    steps: int | None = None,
    timestep_fs: float = 0.5,
    scaling_to: int = 0,
    batches: Sequence[int] = (),
    peers: bool = False,
    echo: Callable[[str], None] = LOGGER.info,
) -> BenchReport:
    """Measure a model on structures, against SchNetPack where that can run it, and tell each row as it comes.

    Parameters
    ----------
    calculator : PIWSLCalculator
    names : sequence of str
        Files or names of structures; none takes all by name whose elements the model knows.
    steps : int or None
        Timed steps; None takes what five seconds allow, 3 to 100.
    timestep_fs : float
        Time step that the nanoseconds per day are for.
    scaling_to : int
        Also larger and larger copies of the first structure, up to this many atoms.
    batches : sequence of int
        Also the first structure in batches of these sizes.
    peers : bool
        Also the calculators of other packages that are installed here, most of them with random weights.
    echo : callable
        Gets each line of the table; default: the log of the package.

    Raises
    ------
    InputError
        For a structure that is unknown or has elements that the model does not know, or a time step that is not
        positive.
    """
    if not timestep_fs > 0:
        raise InputError(f"timestep is {timestep_fs} fs; it must be positive, usually 0.5 to 2")
    chosen = _chosen(calculator, names)
    theirs, told = _schnetpack(calculator)
    report = BenchReport(_model(calculator), machine(), timestep_fs, told, load=load_now())
    echo(report.head())
    for name, atoms in chosen.items():
        row = compare(calculator, theirs, atoms, steps=steps)
        row["ns_per_day"] = round(ns_per_day(row["ours_ms"], timestep_fs), 4)
        report.structures[name] = row
        echo(_line(name, row))
    if peers:
        _peers(report, calculator, chosen, steps, echo)
    name, atoms = next(iter(chosen.items()))
    if scaling_to:
        _scaling(report, calculator, name, atoms, scaling_to, echo)
    if batches:
        _batches(report, calculator, name, atoms, batches, echo)
    return report


def _peers(
    report: BenchReport,
    calculator: PIWSLCalculator,
    names: Iterable[str],
    steps: int | None,
    echo: Callable[[str], None],
) -> None:
    found = others.interpreters()
    for name in names:
        for peer, package in others.PEERS.items():
            if "python" not in found[package]:
                continue
            try:
                row = others.race_peer(calculator, peer, found[package]["python"], name, steps=steps)
            except RuntimeError as error:
                row = {"failed": str(error)}
            report.peers.setdefault(name, {})[peer] = row
            echo(_peer_line(name, peer, row))
    absent = {package: [peer for peer, of in others.PEERS.items() if of == package] for package in found}
    told = [f"{p} ({', '.join(peers)})" for p, peers in absent.items() if "python" not in found[p]]
    if told:
        report.absent = f"not installed here: {', '.join(told)}"
        echo(report.absent)


def _scaling(
    report: BenchReport, calculator: PIWSLCalculator, name: str, atoms: Atoms, largest: int, echo: Callable[[str], None]
) -> None:
    for repeats in sizes(atoms, largest):
        larger = enlarged(atoms, repeats)
        label = f"{name}, {len(larger)} atoms"
        report.scaling[label] = size_row(calculator, larger)
        echo(_size_line(label, report.scaling[label]))


def _batches(
    report: BenchReport,
    calculator: PIWSLCalculator,
    name: str,
    atoms: Atoms,
    batches: Sequence[int],
    echo: Callable[[str], None],
) -> None:
    for size in batches:
        label = f"{name}, batch of {size}"
        report.batches[label] = batch_row(calculator, atoms, size, structures=max(batches))
        echo(_batch_line(label, report.batches[label]))


def _chosen(calculator: PIWSLCalculator, names: Sequence[str]) -> dict[str, Atoms]:
    chosen = {name: structure(name) for name in names or NAMES}
    known = {name: atoms for name, atoms in chosen.items() if knows(calculator, atoms)}
    elements = ", ".join(calculator.card["elements"])
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"{missing[0]} has elements that the model does not know; it was trained on {elements}")
    if not known:
        raise InputError(f"the model knows {elements}, in none of {', '.join(NAMES)}; give --structure FILE")
    return known


def _schnetpack(calculator: PIWSLCalculator) -> tuple[Any, str]:
    try:
        theirs = schnetpack_calculator(calculator)
    except InputError as error:
        return None, f"not measured: {error}"
    from importlib.metadata import version

    return theirs, version("schnetpack")


def _model(calculator: PIWSLCalculator) -> dict[str, Any]:
    card = calculator.card
    return {
        "name": calculator.model.path.name,
        "architecture": card["architecture"],
        "hyperparameters": card["hyperparameters"],
        "cutoff": card["cutoff"],
        "engine": calculator.engine.describe(),
        "dtype": calculator.dtype,
        "device": _device(calculator.device),
        "skin": calculator.neighbors.skin,
    }


def _device(device: Any) -> str:
    """Name a device, with the GPU that it is."""
    if device.type != "cuda":
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def _line(name: str, row: dict[str, Any]) -> str:
    text = f"{name:<16}{row['atoms']:>7}{row['edges']:>8}{row['ours_ms']:>10.2f}{row['ours_list_ms']:>8.2f}"
    text += f"{row['ours_without_list_ms']:>9.2f}{row['ns_per_day']:>9.3g}"
    return text + (f"{row['schnetpack_ms']:>12.1f}{row['ratio']:>8.1f}" if "ratio" in row else "")


def _peer_line(name: str, peer: str, row: dict[str, Any]) -> str:
    text = f"{name:<16}{peer:<25}"
    if "failed" in row:
        return f"{text} {row['failed']}"
    return f"{text}{row['peer_ms']:>10.2f} ms, {row['ratio']:.1f} times ours ({row['peer']['model']})"


def _size_line(name: str, row: dict[str, Any]) -> str:
    memory = "" if row["peak_memory_GB"] is None else f", {row['peak_memory_GB']:.2f} GB"
    return f"{name:<31}{row['ours_ms']:>10.2f} ms, {row['microseconds_per_atom']:.1f} µs/atom{memory}"


def _batch_line(name: str, row: dict[str, Any]) -> str:
    return f"{name:<31}{row['molecules_per_second']:>10.1f} structures/s"
