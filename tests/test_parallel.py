"""The suite in several processes: the tests of a module stay together, unless it is `spread`."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scope_of(pytestconfig, monkeypatch):
    """Return the function that names what stays together with a test."""
    monkeypatch.setattr("xdist.scheduler.loadscope.parse_tx_spec_config", lambda config: [])
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    return conftest.pytest_xdist_make_scheduler(pytestconfig, None)._split_scope


@pytest.mark.parametrize("name", ["tests/test_resume.py", "packages/kd-core/tests/test_claim.py"])
def test_tests_of_a_module_stay_together(scope_of, name):
    assert scope_of(f"{name}::test_x[a::b@c]") == scope_of(f"{name}::TestX::test_y") == name


@pytest.mark.parametrize("name", ["test_configs", "test_methods_learn"])
def test_those_that_share_nothing_do_not(scope_of, name):
    one, other = (f"tests/{name}.py::test_x[{case}]" for case in "ab")
    assert (scope_of(one), scope_of(other)) == (one, other)


@pytest.fixture(scope="module")
def processes(tmp_path_factory, testrun_uid):
    """Return the files of the processes that have made what this module's tests share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    (folder / f"{testrun_uid}-{os.getpid()}").touch()
    return lambda: list(folder.glob(f"{testrun_uid}-*"))


@pytest.mark.parametrize("number", range(8))
def test_a_fixture_of_a_module_is_made_once(processes, number):
    assert len(processes()) == 1
