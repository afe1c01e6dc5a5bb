"""Every family of timm is a student, and a teacher, with a new head and a feature term by role."""

import importlib
import sys
import warnings
from pathlib import Path

import pytest
from timm.models._registry import _module_to_models

ROOT = Path(__file__).parents[1]
TEN = (
    *("byobnet", "convnext", "dla", "efficientnet", "levit", "mambaout"),
    *("mobilenetv3", "nfnet", "swin_transformer", "vision_transformer_relpos"),
)
"""Maps, tokens, NHWC maps, a convolution as head, two heads; each takes a second or less."""
LEAST = 0.95


@pytest.fixture(scope="module")
def families():
    """Return the benchmark's module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("families")
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in ("families", "family_models"):
        sys.modules.pop(name, None)


def test_every_family_has_a_model(families):
    known = {family: set(models) for family, models in _module_to_models.items()}
    assert {
        family: small.model for family, small in families.FAMILIES.items()
    }.keys() == known.keys()
    for family, small in families.FAMILIES.items():
        assert small.model in known[family]


@pytest.mark.parametrize("family", TEN)
def test_a_family_takes_a_step_on_each_side(families, family):
    cells = list(families.matrix([family]))
    assert [cell.message for cell in cells] == ["", ""]
    assert [cell.side for cell in cells] == ["student", "teacher"]


@pytest.mark.slow
def test_nearly_all_families_take_a_step_and_others_are_refused_in_one_line(families, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = list(families.matrix(families.FAMILIES))
    with capsys.disabled():
        print(families.table(cells))
    refused = [cell for cell in cells if cell.message]
    assert len(refused) <= (1 - LEAST) * len(cells)
    assert all("\n" not in cell.message and ";" in cell.message for cell in refused)


def test_the_table_shows_roles_and_refusals(families):
    worked = families.Cell("dla", "dla46x_c", "student", "@map", "", 1.0)
    refused = families.Cell("dla", "dla46x_c", "teacher", "", "no such role", 1.0)
    text = families.table([worked, refused])
    assert "| dla | dla46x_c | `@map` | no such role |" in text
    assert "1 of 2 steps work" in text


def test_the_docs_have_every_family(families):
    text = families.TABLE.read_text(encoding="utf-8")
    assert [family for family in families.FAMILIES if f"| {family} |" not in text] == []
