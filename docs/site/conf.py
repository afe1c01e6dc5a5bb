"""Sphinx's settings of the site that `build.py` builds."""

from typing import Any

import formulas
import reference

project = "kd"
copyright = "the authors of kd"
html_title = "kd: knowledge distillation"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["files"]
suppress_warnings = ["ref.python"]  # classes of one name in two packages, in annotations
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "code"  # docstrings have single back-ticks around code
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app: Any) -> None:
    """Let docstrings be read as they are written, and formulas be drawn without a script."""
    app.connect("autodoc-process-docstring", reference.as_text, priority=600)
    app.connect("autodoc-process-signature", reference.without_ranges)
    app.add_html_math_renderer("mathml", (formulas.inline, None), (formulas.block, None))
