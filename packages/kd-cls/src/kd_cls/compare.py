"""Train the rows of a table and print it: `tools/cls_compare.py`."""

from typing import TYPE_CHECKING

from kd_core.experiment.cli import comparison_main

from kd_cls import TITLE
from kd_cls.catalogue import CATALOGUE
from kd_cls.train import make_tool

if TYPE_CHECKING:
    from kd_core.experiment.tables.comparison import ComparisonTool


def _make_tool() -> "ComparisonTool":
    from kd_core.experiment.tables.comparison import ComparisonTool

    return ComparisonTool(make_tool())


main = comparison_main(TITLE, _make_tool, catalogue=CATALOGUE)
