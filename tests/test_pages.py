"""Pages keep their promises: short where they say so, links lead to files, equations stand where code cites them."""

import re
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
# Not in docs/_build, where a build of the documentation may be at work.
PAGES += sorted([*DOCS.glob("*.md"), *DOCS.glob("[!_]*/**/*.md")])
SOURCES = sorted(
    source
    for folder in ("asecalc_mlip", "training", "md_protocols", "benchmarks", "examples")
    for source in (ROOT / folder).glob("**/*.py")
)


def text_of(page):
    return page.read_text(encoding="utf-8")


def test_readme_fits_two_screens():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/start.md"])
def test_first_snippet_runs_from_any_folder(page, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", text_of(ROOT / page), re.S)[1]
    done = processes.run([sys.executable, "-c", snippet], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    energy = float(done.stdout.split()[0])
    assert energy == pytest.approx(-17619.190, abs=1e-3) and f"{-energy:.3f}" in text_of(ROOT / page)


@pytest.mark.parametrize("page", sorted((DOCS / "development").glob("add-*.md")), ids=lambda page: page.stem)
def test_how_to_add_something_is_short_and_names_its_test(page):
    lines = text_of(page).splitlines()
    assert len(lines) < 40
    (last,) = [k for k, line in enumerate(lines) if line.startswith("**If you forgot a step.**")]
    named = re.findall(r"`(tests/[\w/]+\.py)", "\n".join(lines[last:]))
    assert named and all((ROOT / test).is_file() for test in named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text_of(page), flags=re.S))
    missing = [target for target in targets if "://" not in target and not lead_somewhere(page, target)]
    assert missing == []


def lead_somewhere(page, target):
    """The file is there, and has the heading that comes after #, if one does."""
    name, _, heading = target.partition("#")
    found = (page.parent / name) if name else page
    return found.exists() and (not heading or heading in headings(found))


def headings(page):
    """Anchors as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_equations_stand_where_code_cites_them():
    sections = set(re.findall(r"^## (\d+)\.", text_of(DOCS / "methods.md"), re.M))
    for source in SOURCES:
        text = " ".join(text_of(source).replace("#", " ").split())
        assert not re.search(r"(?<!docs/)\bmethods\.md", text), f"{source} cites a methods.md that is not there"
        cited = set(re.findall(r"docs/methods\.md, section (\d+)", text))
        assert cited <= sections, f"{source} cites sections {cited - sections}"
