"""Every criterion of every package has a test module of its name and a config that names it."""

import re
from pathlib import Path

import pytest
from kd_core.criteria.criterion import Criterion
from kd_core.testing import discover

ROOT = Path(__file__).parents[1]
OPTIONAL = ("detectron2", "torchreid")


def criteria():
    found = []
    for folder in sorted(ROOT.glob("packages/*/src/*/criteria")):
        try:
            found += discover(f"{folder.parent.name}.criteria")
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in OPTIONAL:
                raise
    return found


def modules_that_test(cls):
    name = cls.__module__.rpartition(".")[2]
    return list(ROOT.glob(f"packages/*/tests/test_{name}.py"))


def configs_that_name(cls):
    name = re.compile(rf"\b{re.escape(cls.__module__)}[.]{cls.__qualname__}\b")
    files = [path for path in ROOT.glob("configs/**/*") if path.suffix in (".py", ".yaml")]
    return [path for path in files if name.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("cls", criteria(), ids=lambda cls: cls.__name__)
def test_criterion_has_a_test_module(cls):
    assert modules_that_test(cls), (
        f"write packages/*/tests/test_{cls.__module__.rpartition('.')[2]}.py"
    )


@pytest.mark.parametrize("cls", discover("kd_core.criteria"), ids=lambda cls: cls.__name__)
def test_criterion_of_the_core_is_compared_with_numbers_of_its_reference(cls):
    asks = re.compile(r"^ *def test_\w+\([^)]*\bgolden\b", re.MULTILINE)
    modules = modules_that_test(cls)
    assert any(asks.search(path.read_text(encoding="utf-8")) for path in modules), (
        "a test of it must hold its value against the reference's, through the fixture `golden`"
    )


@pytest.mark.parametrize("cls", criteria(), ids=lambda cls: cls.__name__)
def test_criterion_of_a_task_is_tried_on_a_gpu(cls):
    """Those of the core are found by the test of the contract."""
    texts = [path.read_text(encoding="utf-8") for path in modules_that_test(cls)]
    asked = any("check_contract(" in text or "FakeCuda(" in text for text in texts)
    assert asked or cls.__module__.startswith("kd_core."), (
        "call kd_core.testing.check_contract in its test, or run it inside FakeCuda"
    )


@pytest.mark.parametrize("cls", criteria(), ids=lambda cls: cls.__name__)
def test_criterion_has_a_config(cls):
    assert configs_that_name(cls), f"no config names {cls.__module__}.{cls.__qualname__}"


def test_a_criterion_without_either_would_be_seen():
    unknown = type("Unknown", (Criterion,), {"__module__": "kd_core.criteria.unknown"})
    assert not modules_that_test(unknown)
    assert not configs_that_name(unknown)
