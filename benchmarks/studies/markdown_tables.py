"""Tables of the studies as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table"]


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table: heads, rule, and a row for each sequence of cells.

    Raises
    ------
    ValueError
        For a row that has not a cell for each head.
    """
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"a row of {len(row)} cells stands below {len(heads)} heads: {row}")
        lines.append(_line(row))
    return lines


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
