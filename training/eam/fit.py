r"""Fit an embedded-atom potential to ab-initio data by gradient descent.

Source: Zheng, Fung, JCIM 2026, doi 10.1021/acs.jcim.6c00826; docs/methods.md, section 2.

    L = w_E |ΔE|/N + w_F |ΔF| + w_S |Δσ|,    mean over structures, force components, stress components

The energy counts per atom, as forces and stress do: with the total energy a structure of 48 atoms would weigh three
times one of 16, and the weights would not carry over from one data set to the next. The E0 enter linearly, so they are
not stepped but solved for: after every epoch by least squares on what the rest of the potential leaves. Isolated atoms
or given values stay as they are. Stress labels enter after the first tenth of the epochs, when they have been compared
with an EAM that has not seen them: a wrong sign or unit would otherwise be learned without a word. Once they count they
go on to, however many epochs are added.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from tqdm import tqdm

from asecalc_mlip.analysis import make_reference
from asecalc_mlip.data.census import census
from asecalc_mlip.data.labels import is_isolated_atom, without_open_stress
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.file_format import archive
from asecalc_mlip.files import replacing
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import EAM, build_potential
from training.data.digests import fingerprint
from training.eam.batches import FitBatch, collate, energies_forces_stress, fit_batch
from training.eam.initial import scale_density
from training.eam.report import EAMFit, errors_of, find_suspect_stress
from training.eam.settings import FitSettings
from training.options import E0Method
from training.start.reference_energies import ReferenceEnergies, reference_energies

__all__ = ["EAMFit", "FitSettings", "fit_eam"]


def fit_eam(
    frames: Sequence[Atoms],
    settings: FitSettings | None = None,
    *,
    test: Sequence[Atoms] | None = None,
    e0: E0Method = "fit",
    isolated: str | Path | Sequence[Atoms] | None = None,
    given: Mapping[str, float] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    data_name: str = "data",
    test_name: str | None = None,
    trust: bool = False,
) -> EAMFit:
    """Fit an EAM to labelled frames.

    Parameters
    ----------
    frames : sequence of Atoms
        With ``info["energy"]`` (eV), ``arrays["forces"]`` (eV/Å) and, where known, ``info["stress"]`` (3×3, eV/Å³), as
        `asecalc_mlip.data.readers.read_frames` gives them.
    settings : FitSettings, optional
    test : sequence of Atoms, optional
        Errors are reported on these too.
    e0, isolated, given
        As for `training.start.reference_energies.reference_energies`.
    checkpoint : path, optional
        Written after every epoch; if it exists, the fit goes on from there.
    progress : bool
    data_name, test_name : str
        For the card; without the second, the test frames are said to be held out of the first.
    trust : bool
        Fit labels of implausible size and labels that contradict each other.

    Returns
    -------
    EAMFit
        The potential, its errors before and after, and how to save and look at it.

    Raises
    ------
    InputError
        For settings that cannot be, and a checkpoint of another fit.
    DataError
        For labels that are missing or implausible, a weight of the stress where no frame has one, and stress labels of
        the wrong sign or unit.
    """
    atoms = [frame for frame in frames if is_isolated_atom(frame)]
    frames = without_open_stress([frame for frame in frames if not is_isolated_atom(frame)] or frames)
    asked, start = settings or FitSettings(), None if checkpoint is None else Path(checkpoint)
    settings = asked.whole(len(frames))
    _check_frames(frames, settings, trust)
    if start is None or not start.exists():  # what older versions began goes on
        _check_stress(frames, asked)
    solve = _solver(frames, e0, isolated, given, atoms)
    fixed = [] if e0 == "fit" else [sorted(solve(np.zeros(len(frames))).values.items())]
    fit = _Fit(frames, settings, solve, progress, fingerprint([*frames, *atoms], *fixed))
    if start is not None and start.exists():
        fit.resume(start)
    fit.run(start)
    return fit.result(test, data_name, test_name or f"{data_name}, held out")


class _Fit:
    """State of a fit between two epochs."""

    def __init__(self, frames: Sequence[Atoms], settings: FitSettings, e0: Callable, progress: bool, data: str):
        self.frames, self.settings, self.progress, self._solve, self._data = list(frames), settings, progress, e0, data
        elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
        names = ("cutoff", "n_exponentials", "core", "density")
        shape = {name: getattr(settings, name) for name in names}
        shape["elements"] = [chemical_symbols[z] for z in elements]
        self.potential = build_potential("eam", shape, reference_energies=dict.fromkeys(elements, 0.0))
        network = self.potential.network
        assert isinstance(network, EAM)
        self.network = network
        self.batches = [fit_batch(network, atoms) for atoms in frames]
        scale_density(network, self.batches)
        self.e0 = self._update_e0(self._residuals())
        self.before = copy.deepcopy(self.potential)
        self.history: list[dict[str, float]] = []
        self.stress_from = _stress_from(settings.epochs)
        decay, rate = settings.weight_decay, settings.lr
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience
        )

    def run(self, checkpoint: Path | None) -> None:
        """Run all epochs that are left, with a checkpoint after each."""
        done, total = len(self.history), self.settings.epochs
        assert total is not None
        if total <= self.stress_from and self.settings.stress_weight and any("stress" in a.info for a in self.frames):
            LOGGER.warning(f"stress labels count from epoch {self.stress_from + 1} on, which a fit of {total} has not")
        spoken = time.monotonic()
        # None: no bar without a terminal, where a line a minute takes its place.
        with tqdm(total=total, initial=min(done, total), unit="epoch", disable=None if self.progress else True) as bar:
            for epoch in range(done, total):
                row = self._epoch(epoch)
                self.history.append(row)
                if checkpoint is not None:
                    self._save(checkpoint)
                shown = {k: f"{1000 * row[k]:.1f}" for k in ("energy", "forces", "stress") if np.isfinite(row[k])}
                bar.set_postfix(shown | {"lr": f"{row['lr']:.1e}"})
                bar.update()
                if self.progress and bar.disable and time.monotonic() - spoken > 60:
                    spoken = time.monotonic()
                    errors = ", ".join(f"{name} {value}" for name, value in shown.items())
                    LOGGER.info(f"epoch {epoch + 1}/{total}: {errors} (meV/atom, meV/Å, meV/Å³)")

    def result(self, test: Sequence[Atoms] | None, data_name: str, test_name: str) -> EAMFit:
        self.e0 = self._update_e0(self._residuals())
        card = {
            "name": "EAM" if self.settings.density else "Morse",
            "training_data": {"file": data_name, "train": len(self.frames)},
            "fit": asdict(self.settings),
            "licence": "MIT",
        }
        errors = {
            "before": errors_of(self.before, self.frames, data_name),
            "after": errors_of(self.potential, self.frames, data_name),
        }
        if test:
            errors["test"] = errors_of(self.potential, test, test_name)
        reference = make_reference(self.frames, data_name).to_dict()
        return EAMFit(self.potential.eval(), self.e0, card, errors, self.history, reference)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same fit."""
        try:
            archive.check(path)
            saved = torch.load(path, weights_only=True)
            before, same_data = saved["settings"], saved["data"] == self._data
        except Exception as error:  # noqa: BLE001  damaged archives raise many kinds
            raise InputError(f"{path} cannot be read ({error!s:.120}). Delete it to start the fit again") from None
        unlike = [f"{k} was {before.get(k)}, is {v}" for k, v in asdict(self.settings).items()
                  if k != "epochs" and before.get(k) != v]  # fmt: skip
        unlike += [] if same_data else ["the frames, their labels or the reference energies are others"]
        if unlike:
            raise InputError(f"{path} belongs to another fit: {'; '.join(unlike)}. Delete it, or write to another file")
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.history = saved["history"]
        self.stress_from = saved.get("stress_from", _stress_from(before.get("epochs")))
        self.e0 = self._update_e0(np.array(saved["residuals"]))

    def _save(self, path: Path) -> None:
        content = {
            "settings": asdict(self.settings),
            "data": self._data,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "stress_from": self.stress_from,
            "residuals": self._last.tolist(),
        }
        try:
            with replacing(path) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:  # of torch, which has no other for a full disk
            raise InputError(f"{path} cannot be written ({error}); make room and run the same command again") from None

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Go once over the frames in an order of its own; return mean absolute errors and the rate."""
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.batches))
        with_stress = self._stress_counts(epoch)
        rows, residuals = [], np.zeros(len(self.batches))
        for start in range(0, len(order), self.settings.batch_size):
            chosen = order[start : start + self.settings.batch_size]
            row, residuals[chosen] = self._step(collate([self.batches[i] for i in chosen]), with_stress)
            rows.append(row)
        self.e0 = self._update_e0(residuals)
        mean = {name: _mean([row[name] for row in rows]) for name in rows[0]}
        self.schedule.step(mean["loss"])
        return {"epoch": epoch, **mean, "lr": self.optimizer.param_groups[0]["lr"]}

    def _step(self, batch: FitBatch, with_stress: bool) -> tuple[dict[str, float], np.ndarray]:
        settings = self.settings
        energy, forces, stress = energies_forces_stress(self.network, batch)
        offset = torch.zeros_like(batch.energy).index_add(0, batch.batch, self._e0_of[batch.species])
        parts = {
            "energy": _labelled((energy.double() + offset) / batch.counts, batch.energy / batch.counts),
            "forces": _labelled(forces, batch.forces),
            "stress": _labelled(stress, batch.stress),
        }
        weights = (settings.energy_weight, settings.forces_weight, settings.stress_weight if with_stress else 0.0)
        loss = sum((w * part.mean() for w, part in zip(weights, parts.values(), strict=True) if w and part.numel()),
                   energy.new_zeros(()))  # fmt: skip
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        row = {name: float(part.detach().mean()) if part.numel() else float("nan") for name, part in parts.items()}
        if not bool(loss.isfinite()):
            raise DataError("the loss is no longer a number; lower the learning rate, or look for atoms too close")
        return {"loss": float(loss.detach()), **row}, (batch.energy - energy.detach().double()).numpy()

    def _stress_counts(self, epoch: int) -> bool:
        """Return whether stress counts; before it does for the first time, its labels are compared with the EAM."""
        if epoch == self.stress_from and self.settings.stress_weight:
            find_suspect_stress(self.network, self.batches)
        return epoch >= self.stress_from

    def _residuals(self) -> np.ndarray:
        """Return the energy of each frame less that of the EAM without its E0, (n,) eV."""
        with torch.no_grad():
            return np.array([float(b.energy - energies_forces_stress(self.network, b)[0]) for b in self.batches])

    def _update_e0(self, residuals: np.ndarray) -> ReferenceEnergies:
        self._last = residuals
        found = self._solve(residuals)
        for z, energy in found.values.items():
            self.potential.e0[z] = energy
        self._e0_of = self.potential.e0[torch.tensor(self.network.numbers)]
        return found


def _stress_from(epochs: int | None) -> int:
    """Return the epoch, counted from 0, from which on stress counts in a fit that is begun with so many."""
    return max(1, (epochs or 0) // 10)


def _solver(
    frames: Sequence[Atoms],
    method: E0Method,
    isolated: str | Path | Sequence[Atoms] | None,
    given: Mapping[str, float] | None,
    single: Sequence[Atoms],
) -> Callable[[np.ndarray], ReferenceEnergies]:
    """Return a function from residual energies (n,) to E0: least squares on them, or always the same E0."""
    if method != "fit":
        fixed = reference_energies(frames, method, isolated=isolated, given=given, atoms=single)
        return lambda residuals: fixed
    bare = [Atoms(atoms.numbers) for atoms in frames]

    def solve(residuals: np.ndarray) -> ReferenceEnergies:
        for atoms, energy in zip(bare, residuals, strict=True):
            atoms.info["energy"] = float(energy)
        found = reference_energies(bare, "fit", atoms=single)
        return replace(found, source=_beside_the_eam(found.source)) if found.fitted else found

    return solve


def _beside_the_eam(source: str) -> str:
    """Say of which energies the fit was; what `source` says of its quality comes after."""
    fit, *quality = source.split("; ", 1)
    return "; ".join([f"{fit} less those of the EAM, in the same fit", *quality])


def _check_frames(frames: Sequence[Atoms], settings: FitSettings, trust: bool) -> None:
    if not frames:
        raise DataError("there are no frames to fit an EAM to")
    if all(len(atoms) == 1 and not atoms.pbc.any() for atoms in frames):
        raise DataError("every frame is a single atom, which tells nothing of pairs; give structures with neighbours")
    found = census(frames)
    weights = {"energy": settings.energy_weight or 1.0, "forces": settings.forces_weight}
    found.require(weights, allow_implausible=trust)
    found.refuse(["stress"], allow_implausible=True)  # NaN, of which the errors after the fit would tell


def _check_stress(frames: Sequence[Atoms], asked: FitSettings) -> None:
    """Refuse a weight that somebody gave to a stress which no frame has."""
    if asked.stress_weight and not any("stress" in atoms.info for atoms in frames):
        raise DataError(
            f"the weight of the stress is {asked.stress_weight:g}, but no frame that is periodic in three directions "
            "has a stress; leave the weight out, or give data with stress labels"
        )


def _labelled(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the absolute errors where there is a label."""
    known = ~labels.isnan()
    return (values[known] - labels[known]).abs()


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
