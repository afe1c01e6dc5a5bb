"""Public names: all there, imported when they are used, and the nearest one is named."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import kd_core
import kd_core.criteria
import pytest
from kd_core.testing import discover

HEAVY = ("torch", "numpy", "mmengine", "pydantic", "rich", "fvcore")
PUBLIC = {  # of the design: others write against these
    "Criterion",
    "Term",
    "Distiller",
    "FeatureTap",
    "Trainer",
    "Hook",
    "TaskAdapter",
    "build",
    "load_config",
    "__version__",
}


def imported_after(program: str) -> set[str]:
    """Return which of `HEAVY` a program has imported."""
    program += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import kd_core, kd_core.criteria",
        "import kd_core; kd_core.__version__; dir(kd_core)",
        "import kd_core.criteria; dir(kd_core.criteria); kd_core.criteria.__all__",
        "import kd_core; hasattr(kd_core, 'Distler')",
        "import kd_core.experiment.cli",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(program):
    assert imported_after(program) - {"rich"} == set()


UNTIL_TORCH = """
import sys

class Finder:
    def find_spec(name, *_):
        if name == "torch":
            sys.exit(print("torch"))

sys.meta_path.insert(0, Finder)
"""
"""Ends a program where it imports torch, which would take seconds."""


def test_what_is_used_is_imported():
    assert imported_after(f"{UNTIL_TORCH}import kd_core") == set()
    assert imported_after(f"{UNTIL_TORCH}from kd_core import Term") == {"torch"}


def test_every_public_name_of_the_design_is_there():
    assert set(kd_core.__all__) == PUBLIC
    assert set(kd_core.__all__) <= set(dir(kd_core))
    for name in kd_core.__all__:
        value = getattr(kd_core, name)
        assert name.startswith("__") or value.__module__.startswith("kd_core.")


def test_types_for_editors_are_those_of_the_lazy_names():
    tree = ast.parse(Path(str(kd_core.__file__)).read_text(encoding="utf-8"))
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(typed.test) == "TYPE_CHECKING"
    found = {
        alias.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: f"kd_core.{module}" for name, module in kd_core._DEFINED_IN.items()}
    assert found == lazy
    assert set(lazy) == PUBLIC - {"__version__"}


def test_every_criterion_can_be_imported_from_the_package():
    assert len(discover("kd_core.criteria")) > 40
    for cls in discover("kd_core.criteria"):
        assert getattr(kd_core.criteria, cls.__name__) is cls
        assert cls.__name__ in kd_core.criteria.__all__


def test_a_method_keeps_its_module_beside_its_class():
    from kd_core.criteria import DKD, dkd

    assert isinstance(dkd, ModuleType)
    assert dkd.DKD is DKD
    assert callable(dkd.dkd)


@pytest.mark.parametrize(
    ("module", "name", "nearest"),
    [
        (kd_core, "Distler", "did you mean 'Distiller'"),
        (kd_core, "load_conf", "did you mean 'load_config'"),
        (kd_core.criteria, "DKKD", "did you mean 'DKD'"),
        (kd_core.criteria, "ReviewKd", "did you mean 'ReviewKD'"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(module, name, nearest):
    with pytest.raises(AttributeError, match=nearest) as caught:
        getattr(module, name)
    assert caught.value.name == name


@pytest.mark.parametrize("module", [kd_core, kd_core.criteria])
def test_private_names_are_missing_without_a_hint(module):
    with pytest.raises(AttributeError, match=r"no attribute '__wrapped__'$"):
        module.__wrapped__  # noqa: B018


def test_a_source_tree_without_metadata_has_a_version_too(monkeypatch):
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert kd_core.__version__ == "0+not-installed"
