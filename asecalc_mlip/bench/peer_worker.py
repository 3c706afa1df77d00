"""Times one calculator of another package in that package's interpreter; started by peers.py.

Needs ASE, NumPy and the peer. The structure "training step, 10 aspirins" stands for training steps in place of calls.
Answers on standard output, one JSON line each: first what the peer is, then, for every number of steps read from
standard input, the times of these steps.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.bench.structures import structure
from asecalc_mlip.bench.timing import Times, Walk

CUTOFF = 5.0
TRAINING = "training step, 10 aspirins"


def main(peer: str, system: str) -> None:
    """Build the peer and time it as long as steps are asked for."""
    # Packages greet on standard output; it is kept for the answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _limit_memory()
    _limit_threads()
    walk, info = (trainer if system == TRAINING else walker)(peer, system)
    _answer(answers, info)
    for line in sys.stdin:
        _answer(answers, walk(int(line)).__dict__)


def walker(peer: str, system: str) -> tuple[Callable[[int], Times], dict[str, Any]]:
    """Return calls of a calculator on a structure that moves."""
    atoms = structure(system)
    atoms.info["charge"] = 0.0  # TorchMD-NET wants one
    calculator, info, lists = MAKERS[peer](atoms)
    return Walk(calculator, atoms, lists), info


def trainer(peer: str, system: str) -> tuple[Callable[[int], Times], dict[str, Any]]:
    """Training steps on a batch: energies, forces, clipping and AdamW as in benchmarks/speed/train_step.py."""
    import torch

    rng, start, batch = np.random.default_rng(0), structure("aspirin"), []
    for _ in range(10):
        batch.append(start.copy())
        batch[-1].positions += rng.normal(0, 0.05, start.positions.shape)
    model, predict, info = TRAINERS[peer](batch)
    forces = torch.from_numpy(rng.normal(0, 1, (10 * len(start), 3))).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        energy, found = predict()
        loss = energy.abs().mean() + 100.0 * (found - forces).square().sum(-1).add(1e-24).sqrt().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return timed(step), info


def timed(step: Callable[[], None]) -> Callable[[int], Times]:
    """Return a function of a number of steps that times each."""

    def run(steps: int) -> Times:
        times = Times()
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.total_ms.append(1000 * (time.perf_counter() - start))
        return times

    return run


def mace(hidden: str) -> Callable[[Atoms], tuple]:
    """MACE (Batatia et al., NeurIPS 2022), random weights, two layers, correlation 3, l ≤ 3, 8 Bessel functions."""

    def make(atoms: Atoms) -> tuple:
        import torch
        from mace import modules
        from mace.calculators import MACECalculator
        from mace.modules.models import o3  # e3nn imported before mace does not load under torch 2.6 or newer

        torch.manual_seed(0)
        elements = _elements([atoms])
        blocks = modules.interaction_classes
        model = modules.ScaleShiftMACE(
            r_max=CUTOFF,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.zeros(len(elements)),
            avg_num_neighbors=40.0,
            atomic_numbers=elements,
            correlation=3,
            radial_type="bessel",
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        calculator = MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")
        lists = _timed(calculator, "_atoms_to_batch")
        size = f"random weights, {hidden}, 2 layers, correlation 3, l ≤ 3"
        return calculator, _info("mace-torch", size, CUTOFF, calculator.models[0]), lists

    return make


def torchmdnet(kind: str, **sizes: Any) -> Callable[[Atoms], tuple]:
    """Equivariant transformer (Thölke, De Fabritiis, ICLR 2022) or TensorNet (Simeon, NeurIPS 2023), random weights."""

    def make(atoms: Atoms) -> tuple:
        import torch
        from torchmdnet.calculators import TMDNETCalculator
        from torchmdnet.models.model import create_model

        torch.manual_seed(0)
        arguments = {**_TORCHMDNET, "model": kind, **sizes}
        weights = {f"model.{name}": value for name, value in create_model(dict(arguments)).state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "random.ckpt")
            torch.save({"hyper_parameters": arguments, "state_dict": weights}, file)
            calculator = TMDNETCalculator(file, device="cpu", max_num_neighbors=arguments["max_num_neighbors"])
        size = f"random weights, {kind}, {sizes['embedding_dimension']} channels, {sizes['num_layers']} layers"
        info = _info("torchmd-net", size, CUTOFF, calculator.model)
        if atoms.pbc.any() and 2 * CUTOFF > min(1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)):
            info["note"] = "the cell is thinner than two cutoffs; of each pair it sees the nearest image only"
        return calculator, info, None

    return make


def torchmdnet_training(kind: str, **sizes: Any) -> Callable[[list[Atoms]], tuple]:
    """Make the same models with energies and forces of a batch; lists are made in the model."""

    def make(batch: list[Atoms]) -> tuple:
        import torch
        from torchmdnet.models.model import create_model

        torch.manual_seed(0)
        model = create_model({**_TORCHMDNET, "model": kind, **sizes, "derivative": True}).train()
        numbers = torch.tensor(np.concatenate([atoms.numbers for atoms in batch]))
        positions = torch.tensor(np.concatenate([atoms.positions for atoms in batch])).float()
        owner = torch.arange(len(batch)).repeat_interleave(torch.tensor([len(atoms) for atoms in batch]))

        def predict() -> tuple:
            energy, forces = model(numbers, positions.clone(), owner)
            return energy.squeeze(-1), forces

        size = f"random weights, {kind}, {sizes['embedding_dimension']} channels, {sizes['num_layers']} layers"
        return model, predict, _info("torchmd-net", size, CUTOFF, model)

    return make


def matgl(kind: str, size: str, **sizes: Any) -> Callable[[Atoms], tuple]:
    """TensorNet or M3GNet (Chen, Ong, Nat. Comput. Sci. 2022) of MatGL, random weights."""

    def make(atoms: Atoms) -> tuple:
        from matgl.ext.ase import PESCalculator

        calculator = PESCalculator(_matgl_potential(kind, sizes, [atoms]), stress_unit="eV/A3")
        lists = _timed(calculator._atoms2graph, "get_graph")
        return calculator, _info("matgl", f"random weights, {size}", CUTOFF, calculator.potential.model), lists

    return make


def matgl_training(kind: str, size: str, **sizes: Any) -> Callable[[list[Atoms]], tuple]:
    """Make the same models with energies and forces of a batch."""

    def make(batch: list[Atoms]) -> tuple:
        import torch
        from matgl.ext.ase import Atoms2Graph
        from torch_geometric.data import Batch

        potential = _matgl_potential(kind, sizes, batch).train()
        convert = Atoms2Graph(potential.model.element_types, CUTOFF)
        graphs, lattices, _ = zip(*(convert.get_graph(atoms) for atoms in batch), strict=True)
        graph, lattice = Batch.from_data_list(list(graphs)), torch.stack([x.reshape(3, 3) for x in lattices])
        info = _info("matgl", f"random weights, {size}", CUTOFF, potential.model)
        return potential, lambda: potential(graph, lattice)[:2], info

    return make


def _matgl_potential(kind: str, sizes: dict[str, Any], structures: list[Atoms]) -> Any:
    import matgl.models
    import torch
    from ase.data import chemical_symbols
    from matgl.apps.pes import Potential

    torch.manual_seed(0)
    elements = tuple(chemical_symbols[number] for number in _elements(structures))
    common = {"element_types": elements, "is_intensive": False, "cutoff": CUTOFF}
    return Potential(getattr(matgl.models, kind)(**common, **sizes), calc_stresses=False).eval()


def chgnet(atoms: Atoms) -> tuple:
    """CHGNet (Deng et al., Nat. Mach. Intell. 2023) with its shipped weights; energy, forces, stress and moments."""
    from chgnet.model.dynamics import CHGNetCalculator

    if not atoms.pbc.any():
        # It knows crystals only. A box of vacuum adds no neighbour.
        atoms.center(vacuum=10.0)
        atoms.pbc = True
    calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    lists = _timed(calculator.model.graph_converter, "forward")
    info = _info("chgnet", "shipped weights 0.3.0, 64 channels, 4 layers, bond graph to 3 Å", 6.0, calculator.model)
    return calculator, info, lists


def sevennet(atoms: Atoms) -> tuple:
    """SevenNet-0 (Park et al., JCTC 2024) with its shipped weights of 11 July 2024."""
    import sevenn.calculator

    lists = _timed(sevenn.calculator, "unlabeled_atoms_to_graph")
    calculator = sevenn.calculator.SevenNetCalculator("7net-0", device="cpu")
    size = "shipped weights of 11 July 2024, 128x0e+64x1e+32x2e, 5 layers"
    return calculator, _info("sevenn", size, float(calculator.cutoff), calculator.model), lists


_TORCHMDNET = {
    "precision": 32,
    "derivative": False,
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "attn_activation": "silu",
    "num_heads": 8,
    "distance_influence": "both",
    "neighbor_embedding": True,
    "equivariance_invariance_group": "O(3)",
    "cutoff_lower": 0.0,
    "cutoff_upper": CUTOFF,
    "max_z": 100,
    "max_num_neighbors": 96,
    "atom_filter": -1,
    "prior_model": None,
    "output_model": "Scalar",
    "reduce_op": "sum",
    "remove_ref_energy": True,
}

_TENSORNET = ("tensornet", {"embedding_dimension": 128, "num_layers": 2})
_MATGL_TENSORNET: tuple[str, str, dict[str, Any]] = (
    "TensorNet",
    "128 channels, 2 layers, 32 Gaussians",
    {"units": 128, "nblocks": 2, "num_rbf": 32},
)
_MATGL_M3GNET: tuple[str, str, dict[str, Any]] = (
    "M3GNet",
    "64 features, 3 blocks, smooth basis",
    {"units": 64, "nblocks": 3, "use_smooth": True},
)

MAKERS: dict[str, Callable[[Atoms], tuple]] = {
    "MACE 64x0e": mace("64x0e"),
    "MACE 128x1o": mace("128x0e + 128x1o"),
    "TorchMD-NET ET": torchmdnet("equivariant-transformer", embedding_dimension=128, num_layers=6),
    "TorchMD-NET TensorNet": torchmdnet(_TENSORNET[0], **_TENSORNET[1]),
    "matgl TensorNet": matgl(*_MATGL_TENSORNET[:2], **_MATGL_TENSORNET[2]),
    "matgl M3GNet": matgl(*_MATGL_M3GNET[:2], **_MATGL_M3GNET[2]),
    "CHGNet 0.3.0": chgnet,
    "SevenNet-0": sevennet,
}

TRAINERS: dict[str, Callable[[list[Atoms]], tuple]] = {
    "TorchMD-NET TensorNet": torchmdnet_training(_TENSORNET[0], **_TENSORNET[1]),
    "matgl TensorNet": matgl_training(*_MATGL_TENSORNET[:2], **_MATGL_TENSORNET[2]),
    "matgl M3GNet": matgl_training(*_MATGL_M3GNET[:2], **_MATGL_M3GNET[2]),
}


def _elements(structures: list[Atoms]) -> list[int]:
    """Atomic numbers for random weights; those of all named structures at least, so that sizes are comparable."""
    return sorted({1, 6, 7, 8, 14}.union(*(atoms.numbers.tolist() for atoms in structures)))


def _info(package: str, size: str, cutoff: float, model: Any) -> dict[str, Any]:
    import torch

    weights = {id(p): p for p in model.parameters()}.values()
    return {
        "package": f"{package} {version(package)}",
        "model": size,
        "parameters": sum(p.numel() for p in weights),
        "cutoff": cutoff,
        "dtype": str(next(iter(model.parameters())).dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _timed(owner: Any, name: str) -> Callable[[], float]:
    """Put a stop-watch around a function of a module, class or object; returns its reading in seconds."""
    function, spent = getattr(owner, name), [0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - start

    setattr(owner, name, timed)
    return lambda: spent[0]


def _limit_memory() -> None:
    """End with a MemoryError where the kernel would end whatever is largest."""
    import resource

    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * 1024 * free), resource.RLIM_INFINITY))


def _limit_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _answer(answers: Any, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
