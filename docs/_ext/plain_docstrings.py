"""Make docstrings, which are written to be read as text, valid reStructuredText.

Equations and tables that are indented become literal blocks, and `|F|`, `*` and `r_` outside of backticks are text.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

# Sections of NumPy's convention, below which indentation has a meaning of its own.
SECTION = re.compile(r"^-{3,}\s*$")
BULLET = re.compile(r"^\s*([-*]|\d+\.)\s")
ATTRIBUTE = re.compile(r"^(\w+(?:, \w+)*) : (.+)$")
MARKUP = re.compile(r"([|*\\])|(?<=\w)_(?!\w)")


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the lines of one docstring in place; runs before napoleon."""
    end = next((k - 1 for k, line in enumerate(lines) if SECTION.match(line)), len(lines))
    head = _literal_blocks([line if line.startswith((" ", ">>>")) else _escaped(line) for line in lines[:end]])
    lines[:] = head + [_escaped(line) for line in _attributes(lines[end:])]


def _attributes(lines: list[str]) -> list[str]:
    """Sections with the attributes written as napoleon reads them: one name each, its sentence on the next line.

    Here "name, other : sentence" is one line, which napoleon takes for names and a type.
    """
    result: list[str] = []
    inside = False
    for k, line in enumerate(lines):
        following = lines[k + 1] if k + 1 < len(lines) else ""
        if SECTION.match(following):
            inside = line.strip() == "Attributes"
        found = ATTRIBUTE.match(line) if inside else None
        if found is None:
            result.append(line)
        elif following.startswith(" ") and following.strip()[:1].isupper():
            result += [f"{found[1]} : {found[2]}"]  # a type, and a sentence below
        else:
            for name in found[1].split(", "):
                result += [name, f"    {found[2]}"]
    return result


def _literal_blocks(lines: list[str]) -> list[str]:
    result: list[str] = []
    for indented, group in groupby(_with_inner_blanks(lines), key=lambda pair: pair[1]):
        block = [line for line, _ in group]
        result += ["", "::", "", *block, ""] if indented and not BULLET.match(block[0]) else block
    return result


def _with_inner_blanks(lines: list[str]) -> list[tuple[str, bool]]:
    """Each line with whether it belongs to an indented block; blank lines between two indented ones do."""
    marked: list[tuple[str, bool]] = []
    for k, line in enumerate(lines):
        following = next((later for later in lines[k:] if later.strip()), "")
        inside = line.startswith(" ") or (not line.strip() and following.startswith(" ") and marked and marked[-1][1])
        marked.append((line, bool(inside)))
    return marked


def _escaped(line: str) -> str:
    """Return the line with what reStructuredText takes for markup escaped, but for what stands between backticks."""
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(part if k % 2 else MARKUP.sub(lambda found: "\\" + found[0], part) for k, part in enumerate(parts))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
