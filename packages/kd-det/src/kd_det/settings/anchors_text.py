"""The one expression in Detectron2's own YAML files, read as the numbers that it stands for."""

import re

_EXPRESSION = re.compile(
    r"""!!python/object/apply:eval \s* \[ \s* (?P<quote>["']) \s*
    \[ \s* \[ \s* x, \s* x \s* \* \s* 2 \s* \*\* \s* \( \s* 1\.0 \s* / \s* 3 \s* \), \s*
    x \s* \* \s* 2 \s* \*\* \s* \( \s* 2\.0 \s* / \s* 3 \s* \) \s* \] \s*
    for \s+ x \s+ in \s+ \[ (?P<sizes> [\d\s,]{1,200} ) \] \s* \] \s* (?P=quote) \s* \]""",
    re.VERBOSE,
)


def without_expressions(text: str) -> str:
    """Return the text of a YAML file with the sizes of RetinaNet's anchors written out.

    Detectron2's `Base-RetinaNet.yaml`, and so every config of its zoo with that base, lets Python
    compute them (`!!python/object/apply:eval`). Nothing is evaluated here, and no other expression
    is known.
    """
    return _EXPRESSION.sub(lambda found: str(_sizes(found["sizes"])), text)


def _sizes(text: str) -> list[list[float]]:
    """Return three sizes an octave, as the expression computes them."""
    sizes = [int(number) for number in text.replace(",", " ").split()]
    return [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in sizes]
