"""What holds for every file of the project; each rule is also shown to catch a violation."""

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TASKS = {"kd_cls", "kd_det", "kd_reid"}
CORE = {"torch", "numpy", "fvcore", "safetensors", "rich"}
VISION = CORE | {"kd_core", "torchvision", "PIL"}
ALWAYS = {
    "kd_core": CORE,
    "kd_cls": VISION | {"sklearn"},
    "kd_det": VISION | {"detectron2", "pycocotools", "iopath", "yaml", "cv2", "omegaconf"},
    "kd_reid": VISION | {"torchreid", "scipy", "sklearn", "cv2", "pytorch_metric_learning"},
}
IN_ONE_FILE = {
    ("kd_core", "python_files.py"): {"mmengine"},
    ("kd_core", "image_files.py"): {"PIL"},
    ("kd_core", "values.py"): {"pydantic"},
}
LOGGING = {"tensorboard", "wandb", "matplotlib"}
LAZILY = {package: LOGGING | {"onnx", "onnxruntime"} for package in ALWAYS}
LAZILY["kd_core"] |= {"sklearn"}
LAZILY["kd_cls"] |= {"timm", "transformers", "huggingface_hub", "webdataset", "braceexpand"}
LAZILY["kd_det"] |= {"panopticapi"}

FLOORS = (  # of kd_core, from the ground; an import points down
    {"errors", "functional", "metrics", "representations"},
    {"runtime"},
    {"networks", "files", "config"},
    {"criteria", "data", "catalogue"},
    {"distill"},
    {"training"},
    {"experiment", "testing"},
    {"front"},
)
ROLES = {  # modules of a task package by what they are for; the packages that have them all
    "adapter networks student known_networks evaluation compare label_free": {"kd_cls", "kd_reid"},
    "data/splits data/options data/folders data/augment": {"kd_cls", "kd_reid"},
    "weights pictures": {"kd_det", "kd_reid"},
    "train demo roles catalogue": TASKS,
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base"}
LONGEST_SOURCE = 250  # lines
SKIPPED = {".git", ".venv", "__pycache__", "build", "dist", "runs", "uv.lock"}
MACHINE = re.compile(
    r"(?<![\w.~-])/(?:home|root|Users|work|mnt|scratch)/\w|[A-Z]:\\Users|[.][.]/shared\b"
)
REGISTRY = re.compile(
    r"pypi[.]org|pythonhosted[.]org|[.]org/whl\b|/simple/?[\"'\s]|index[-_]url|tool[.]uv[.]index"
)


class Import(NamedTuple):
    name: str
    line: int
    lazy: bool  # does not happen when the module itself is imported

    @property
    def package(self) -> str:
        """What must be installed for this import."""
        in_torch = self.name.startswith("torch.utils.tensorboard")
        return "tensorboard" if in_torch else self.name.partition(".")[0]


def imports(node: ast.AST, *, lazy: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for name in imported_names(child):
            yield Import(name, child.lineno, lazy)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from imports(child, lazy=lazy or function or typing)


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        by_name = ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
        return [str(node.args[0].value)] if by_name else []
    return []


def import_errors(source: str, always: Collection[str], lazily: Collection[str] = ()) -> list[str]:
    """Name the imports of a source that are neither standard library nor in one of the lists."""
    return [
        f"line {found.line} imports {found.name}"
        for found in imports(ast.parse(source))
        if found.package not in {*sys.stdlib_module_names, *always}
        and not (found.lazy and found.package in lazily)
    ]


def source_errors(package: str, name: str, source: str) -> list[str]:
    own = IN_ONE_FILE.get((package, name), set())
    return import_errors(source, ALWAYS[package] | own | {package}, LAZILY[package])


def errors_of_test(package: str, source: str) -> list[str]:
    own = set().union(*(names for place, names in IN_ONE_FILE.items() if place[0] == package))
    return import_errors(source, ALWAYS[package] | LAZILY[package] | own | {package, "pytest"})


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def floor_errors(part: str, source: str) -> list[str]:
    """Name the imports of a part of kd_core that do not point down, to a lower floor."""
    tree = ast.parse(source)
    names = [name for node in ast.walk(tree) for name in imported_names(node)]
    parts = [name.split(".")[1] for name in names if name.startswith("kd_core.")]
    ground = floor_of(part) == 0
    return [
        f"{part} imports {other}"
        for other in parts
        if other != part and (floor_of(other) > 0 if ground else floor_of(other) >= floor_of(part))
    ]


def circles(sources: Mapping[str, str]) -> list[list[str]]:
    """Return modules that import one another in a circle, lazily and for type checkers too.

    Args:
        sources: Texts by the name of the module; a package's is that of its `__init__`.
    """
    graph = {}
    for module, source in sources.items():
        found = {name for node in ast.walk(ast.parse(source)) for name in imported_names(node)}
        graph[module] = {module_in(name, sources) for name in found} - {module, ""}
    reached = {module: reachable(module, graph) for module in graph}
    members = [module for module in graph if module in reached[module]]
    alike = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in members
    }
    return sorted(map(list, alike))


def module_in(name: str, modules: Collection[str]) -> str:
    """Return the longest beginning of a dotted name that is a module; empty if none is."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def reachable(start: str, graph: Mapping[str, Collection[str]]) -> set[str]:
    """Return what can be reached from a module in one import or more."""
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (module := ahead.pop()) not in found:
            found.add(module)
            ahead += graph[module]
    return found


def tool_errors(source: str) -> list[str]:
    tasks = sorted(TASKS & {found.package for found in imports(ast.parse(source))})
    wrong_count = [] if len(tasks) == 1 else [f"imports {tasks}, not one task package"]
    return import_errors(source, TASKS | {"kd_core"}) + wrong_count


def name_errors(path: Path) -> list[str]:
    """Name the parts of a path that say nothing about what is inside."""
    return [
        f"{part!r} says nothing" for part in path.with_suffix("").parts if part in FORBIDDEN_NAMES
    ]


def length_errors(source: str) -> list[str]:
    lines = len(source.splitlines())
    return [f"{lines} lines are too many"] if lines > LONGEST_SOURCE else []


def machine_errors(text: str) -> list[str]:
    return [
        f"line {number} mentions {found[0].strip()!r}"
        for number, line in enumerate(text.splitlines(keepends=True), 1)
        if (found := MACHINE.search(line) or REGISTRY.search(line))
    ]


def project_files(folder: Path = ROOT) -> Iterator[Path]:
    """All files but those that git ignores: environments, caches, what a run or a build leaves."""
    for path in sorted(folder.iterdir()):
        hidden_cache = path.name.startswith(".") and path.name.endswith(("cache", "data", "whl"))
        downloads = path == ROOT / "data"
        if path.name in SKIPPED or path.suffix == ".egg-info" or hidden_cache or downloads:
            continue
        if path.is_dir():
            yield from project_files(path)
        else:
            yield path


def package_of(path: Path) -> str:
    """Import name of the package that a file lies in: packages/kd-core/... is of kd_core."""
    return path.relative_to(ROOT / "packages").parts[0].replace("-", "_")


def failing(check: Callable[[Path, str], list[str]], *patterns: str) -> dict[str, list[str]]:
    """Apply a check (path, text) to the python files of these folders; errors by file."""
    paths = [path for pattern in patterns for path in ROOT.glob(f"{pattern}/**/*.py")]
    errors = {str(path.relative_to(ROOT)): check(path, path.read_text()) for path in paths}
    return {path: found for path, found in errors.items() if found}


class TestProject:
    def test_there_are_four_packages(self):
        paths = ROOT.glob("packages/*/src/*/__init__.py")
        assert {package_of(path) for path in paths} == set(ALWAYS)

    def test_packages_import_only_what_they_may(self):
        def check(path: Path, text: str) -> list[str]:
            return source_errors(package_of(path), path.name, text)

        assert failing(check, "packages/*/src") == {}

    def test_imports_of_the_core_point_down(self):
        core = ROOT / "packages/kd-core/src/kd_core"

        def check(path: Path, text: str) -> list[str]:
            part = path.relative_to(core).parts[0].removesuffix(".py")
            return [] if part == "__init__" else floor_errors(part, text)

        assert failing(check, "packages/kd-core/src") == {}
        parts = {path.stem for path in core.iterdir() if path.suffix == ".py" or path.is_dir()}
        assert parts - {"__init__", "__pycache__", "py"} == set().union(*FLOORS)

    def test_no_modules_of_a_package_import_one_another_in_a_circle(self):
        sources = {}
        for path in ROOT.glob("packages/*/src/**/*.py"):
            place = path.relative_to(ROOT / "packages").parts[2:]
            name = ".".join(place).removesuffix(".py").removesuffix(".__init__")
            sources[name] = path.read_text(encoding="utf-8")
        assert {"kd_core", "kd_core.training.trainer", "kd_cls.train"} <= sources.keys()
        assert circles(sources) == []

    @pytest.mark.parametrize("names", ROLES)
    def test_modules_of_one_role_have_one_name_in_all_task_packages(self, names):
        for name in names.split():
            files = ROOT.glob(f"packages/*/src/*/{name}.py")
            assert {package_of(file) for file in files} - {"kd_core"} == ROLES[names], name

    def test_each_package_is_tested_alone(self):
        def check(path: Path, text: str) -> list[str]:
            return errors_of_test(package_of(path), text)

        assert failing(check, "packages/*/tests") == {}

    def test_every_tool_imports_one_task_package(self):
        assert failing(lambda path, text: tool_errors(text), "tools") == {}

    def test_configs_name_things_by_import_path(self):
        assert failing(lambda path, text: import_errors(text, ()), "configs") == {}

    def test_contributing_names_modules_that_exist(self):
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        found = {path.stem for path in ROOT.glob("packages/*/src/**/*.py")}
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
        named = {name for cell in cells for name in re.findall(r"`(\w+)(?:\.py)?`", cell)}
        assert len(named) > 200
        assert named - found == set()

    def test_sources_are_short(self):
        folders = ("packages/*/src", "tools", "benchmarks")
        assert failing(lambda path, text: length_errors(text), *folders) == {}

    def test_file_names_say_what_is_in_them(self):
        paths = [path.relative_to(ROOT) for path in project_files()]
        assert [path for path in paths if name_errors(path)] == []

    def test_no_file_mentions_a_machine_or_a_registry(self):
        found = {}
        for path in project_files():
            with suppress(UnicodeDecodeError):  # not a text file
                found[path] = machine_errors(path.read_text(encoding="utf-8"))
        assert {path: errors for path, errors in found.items() if errors} == {}
        assert {ROOT / "pyproject.toml", Path(__file__)} <= found.keys()


class TestRules:
    @pytest.mark.parametrize(
        ("package", "source"),
        [
            ("kd_core", "import torchvision"),
            ("kd_core", "def f():\n    from torchvision import ops"),
            ("kd_core", "import importlib\nimportlib.import_module('detectron2.config')"),
            ("kd_core", "import mmengine"),
            ("kd_core", "from kd_cls import train"),
            ("kd_core", "import wandb"),
            ("kd_core", "try:\n    import matplotlib.pyplot as plt\nexcept ImportError:\n    pass"),
            ("kd_core", "class A:\n    from torch.utils.tensorboard import SummaryWriter"),
            ("kd_core", "from torch.utils import tensorboard"),
            ("kd_cls", "import kd_reid.metrics"),
            ("kd_cls", "import timm"),
            ("kd_det", "from kd_cls import classifier"),
            ("kd_reid", "import kd_det"),
            ("kd_reid", "import detectron2"),
        ],
    )
    def test_forbidden_import_is_found(self, package, source):
        assert len(source_errors(package, "x.py", source)) == 1

    @pytest.mark.parametrize(
        ("package", "source"),
        [
            (
                "kd_core",
                "import os, torch\nfrom torch.nn import functional\nimport kd_core.errors",
            ),
            ("kd_core", "def f():\n    import wandb"),
            ("kd_core", "def f():\n    from torch.utils.tensorboard import SummaryWriter"),
            ("kd_core", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wandb"),
            ("kd_core", "from . import torchvision"),
            (
                "kd_cls",
                "import torchvision.models, kd_core\nasync def f():\n    import timm",
            ),
            ("kd_det", "import detectron2.config"),
        ],
    )
    def test_allowed_import_is_not(self, package, source):
        assert source_errors(package, "x.py", source) == []

    @pytest.mark.parametrize(
        ("part", "source"),
        [
            ("training", "from kd_core.experiment.run import run"),
            ("networks", "def f():\n    from kd_core.files import weights"),
            ("files", "import kd_core.distill.term"),
            ("functional", "from kd_core import runtime"),
        ],
    )
    def test_import_that_points_up_or_sideways_is_found(self, part, source):
        assert len(floor_errors(part, source)) == 1
        assert floor_errors("experiment", "from kd_core.training.step import TrainStep") == []
        assert floor_errors("functional", "from kd_core.errors import UserError") == []

    @pytest.mark.parametrize(
        "source",
        [
            "from p.b import f",
            "from p import b",
            "import p.b",
            "def f():\n    from p.c import g",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import F",
        ],
    )
    def test_circle_of_imports_is_found(self, source):
        sources = {"p": "", "p.a": source, "p.b": "import p.c", "p.d": "import p.a"}
        assert circles({**sources, "p.c": "import torch"}) == []
        members = ["p.a", "p.b", "p.c"] if "p.c" not in source else ["p.a", "p.c"]
        assert circles({**sources, "p.c": "from p.a import x"}) == [members]

    def test_what_one_file_of_the_core_may_import_no_other_may(self):
        source = "from mmengine.config import Config"
        assert source_errors("kd_core", "python_files.py", source) == []
        assert source_errors("kd_core", "image_files.py", "from PIL import Image") == []
        assert len(source_errors("kd_core", "python_files.py", "from PIL import Image")) == 1
        assert source_errors("kd_cls", "python_files.py", source) == [
            "line 1 imports mmengine.config.Config"
        ]

    def test_tests_of_another_package_s_things_are_found(self):
        assert errors_of_test("kd_core", "import pytest, torch, matplotlib") == []
        assert errors_of_test("kd_core", "def test_x():\n    import torchvision")
        assert errors_of_test("kd_cls", "import kd_det")

    @pytest.mark.parametrize(
        "source",
        ["import sys", "import kd_cls.train, kd_det.train", "import kd_cls.train\nimport torch"],
    )
    def test_tool_that_does_more_than_start_one_task_is_found(self, source):
        assert len(tool_errors(source)) == 1
        assert tool_errors("import sys\nfrom kd_cls.train import main") == []

    def test_config_that_imports_is_found(self):
        assert import_errors("import math", ()) == []
        assert import_errors("from kd_core.criteria.dkd import DKD", ())
        assert import_errors("import torch", ())

    @pytest.mark.parametrize("path", ["a/utils.py", "common/x.py", "x/helpers/y.py", "base.yaml"])
    def test_name_that_says_nothing_is_found(self, path):
        assert len(name_errors(Path(path))) == 1
        assert name_errors(Path("a/basement.py")) == []

    def test_long_source_is_found(self):
        assert length_errors("x = 1\n" * LONGEST_SOURCE) == []
        assert length_errors("x = 1\n" * (LONGEST_SOURCE + 1))

    @pytest.mark.parametrize(  # joined here, since this file is searched too
        "parts",
        [
            ("root='", "/home", "/me/data'"),
            ("see ..", "/shared", "/design.md"),
            ("", "/work", "/main"),
            ("C:", "\\Users", "\\me"),
            ("https://py", "pi.org", "/project/x"),
            ("https://mirror.example/", "simple", "/"),
            ("pip install x --index", "-url", " y"),
        ],
    )
    def test_machine_path_or_registry_is_found(self, parts):
        assert len(machine_errors("first\n" + "".join(parts) + "\n")) == 1

    @pytest.mark.parametrize(
        "text",
        [
            "--work-dir runs/x",
            "https://example.org/home/x",
            "a/work/b",
            "/path/to/data",
            "~/work/x",
        ],
    )
    def test_other_paths_are_not(self, text):
        assert machine_errors(text) == []

    def test_ignored_files_are_not_searched(self, tmp_path):
        for name in (
            ".git/config",
            ".venv/x.py",
            "a/__pycache__/b.pyc",
            "configs/data/a.py",
            "b.py",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path).as_posix() for path in project_files(tmp_path)]
        assert found == ["b.py", "configs/data/a.py"]
