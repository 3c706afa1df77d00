"""Every command line and every setting in README, docs, help texts and docstrings is one that the program takes.

Nothing runs: click parses the arguments, training.config the settings. A line that names only a part of a command
(`asecalc report` in a sentence) may lack arguments, in a code block it may not.
"""

import inspect
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from asecalc_mlip import cli
from asecalc_mlip.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
# Not in docs/_build, where a build of the documentation may be at work.
PATTERNS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/[!_]*/**/*.md", "examples/README.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
SCRIPTS = sorted(script for folder in ("md_protocols", "examples") for script in (ROOT / folder).glob("[a-z]*.py"))
SETTINGS = ("train", "pretrain", "finetune", "tune")
SECTIONS = "data|model|loss|weak|optimizer|finetune|far|pretrain|run"
ENDS_OF_FILES = ("pt", "xyz", "extxyz", "db", "npz", "yaml", "json", "md", "py", "csv", "html", "log", "ckpt", "traj")
SHELL = ("", "bash", "sh", "shell", "console", "text")


@dataclass(frozen=True)
class Line:
    """A command line and where it stands."""

    text: str
    where: str
    whole: bool
    """In a code block: nothing may be missing."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def commands_of(page: Path) -> Iterator[Line]:
    """Command lines of a Markdown page: of its code blocks, and between backticks."""
    name = str(page.relative_to(ROOT))
    text = page.read_text(encoding="utf-8")
    for language, block in blocks(text):
        if language in SHELL:
            yield from (Line(line, name, True) for line in lines_of(block))
    prose = re.sub(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", "", text, flags=re.S | re.M)
    for code in re.findall(r"`([^`\n]+)`", prose):
        if re.match(r"(asecalc|make|python [a-z_]+/)\b", code):
            yield Line(code.strip(), name, False)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    for match in re.finditer(
        r"^ *(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^ *(?P=fence) *$", text, re.S | re.M
    ):
        language = re.sub(r"[{}]", " ", match["info"]).split()
        yield (language[0] if language else ""), match["body"]


def lines_of(block: str) -> Iterator[str]:
    """Lines of a shell block that call this project's programs, joined where they go on, without comments."""
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        line = re.sub(r"(^|\s+)#.*", "", line).strip().removeprefix("$ ")
        if re.match(r"(\w+=\S+ )*(asecalc|make|python3?|\S*/python) ", f"{line} ") and not line.endswith(":"):
            yield line


def help_texts() -> Iterator[tuple[str, click.Command]]:
    """All commands by their full names."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        for part, below in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {part}", below)

    return walk("asecalc", cli.main)


def every_line() -> list[Line]:
    """All command lines that a reader finds."""
    found = [line for page in PAGES for line in commands_of(page)]
    for name, command in help_texts():
        found += [Line(line, f"{name} --help", True) for line in lines_of(command.help or "")]
    for script in SCRIPTS:
        doc = re.match(r'(?:#[^\n]*\n)*"""(.*?)"""', script.read_text(encoding="utf-8"), re.S)
        assert doc, f"{script} has no docstring"
        found += [Line(line, str(script.relative_to(ROOT)), True) for line in lines_of(doc[1])]
    return found


def parse(line: Line) -> None:
    """Raise click's or our error for a line that the program would refuse."""
    words = shlex.split(line.text)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    for k, word in enumerate(words):
        if word in ("|", ">", ">>", "&", "&&", ";", "2>&1"):
            words = words[:k]
            break
    partial = not line.whole or any(word in ("…", "...") for word in words)
    words = [word for word in words if word not in ("…", "...")]
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert all("=" in word or word in targets for word in words[1:]), f"no such target: {line}"
    elif program.startswith("python"):
        parse_python(words[1:])
    else:
        parse_asecalc(words[1:], partial)


def parse_python(words: list[str]) -> None:
    """Check that a script is there."""
    if not words or words[0] in ("-m", "-c"):
        return
    assert words[0].startswith("-") or (ROOT / words[0]).is_file() or "/" not in words[0], f"no such script: {words[0]}"


def parse_asecalc(words: list[str], partial: bool) -> None:
    """Let click parse a command and what is below it, and the configuration its settings."""
    command, context, name = cli.main, click.Context(cli.main, info_name="asecalc"), "asecalc"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        command, context = found, click.Context(found, info_name=name, parent=context)
    if isinstance(command, click.Group):
        return
    try:
        parsed = command.make_context(name, list(words), parent=context.parent).params
    except click.exceptions.Exit:  # --help
        pass
    except click.MissingParameter:
        if not partial:
            raise
    else:
        if name in SETTINGS:
            check_settings([word for word in parsed["arguments"] if "=" in word])
            check_names(space.partition("=")[0] for space in parsed.get("space", ()))


def check_settings(settings: list[str]) -> None:
    """Values too, but those that a page leaves open: data.train=… ."""
    pytest.importorskip("training.config")
    from training.config import load_config

    load_config([], [setting for setting in settings if not setting.endswith(("=", "=…", "=..."))])
    check_names(setting.partition("=")[0] for setting in settings)


def check_names(names: Iterable[str]) -> None:
    """Raise InputError for a setting that there is not; hyper-parameters are the architecture's."""
    from training.config import setting_types

    for name in names:
        setting_types(".".join(name.split(".")[:2]))


@pytest.mark.parametrize("line", every_line(), ids=str)
def test_command_line(line):
    try:
        parse(line)
    except (click.ClickException, InputError) as error:
        told = error.format_message() if isinstance(error, click.ClickException) else str(error)
        pytest.fail(f"{line}\n{told}")


def mentioned() -> list[tuple[str, str]]:
    """Settings that pages and help texts name between backticks, such as `run.seed` or `run.seed=1`; and where."""
    pattern = re.compile(rf"`((?:{SECTIONS})\.[a-z_0-9.]+)(=[^`\n]*)?`")
    texts = [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in PAGES]
    found = {(name, match[1] + (match[2] or "")) for name, text in texts for match in pattern.finditer(text)}
    for name, command in help_texts():
        words = re.findall(rf"\b((?:{SECTIONS})\.[a-z_]+(?:=\w+)?)", inspect.cleandoc(command.help or ""))
        found |= {(f"{name} --help", word) for word in words}
    return sorted((where, text) for where, text in found if text.rpartition(".")[2] not in ENDS_OF_FILES)


@pytest.mark.parametrize("where, setting", mentioned())
def test_setting(where, setting):
    try:
        check_settings([setting if "=" in setting else f"{setting}="])
    except InputError as error:
        pytest.fail(f"{where}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_blocks_are_configurations(page, tmp_path):
    """Those whose first key is a section of a training's settings."""
    pytest.importorskip("training.config")
    from training.config import load_config

    for language, block in blocks(page.read_text(encoding="utf-8")):
        if language in ("yaml", "yml") and re.match(rf"(#[^\n]*\n)*({SECTIONS}):", block):
            assert isinstance(yaml.safe_load(block), dict)
            (tmp_path / "block.yaml").write_text(block)
            load_config([tmp_path / "block.yaml"])


def test_every_command_has_an_example_and_every_option_a_sentence():
    """Groups need no example."""
    for name, command in help_texts():
        if isinstance(command, click.Group) or command.context_settings.get("help_option_names") == []:
            continue
        assert any(line.startswith("asecalc ") for line in lines_of(command.help or "")), f"{name} shows no example"
        for option in command.params:
            choices = isinstance(getattr(option, "type", None), click.Choice)
            assert choices or isinstance(option, click.Argument) or option.help, f"{name} {option.opts[0]} has no help"


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("[a-z]*.py")))
def test_every_tool_is_named_where_one_reads_of_it(tool):
    others = [*(ROOT / "tools").glob("*.py"), *(ROOT / ".github").glob("*.md"), *(ROOT / "tests").glob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in (*PAGES, ROOT / "SECURITY.md", ROOT / "Makefile", *others)
             if path.name != tool]  # fmt: skip
    assert any(tool in text or f"tools.{tool[:-3]}" in text or f"tools import {tool[:-3]}" in text for text in texts)
