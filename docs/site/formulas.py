"""Formulas as MathML, which browsers draw by themselves: no script, and nothing is fetched."""

import re
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

LARGE = re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])")


def mathml(formula: str, display: str) -> str:
    """Return LaTeX as MathML, without sizes, which browsers put below the line."""
    return convert(LARGE.sub("", " ".join(formula.split())), display=display)


def inline(translator: Any, node: Any) -> None:
    """Write a formula inside a line."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(translator: Any, node: Any) -> None:
    """Write a formula of its own; one that is too wide for a phone can be scrolled."""
    formula = mathml(node.astext(), "block")
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise SkipNode
