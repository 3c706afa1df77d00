"""Kernels step by step over domains that know their own atoms and ghosts, against the same kernels in one call."""

import ctypes

import pytest
import torch

from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.kernels.library import SUFFIX, Graph, integers
from asecalc_mlip.models import ARCHITECTURES
from tests.cases import make_potential, make_structure

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native library was not built")

PIECES = 4
IN_STEPS = [
    (name, dtype)
    for name, cls in ARCHITECTURES.items()
    if cls.traits.native is not None and hasattr(native_library(), f"{cls.traits.native.name}_steps")
    for dtype in cls.traits.native.multiples
]


class Exchange(ctypes.Structure):
    """`Exchange` of asecalc_layers.h."""

    _fields_ = [
        *integers("direction", "pieces"),
        ("width", ctypes.c_int64 * PIECES),
        ("rows", ctypes.c_void_p * PIECES),
    ]


class Domain:
    """Some atoms of a structure, with ghosts of those of the others that they have in their rows."""

    def __init__(self, graph, own, functions, packed, dtype):
        self.own, self.dtype, self.functions, self.packed = own, dtype, functions, packed
        rows = [(graph.centers == atom).nonzero().squeeze(-1) for atom in own.tolist()]
        self.edges = torch.cat([*rows, torch.zeros(0, dtype=torch.int64)])
        near = graph.neighbors[self.edges]
        self.ghosts = torch.tensor(sorted(set(near.tolist()) - set(own.tolist())), dtype=torch.int64)
        self.everyone = torch.cat([own, self.ghosts])
        place = torch.full((graph.n_atoms,), -1)
        place[self.everyone] = torch.arange(len(self.everyone))
        counts = torch.tensor([0, *(len(row) for row in rows)])
        self.tensors = [
            counts.cumsum(0),
            place[near].contiguous(),
            graph.numbers[self.everyone].contiguous(),
            graph.vectors()[self.edges].contiguous(),
        ]
        addresses = (t.data_ptr() for t in self.tensors)
        sizes = (len(own), len(self.edges), 1)
        self.graph = Graph(*sizes, *addresses, len(self.ghosts))
        self.energies = torch.zeros(len(own), dtype=torch.float64)
        # What is not written shows.
        self.gradient = torch.full((len(self.edges), 3), torch.nan, dtype=torch.float64)
        workspace = functions("workspace", ctypes.byref(packed.weights), ctypes.byref(self.graph))
        self.buffer = torch.full((workspace + 1,), torch.nan, dtype=dtype)

    def step(self, s):
        after = Exchange()
        arrays = (self.buffer.data_ptr(), self.energies.data_ptr(), self.gradient.data_ptr())
        where = (ctypes.c_void_p(address) for address in arrays)
        references = ctypes.byref(self.packed.weights), ctypes.byref(self.graph)
        self.functions(f"step_{SUFFIX[self.dtype]}", *references, *where, ctypes.c_int64(s), ctypes.byref(after))
        return after

    def rows(self, after, piece):
        """Rows of an exchange, own atoms and ghosts, where they lie in the buffer."""
        width, size = after.width[piece], self.dtype.itemsize
        start = ((after.rows[piece] or 0) - self.buffer.data_ptr()) // size
        return self.buffer[start : start + len(self.everyone) * width].view(-1, width)


def functions_of(name):
    library = native_library()

    def call(function, *arguments):
        found = getattr(library, f"{name}_{function}")
        found.restype = None if function.startswith("step_") else ctypes.c_int64
        return found(*arguments)

    return call


def exchange(domains, said, n_atoms):
    """Copy rows of own atoms to their ghosts, as FORWARD asks; returns numbers per atom."""
    assert len({(one.direction, one.pieces, tuple(one.width)) for one in said}) == 1
    assert said[0].direction in (0, 1)
    for piece in range(said[0].pieces):
        table = torch.full((n_atoms, said[0].width[piece]), torch.nan, dtype=domains[0].dtype)
        for domain, after in zip(domains, said, strict=True):
            table[domain.own] = domain.rows(after, piece)[: len(domain.own)]
        for domain, after in zip(domains, said, strict=True):
            domain.rows(after, piece)[len(domain.own) :] = table[domain.ghosts]
    return sum(said[0].width[: said[0].pieces]) if said[0].direction else 0


@pytest.mark.parametrize("n_domains", [1, 3])
@pytest.mark.parametrize(("architecture", "dtype"), IN_STEPS)
def test_domains_find_what_one_call_finds(architecture, dtype, n_domains):
    sizes = {"n_interactions": 3, "n_features": 32} if architecture != "eam" else {"core": "zbl"}
    potential = make_potential(architecture, dtype=dtype, **sizes)
    graph = graph_from_atoms(make_structure("crystal") * (3, 2, 2), 4.0)
    kernel = potential.network.traits.native
    functions, packed = functions_of(kernel.name), potential.network.packed()
    owner = torch.arange(graph.n_atoms) * 7 % n_domains
    owned = [(owner == k).nonzero().squeeze(-1) for k in range(n_domains)]
    # The last has no atoms.
    owned.append(torch.zeros(0, dtype=torch.int64))
    domains = [Domain(graph, own, functions, packed, dtype) for own in owned]
    assert n_domains == 1 or all(len(domain.ghosts) for domain in domains[:-1])
    steps = functions("steps", ctypes.byref(packed.weights))
    carried = [exchange(domains, [domain.step(s) for domain in domains], graph.n_atoms) for s in range(steps)]
    assert carried[-1] == 0
    assert max(carried) == functions("exchanged", ctypes.byref(packed.weights))

    engine = NativeEngine(potential)
    energies, gradient = engine._run(graph, graph.vectors(), True)
    forces = lambda g, i, j: torch.zeros(graph.n_atoms, 3).double().index_add(0, i, g).index_add(0, j, -g)  # noqa: E731
    edges = torch.cat([domain.edges for domain in domains])
    found = torch.empty(graph.n_atoms, dtype=torch.float64)
    for domain in domains:
        found[domain.own] = domain.energies
    ours = forces(torch.cat([d.gradient for d in domains]), graph.centers[edges], graph.neighbors[edges])
    theirs = forces(gradient, graph.centers, graph.neighbors)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert (found - energies).abs().max() <= tolerance * energies.abs().max()
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
