"""Counts of the house: who imports whom, circles of files, arrows upward, and how often each mechanism stands.

    python tools/count_house.py                   # this checkout
    python tools/count_house.py ../before .       # two checkouts beside each other

Everything is read from the sources (`ast`), nothing is imported. `tests/test_house.py` holds the same counts to zero.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import click

PACKAGES = ("asecalc_mlip", "training", "md_protocols")
# Only commands may reach the training package, when they run.
COMMANDS = ("asecalc_mlip.commands", "asecalc_mlip.cli")
# Calls that a mechanism cannot do without: one file has them all where the mechanism stands once.
MECHANISMS = {
    "atomic write (os.replace)": ("os.replace", "os.rename", ".replace(path)"),
    "folder lock (flock)": ("fcntl.flock", "fcntl.lockf"),
    "soft stop (signal.signal)": ("signal.signal",),
    "orphan watcher (getppid)": ("os.getppid",),
    "JSON writer (json.dump)": ("json.dump", "json.dumps"),
    "structure reader (ase.io.read)": ("ase.io.read", "ase.io.iread"),
    "device of auto (is_available)": ("torch.cuda.is_available", "torch.backends.mps.is_available"),
    "digest (sha256)": ("hashlib.sha256", "hashlib.file_digest"),
    "output of others caught": ("contextlib.redirect_stdout", "contextlib.redirect_stderr"),
}


@dataclass(frozen=True)
class Import:
    """One import statement of one name."""

    source: str
    """Module that imports."""
    target: str
    """Module that is imported: `from a import b` imports a.b where that is a module, else a."""
    line: int
    inside: bool
    """Inside a function: it happens when that is called."""
    typing: bool
    """Under `if TYPE_CHECKING`: it never happens."""


@dataclass(frozen=True)
class House:
    """The sources of one checkout."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Files of the packages by the names under which they are imported."""
        files = (path for package in PACKAGES for path in sorted((self.root / package).rglob("*.py")))
        return {_module_name(path.relative_to(self.root)): path for path in files}

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Syntax tree of each module."""
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.modules.items()}

    @cached_property
    def imports(self) -> list[Import]:
        """All imports of one file of the packages by another."""
        return [found for name in self.modules for found in self._imports_of(name)]

    def circles(self) -> list[list[str]]:
        """Files that import each other, in a circle of any length and at any time but type checking."""
        edges: dict[str, set[str]] = {name: set() for name in self.modules}
        for found in self.imports:
            if not found.typing:
                edges[found.source].add(found.target)
        return sorted(sorted(circle) for circle in _strong_components(edges) if len(circle) > 1)

    def repeated_options(self) -> list[list[str]]:
        """Options, the names in a `Literal`, that are declared at several places; each list has those of one set."""
        found: dict[frozenset[str], list[str]] = {}
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
                    values = [v.value for v in ast.walk(node.slice) if isinstance(v, ast.Constant)]
                    found.setdefault(frozenset(map(str, values)), []).append(f"{name}:{node.lineno}")
        return [places for options, places in found.items() if len(options) > 1 and len(places) > 1]

    def upward(self) -> list[Import]:
        """Find imports of training by the package (commands may when run) and of md_protocols by anyone."""
        return [found for found in self.imports if not found.typing and _is_upward(found)]

    def backward(self) -> list[tuple[str, int]]:
        """Where the package reaches training or md_protocols, in commands and by strings too: (module, line)."""
        plain = [(i.source, i.line) for i in self.imports if not i.typing and _is_backward(i.source, i.target)]
        calls = [(n, node) for n, tree in self.trees.items() for node in ast.walk(tree) if _has_module_string(node)]
        return plain + [(n, node.lineno) for n, node in calls if _is_backward(n, ast.literal_eval(node.args[0]))]

    def by_string(self) -> list[tuple[str, int]]:
        """Modules that are imported by a name in a string: (module, line)."""
        return self._calls_of({"importlib.import_module", "__import__"})

    def prints(self, packages: Sequence[str] = ("asecalc_mlip", "training")) -> list[tuple[str, int]]:
        """Find calls of print in library code, which logs: (module, line)."""
        places = self._calls_of({"print"})
        return [place for place in places if _package(place[0]) in packages and not _is_command(place[0])]

    def mechanism(self, calls: Sequence[str]) -> list[tuple[str, int]]:
        """Where one of these functions is called: (module, line)."""
        return self._calls_of(set(calls))

    def top_level(self, package: str) -> int:
        """Python files directly in the folder of a package."""
        return len(list((self.root / package).glob("*.py")))

    def naming(self, architecture: str) -> list[str]:
        """Files of package, trainer and set-up that name an architecture in their code, not in words."""
        word = re.compile(rf"{architecture}(?!pack)", re.IGNORECASE)
        named = [str(self.modules[n].relative_to(self.root)) for n, tree in self.trees.items() if _names(tree, word)]
        kernels = self.root / "asecalc_mlip" / "kernels"
        others = [self.root / "setup.py", *sorted(kernels.glob("*.cpp")), *sorted(kernels.glob("*.h"))]
        return named + [str(path.relative_to(self.root)) for path in others if word.search(path.read_text("utf-8"))]

    def _imports_of(self, name: str) -> Iterator[Import]:
        package = name if self.modules[name].name == "__init__.py" else name.rpartition(".")[0]
        for node, inside, typing in _import_statements(self.trees[name]):
            for target in self._targets(node, package):
                if target != name:
                    yield Import(name, target, node.lineno, inside, typing)

    def _targets(self, node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in self.modules)
            return
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        start = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            full = f"{start}.{alias.name}"
            # A submodule, else a name of the package itself. That a parent is imported on the way does not count.
            yield from (found for found in [full if full in self.modules else start] if found in self.modules)

    def _calls_of(self, wanted: set[str]) -> list[tuple[str, int]]:
        return [(n, line) for n, tree in self.trees.items() for name, line in _calls(tree) if name in wanted]


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_command(module: str) -> bool:
    return module.startswith(COMMANDS)


def _is_backward(source: str, target: str) -> bool:
    return _package(source) == "asecalc_mlip" and _package(target) in ("training", "md_protocols")


def _has_module_string(node: ast.AST) -> TypeGuard[ast.Call]:
    """Tell a call such as import_module("training.train"), by whatever name."""
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    return isinstance(text, str) and re.fullmatch(r"(training|md_protocols)(\.\w+)+", text) is not None


def _is_upward(found: Import) -> bool:
    source, target = _package(found.source), _package(found.target)
    if source == target or target == "asecalc_mlip":
        return False
    return target == "md_protocols" or not (_is_command(found.source) and found.inside)


def _import_statements(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Import statements, whether each stands in a function, and whether under TYPE_CHECKING."""

    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, inside, typing
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        checked = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, typing or child in checked)

    return walk(tree, False, False)


def _calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full names of the functions that are called, as far as the imports of the file say them."""
    names = {}
    for statement, _, _ in _import_statements(tree):
        for alias in statement.names:
            if isinstance(statement, ast.ImportFrom):
                names[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
            elif alias.asname:
                names[alias.asname] = alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            dotted = ast.unparse(node.func)
            first, dot, rest = dotted.partition(".")
            yield names.get(first, first) + dot + rest, node.lineno
            # Path.replace(target) has one argument, str.replace(old, new) two.
            if isinstance(node.func, ast.Attribute) and node.func.attr == "replace" and len(node.args) == 1:
                if not node.keywords and names.get(first, first) not in ("os", "dataclasses"):
                    yield ".replace(path)", node.lineno


def _names(tree: ast.Module, word: re.Pattern) -> bool:
    """Whether a name, an attribute or a short string (no sentence) of the code has the word."""
    for node in ast.walk(tree):
        text = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "module", None) or ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            text = node.value
        if isinstance(node, ast.alias) or isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            text = node.name
        if isinstance(text, str) and word.search(text):
            return True
    return False


def _strong_components(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components (R. Tarjan, SIAM J. Comput. 1, 146, 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(stack[start:])
            del stack[start:]

    for node in edges:
        if node not in order:
            visit(node)
    return found


def counts(house: House) -> dict[str, int]:
    """Return the numbers of one checkout, by what they count."""
    circles, upward = house.circles(), house.upward()
    found = {f"files at the top of {package}/": house.top_level(package) for package in PACKAGES}
    found |= {
        "circles of files": len(circles),
        "files in circles": sum(map(len, circles)),
        "imports upward": len(upward),
        "  of them in asecalc_mlip": sum(_package(item.source) == "asecalc_mlip" for item in upward),
        "  of md_protocols": sum(_package(item.target) == "md_protocols" for item in upward),
        "  and in commands, and by strings": len(house.backward()),
        "imports by a string": len(house.by_string()),
        "prints in library code": len(house.prints()),
        "prints in md_protocols": len(house.prints(["md_protocols"])),
        "files that name schnet": len(house.naming("schnet")),
    }
    for name, calls in MECHANISMS.items():
        places = house.mechanism(calls)
        found[f"{name}: calls"] = len(places)
        found[f"{name}: files"] = len({module for module, _ in places})
    return found


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("checkouts", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--list", "show", is_flag=True, help="Name every place of the last checkout.")
def main(checkouts: tuple[Path, ...], show: bool) -> None:
    """Print the counts of each checkout as the columns of a table."""
    houses = [House(path.resolve()) for path in checkouts or (Path(__file__).resolve().parents[1],)]
    columns = [counts(house) for house in houses]
    click.echo("| count |" + "".join(f" {house.root.name} |" for house in houses))
    click.echo("|---|" + "---:|" * len(houses))
    for name in columns[0]:
        click.echo(f"| {name} |" + "".join(f" {column[name]} |" for column in columns))
    if show:
        _list(houses[-1])


def _list(house: House) -> None:
    click.echo("\ncircles:" + "".join(f"\n  {', '.join(circle)}" for circle in house.circles()))
    places = {"upward": [(f"{i.source} -> {i.target}", i.line) for i in house.upward()]}
    places |= {"by a string": house.by_string(), "prints": house.prints()}
    places |= {name: house.mechanism(calls) for name, calls in MECHANISMS.items()}
    for name, found in places.items():
        click.echo(f"{name}:" + "".join(f"\n  {module}:{line}" for module, line in found))
    click.echo("files that name schnet:" + "".join(f"\n  {path}" for path in house.naming("schnet")))


if __name__ == "__main__":
    main()
