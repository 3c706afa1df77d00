"""Sphinx configuration: `make docs` builds the pages into docs/_build/html."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from asecalc_mlip import __version__  # noqa: E402

project = "asecalc-mlip"
author = "asecalc-mlip contributors"
project_copyright = "2026, asecalc-mlip contributors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "plain_docstrings",
    "generated_reference",
    "executed",
]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

smartquotes = False  # would turn --help into –help
highlight_language = "text"

# `name` in a docstring is a link where there is a target, else code.
default_role = "py:obj"
# Short names such as `r` belong to several classes; the link then goes to the first.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "exclude-members": "__init__"}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"asecalc-mlip {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
