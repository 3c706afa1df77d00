"""Attacks by structures: energy, forces and stress obey the physics, or an InputError says why not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.geometry import wrap_positions

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import predict
from tests.attack.harness import Arena, Attack, family
from tests.attack.model_files import known, originals

# Energies agree to this share of the largest force times 1 Å, forces to this share of it.
TOLERANCE = 1e-6


@cache
def calculator(path: Path, compile: str = "auto") -> PIWSLCalculator:
    """Return the calculator of a model in float64, native where there is a kernel."""
    return PIWSLCalculator(known(path), device="cpu", dtype="float64", compile=compile)  # type: ignore[arg-type]


@cache
def models() -> tuple[Path, ...]:
    """Small models of all architectures, and of the shipped ones a TensorNet, a PaiNN and those of a crystal."""
    return tuple(
        path for path in originals() if path.stem.partition("_")[0] not in ("aspirin", "malonaldehyde", "toluene")
    )


def warm() -> None:
    """Load them, and use them once."""
    for path in models():
        pair = Atoms([known(path).potential.elements[0]] * 2, [[0, 0, 0], [0, 0, 2]], cell=[4, 4, 4], pbc=True)
        for name in ("auto", "eager"):
            calculator(path, name).evaluate([pair])


@family("structures: invariances", small=60, large=90_000, warm=warm, together=200)
def invariances(arena: Arena) -> Attack:
    path, atoms = _case(arena)
    how = arena.choice(CHANGES)
    return f"{path.stem}, {_text(atoms)}: {how}", lambda: CHANGES[how](calculator(path), atoms, arena)


@family("structures: native, eager and brute force", small=25, large=8000, warm=warm, together=200)
def implementations(arena: Arena) -> Attack:
    path, atoms = _case(arena)

    def attempt() -> bool | str:
        found, eager = (calculator(path, name).evaluate([atoms])[0] for name in ("auto", "eager"))
        graph = brute_force(atoms, known(path).potential.cutoff)
        exact = predict(calculator(path, "eager").potential, graph, forces=True)
        assert exact.forces is not None
        brute = {"energy": float(exact.energy), "forces": exact.forces.numpy()}
        one, other = found.get("stress"), eager.get("stress")
        if one is not None and not np.allclose(one, other, rtol=1e-6, atol=1e-6 * (1 + np.abs(other).max())):
            return "stress of native and eager differ"
        found_equal = _equal(found, eager, "native and eager")
        return found_equal if found_equal is not True else _equal(found, brute, "brute force")

    return f"{path.stem}, {_text(atoms)}", attempt


@family("structures: odd arrays", small=25, large=2000, warm=warm, together=50)
def odd_arrays(arena: Arena) -> Attack:
    path, atoms = _case(arena)
    how = arena.choice(ODD)
    changed = ODD[how](atoms, arena)
    atoms = changed if isinstance(changed, Atoms) else atoms
    several = arena.rng.random() < 0.5

    def attempt() -> bool | str:
        calc = calculator(path)
        if several:
            found = calc.evaluate([atoms])[0]
        else:
            atoms.calc = calc
            found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        finite = np.isfinite(found["energy"]) and np.isfinite(found["forces"]).all()
        return True if finite else f"gives {found['energy']} eV"

    return f"{path.stem}: {how}", attempt


def brute_force(atoms: Atoms, cutoff: float) -> AtomGraph:
    """Graph with every pair within the cutoff, by looking at all images that can be within."""
    cell, n = atoms.cell.complete().array, len(atoms)
    positions = wrap_positions(atoms.positions, cell, pbc=atoms.pbc) if atoms.pbc.any() else atoms.positions
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = [int(np.ceil(cutoff / h)) + 1 if p else 0 for h, p in zip(heights, atoms.pbc, strict=True)]
    if np.prod([2 * r + 1 for r in reach]) * n * n > 2e7:
        raise InputError("too many images to look at")
    grid = np.array(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij")).reshape(3, -1).T
    edges = []
    for i in range(n):
        d = positions[None] + (grid @ cell)[:, None] - positions[i]
        image, j = np.nonzero((d**2).sum(-1) < cutoff**2)
        edges += [(i, b, *grid[a]) for a, b in zip(image, j, strict=True) if b != i or grid[a].any()]
    table = np.array(edges, dtype=np.int64).reshape(-1, 5)
    return AtomGraph(
        numbers=torch.as_tensor(np.asarray(atoms.numbers, dtype=np.int64)),
        positions=torch.as_tensor(positions, dtype=torch.float64),
        batch=torch.zeros(n, dtype=torch.int64),
        centers=torch.as_tensor(table[:, 0].copy()),
        neighbors=torch.as_tensor(table[:, 1].copy()),
        cell=torch.as_tensor(cell, dtype=torch.float64)[None],
        shifts=torch.as_tensor(table[:, 2:].astype(float)),
    )


def _case(arena: Arena) -> tuple[Path, Atoms]:
    path = arena.choice(models())
    return path, _structure(arena, known(path).potential.elements)


def _structure(arena: Arena, elements: list[int]) -> Atoms:
    """Atoms at random, but no two on top of each other; cells of all shapes, also far below the cutoff."""
    rng = arena.rng
    n = int(rng.choice([1, 2, 3, 5, 8, 12]))
    pbc = rng.random(3) < rng.choice([0.0, 0.5, 1.0])
    cell = rng.uniform(-1, 1, (3, 3)) + rng.choice([0.5, 3.0]) * np.eye(3)
    cell *= (n * rng.uniform(8, 40) / max(abs(np.linalg.det(cell)), 1e-3)) ** (1 / 3)
    positions = rng.random((n, 3)) @ cell
    for _ in range(30):  # push apart what is too close, also across the boundary
        d = positions[:, None] - positions[None]
        shifts = np.linalg.solve(cell.T, d.reshape(-1, 3).T).T.round().reshape(d.shape) * pbc
        d -= shifts @ cell
        r = np.linalg.norm(d, axis=-1) + 10 * np.eye(n)
        if r.min() > 0.9:
            break
        positions += 0.3 * (d / r[..., None] * np.clip(1.1 - r, 0, None)[..., None]).sum(1)
    if rng.random() < 0.2:
        positions += rng.normal(size=3) * 10 ** rng.uniform(0, 5)
    if rng.random() < 0.2:
        positions += rng.integers(-50, 50, (n, 3)) * pbc @ cell
    cell[~pbc] *= rng.choice([0.0, 1.0])
    return Atoms(rng.choice(elements, n), positions, cell=cell, pbc=pbc)


def _text(atoms: Atoms) -> str:
    return f"{len(atoms)} atoms, pbc {atoms.pbc.astype(int).tolist()}, volume {atoms.cell.volume:.3g}"


def _results(calc: PIWSLCalculator, atoms: Atoms) -> dict[str, Any]:
    return calc.evaluate([atoms])[0]


def _agree(calc: PIWSLCalculator, atoms: Atoms, expected: dict, what: str) -> bool | str:
    """Whether the results for these atoms are the expected ones, as far as the digits of their positions go."""
    found = _results(calc, atoms)
    if _equal(found, expected, what) is True:
        return True
    # Far from the origin positions have few digits, and where atoms are crowded forces change by a lot with the last.
    shaken, last = atoms.copy(), np.spacing(np.abs(atoms.positions).max())
    shaken.positions += last * np.random.default_rng(0).choice([-1, 1], atoms.positions.shape)
    again = _results(calc, shaken)
    noise = max(np.abs(again["forces"] - found["forces"]).max(), abs(again["energy"] - found["energy"]))
    return _equal(found, expected, what, noise)


def _equal(found: dict, expected: dict, what: str, noise: float = 0.0) -> bool | str:
    size = TOLERANCE * (1.0 + np.abs(expected["forces"]).max(initial=0.0)) + 10 * noise
    error = np.abs(found["forces"] - expected["forces"]).max(initial=0.0)
    if not error <= size:
        return f"{what}: forces differ by {error:.3g} eV/Å of {np.abs(expected['forces']).max(initial=0.0):.3g}"
    if not abs(found["energy"] - expected["energy"]) <= size * max(1.0, abs(expected["energy"]) / 1e4):
        return f"{what}: energies {found['energy']!r} and {expected['energy']!r}"
    return True


def _translated(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    before, moved = _results(calc, atoms), atoms.copy()
    moved.positions += arena.rng.normal(size=3) * 10 ** arena.rng.uniform(0, 4)
    return _agree(calc, moved, before, "translation")


def _rotated(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    q, r = np.linalg.qr(arena.rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))  # all of O(3): every second one turns over
    before, turned = _results(calc, atoms), atoms.copy()
    turned.set_cell(atoms.cell.array @ q)
    turned.positions = atoms.positions @ q
    return _agree(calc, turned, {**before, "forces": before["forces"] @ q}, "rotation")


def _permuted(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    order = arena.rng.permutation(len(atoms))
    before = _results(calc, atoms)
    return _agree(calc, atoms[order], {**before, "forces": before["forces"][order]}, "permutation")


def _repeated(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    numbers = [int(arena.rng.integers(1, 4)) if periodic else 1 for periodic in atoms.pbc]
    before, count = _results(calc, atoms), int(np.prod(numbers))
    expected = {"energy": count * before["energy"], "forces": np.tile(before["forces"], (count, 1))}
    return _agree(calc, atoms.repeat(numbers), expected, f"supercell {numbers}")


def _other_lattice(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    """Other lattice vectors of the same lattice, and atoms moved by whole ones."""
    matrix, axes = np.eye(3), np.flatnonzero(atoms.pbc)
    if len(axes) > 1:
        for _ in range(int(arena.rng.integers(1, 3))):
            i, j = arena.rng.choice(axes, 2, replace=False)
            matrix[i] += arena.choice([-1, 1]) * matrix[j]
    before, other = _results(calc, atoms), atoms.copy()
    other.set_cell(matrix @ atoms.cell.array)
    other.positions += (arena.rng.integers(-3, 4, (len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    return _agree(calc, other, before, "other lattice vectors")


def _two_copies(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    """Two copies far from each other, along a direction that is not periodic."""
    free = np.flatnonzero(~atoms.pbc)
    if not len(free):
        return _permuted(calc, atoms, arena)
    cell = atoms.cell.complete().array
    normal = np.cross(*[cell[k] for k in range(3) if k != free[0]])
    before, copy = _results(calc, atoms), atoms.copy()
    copy.positions += 500.0 * normal / np.linalg.norm(normal)
    expected = {"energy": 2 * before["energy"], "forces": np.tile(before["forces"], (2, 1))}
    return _agree(calc, atoms + copy, expected, "two copies")


def _gradient(calc: PIWSLCalculator, atoms: Atoms, arena: Arena) -> bool | str:
    """The force along a random direction is the slope of the energy."""
    if calc.potential.direct_forces:
        return _permuted(calc, atoms, arena)
    direction, told = arena.rng.normal(size=(len(atoms), 3)), ""
    forces = _results(calc, atoms)["forces"]
    expected, size = -float((forces * direction).sum()), 1.0 + float(np.abs(forces * direction).sum())
    for h in (1e-4, 1e-5, 1e-6):  # where atoms are crowded energies bend within 1e-4 Å
        energies = np.array([_energy_at(calc, atoms, step * h * direction) for step in (-2, -1, 1, 2)])
        slope = float(energies @ [1, -8, 8, -1]) / (12 * h)
        # Far from the origin positions have fewer digits, and so have differences of energies.
        rounding = 1e-11 * (np.abs(energies).max() + size * np.abs(atoms.positions).max()) / h
        if abs(slope - expected) <= 1e-3 * size + rounding:
            return True
        told = told or f"slope {slope}, forces {expected}"
    return told


def _energy_at(calc: PIWSLCalculator, atoms: Atoms, displacements: np.ndarray) -> float:
    moved = atoms.copy()
    moved.positions += displacements
    return float(_results(calc, moved)["energy"])


CHANGES: dict[str, Callable[[PIWSLCalculator, Atoms, Arena], bool | str]] = {
    "translation": _translated,
    "rotation": _rotated,
    "permutation": _permuted,
    "supercell": _repeated,
    "other lattice vectors": _other_lattice,
    "two copies": _two_copies,
    "gradient": _gradient,
}


def _set(name: str, value: Callable[[Atoms, Arena], Any]) -> Callable[[Atoms, Arena], None]:
    def change(atoms: Atoms, arena: Arena) -> None:
        atoms.arrays[name] = value(atoms, arena)

    return change


def _one(value: float) -> Callable[[Atoms, Arena], None]:
    def change(atoms: Atoms, arena: Arena) -> None:
        atoms.positions[int(arena.rng.integers(len(atoms))), int(arena.rng.integers(3))] = value

    return change


def _cell(value: Callable[[Atoms], Any], pbc: Any = True) -> Callable[[Atoms, Arena], None]:
    def change(atoms: Atoms, arena: Arena) -> None:
        atoms.cell[:] = value(atoms)
        atoms.pbc = pbc

    return change


ODD: dict[str, Callable[[Atoms, Arena], Any]] = {
    "numbers and a half": _set("numbers", lambda atoms, arena: atoms.numbers + 0.5),
    "numbers as float": _set("numbers", lambda atoms, arena: atoms.numbers.astype(float)),
    "numbers as text": _set("numbers", lambda atoms, arena: atoms.numbers.astype(str)),
    "numbers as objects": _set("numbers", lambda atoms, arena: atoms.numbers.astype(object)),
    "numbers as bool": _set("numbers", lambda atoms, arena: atoms.numbers.astype(bool)),
    "numbers as uint8": _set("numbers", lambda atoms, arena: atoms.numbers.astype(np.uint8)),
    "numbers as int32": _set("numbers", lambda atoms, arena: atoms.numbers.astype(np.int32)),
    "numbers of two axes": _set("numbers", lambda atoms, arena: np.tile(atoms.numbers[:, None], (1, 2))),
    "negative number": _set("numbers", lambda atoms, arena: -atoms.numbers),
    "number 0": _set("numbers", lambda atoms, arena: 0 * atoms.numbers),
    "number 119": _set("numbers", lambda atoms, arena: 119 + 0 * atoms.numbers),
    "number 2**40": _set("numbers", lambda atoms, arena: 2**40 + 0 * atoms.numbers),
    "unknown element": _set("numbers", lambda atoms, arena: 86 + 0 * atoms.numbers),
    "positions as float32": _set("positions", lambda atoms, arena: atoms.positions.astype(np.float32)),
    "positions as integers": _set("positions", lambda atoms, arena: (3 * np.arange(3 * len(atoms))).reshape(-1, 3)),
    "positions as complex": _set("positions", lambda atoms, arena: atoms.positions + 1j),
    "NaN": _one(np.nan),
    "infinite": _one(np.inf),
    "1e300": _one(1e300),
    "1e15": _one(1e15),
    "no atoms": lambda atoms, arena: atoms[:0],
    "two atoms in one place": lambda atoms, arena: atoms + atoms,
    "no cell, periodic": _cell(lambda atoms: 0.0),
    "cell of NaN": _cell(lambda atoms: np.nan),
    "infinite cell": _cell(lambda atoms: np.inf),
    "flat cell": _cell(lambda atoms: [[5, 0, 0], [0, 5, 0], [5, 5, 0]]),
    "tiny cell": _cell(lambda atoms: 1e-6 * np.eye(3)),
    "huge cell": _cell(lambda atoms: 1e12 * np.eye(3)),
    "nearly flat cell": _cell(lambda atoms: [[5, 0, 0], [0, 5, 0], [5, 5, 1e-9]]),
    "long cell": _cell(lambda atoms: [[1e9, 0, 0], [0, 3, 0], [0, 0, 3]]),
    "one periodic direction of none": _cell(lambda atoms: 0.0, [True, False, False]),
}
