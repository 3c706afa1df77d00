"""Odd names of files: a command takes them and writes what it says, or refuses them in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io

from asecalc_mlip.zoo import find, structure
from tests import teacher
from tests.attack.harness import Arena, Attack, asecalc, family

__all__ = ["NAMES"]

NAMES = (
    *("a" * 300, "a" * 5000, "a" * 245, "ü" * 120, "$x$", "$", "a$b_c^{d}$", "${a}", "${oc.env:HOME}", "{a}", "{}"),
    *("{0}", "%s%n", "a b", " ", "a'b", 'a"b', "a\\b", "a;b", "a&b", "a#b", "a=b", "a:b", "-a", "--", "~", "~root"),
    *(
        "a\nb",
        "a\tb",
        "a\x1b[31mb",
        "a\udcffb",
        "日本",
        "a\u202eb",
        "*",
        "a[0]",
        "@a",
        "a@:",
        "null",
        "a,b",
        "<b>",
        "a.b",
    ),
)
Use = Callable[[Path, str, str], tuple[list[str], list[str]]]  # folder, input stem, output stem → words, files written


def _evaluate(folder: Path, source: str, target: str) -> tuple[list[str], list[str]]:
    ase.io.write(folder / "data.xyz", _ethanol(), format="extxyz")
    (folder / "data.xyz").rename(folder / f"{source}.xyz")
    files = [f"{target}.json", f"{target}.png", f"{target}.xyz"]
    words = ["evaluate", "ethanol.pt", f"./{source}.xyz", "-o", files[0], "--figure", files[1]]
    return [*words, "--predictions", files[2]], files


def _ethanol() -> list:
    return teacher.as_reference([teacher.labelled(structure("ethanol.pt"))])


def _rdf(folder: Path, source: str, target: str) -> tuple[list[str], list[str]]:
    ase.io.write(folder / "data.xyz", teacher.crystal_frames(2), format="extxyz")
    (folder / "data.xyz").rename(folder / f"{source}.xyz")
    files = [f"{target}.json", f"{target}.png"]
    return ["rdf", f"./{source}.xyz", "-o", files[0], "--figure", files[1], "--bins", "20"], files


def _nvt(folder: Path, source: str, target: str) -> tuple[list[str], list[str]]:
    ase.io.write(folder / "data.xyz", structure("ethanol.pt"), format="extxyz")
    (folder / "data.xyz").rename(folder / f"{source}.xyz")
    words = ["nvt", "ethanol.pt", f"./{source}.xyz", "--steps", "40", "--interval", "20", "-o", f"./{target}"]
    return words, [f"{target}/summary.json", f"{target}/figure.png"]


def _diatomic(folder: Path, source: str, target: str) -> tuple[list[str], list[str]]:
    (folder / f"{source}.pt").write_bytes(find("ethanol.pt").read_bytes())
    files = [f"{target}.json", f"{target}.png"]
    return ["diatomic", f"./{source}.pt", "--pairs", "H-H", "-o", files[0], "--figure", files[1]], files


def _label(folder: Path, source: str, target: str) -> tuple[list[str], list[str]]:
    from tests.attack.running import COMMANDS

    words = COMMANDS["eam label"](folder / "run")
    data, words[2] = Path(words[2]), f"./{source}.xyz"
    data.rename(folder / f"{source}.xyz")
    words[words.index("-o") + 1], words[words.index("--rounds") + 1] = f"./{target}.xyz", "2"
    return words, [f"{target}.xyz"]


USES: dict[str, Use] = {"evaluate": _evaluate, "rdf": _rdf, "nvt": _nvt, "diatomic": _diatomic, "eam label": _label}


def _enter(name: str, use: Use) -> None:
    @family(f"odd names: {name}", small=int(name in ("rdf", "nvt")), large=200, seconds=30.0, gigabytes=3.0)
    def prepare(arena: Arena) -> Attack:
        source, target = arena.choice(NAMES), arena.choice(NAMES)
        if arena.rng.random() < 0.5:
            source = "plain"
        try:
            words, files = use(arena.folder, source, f"out{target}")
        except (
            OSError,
            UnicodeEncodeError,
        ):  # the system itself has no such name: the command is given it all the same
            words, files = use(arena.folder, "plain", f"out{target}")
            words = [word.replace("./plain", f"./{source}") for word in words]

        def attempt() -> bool | str:
            asecalc(*words)
            missing = [file for file in files if not (arena.folder / file).is_file()]
            return not missing or f"it ended well, but did not write {missing!r:.300}"

        return f"{name}: from {source!r:.60} to {target!r:.60}", attempt


for _name, _use in USES.items():
    _enter(_name, _use)


@family("a folder as output", small=1, large=40, seconds=30.0, gigabytes=3.0)
def _folder_as_output(arena: Arena) -> Attack:
    name = arena.choice(USES)
    words, files = USES[name](arena.folder, "plain", "out")
    target = arena.folder / (files[0] if name != "nvt" else "out")
    if name == "nvt":
        target.write_text("a file in place of a folder")
    else:
        target.mkdir()
    return name, lambda: asecalc(*words) and "taken"
