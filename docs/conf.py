"""How Sphinx builds the documentation; `tox run -e docs` runs it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generated  # noqa: E402 - beside this file

import helianthus  # noqa: E402 - from this checkout, installed or not

project = "Helianthus"
author = "The Helianthus developers"
project_copyright = author
version = release = helianthus.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "benchmarks-numbers.md"]  # the latter is a part of a page
nitpicky = False  # annotations name many things that have no page of their own

html_theme = "furo" if importlib.util.find_spec("furo") else "alabaster"
html_title = f"Helianthus {version}"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

generated.write_all(HERE / "_build" / "generated")


def _mark_code(app: Any, kind: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Write code in docstrings as reStructuredText has it: there it stands in single backticks."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _mark_code, priority=400)  # before napoleon, at 500
