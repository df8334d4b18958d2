"""Formulas as MathML, written by docutils while the pages are built: no network and no script needed."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

APPLY = "<mo>&ApplyFunction;</mo>"
THIN_SPACE = '<mspace width="0.17em"></mspace>'


def convert(formula: str, *, as_block: bool) -> str:
    """LaTeX to MathML, with the thin spaces around a function name that TeX sets and browsers leave out."""
    mathml = latex2mathml.tex2mathml(formula, as_block=as_block)
    mathml = re.sub(rf"{APPLY}(?!\s*<mo stretchy=\"false\">\()", f"{APPLY}{THIN_SPACE}", mathml)
    function = rf"<mi[^>]*>\w{{2,}}</mi>\s*{APPLY}"
    return re.sub(rf"(</(?:mi|mn|mfrac|msub|msup|msubsup)>\s*)(?={function})", rf"\1{THIN_SPACE}", mathml)


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext(), as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append(convert(node.astext(), as_block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
