"""Energies and forces of eSCN and EquiformerV2 in fairchem-core (MIT), with weights that a formula gives.

    python -m venv VENV
    VENV/bin/pip install --no-deps fairchem-core==1.10.0
    VENV/bin/pip install torch e3nn ase torch_geometric numba orjson pyyaml tqdm requests pydantic click
    PYTHONPATH=. VENV/bin/python tools/fairchem_reference.py

It writes tests/golden/fairchem/expected.json; tests/models/test_fairchem.py compares our networks with it. Packages
that fairchem imports and these two models do not call (torch_scatter, lmdb, wandb and others) are replaced by nothing.
Four things are set: the angle of each edge's frame, which fairchem draws at random, is ours; neighbours come from ASE,
all within the cutoff; nothing is dropped at random; and weights come from `filled`. Forces are those of the head, and
central differences of the energies, because fairchem detaches its rotations.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from asecalc_mlip.files import write_json
from asecalc_mlip.models import build_network
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.spherical import edge_frames
from tools.fairchem_weights import WEIGHTS, filled

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = {"grid": "published", "envelope": "none", "direct_forces": True}
_ESCN = {"cutoff": 4.0, "n_features": 8, "n_hidden": 12, "n_edge": 6, "n_rbf": 40}
_EQUIFORMER = {
    "cutoff": 4.0,
    "n_features": 6,
    "n_interactions": 2,
    "n_heads": 2,
    "n_alpha": 4,
    "n_value": 3,
    "n_hidden": 5,
    "n_feed": 7,
    "n_edge": 6,
    "n_rbf": 600,
}
# Our architecture and its hyper-parameters; m_max equal to l_max and smaller, whose published grids differ.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "escn_3_2": ("escn", {**_ESCN, **PUBLISHED, "l_max": 3, "m_max": 2, "n_interactions": 2}),
    "equiformer_v2_3_2": ("equiformer_v2", {**_EQUIFORMER, **PUBLISHED, "l_max": 3, "m_max": 2}),
    "equiformer_v2_2_2": (
        "equiformer_v2",
        {**_EQUIFORMER, **PUBLISHED, "l_max": 2, "m_max": 2, "norm": "rms", "feed_forward": "activation"},
    ),
    "escn_2_2": ("escn", {**_ESCN, **PUBLISHED, "l_max": 2, "m_max": 2, "n_interactions": 3}),
}
# Of these names a model has one, by its variant; and these weights change nothing that comes out.
_ONE_OF_TWO = ("scalar_mlp", "gating_linear")
_FREE = ("sph", "energy.energy_block.so3_linear_1", "energy.energy_block.grid_mlp")
STEP = 1e-4  # Å
# Factor of the published energy on ours, which a potential has as its scale.
FACTORS = {"escn": 0.001, "equiformer_v2": 1 / 77.81317}
# fairchem imports these, and the two models call none of them.
_UNUSED = {
    "torch_scatter",
    "torch_sparse",
    "wandb",
    "lmdb",
    "submitit",
    "hydra",
    "omegaconf",
    "pymatgen",
    "tensorboard",
}
_UNUSED |= {"huggingface_hub", "ase_db_backends"}


def structures() -> dict[str, Atoms]:
    """Return a molecule, a crystal whose cell is smaller than the cutoff, and a pair on the polar axis."""
    rng = np.random.default_rng(3)
    found = {"molecule": molecule("CH3OH"), "crystal": bulk("SiO", "rocksalt", a=4.4)}
    for atoms in found.values():
        atoms.positions += rng.uniform(-0.15, 0.15, atoms.positions.shape)
    return {**found, "pair": Atoms("CO", [[0, 0, 0], [0, 1.2, 0]])}


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "tests" / "golden" / "fairchem")
def main(output: Path) -> None:
    """Write the expected numbers of all cases."""
    torch.set_default_dtype(torch.float64)
    sys.meta_path.append(_Nothing())
    content: dict[str, Any] = {"structures": {name: atoms.todict() for name, atoms in structures().items()}}
    for name, (architecture, hyperparameters) in CASES.items():
        ours = filled(build_network(architecture, hyperparameters))
        model = _models()[architecture](hyperparameters)
        weights = WEIGHTS[architecture](ours.state_dict())
        state, named = model.state_dict(), {n for n, _ in model.named_parameters()}
        known = {n: v for n, v in weights.items() if n in state or not any(part in n for part in _ONE_OF_TWO)}
        missing, extra = model.load_state_dict({n: _as_theirs(v, state[n]) for n, v in known.items()}, strict=False)
        lost = sorted(n for n in missing if n in named and not n.startswith(_FREE))
        if lost or extra:
            raise click.ClickException(f"{name}: weights do not fit; missing {lost}, extra {extra}")
        model = model.double().eval()
        content[name] = {s: _results(model, a, hyperparameters["cutoff"]) for s, a in structures().items()}
        click.echo(f"{name}: {content[name]['molecule']['energy']:.6f}, {content[name]['crystal']['energy']:.6f}")
    write_json(output / "expected.json", content)


def _results(model: nn.Module, atoms: Atoms, cutoff: float) -> dict[str, Any]:
    energy, forces = _evaluate(model, atoms, cutoff)
    slopes = np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for axis in range(3):
            values = []
            for step in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[i, axis] += step * STEP
                values.append(_evaluate(model, moved, cutoff)[0])
            slopes[i, axis] = -(values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)
    return {"energy": energy, "forces": forces.tolist(), "minus_slopes": slopes.tolist()}


def _evaluate(model: Any, atoms: Atoms, cutoff: float) -> tuple[float, np.ndarray]:
    from fairchem.core.models.base import GraphData

    centers, neighbors, shifts = (torch.from_numpy(a) for a in neighbor_list("ijS", atoms, cutoff))
    positions = torch.from_numpy(atoms.positions)
    vectors = positions[neighbors] - positions[centers] + shifts.double() @ torch.from_numpy(atoms.cell.array)
    numbers, batch = torch.from_numpy(atoms.numbers), torch.zeros(len(atoms), dtype=torch.int64)
    graph = GraphData(
        edge_index=torch.stack([neighbors, centers]),
        edge_distance=vectors.norm(dim=1),
        edge_distance_vec=vectors,
        cell_offsets=shifts,
        offset_distances=shifts,
        neighbors=torch.tensor([len(centers)]),
        batch_full=batch,
        atomic_numbers_full=numbers,
    )
    data = MagicMock(pos=positions, atomic_numbers=numbers, natoms=torch.tensor([len(atoms)]), batch=batch)
    model.generate_graph = lambda *args, **kwargs: graph
    with torch.no_grad():
        found = model(data)
    return float(found["energy"].detach()), found["forces"].detach().numpy()


def _models() -> dict[str, Callable[[Mapping[str, Any]], nn.Module]]:
    return {"escn": _escn, "equiformer_v2": _equiformer_v2}


def _escn(sizes: Mapping[str, Any]) -> nn.Module:
    from fairchem.core.models.escn.escn import eSCN

    model: Any = eSCN(
        use_pbc=False,
        regress_forces=True,
        cutoff=sizes["cutoff"],
        max_num_elements=MAX_ATOMIC_NUMBER + 1,
        num_layers=sizes["n_interactions"],
        lmax_list=[sizes["l_max"]],
        mmax_list=[sizes["m_max"]],
        sphere_channels=sizes["n_features"],
        hidden_channels=sizes["n_hidden"],
        edge_channels=sizes["n_edge"],
        # One Gaussian more than is asked for would come of rounding.
        distance_resolution=sizes["cutoff"] / (sizes["n_rbf"] + 0.5),
    )
    model._init_edge_rot_mat = lambda data, index, vectors: _frames(vectors)
    return model


def _equiformer_v2(sizes: Mapping[str, Any]) -> nn.Module:
    from fairchem.core.models.equiformer_v2.equiformer_v2 import EquiformerV2Backbone
    from fairchem.core.models.equiformer_v2.heads import EqV2ScalarHead, EqV2VectorHead

    backbone: Any = EquiformerV2Backbone(
        use_pbc=False,
        max_radius=sizes["cutoff"],
        max_num_elements=MAX_ATOMIC_NUMBER + 1,
        num_layers=sizes["n_interactions"],
        sphere_channels=sizes["n_features"],
        attn_hidden_channels=sizes["n_hidden"],
        num_heads=sizes["n_heads"],
        attn_alpha_channels=sizes["n_alpha"],
        attn_value_channels=sizes["n_value"],
        ffn_hidden_channels=sizes["n_feed"],
        norm_type={"layer": "layer_norm_sh", "rms": "rms_norm_sh"}[sizes.get("norm", "layer")],
        lmax_list=[sizes["l_max"]],
        mmax_list=[sizes["m_max"]],
        edge_channels=sizes["n_edge"],
        use_grid_mlp=sizes.get("feed_forward", "grid") == "grid",
        alpha_drop=0.0,
        drop_path_rate=0.0,
    )
    backbone._init_edge_rot_mat = lambda data, index, vectors: _frames(vectors)
    return _WithHeads(backbone, EqV2ScalarHead(backbone), EqV2VectorHead(backbone))


class _WithHeads(nn.Module):
    def __init__(self, backbone: nn.Module, energy: nn.Module, force: nn.Module):
        super().__init__()
        self.backbone, self.energy, self.force = backbone, energy, force

    def forward(self, data: Any) -> dict[str, Tensor]:
        """Return energy and forces."""
        self.backbone.generate_graph = self.generate_graph
        found = self.backbone(data)
        return {**self.energy(data, found), **self.force(data, found)}


def _as_theirs(value: Tensor, theirs: Tensor) -> Tensor:
    """One degree of a map as the first of theirs."""
    if value.shape == theirs.shape:
        return value
    return torch.cat([value, theirs[1:]])


def _frames(vectors: Tensor) -> Tensor:
    return edge_frames(vectors / vectors.norm(dim=1, keepdim=True))


class _Nothing:
    """Finds packages that are not needed, and makes them of nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in _UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: Any) -> None:
        """Do nothing."""


if __name__ == "__main__":
    main()
