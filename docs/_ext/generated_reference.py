"""Write the pages that come from the code itself, as Markdown in docs/_build/generated, for others to include.

commands.md             every command of `asecalc` with its arguments and options
training_settings.md    every setting of `asecalc train`
md_settings.md          every setting of a molecular dynamics run
protocols.md            the named protocols
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from sphinx.pycode import ModuleAnalyzer

FOLDER = Path(__file__).resolve().parents[1] / "_build" / "generated"


def write_all(app: Any) -> None:
    """Write the pages, each only where it changed, so that unchanged pages are not built again."""
    from asecalc_mlip.cli import GROUPS
    from asecalc_mlip.md import settings as md_settings
    from training import settings as training_settings

    sections = {
        name.removesuffix("Config").lower(): cls
        for name, cls in vars(training_settings).items()
        if name.endswith("Config") and dataclasses.is_dataclass(cls)
    }
    tables = [_settings_table(cls, f"{name}.", f"## {name}", none="null") for name, cls in sections.items()]
    pages = {
        "commands": _commands(GROUPS),
        "training_settings": "\n".join(tables),
        "md_settings": _settings_table(md_settings.MDSettings, "", "", none="None"),
        "protocols": _protocols(md_settings.PROTOCOLS),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = FOLDER / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _settings_table(cls: type, prefix: str, heading: str, *, none: str) -> str:
    """Table of a dataclass; `none` is how the file or the call that holds the settings writes None."""
    documented = ModuleAnalyzer.for_module(cls.__module__).find_attr_docs()
    rows = []
    for field in dataclasses.fields(cls):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        meaning = " ".join(documented.get((cls.__name__, field.name), [])).strip()
        meaning = re.sub(r"\bNone\b", f"`{none}`", meaning)
        rows.append(f"| `{prefix}{field.name}` | {_value(default, none)} | {_cell(meaning)} |")
    intro = _cell(inspect.getdoc(cls) or "").partition(" Parameters -")[0]
    return "\n".join([heading, "", intro, "", "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def _protocols(path: Path) -> str:
    names = {"ensemble": "", "thermostat": "", "temperature_K": " K", "timestep_fs": " fs", "steps": "", "seeds": ""}
    head = "| name | description | ensemble | thermostat | temperature | time step | steps | seeds |"
    lines = [head, "|---" * 8 + "|"]
    for name, protocol in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        end = protocol.get("temperature_end_K")
        cells = {key: str(protocol.get(key, "")) + (unit if key in protocol else "") for key, unit in names.items()}
        cells["temperature_K"] += f" to {end:g} K" if end else ""
        lines.append(f"| `{name}` | {protocol['description']} | {' | '.join(c.strip('[]') for c in cells.values())} |")
    return "\n".join(lines) + "\n"


def _commands(groups: Mapping[str, Iterable[click.Command]]) -> str:
    lines = []
    for title, commands in groups.items():
        lines += [f"## {title}", ""]
        for command in commands:
            lines += _command(command, str(command.name))
    return "\n".join(lines)


def _command(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=f"asecalc {name}")
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    lines = [f"### asecalc {name}", "", "```text", usage, "```", "", *_help(command.help or ""), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        lines += ["| option | meaning |", "|---|---|", *(_option_row(option, context) for option in options), ""]
    if isinstance(command, click.Group):
        lines += [part for sub in sorted(command.commands) for part in _command(command.commands[sub], f"{name} {sub}")]
    return lines


def _option_row(option: click.Option, context: click.Context) -> str:
    names, meaning = option.get_help_record(context) or ("", "")
    return f"| `{names.replace('|', '∣')}` | {_cell(meaning)} |"


def _help(text: str) -> list[str]:
    """Paragraphs of a help text; commands, and what click leaves as it is (after a line of \\b), as code."""
    lines: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", inspect.cleandoc(text).partition("\f")[0]):
        if paragraph.startswith(("\b", " ", "asecalc ")):
            shown = re.sub(r"^Examples?:\n", "", paragraph.removeprefix("\b").lstrip("\n"))
            lines += ["```console", inspect.cleandoc("\n" + shown), "```", ""]
        else:
            lines += [_escaped(paragraph), ""]
    return lines


def _value(value: Any, none: str) -> str:
    if value is None:
        return f"`{none}`"
    if isinstance(value, bool) and none == "null":
        return f"`{str(value).lower()}`"
    return f"`{value}`" if str(value) else '`""`'


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text in which nothing but backticks means anything to Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if k % 2 else re.sub(r"([*_<\[$])", r"\\\1", part) for k, part in enumerate(parts))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True}
