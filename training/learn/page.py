"""The page of a learning, report.html: how it went, which frames were taken and why, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asecalc_mlip.analysis.survival import survival
from asecalc_mlip.checkpoint import describe
from asecalc_mlip.files import read_json, write_text
from asecalc_mlip.plots.learning import calibration_figure, course_figure
from asecalc_mlip.plots.style import figure_bytes
from asecalc_mlip.plots.survival import survival_figure
from asecalc_mlip.report.html import Raw, document, figure, paragraph, section, table, tiles
from asecalc_mlip.report.html import text as text_of
from asecalc_mlip.teachers import Teacher
from asecalc_mlip.teachers.labelling import failures_of
from training.learn.settings import LearnSettings
from training.learn.state import Folder

__all__ = ["write_page"]

DPI = 130
# Survival curves: the first, the last, and some between.
MOST_CURVES = 6
ENDS = {
    None: "It is going on.",
    "stable": "All replicas ran to the end without a frame to label.",
    "budget": "It ended because all labels of the budget were used; the model may still break.",
    "hours": "It ended because its hours were over; the model may still break.",
    "stuck": "It ended because round after round had nothing new to label, though replicas still broke.",
    "interrupted": "It was interrupted; give the same command again to continue.",
}


def write_page(
    folder: Folder, settings: LearnSettings, teacher: Teacher, status: str | None, final: dict[str, Any] | None
) -> Path:
    """Write report.html about the rounds so far and, if there is one, the final model."""
    rounds = folder.rounds()
    what = f"Learning by {teacher.name}, {settings.temperature_K:g} K, until {settings.until}"
    parts = [
        Raw(f"<h1>{text_of(what)}</h1>"),
        paragraph(ENDS[status], "lead"),
        tiles(_numbers(rounds, final)),
        _course(rounds, settings),
        _survival(rounds, final, settings),
        _calibration(folder, rounds),
        _frames(rounds),
        _without_labels(folder, rounds),
        _dimers(folder, final),
        _card(folder, final),
    ]
    path = folder.path / "report.html"
    write_text(path, document(what, [part for part in parts if part]))
    return path


def _numbers(rounds: list[dict[str, Any]], final: dict[str, Any] | None) -> list[tuple[str, str]]:
    last = rounds[-1]
    seconds = last["seconds"]
    found = [
        (str(last["labels"]), "labels"),
        (str(len(rounds)), "rounds"),
        (f"{sum(not b for b in last['broken'])} of {len(last['broken'])}", "replicas quiet in the last round"),
        (f"{last['force_mae_meV_A']:.0f} meV/Å", "held-out force error of the committee"),
        (f"{seconds['labels']:.0f} s", "spent on labels"),
        (f"{seconds['training']:.0f} s", "spent on training"),
        (f"{seconds['dynamics']:.0f} s", "spent on dynamics"),
    ]
    if final:
        found.insert(3, (f"{sum(not b for b in final['broken'])} of {len(final['broken'])}", "final model: stable"))
        if "forces" in final["errors"]:
            found.insert(4, (f"{final['errors']['forces']:.0f} meV/Å", "final model: held-out force error"))
    return found


def _course(rounds: list[dict[str, Any]], settings: LearnSettings) -> Raw:
    drawn = course_figure(
        [r["labels"] for r in rounds],
        [r["force_mae_meV_A"] for r in rounds],
        [r["stable_ps"] for r in rounds],
        [r["broken"] for r in rounds],
        end_ps=settings.until.ps,
    )
    caption = (
        "Left: mean absolute error of the force components on held-out labels, every fifth one. These are hard frames, "
        "taken where the model failed. Right: how long each replica ran before monitor or committee ended it."
    )
    head = ("round", "labels", "failed", "threshold, eV/Å", "error/spread", "rank correlation", "error, meV/Å", "quiet",
            "shortest, ps", "taken", "unphysical")  # fmt: skip
    lines = [
        (
            str(r["round"]), str(r["labels"]), str(r["failed"]), f"{r['threshold']:.3f}", f"{r['ratio']:.2f}",
            "–" if r["rank_correlation"] is None else f"{r['rank_correlation']:.2f}", f"{r['force_mae_meV_A']:.0f}",
            f"{sum(not b for b in r['broken'])} of {len(r['broken'])}", f"{min(r['stable_ps']):.3g}",
            str(len(r["taken"])), str(r["unphysical"]),
        )
        for r in rounds
    ]  # fmt: skip
    return section(
        "Course", figure(figure_bytes(drawn, DPI), caption, "error and time against labels"), table(head, lines)
    )


def _survival(rounds: list[dict[str, Any]], final: dict[str, Any] | None, settings: LearnSettings) -> Raw:
    step = max(1, -(-len(rounds) // MOST_CURVES))
    chosen = [*rounds[:-1:step], rounds[-1]]
    curves = {f"round {r['round']}, {r['labels']} labels": survival(r["stable_ps"], r["broken"]) for r in chosen}
    if final:
        curves["final model, monitor alone"] = survival(final["stable_ps"], final["broken"])
    caption = f"Share of the replicas without a frame to label, to {settings.until.ps:g} ps; shaded: 95 % limits."
    return section(
        "Survival by round",
        figure(figure_bytes(survival_figure(curves, log_time=True, word="quiet"), DPI), caption, "survival curves"),
    )


def _calibration(folder: Folder, rounds: list[dict[str, Any]]) -> Raw:
    now = folder.round(len(rounds) - 1)
    held = read_json(now.file("committee.json"))
    parts = {f"held-out labels, round {now.number}": (held["spread"], held["error"])}
    fresh = [folder.round(k).file("fresh.json") for k in range(len(rounds))]
    found = [read_json(path) for path in fresh if path.is_file()]
    if found:
        label = "frames taken, before they were trained on"
        parts[label] = tuple([value for one in found for value in one[name]] for name in ("spread", "error"))  # type: ignore[assignment]
    text = (
        "Each point is an atom; lines are root mean squares of tenths of the atoms. The spread is of use where a large "
        "one means a large error."
    )
    drawn = figure(figure_bytes(calibration_figure(parts), DPI), text, "spread against error")
    return section("What the spread is worth", drawn)


def _frames(rounds: list[dict[str, Any]]) -> Raw:
    lines = [
        (
            str(r["round"]), f"replica {one['run']}", f"{one['time_ps']:.3f}",
            "–" if one["spread"] is None else f"{one['spread']:.2f}", f"{one['distance']:.2f}", one["reason"],
        )
        for r in rounds
        for one in r["taken"]
    ]  # fmt: skip
    head = ("round", "run", "time, ps", "spread, eV/Å", "distance", "why")
    text = (
        "Of the frames in question, those were labelled that differ most from all labelled ones: distance of their "
        "atoms in the features of the model, in units of the scatter of the labelled atoms."
    )
    return section("Frames taken", paragraph(text), table(head, lines) if lines else paragraph("None.", "note"))


def _without_labels(folder: Folder, rounds: list[dict[str, Any]]) -> Raw | None:
    failed = [(k, one) for k in range(len(rounds)) for one in failures_of(folder.round(k).labels)]
    lines = [(str(k), str(one["number"]), one["formula"], one["reason"]) for k, one in failed]
    unphysical = sum(r["unphysical"] for r in rounds)
    if not lines and not unphysical:
        return None
    text = (
        f"{unphysical} frames in question had atoms within half of the sum of their covalent radii. No labeller sees "
        "them: there the repulsion of nuclei in the model counts, and a far-field teacher (far.teacher), if there is "
        "one. They are in unphysical.xyz of their rounds."
    )
    rows = table(("round", "structure", "formula", "why it has no label"), lines) if lines else None
    return section("Frames without labels", paragraph(text) if unphysical else None, rows)


def _dimers(folder: Folder, final: dict[str, Any] | None) -> Raw | None:
    path = folder.path / final["dimers"] if final else None
    if path is None or not path.is_file():
        return None
    text = "Energy and force of two atoms alone in the final model. No label is of such a pair."
    return section("Isolated pairs", figure(path.read_bytes(), text, "curves of pairs of atoms"))


def _card(folder: Folder, final: dict[str, Any] | None) -> Raw | None:
    path = folder.path / "model.pt"
    if final is None or not path.is_file():
        return None
    return section("The model", Raw(f"<pre>{text_of(describe(path))}</pre>"))
