"""Sphinx configuration. Build with ``make docs``; nothing is fetched from the network."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the matrices of the gallery are small

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
    "sphinx_gallery.gen_gallery",
    "mathml",  # docs/_extensions/mathml.py
    "tutorial_notebook",  # docs/_extensions/tutorial_notebook.py
]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(torch|np|numpy|collections)\..*"),
    ("py:.*", r"(Tensor|ndarray|ArrayLike|optional)"),
    ("py:exc", "InputError"),  # of the command line, which says that it is a ValueError
]
exclude_patterns = ["_build", "_extensions", "gallery"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings give types together with shapes and units
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "abort_on_example_error": True,  # a script that fails fails the build
    "run_stale_examples": bool(
        os.environ.get("GALLERY_RUN_ALL")
    ),  # else only what has changed since the last build
    "reset_modules": ("matplotlib", "gallery_rules.start_afresh"),
    "within_subsection_order": "gallery_rules.Order",
    "doc_module": ("matinfo",),
    "reference_url": {"matinfo": None},  # names in the code link to the reference
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 3600,
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"matinfo {release}"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app):
    """Leave out the fields of named tuples: their docstrings describe them, and sphinx only counts them."""
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, member, skip, options: type(member).__name__ == "_tuplegetter" or None,
    )
