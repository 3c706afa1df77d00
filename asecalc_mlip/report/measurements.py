"""Measurements of a report, piece by piece; each piece is plain values, kept by `Pieces`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from asecalc_mlip.bench.measure import compare, ns_per_day, our_walk
from asecalc_mlip.bench.timing import is_busy, load_now, machine
from asecalc_mlip.calculators.loading import load_calculator
from asecalc_mlip.data.errors import evaluate_frames
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.plots.diatomic import diatomic_figure
from asecalc_mlip.plots.training import parity
from asecalc_mlip.probes import diatomic_report, shortest_distances
from asecalc_mlip.report.cache import Pieces
from asecalc_mlip.report.subject import Subject

__all__ = ["diatomic_piece", "errors_piece", "speed_piece"]

MOST_PAIRS = 15
PARITY, DIATOMIC = "parity.png", "diatomic.png"


def errors_piece(subject: Subject, pieces: Pieces, most: int) -> dict | None:
    """Measure MAE and RMSE on the labelled data, and draw the parity figure; None without data."""
    if subject.frames is None:
        return None
    frames, data = subject.frames, Path(str(subject.settings.data))
    chosen = evenly(len(frames), most)

    def make() -> dict:
        errors = evaluate_frames(subject.calculator, [frames[k] for k in chosen], name=data.name)
        path = pieces.folder / PARITY
        parity(errors.labels, errors.predictions, path=path, title=f"{errors.model} on {data.name}")
        return {**errors.to_dict(), "of_structures": len(frames), "machine": machine()}

    depends = [subject.sha256, sha256_of(data), len(chosen), subject.settings.dtype]
    what = f"Errors on {len(chosen)} of {len(frames)} structures of {data.name}"
    return pieces.get("errors", depends, make, what, files=[PARITY])


def diatomic_piece(subject: Subject, pieces: Pieces) -> dict:
    """Compute curves, metrics and flags of pairs of elements, in float64, and draw them."""
    pairs, left_out = _pairs(subject)

    def make() -> dict:
        calculator = load_calculator(subject.path, device=subject.settings.device, dtype="float64")
        shortest = shortest_distances(subject.frames) if subject.frames else None
        report = diatomic_report(calculator, pairs, shortest_A=shortest)
        diatomic_figure([report], path=pieces.folder / DIATOMIC, title="Two isolated atoms over their distance")
        return {**_short(report.to_dict()), "pairs_left_out": left_out}

    depends = [subject.sha256, pairs, sha256_of(subject.settings.data) if subject.settings.data else None]
    return pieces.get("diatomic", depends, make, f"Diatomic curves of {len(pairs)} pairs", files=[DIATOMIC])


def speed_piece(subject: Subject, pieces: Pieces, steps: int, timestep_fs: float) -> dict:
    """Measure milliseconds per step of the start structure, as `asecalc bench` does."""
    here = machine()

    def make() -> dict:
        calculator, load = subject.calculator, load_now()
        row = compare(calculator, None, subject.atoms, steps=steps)
        processor = _processor_ms(subject, steps)
        busy = is_busy(load, here["cores"])
        step = processor / here["threads"] if busy and calculator.device.type == "cpu" else row["ours_ms"]
        return {
            **row,
            "step_ms": step,
            "processor_ms": processor,
            "load": load,
            "busy": busy,
            "ns_per_day": ns_per_day(step, timestep_fs),
            "timestep_fs": timestep_fs,
            "device": str(calculator.device),
            "dtype": calculator.dtype,
            "skin_A": calculator.neighbors.skin,
            "machine": here,
        }

    where = [subject.settings.device, subject.settings.dtype, here]
    depends = [subject.sha256, subject.atoms.numbers.tolist(), steps, timestep_fs, where]
    return pieces.get("speed", depends, make, f"Speed: {steps} steps of {len(subject.atoms)} atoms")


def _processor_ms(subject: Subject, steps: int) -> float:
    """Measure the processor time of a step, all threads together, without that of other processes."""
    walk = our_walk(subject.calculator, subject.atoms)
    walk(2)
    start = time.process_time()
    walk(steps)
    return 1e3 * (time.process_time() - start) / steps


def _pairs(subject: Subject) -> tuple[list[str], int]:
    """Choose pairs, and count those left out: all of the model's, or where these are many, the structure's."""
    known = list(subject.card["elements"])
    present = [symbol for symbol in known if symbol in set(subject.atoms.symbols)]
    every = _combined(known)
    chosen = every if len(every) <= MOST_PAIRS else _combined(present)[:MOST_PAIRS]
    return chosen, len(every) - len(chosen)


def _combined(symbols: list[str]) -> list[str]:
    return [f"{a}-{b}" for k, a in enumerate(symbols) for b in symbols[k:]]


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """Leave out the arrays that neither page nor figure shows; round the others."""
    kept = ("pair", "cutoff_A", "grid", "n_not_finite", "below_A", "metrics", "flags")
    pairs = [
        {
            **{name: pair[name] for name in kept},
            "distances_A": np.round(pair["distances_A"], 4).tolist(),
            "energies_eV": np.round(pair["energies_eV"], 4).tolist(),
        }
        for pair in report["pairs"]
    ]
    return {"model": report["model"], "mean_tortuosity": report["mean_tortuosity"], "pairs": pairs}
