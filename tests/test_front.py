"""The command `kd` and the packages around it: found by metadata, quick, of one version."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kd_core.config import folder as place_of_configs
from kd_core.front.main import main
from kd_core.front.tools import Tools

ROOT = Path(__file__).parents[1]
PROJECTS = {
    path.parent.name: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
LONGEST = 0.5  # seconds of CPU, besides those that Python itself takes


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with the metadata that an installation of these sources has."""
    folder = tmp_path_factory.mktemp("installed")
    for name, whole in PROJECTS.items():
        project = whole["project"]
        groups = {"console_scripts": project["scripts"], **project.get("entry-points", {})}
        info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        lines = [
            line
            for group, entries in groups.items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def kd(installed, monkeypatch, capsys):
    """Return a function that runs `kd`; it returns status, output and errors."""
    monkeypatch.syspath_prepend(str(installed))

    def run(line):
        status = main(line.split())
        return status, *capsys.readouterr()

    return run


def test_help_names_every_tool_of_every_task(kd):
    status, out, err = kd("--help")
    assert (status, err) == (0, "")
    assert kd("")[1] == out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    for project in PROJECTS.values():
        for script in project["project"]["scripts"]:
            _, *rest = script.split("-")
            assert not rest or rest[0] in rows[rest[1]].split()
    assert rows["evaluate"].split()[1:4] == ["cls", "det", "reid"]
    assert kd("train")[1].startswith("kd train TASK ...")
    assert "kd list runs [FOLDER]" in out
    assert "exit status: 0 done; 1 failed" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian cls", "kd has no command 'trian'; did you mean 'train'?"),
        ("--versoin", "did you mean '--version'?"),
        ("train clas", "kd train has no task 'clas'; did you mean 'cls'?"),
        ("convert cls", "kd convert has no task 'cls'; valid names: det"),
        ("list networs", "invalid choice: 'networs'"),
        ("list rns", "invalid choice: 'rns'"),
        ("exampels", "did you mean 'examples'?"),
        ("list --trust a.b runs", "kd list: put runs before its options"),
        ("list runs no/such", "there is no folder no/such"),
        ("list pairs clas", "there is no task 'clas'; did you mean 'cls'?"),
        ("train cls cifr100 resnet20", "'cifr100' is neither"),
        ("evaluate cls runs/no.pth cifar100 resnet20", "there is no checkpoint runs/no.pth"),
        ("evaluate cls", "the checkpoint is missing; write kd evaluate cls CHECKPOINT CONFIG"),
        ("evaluate cls --trust a.b", "the checkpoint is missing"),
        ("--version train", "--version is used alone"),
        ("--trust a.b train cls", "options come after COMMAND TASK"),
        ("train --trust a.b", "options come after it; TASK is one of cls, det, reid"),
    ],
)
def test_a_mistake_is_one_line(kd, line, said):
    status, out, err = kd(line)
    assert (status, out) == (2, "")
    (told,) = err.splitlines()
    assert said in told


class TestExamples:
    def test_the_files_of_the_tutorials_are_written_once(self, kd, tmp_path):
        folder = tmp_path / "new"
        assert kd(f"examples {folder}")[0] == 0
        (folder / "examples/own_loop.py").unlink()
        before = (folder / "examples/photos.py").stat().st_mtime_ns
        assert kd(f"examples {folder}")[0] == 0
        assert (folder / "examples/photos.py").stat().st_mtime_ns == before
        for name in ("examples", "configs/examples"):
            written = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
            assert written == {p.name: p.read_bytes() for p in (ROOT / name).glob("*.py")}

    @pytest.mark.parametrize("is_folder", [False, True])
    def test_what_a_user_has_changed_is_not_overwritten(self, kd, tmp_path, is_folder):
        own = tmp_path / "examples/photos.py"
        own.parent.mkdir()
        own.mkdir() if is_folder else own.write_text("mine")
        status, _, err = kd(f"examples {tmp_path}")
        assert status == 2
        assert "photos.py is there and is not the example of this version" in err
        assert len(err.splitlines()) == 1
        assert [path.name for path in tmp_path.rglob("*")] == ["examples", "photos.py"]

    def test_a_folder_that_cannot_be_written_is_one_line(self, kd, tmp_path):
        (tmp_path / "file").write_text("")
        status, _, err = kd(f"examples {tmp_path}/file")
        assert status == 2
        assert "a part of the path is a file" in err

    def test_an_empty_name_is_refused(self, capsys):
        assert main(["examples", ""]) == 2
        assert "FOLDER is empty" in capsys.readouterr().err


def test_a_task_that_is_not_installed_is_named_with_its_package(kd, installed, monkeypatch):
    (installed / "kd_reid-0.1.0.dist-info").rename(installed / "kd_reid.hidden")
    hidden = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", hidden)
    importlib.invalidate_caches()
    try:
        assert "install the package kd-reid" in kd("train reid")[2]
    finally:
        (installed / "kd_reid.hidden").rename(installed / "kd_reid-0.1.0.dist-info")


def test_without_any_task_a_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("kd_core.front.main.installed_tools", lambda: Tools({}, {}))
    assert main(["train", "cls"]) == 2
    assert "install kd-cls or kd-det or kd-reid" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["evaluate cls --help", "evaluate cls runs/no.pth -h"])
def test_help_is_given_where_a_command_is_an_option_of_a_tool(kd, line):
    status, out, _ = kd(line)
    assert status == 0
    assert out.startswith("usage: kd evaluate cls")


def test_version_is_given_at_every_place(kd):
    outs = {kd(line)[1] for line in ("--version", "train --version", "evaluate cls --version")}
    assert len(outs) == 1
    assert "Python" in outs.pop()


def test_a_tool_calls_itself_as_it_was_called(kd):
    before = sys.argv[0]
    assert kd("train cls --help")[1].startswith("usage: kd train cls [-h]")
    assert sys.argv[0] == before


def test_list_prints_one_task_or_all(kd):
    status, out, _ = kd("list methods")
    assert status == 0
    heads = [line for line in out.splitlines() if line.endswith(":") and " " not in line]
    assert heads == ["cls:", "det:", "reid:"]
    assert re.search(r"^reviewkd +ReviewKD \(arXiv", out, re.MULTILINE)
    assert kd("list pairs det")[1].startswith("cascade_mask_rcnn_R_50_FPN,cascade")


@pytest.mark.parametrize(
    "line", ["--help", "--version", "trian cls", "list pairs cls", "list runs no/such"]
)
def test_it_answers_at_once_without_torch(line, installed):
    program = (
        "import sys\nfrom kd_core.front.main import main\n"
        f"main({line.split()!r})\n"
        "print('heavy:', *(name for name in ('torch', 'numpy', 'mmengine') if name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}

    def seconds(code):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system
        return used - before.children_user - before.children_system, done.stdout.decode()

    for _ in range(3):  # other programs may have the cores
        (python, _), (taken, said) = seconds("pass"), seconds(program)
        if taken - python < LONGEST:
            break
    assert said.rstrip().endswith("heavy:")
    assert taken - python < LONGEST


def test_all_packages_have_the_version_of_the_workspace():
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = root["project"]["version"]
    for project in PROJECTS.values():
        assert project["project"]["dynamic"] == ["version"]
        hatch = project["tool"]["hatch"]["version"]
        text = (ROOT / "packages/kd-core" / hatch["path"]).read_text(encoding="utf-8")
        assert re.search(hatch["pattern"], text)["version"] == version
        siblings = [
            name for name in project["project"]["dependencies"] if name.startswith("kd-core")
        ]
        assert all(name.endswith(f"=={version}") for name in siblings)
        assert len(siblings) == (project["project"]["name"] != "kd-core")


def test_every_package_carries_the_licence_and_says_where_it_runs():
    licence = (ROOT / "LICENSE").read_bytes()
    for name, project in PROJECTS.items():
        assert (ROOT / "packages" / name / "LICENSE").read_bytes() == licence
        assert project["project"]["license-files"] == ["LICENSE"]
        classifiers = project["project"]["classifiers"]
        versions = {text.rpartition(" ")[2] for text in classifiers if ":: Python :: 3." in text}
        assert versions == {"3.11", "3.12", "3.13"}


@pytest.mark.parametrize(
    ("version", "target", "expected"),
    [
        ("standard", "wheel", "kd_core/"),
        ("standard", "sdist", "src/kd_core/"),
        ("editable", "wheel", None),
    ],
)
def test_what_is_built_carries_configs_and_examples_but_an_editable_one(version, target, expected):
    built = {"force_include": {}}
    hook = build_hook()
    hook.root, hook.target_name = str(ROOT / "packages/kd-core"), target
    hook.initialize(version, built)
    names = ("configs", "examples") if expected else ()
    assert built["force_include"] == {str(ROOT / name): f"{expected}{name}" for name in names}


def build_hook():
    """Return the build hook of kd-core; hatchling itself is not installed here."""
    source = (ROOT / "packages/kd-core/hatch_build.py").read_text(encoding="utf-8")
    line = "from hatchling.builders.hooks.plugin.interface import BuildHookInterface"
    assert line in source
    names = {"BuildHookInterface": object}
    exec(source.replace(line, ""), names)
    return names["Folders"]()


def test_configs_inside_the_package_go_before_those_of_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site/kd_core"
    module = str(package / "config/folder.py")
    (package / "configs/cls").mkdir(parents=True)
    monkeypatch.setattr(place_of_configs, "__file__", module)
    found = place_of_configs.configs_folder.__wrapped__
    assert found() == package / "configs"
    (package / "configs/cls").rename(package / "configs/gone")
    with pytest.raises(ValueError, match="built without configs; reinstall it"):
        found()
