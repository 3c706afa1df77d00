"""Directives of the tutorials: run what a page shows, and show what it prints.

    ```{python-run}          runs in the page's own namespace and folder
    :figure: rdf.png         a figure that the code has written, shown below
    ```

    ```{shell-run}           one command a line, `asecalc …` or `python …`, run with this Python

An error stops the build. Pages work in docs/_build/tutorials/NAME, which is emptied first.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


class Executed(SphinxDirective, ABC):
    """Base of both directives: the folder, the printed text, the figure."""

    has_content = True
    option_spec = {"figure": directives.unchanged, "alt": directives.unchanged, "hide-output": directives.flag}
    language = "python"

    def run(self) -> list[nodes.Node]:
        """Execute the content; return it with its output."""
        text = "\n".join(self.content)
        printed = self.execute(text).rstrip()
        shown: list[nodes.Node] = [nodes.literal_block(text, text, language=self.language)] if text else []
        if printed and "hide-output" not in self.options:
            shown.append(nodes.literal_block(printed, printed, language="text", classes=["output"]))
        if "figure" in self.options:
            shown.append(self._figure(self.options["figure"]))
        return shown

    @abstractmethod
    def execute(self, text: str) -> str:
        """Run the text; return what it prints."""

    @property
    def folder(self) -> Path:
        """Where the page works; emptied when the page begins."""
        folder = Path(self.env.srcdir) / "_build" / "tutorials" / Path(self.env.docname).name
        if "executed_folder" not in self.env.temp_data:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.env.temp_data["executed_folder"] = folder
        return folder

    def failed(self, text: str, why: str) -> ExtensionError:
        """Return the error that stops the build."""
        return ExtensionError(f"{self.env.docname}: this failed\n{text}\n{why}")

    def _figure(self, name: str) -> nodes.image:
        written = self.folder / name
        if not written.is_file():
            raise self.failed(name, "no such figure was written")
        # A copy: what follows on the page may write the figure again.
        kept = self.folder / f"line_{self.lineno}{written.suffix}"
        shutil.copy(written, kept)
        return nodes.image(uri=f"/{kept.relative_to(self.env.srcdir).as_posix()}", alt=self.options.get("alt", name))


class PythonRun(Executed):
    """Python, in one namespace per page."""

    def execute(self, text: str) -> str:
        """Run the text; return what it prints."""
        namespace = self.env.temp_data.setdefault("executed_namespace", {"__name__": "__main__"})
        printed = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            try:
                exec(compile(text, self.env.docname, "exec"), namespace)
            except Exception:
                raise self.failed(text, traceback.format_exc()) from None
        return printed.getvalue()


class ShellRun(Executed):
    """Commands, each in a process of its own with this Python."""

    language = "console"

    def execute(self, text: str) -> str:
        """Run each line; return what they print."""
        return "\n".join(self._run(line) for line in text.replace("\\\n", " ").splitlines() if line.strip())

    def _run(self, line: str) -> str:
        program, *words = shlex.split(line, comments=True)
        start = {"asecalc": ["-m", "asecalc_mlip.cli"], "python": []}[program]
        root = str(Path(self.env.srcdir).parent)
        done = subprocess.run(
            [sys.executable, *start, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise self.failed(line, done.stdout + done.stderr)
        return done.stdout


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("python-run", PythonRun)
    app.add_directive("shell-run", ShellRun)
    # Pages change the working folder; where pages are read in parallel, each process has its own.
    return {"parallel_read_safe": True}
