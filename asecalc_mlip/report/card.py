"""The card of a model as rows of a table: what every user looks for first, then all that its file says besides."""

from __future__ import annotations

from typing import Any

from asecalc_mlip.checkpoint import plain_text, shape_text
from asecalc_mlip.report.subject import Subject

__all__ = ["card_rows"]

FIRST = ("training_data", "level_of_theory", "test_errors", "licence", "source", "losses", "training")
SHOWN = {"architecture", "hyperparameters", "elements", "cutoff", "units", "reference_energies", "name", *FIRST}


def card_rows(subject: Subject, found: dict[str, Any]) -> list[tuple[str, str]]:
    """List names and texts, in order; texts are as the file has them and must be escaped."""
    card, model = subject.card, found["model"]
    rows = [(_words(name), plain_text(card[name]) if card.get(name) else "not stated") for name in FIRST]
    rows += [
        ("elements", ", ".join(card["elements"])),
        ("cutoff", f"{card['cutoff']:g} Å"),
        ("architecture", f"{shape_text(subject.calculator.potential)}, {model['n_parameters']} parameters"),
        ("forces", "gradient of the energy" if model["conservative"] else "direct, not the gradient of the energy"),
        ("reference energies", _reference_energies(card["reference_energies"])),
        ("temperatures of the data", _temperatures(found["how"]["temperatures_K"])),
    ]
    return rows + [(_words(name), plain_text(value)) for name, value in card.items() if name not in SHOWN]


def _reference_energies(found: dict[str, Any]) -> str:
    values = ", ".join(f"{symbol} {value:.3f}" for symbol, value in found.get("values", {}).items())
    return f"{values} eV; {found.get('method', 'not stated')}; {found.get('source', 'source not stated')}"


def _temperatures(known: Any) -> str:
    return (
        "not stated (frames of a training state it by temperature_K)"
        if known is None
        else f"{known[0]:g} to {known[1]:g} K"
    )


def _words(name: Any) -> str:
    return str(name).replace("_", " ")
