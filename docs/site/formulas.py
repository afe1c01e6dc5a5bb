"""Formulas as MathML, which browsers draw by themselves: no script, and nothing is fetched."""

import re
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

BIG_NORM = re.compile(r"\\[bB]igg?[lr]?\\\|")


def mathml(formula: str, display: str) -> str:
    """Return LaTeX as MathML; the converter knows a large norm by its name alone."""
    return convert(BIG_NORM.sub(r"\\Vert ", " ".join(formula.split())), display=display)


def inline(translator: Any, node: Any) -> None:
    """Write a formula inside a line."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(translator: Any, node: Any) -> None:
    """Write a formula of its own; one that is too wide for a phone can be scrolled."""
    formula = mathml(node.astext(), "block")
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise SkipNode
