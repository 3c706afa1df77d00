"""Every setting with its sentence and its default, as YAML: what `asecalc train --defaults` prints."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from training.settings import SECTIONS

__all__ = ["explain"]


def explain() -> str:
    """Return every setting with its sentence and its default, as YAML that `asecalc train` reads."""
    lines = [
        "# Every setting of `asecalc train` with its default. A CONFIG.yaml holds those that differ, and the command"
    ]
    lines.append("# line too: asecalc train CONFIG.yaml data.train=train.xyz run.max_epochs=100")
    for name, section in SECTIONS.items():
        defaults, sentences = dataclasses.asdict(section()), dict(_sentences(section))
        lines += ["", *_comment((section.__doc__ or "").strip()), f"{name}:"]
        for key, value in defaults.items():
            lines += [*_comment(sentences[key], indent="  "), f"  {key}: {_yaml(value)}"]
    return "\n".join(lines) + "\n"


def _sentences(section: type) -> Iterator[tuple[str, str]]:
    """Return the names of the fields of a dataclass and the docstrings below them."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(section)).body if isinstance(node, ast.ClassDef))
    for statement, after in zip(body, body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), statement.target.id
            yield statement.target.id, str(after.value.value)


def _comment(text: str, indent: str = "") -> list[str]:
    head, text = f"{indent}# ", " ".join(text.split()).replace("None", "null")
    return textwrap.wrap(text, 118 - len(indent), initial_indent=head, subsequent_indent=head)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
