"""Small pieces of HTML; whatever comes from files or cards is escaped here, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["Raw", "STYLE", "document", "figure", "items", "paragraph", "section", "table", "text", "tiles"]


class Raw(str):
    """HTML that these functions made; any other text is escaped before it gets into a page."""


STYLE = """
:root { color-scheme: light; --ink: #222; --grey: #6e6e6e; --line: #ddd;
  --blue: #0072B2; --red: #D55E00; --green: #009E73; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.2rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: .3rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; overflow-wrap: anywhere; }
.lead, figcaption, .note { color: var(--grey); font-size: .92rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.tile { border: 1px solid var(--line); border-left: 4px solid var(--blue); border-radius: 4px; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.25rem; line-height: 1.25; overflow-wrap: anywhere; }
.tile span { color: var(--grey); font-size: .85rem; }
.warnings { border: 1px solid var(--red); border-left-width: 5px; border-radius: 4px; padding: .3rem 1rem; }
.warnings li { margin: .35rem 0; overflow-wrap: anywhere; }
.good { border-color: var(--green); }
figure { margin: 1rem 0; overflow-x: auto; } img { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--grey); font-weight: 600; white-space: nowrap; } td { overflow-wrap: anywhere; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } th.n { text-align: right; }
table:not(.card) td { white-space: nowrap; }
table.card th { width: 11rem; } code { font-size: .9em; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .8rem; } table.card th { white-space: normal; width: auto; }
  img { max-width: none; width: 46rem; } }
"""


def text(value: Any) -> Raw:
    """Escape text; HTML of these functions stays as it is."""
    return value if isinstance(value, Raw) else Raw(escape(str(value)))


def document(title: str, parts: Iterable[Raw]) -> str:
    """Make a whole page that loads nothing from outside, and does not let a browser do so."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def section(title: str, *parts: Raw | None) -> Raw:
    """Make a heading with its parts under it."""
    return Raw(f"<section><h2>{text(title)}</h2>" + "".join(part for part in parts if part) + "</section>")


def paragraph(value: Any, kind: str = "") -> Raw:
    """Make one paragraph; `kind` is "lead" or "note"."""
    return Raw(f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>")


def items(values: Iterable[Any], kind: str) -> Raw:
    """Make a list in a frame."""
    return Raw(f'<div class="{kind}"><ul>' + "".join(f"<li>{text(value)}</li>" for value in values) + "</ul></div>")


def tiles(values: Iterable[tuple[str, str]]) -> Raw:
    """Make key numbers, each a value over its name."""
    made = (f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>' for value, name in values)
    return Raw('<div class="tiles">' + "".join(made) + "</div>")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, kind: str = "") -> Raw:
    """Make rows under a head; texts that begin like numbers stand to the right. kind="card": the first column names."""
    body = [list(map(text, row)) for row in rows]
    if kind == "card":
        lines = "".join(f'<tr><th scope="row">{row[0]}</th><td>{row[1]}</td></tr>' for row in body)
        return Raw(f'<div class="scroll"><table class="card">{lines}</table></div>')
    right = [all(_numeric(row[k]) for row in body) for k in range(len(head))]
    top = "".join(f"<th{_side(right[k])}>{text(name)}</th>" for k, name in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{_side(right[k])}>{cell}</td>" for k, cell in enumerate(row)) + "</tr>" for row in body
    )
    return Raw(f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>')


def figure(png: bytes | None, caption: str, alt: str) -> Raw | None:
    """Make an image in the page itself."""
    if png is None:
        return None
    data = base64.b64encode(png).decode()
    return Raw(
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(alt)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _numeric(cell: str) -> bool:
    return cell in ("", "–") or cell.lstrip("+-−<")[:1].isdigit()


def _side(right: bool) -> str:
    return ' class="n"' if right else ""
