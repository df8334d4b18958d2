"""Formulas as MathML, written by docutils while the pages are built: no network and no script needed."""

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
ALIASES = {r"\dots": r"\ldots"}  # commands that docutils does not know under this name
APPLY = "<mo>&ApplyFunction;</mo>"
THIN_SPACE = '<mspace width="0.17em"></mspace>'


def convert(node: nodes.Node, *, as_block: bool) -> str:
    """MathML of a formula, with the thin spaces around function names that TeX sets and browsers leave out."""
    formula = node.astext()
    for command, known in ALIASES.items():
        formula = re.sub(re.escape(command) + r"(?![A-Za-z])", lambda _, known=known: known, formula)
    try:
        mathml = latex2mathml.tex2mathml(formula, as_block=as_block)
    except MathError as error:
        LOGGER.warning("formula not understood: %s in %r", error, formula, location=node)
        return f"<code>{escape(formula)}</code>"
    mathml = re.sub(rf"{APPLY}(?!\s*<mo stretchy=\"false\">\()", f"{APPLY}{THIN_SPACE}", mathml)
    function = rf"<mi[^>]*>\w{{2,}}</mi>\s*{APPLY}"
    return re.sub(rf"(</(?:mi|mn|mfrac|msub|msup|msubsup)>\s*)(?={function})", rf"\1{THIN_SPACE}", mathml)


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append(convert(node, as_block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
