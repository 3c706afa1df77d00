"""Where the errors of a model come from: the worst frames, kinds of frames, and what absurd errors mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.labels import frame_name
from asecalc_mlip.units import ERROR_UNITS

__all__ = ["by_config_type", "group_lines", "hints", "without_shifts", "worst_frames", "worst_lines"]

WORST = 5
ABSURD = 0.3  # eV/atom; models that err by less are bad, those that err by more are asked something else
SAME = 0.3  # share of the error that is left when a constant is taken off which explains it
SANE = 0.5  # error of the forces over their size
# Labels over predictions; the slope through zero, where they go together.
FORCE_FACTORS = {"kcal/mol/Å": 23.0605, "kJ/mol/Å": 96.4853, "Hartree/Bohr": 1 / 51.4221, "the opposite sign": -1.0}

Results = Sequence[Mapping[str, Any]]


def worst_frames(
    frames: Sequence[Atoms], results: Results, indices: Sequence[int], *, per_atom: bool
) -> dict[str, list[dict[str, Any]]]:
    """Find the frames with the largest errors of the energy, and of the force on an atom.

    Parameters
    ----------
    frames, results : sequences
        Labelled structures, and what the model gives for them.
    indices : sequence of int
        Number of each frame in the file.
    per_atom : bool
        Whether energies are compared per atom.

    Returns
    -------
    dict of str to list of dict
        By "energy" and "forces", the worst first: index, frame, formula, error in meV, meV/atom or meV/Å (of the
        energy with its sign), and of forces the atom.
    """
    energy, forces = [], []
    for atoms, result, index in zip(frames, results, indices, strict=True):
        about = {"index": int(index), "frame": frame_name(atoms, index), "formula": atoms.get_chemical_formula()}
        if has_label(atoms, "energy"):
            error = 1000 * (result["energy"] - atoms.info["energy"]) / (len(atoms) if per_atom else 1)
            energy.append({**about, "error": float(error)})
        if has_label(atoms, "forces"):
            lengths = 1000 * np.linalg.norm(result["forces"] - atoms.arrays["forces"], axis=1)
            k = int(lengths.argmax())
            forces.append({**about, "error": float(lengths[k]), "atom": f"{atoms.symbols[k]}{k}"})
    found = {"energy": energy, "forces": forces}
    return {name: sorted(rows, key=lambda row: -abs(row["error"]))[:WORST] for name, rows in found.items() if rows}


def by_config_type(frames: Sequence[Atoms], results: Results, means: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Take the errors of the frames of each `info["config_type"]`; {} where no frame has one."""
    if not any("config_type" in atoms.info for atoms in frames):
        return {}
    kinds: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        kinds.setdefault(str(atoms.info.get("config_type", "none")), []).append(i)
    found = {}
    for kind, chosen in kinds.items():
        mae, rmse, mean = means([frames[i] for i in chosen], [results[i] for i in chosen])
        found[kind] = {"structures": len(chosen), "mae": mae, "rmse": rmse, "mean_error": mean}
    return found


def hints(frames: Sequence[Atoms], truth: Mapping[str, np.ndarray], guess: Mapping[str, np.ndarray]) -> list[str]:
    """Say what it means that errors are absurd: another level of theory, other units, another sign."""
    forces = _force_hint(truth, guess)
    labelled = [atoms for atoms in frames if has_label(atoms, "energy")]
    if not labelled:
        return [forces] if forces else []
    sizes = np.array([len(atoms) for atoms in labelled])
    error = (guess["energy"] - truth["energy"]) / sizes
    if np.abs(error).mean() < ABSURD:
        return [forces] if forces else []
    left = np.abs(without_shifts(labelled, error)).mean()
    text = f"energies are off by {error.mean():+.4g} eV per atom on average"
    if left < SAME * np.abs(error).mean():
        text += (
            f", and by {1000 * left:.4g} meV per atom once a constant per element is taken off: the labels are of "
            "another level of theory, or have other E0s than the model"
        )
    else:
        text += ", and by no constant: look at the units of the labels (--energy-unit) and at their level of theory"
    if forces is None and "forces" in truth:
        forces = "the forces are sane, so that the units are right"
    return [text, forces] if forces else [text]


def group_lines(config_types: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Make the table of the errors of each kind of frames."""
    if not config_types:
        return []
    names = list(dict.fromkeys(name for row in config_types.values() for name in row["mae"]))
    names = [name for name in names if not (name == "energy" and "energy_per_atom" in names)]
    width = max(11, *(len(kind) for kind in config_types))
    titles = "".join(f"{name.replace('_', ' ') + ', ' + ERROR_UNITS[name]:>27}" for name in names)
    lines = [f"  {'config_type':<{width}} {'frames':>7}{titles}   (MAE, RMSE)"]
    for kind, row in config_types.items():
        cells = [f"{row['mae'][name]:>16.2f} {row['rmse'][name]:>10.2f}" if name in row["mae"] else f"{'–':>27}"
                 for name in names]  # fmt: skip
        lines.append(f"  {kind:<{width}} {row['structures']:>7}{''.join(cells)}")
    return lines


def worst_lines(worst: Mapping[str, Sequence[Mapping[str, Any]]], mae: Mapping[str, float]) -> list[str]:
    """Name the worst frames, a line for energies and one for forces."""
    units = {"energy": ERROR_UNITS["energy_per_atom" if "energy_per_atom" in mae else "energy"]}
    lines = []
    for name, rows in worst.items():
        told = ", ".join(_worst_text(row) for row in rows)
        lines.append(f"  worst by {name}, {units.get(name, ERROR_UNITS[name])}: {told}")
    return lines


def _worst_text(row: Mapping[str, Any]) -> str:
    error = f"{row['error']:.1f} on {row['atom']}" if "atom" in row else f"{row['error']:+z.1f}"
    return f"frame {row['index']} ({error})"


def without_shifts(frames: Sequence[Atoms], error: np.ndarray) -> np.ndarray:
    """Return errors per atom, (n_frames,) in eV, less what one constant per element explains."""
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    shares = np.array([[np.mean(atoms.numbers == z) for z in elements] for atoms in frames])
    return error - shares @ np.linalg.lstsq(shares, error, rcond=None)[0]


def _force_hint(truth: Mapping[str, np.ndarray], guess: Mapping[str, np.ndarray]) -> str | None:
    """Say what is wrong with forces, or None where their errors are smaller than they are."""
    if "forces" not in truth:
        return None
    label, model = truth["forces"].ravel(), guess["forces"].ravel()
    size, error = np.sqrt(np.mean(label**2)), np.sqrt(np.mean((model - label) ** 2))
    if not error > SANE * size:
        return None
    if not (model @ model > 0 and size > 0):
        return f"the forces are off by {error:.3g} eV/Å, and labels have {size:.3g} eV/Å (rms)"
    slope = float(label @ model / (model @ model))
    left = np.sqrt(np.mean((label - slope * model) ** 2)) / size
    for name, factor in FORCE_FACTORS.items():
        if left < SANE and abs(slope / factor - 1) < 0.2:
            what = f"have {name}" if factor < 0 else f"are in {name}, not eV/Å (--energy-unit, --force-unit)"
            return f"the labels are {slope:.3g} times the forces of the model: it seems that they {what}"
    return (
        f"the forces are off by {error:.3g} eV/Å where the labels have {size:.3g} eV/Å (rms): the model does not know "
        "such structures, or units or order of the atoms are others"
    )
