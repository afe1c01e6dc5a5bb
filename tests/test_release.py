"""What belongs to a release: changelog, citation, bounds, workflow and templates."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
PACKAGES = {
    path.parent.name: tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def read(name):
    return yaml.safe_load(text_of(name))


def steps_of(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_the_changelog_has_this_version_with_every_package():
    page = text_of("CHANGELOG.md")
    versions = re.findall(r"^## \[(.+?)\]", page, re.MULTILINE)
    assert versions[:2] == ["Unreleased", VERSION]
    newest = page.partition(f"## [{VERSION}]")[2].partition("\n## ")[0]
    assert set(re.findall(r"^#### (\S+)$", newest, re.MULTILINE)) == set(PACKAGES)
    kinds = set(re.findall(r"^### (.+)$", newest, re.MULTILINE))
    assert kinds <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
        "Known limits",
    }


def test_links_of_the_changelog_lead_somewhere():
    for target in re.findall(r"\]\((.+?)\)", text_of("CHANGELOG.md")):
        assert (ROOT / target).is_file(), target


def test_the_citation_is_of_this_version_and_licence():
    citation = read("CITATION.cff")
    assert str(citation["version"]) == VERSION
    assert {citation["license"]} == {project["license"] for project in PACKAGES.values()}
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize(
    "name",
    ["CHANGELOG.md", "CITATION.cff", ".pre-commit-config.yaml", ".github/workflows/tests.yml"],
)
def test_no_address_is_invented(name):
    files = [path for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file()]
    assert [str(path) for path in files if "://" in path.read_text(encoding="utf-8")] == []
    assert files


def test_every_dependency_has_a_lower_bound():
    asked = [
        need
        for project in PACKAGES.values()
        for needs in (project["dependencies"], *project["optional-dependencies"].values())
        for need in needs
        if not need.startswith("kd-core")
    ]
    assert len(asked) > 30
    assert [need for need in asked if not re.search(r">=\d", need)] == []


def test_one_library_has_one_bound_in_all_packages():
    bounds = {}
    for project in PACKAGES.values():
        for needs in (project["dependencies"], *project["optional-dependencies"].values()):
            for need in needs:
                name, _, bound = need.partition(">=")
                bounds.setdefault(name, set()).add(bound)
    assert {name: sorted(found) for name, found in bounds.items() if len(found) > 1} == {}


def test_the_workflow_tests_what_the_packages_promise():
    jobs = read(".github/workflows/tests.yml")["jobs"]
    promised = {
        kind.rpartition(" ")[2]
        for kind in PACKAGES["kd-core"]["classifiers"]
        if ":: Python :: 3." in kind
    }
    assert set(jobs["tests"]["strategy"]["matrix"]["python"]) == promised
    assert set(jobs["lower-bounds"]["strategy"]["matrix"]["package"]) == set(PACKAGES)
    assert "tests/test_style.py" in steps_of(jobs["lint"])
    named = re.findall(r"[.]ci/\w+", "\n".join(map(steps_of, jobs.values())))
    assert set(named) == {".ci/run", ".ci/wheels", ".ci/lower_bounds"}
    for script in named:
        assert os.access(ROOT / script, os.X_OK), script


def test_the_lower_bounds_are_tested_by_files_that_exist():
    script = text_of(".ci/lower_bounds")
    assert "--resolution lowest-direct" in script
    part = script.partition("declare -A tests=(")[2].partition("\n)\n")[0]
    tests = dict(re.findall(r'\[([\w-]+)\]="(.+?)"', part, re.DOTALL))
    assert tests.keys() == PACKAGES.keys()
    for package, names in tests.items():
        for name in names.split():
            assert (ROOT / "packages" / package / "tests" / f"test_{name}.py").is_file(), name


def test_the_extras_of_the_lower_bounds_exist():
    script = text_of(".ci/lower_bounds")
    part = script.partition("declare -A extras=(")[2].partition(")\n")[0]
    for package, names in re.findall(r"\[([\w-]+)\]=([\w,]+)", part):
        assert set(names.split(",")) <= PACKAGES[package]["optional-dependencies"].keys(), package


def test_hooks_before_a_commit_are_local_and_download_nothing():
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    assert any("ruff check" in hook["entry"] for hook in repo["hooks"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_templates_of_issues_are_whole(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["attributes"]["label"] for part in form["body"])
