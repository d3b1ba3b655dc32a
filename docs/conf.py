"""How these pages are built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # this checkout, and extension.py

from extension import types
from numpydoc.xref import DEFAULT_LINKS

import coachhook_viz as cv

project = "coachhook_viz"
author = "The coachhook_viz authors"
project_copyright = author
release = cv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "extension"]
default_role = "name"  # of extension.py: a link where the name is one of ours, else code
nitpicky = True
nitpick_ignore_regex = [
    # Types of other packages: their pages are elsewhere, and these are read without a network.
    (r"py:.*", r"(torch|transformers|numpy|pandas|matplotlib|plotly|ipywidgets|anywidget)\..*"),
    (r"py:.*", r"(distributed|traitlets|markupsafe)\..*"),
    (r"py:.*", r"coachhook_viz\.panels\.panel\._Result"),  # a type variable has no page
    (r"py:.*", r"(collections|contextlib|datetime|inspect|pathlib|threading)\..*"),
]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

numpydoc_show_class_members = False  # autodoc lists them, with their docstrings
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # but these: what numpydoc would link elsewhere stays as it is
numpydoc_xref_aliases = {name: name for name in DEFAULT_LINKS} | types()

html_theme = "furo"
html_title = "coachhook_viz"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
