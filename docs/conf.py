"""Sphinx configuration. Build with ``make docs``; nothing is fetched from the network."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "matinfo"
author = "The matinfo developers"
project_copyright = "2026, The matinfo developers"
release = version = installed_version("matinfo")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",  # docs/_extensions/mathml.py
]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(torch|np|numpy|collections)\..*"),
    ("py:.*", r"(Tensor|ndarray|ArrayLike|optional)"),
]
exclude_patterns = ["_build", "_extensions"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings give types together with shapes and units
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"matinfo {release}"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
