"""Every place that could run what a file says, with what feeds it; a new one must be entered here.

Before an entry is added: where does the argument come from? What a person writes on the command
line or in a python config may name code. What a file of weights, a checkpoint, a result, a data set
or a YAML file says may not, unless `--trust` names it; see SECURITY.md.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

MODULES = {  # whose import alone is worth a line
    *("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml", "mmengine"),
    *("subprocess", "pty", "runpy", "importlib", "imp", "pkgutil", "code", "ctypes", "timeit"),
}
BARE = {"eval", "exec", "compile", "__import__", "build", "load", "loads", "parse", "parse_call"}
"""Functions called by such a name, without a dot."""
CALLS = {  # and by such a name after any dot
    *("load", "unsafe_load", "full_load", "load_all", "loadmat", "load_model", "load_file"),
    *("memmap", "fromfile", "merge_from_file", "literal_eval", "load_state_dict_from_url"),
    *(
        "import_module",
        "instantiate",
        "run_path",
        "run_module",
        "system",
        "popen",
        "gopen",
        "Popen",
        "spawn",
        "execv",
    ),
    *("check_output", "check_call", "getoutput", "run_code", "arrays_only", "unpickle"),
    *(
        "build_network",
        "build_from_file",
        "locate",
        "find_class",
        "check_types",
        "add_safe_globals",
    ),
}
WHOLE = {"subprocess.run", "trust.find", "find", "safe_globals", "torch.serialization.safe_globals"}


class Door(NamedTuple):
    file: str
    does: str


TABLE: dict[tuple[str, str], tuple[int, str]] = {
    # What a python config or the command line names, judged by `kd_core.config.kinds`
    ("kd_core/experiment/builder.py", "build"): (1, "`data` of a config; must be a data set"),
    ("kd_core/experiment/run.py", "build"): (
        2,
        "`trainer.step` and `schedule` of a config; by kind",
    ),
    ("kd_core/training/optimizer.py", "build"): (
        1,
        "`optimizer` of a config; must be an Optimizer",
    ),
    ("kd_core/distill/term.py", "parse_call"): (
        1,
        "terms of a config; the criteria must be Criterions. YAML: see below",
    ),
    ("kd_core/config/build.py", "build"): (1, "build_network: a node of its caller"),
    ("kd_core/config/build.py", "parse"): (1, "a node of its caller"),
    ("kd_core/config/node.py", "locate"): (1, "the type of a node of a config"),
    ("kd_core/config/node.py", "parse"): (1, "itself: nested nodes"),
    ("kd_core/config/node.py", "parse_call"): (1, "arguments of a node of a config"),
    ("kd_core/config/locate.py", "import importlib"): (1, "for locate"),
    ("kd_core/config/locate.py", "import pkgutil"): (1, "names of modules, for messages"),
    ("kd_core/config/locate.py", "importlib.import_module"): (1, "locate: a path of a config"),
    ("kd_core/experiment/parsing.py", "parse"): (2, "`data` and `schedule` of a config; by kind"),
    ("kd_core/experiment/parsing.py", "parse_call"): (
        4,
        "fixed callables: distiller, extra, seeds",
    ),
    ("kd_core/training/optimizer.py", "parse"): (1, "`optimizer` of a config; by kind"),
    ("kd_core/training/settings.py", "parse_call"): (
        2,
        "a fixed callable: TrainerSettings; its step, hooks and loggers by kind",
    ),
    ("kd_core/training/settings.py", "build"): (1, "hooks and loggers of a config; by kind"),
    ("kd_core/training/parameter_groups.py", "parse_call"): (2, "fixed callables: Rule, Grouping"),
    ("kd_core/training/loggers.py", "import importlib"): (1, "whether a package is installed"),
    ("kd_core/training/loggers.py", "locate"): (1, "a logger of a config"),
    ("kd_core/experiment/outputs.py", "parse_call"): (1, "a fixed callable: build_stored"),
    ("kd_core/training/early_stop.py", "parse_call"): (1, "a fixed callable: EarlyStop"),
    ("kd_core/training/targets/choice.py", "parse_call"): (1, "a fixed callable: CacheOptions"),
    ("kd_core/experiment/adapter.py", "parse_call"): (1, "a fixed callable: build_model"),
    ("kd_cls/networks.py", "parse_call"): (1, "a fixed callable: build_classifier"),
    ("kd_cls/libraries/timm_names.py", "parse"): (1, "a fixed type: image_classifier"),
    ("kd_reid/adapter.py", "locate"): (1, "the network of a config that was just trained"),
    ("kd_reid/networks.py", "parse_call"): (1, "a fixed callable: build_embedder"),
    ("kd_reid/adapter.py", "parse_call"): (1, "a fixed callable: AdaptiveEmbedder"),
    ("kd_reid/measuring/models.py", "parse_call"): (1, "a fixed callable: build_model"),
    ("kd_reid/measuring/targets.py", "parse"): (1, "`data` of a config; must be a data set"),
    ("kd_reid/measuring/saved.py", "np.load"): (1, "a user's features; no pickles"),
    ("kd_reid/adapter.py", "parse"): (1, "`data` of a config, or its stand-in"),
    ("kd_core/networks/taps.py", "parse"): (1, "the grammar of taps: nothing is called"),
    ("kd_core/networks/map_layout.py", "parse"): (1, "the grammar of taps: nothing is called"),
    ("kd_core/criteria/ofa.py", "parse"): (1, "the grammar of taps: nothing is called"),
    ("kd_cls/families/search.py", "parse"): (1, "the grammar of taps: nothing is called"),
    ("kd_cls/stand_ins.py", "parse"): (1, "the stand-in of a data set"),
    ("kd_cls/analysis/analyses.py", "parse"): (1, "`data` of a config; must be a data set"),
    ("kd_cls/analysis/models.py", "parse"): (1, "a network of a config; must be a module"),
    ("kd_core/experiment/models.py", "build_network"): (1, "networks of a config: modules"),
    ("kd_cls/analysis/models.py", "locate"): (1, "a network of the command line; its signature"),
    ("kd_reid/metric_losses.py", "parse"): (1, "metric losses of a config; must be modules"),
    ("kd_reid/fitting.py", "build_network"): (1, "a teacher's `network` of a config, once more"),
    ("kd_reid/adaptation/target.py", "build"): (1, "`data.of` of a config; must be a data set"),
    # What the metadata of installed packages names; only files that the package manager wrote
    ("kd_core/front/tools.py", "import importlib"): (1, "entry points of what is installed"),
    ("kd_core/front/tools.py", "self.tasks[task].load"): (1, "a task's entry point"),
    ("kd_core/front/main.py", "tool.load"): (1, "the script of a tool"),
    ("kd_reid/catalogue.py", "import importlib"): (1, "where torchreid lies; it is not imported"),
    ("kd_det/catalogue.py", "import yaml"): (1, "safe_load: our own configs"),
    ("kd_det/settings/names.py", "import yaml"): (1, "safe_dump: bases by short names"),
    # What a file names, judged by `kd_core.config.trust`
    ("kd_cls/student.py", "build_from_file"): (1, "metadata of a student's file"),
    ("kd_reid/student.py", "build_from_file"): (1, "metadata of a student's file"),
    ("kd_core/config/trust.py", "build_network"): (1, "build_from_file: what was judged"),
    ("kd_core/config/trust.py", "find"): (2, "every type that a file names"),
    ("kd_core/config/trust.py", "locate"): (2, "find: paths of known packages, and trusted ones"),
    ("kd_core/config/trust.py", "check_types"): (2, "itself: nested nodes"),
    ("kd_det/terms.py", "check_types"): (2, "CRITERION and ARGS of a YAML file"),
    ("kd_det/teachers/factory.py", "check_types"): (1, "NETWORK and ARGS of a YAML file"),
    ("kd_det/teachers/factory.py", "build_from_file"): (1, "the same, without --trust"),
    ("kd_det/teachers/factory.py", "build_network"): (
        1,
        "the same if --trust names it, or after build_from_file has judged its arguments",
    ),
    ("kd_det/teachers/factory.py", "locate"): (
        3,
        "what check_types has let pass; timm's own list of names",
    ),
    # Configs
    ("kd_core/config/python_files.py", "import mmengine"): (
        3,
        "runs python configs, refuses all others",
    ),
    ("kd_core/config/python_files.py", "Config.fromfile"): (1, "a python config: code of the user"),
    ("kd_core/config/python_files.py", "ast.literal_eval"): (1, "`_base_` of it, for messages"),
    ("kd_core/experiment/cli.py", "ast.literal_eval"): (
        1,
        "values of --cfg-options: literals alone",
    ),
    ("kd_det/settings/yaml_text.py", "import yaml"): (1, "safe_load and compose, and its errors"),
    ("kd_det/settings/merging.py", "import yaml"): (1, "its errors alone"),
    ("kd_det/settings/imports.py", "import importlib"): (1, "modules that `--import` names"),
    ("kd_det/settings/imports.py", "import pkgutil"): (1, "names of modules, for messages"),
    ("kd_det/settings/imports.py", "importlib.import_module"): (1, "what `--import` names"),
    ("kd_det/settings/zoo.py", "import importlib"): (
        1,
        "where Detectron2 is, without importing it",
    ),
    ("kd_det/lazy/files.py", "LazyConfig.load"): (
        1,
        "a .py of the command line, of Detectron2's zoo, or trusted; see `_require_data` of config",
    ),
    ("kd_det/lazy/files.py", "instantiate"): (1, "nodes of such a .py"),
    ("kd_det/lazy/trainer.py", "locate"): (1, "the optimizer of such a .py"),
    ("kd_det/config.py", "cfg.merge_from_file"): (1, "a YAML file, with allow_unsafe=False"),
    # Weights, checkpoints, arrays
    ("kd_core/files/checkpoint.py", "torch.load"): (1, "a checkpoint, with weights_only=True"),
    ("kd_core/files/torch_files.py", "torch.load"): (
        1,
        "weights of anybody, with weights_only=True",
    ),
    ("kd_core/files/torch_files.py", "torch.serialization.safe_globals"): (
        1,
        "NumPy values, a Namespace, stand-ins of ours",
    ),
    ("kd_core/files/outputs.py", "np.load"): (1, "logits of anybody, with allow_pickle=False"),
    ("kd_core/training/trainer.py", "checkpoint.load"): (1, "last.pth of a run"),
    ("kd_core/files/pickles.py", "import pickle"): (
        1,
        "for an unpickler that finds NumPy arrays alone",
    ),
    ("kd_core/files/pickles.py", "_Unpickler(file, encoding='latin1').load"): (1, "the same"),
    ("kd_det/weights.py", "unpickle"): (1, "a .pkl of weights, by that unpickler"),
    ("kd_core/data/decoded.py", "checkpoint.load"): (1, "sizes of decoded images, of our own"),
    ("kd_core/experiment/identity.py", "checkpoint.load"): (1, "last.pth of a run: its epoch"),
    ("kd_core/experiment/identity.py", "import importlib"): (1, "our own version"),
    ("kd_det/resume/identity.py", "checkpoint.load"): (
        1,
        "the last checkpoint of a run: its iteration",
    ),
    ("kd_det/resume/checkpointer.py", "super().load"): (1, "a checkpoint, by SafeCheckpointer"),
    ("kd_det/deploy/finished.py", "SafeCheckpointer(network, whole=True).load"): (
        1,
        "a .pth of weights, by that checkpointer",
    ),
    ("kd_det/weights.py", "super().load"): (1, "weights, by its own _load_file"),
    ("kd_det/data/proposals.py", "arrays_only"): (1, "proposals, by that unpickler"),
    ("kd_det/data/proposals.py", "build.pickle.load"): (1, "the same"),
    ("kd_cls/data/arrays.py", "arrays_only"): (1, "files of CIFAR, by that unpickler"),
    ("kd_core/files/row_store.py", "np.memmap"): (1, "tables of the cache: numbers"),
    ("kd_core/files/artifacts.py", "load"): (2, "its caller's: load_weights of the same file"),
    ("kd_cls/analysis/analyses.py", "load"): (
        2,
        "load_model: names of the command line, and files",
    ),
    ("kd_core/data/image_files.py", "image.load"): (2, "Pillow: pixels of an image"),
    # What we wrote ourselves a moment ago
    ("kd_cls/data/shards/index.py", "checkpoint.load"): (1, "an index; `weights_only`"),
    ("kd_cls/data/shards/opening.py", "gopen"): (1, "a URL that `check_runs_nothing` passed"),
    ("kd_core/experiment/deploy/exporting.py", "onnx.load_model"): (
        1,
        "the ONNX file just written",
    ),
    ("kd_core/experiment/deploy/exporting.py", "torch.export.load"): (
        1,
        "the archive just written",
    ),
    ("kd_det/deploy/runtimes.py", "torch.jit.load"): (
        1,
        "a TorchScript just written; or one that the command line names, see SECURITY.md",
    ),
    ("kd_reid/models.py", "ast.literal_eval"): (1, "names that torchreid prints"),
    # Other programs and modules
    ("kd_core/experiment/report.py", "import subprocess"): (
        1,
        "git and nvidia-smi, fixed commands",
    ),
    ("kd_core/experiment/report.py", "subprocess.run"): (1, "the same"),
    ("kd_core/experiment/report.py", "import importlib"): (1, "versions of packages"),
    ("kd_core/__init__.py", "import importlib"): (
        2,
        "our own modules; our version",
    ),
    ("kd_core/__init__.py", "import_module"): (1, "the same"),
    ("kd_core/criteria/__init__.py", "import importlib"): (1, "our own files beside it"),
    ("kd_core/criteria/__init__.py", "import_module"): (1, "the same"),
    ("kd_core/testing/samples.py", "import importlib"): (1, "modules of our own criteria"),
    ("kd_core/testing/samples.py", "import pkgutil"): (1, "the same"),
    ("kd_core/testing/samples.py", "import_module"): (2, "the same"),
    ("kd_core/experiment/parsers.py", "parse"): (1, "the arguments of a command line"),
    ("kd_core/runtime/versions.py", "import importlib"): (1, "versions of packages"),
    ("kd_cls/models/__init__.py", "import importlib"): (1, "our own zoo beside it"),
    ("kd_cls/models/__init__.py", "import_module"): (1, "the same"),
    ("kd_det/release/repairs.py", "import importlib"): (3, "loaders of Detectron2's own source"),
    ("kd_det/release/repairs.py", "importlib.import_module"): (
        2,
        "Detectron2's extension, and its package with the model zoo",
    ),
    ("kd_det/release/preparation.py", "import importlib"): (
        5,
        "whether Detectron2 and its parts are there",
    ),
    ("kd_det/release/preparation.py", "importlib.import_module"): (1, "its compiled extension"),
    ("kd_det/release/compat.py", "build"): (1, "a function of its caller, that makes a loader"),
    ("kd_det/release/compat.py", "mp.spawn"): (1, "processes of our own function"),
}


def doors(source: str) -> Iterator[str]:
    """Name what a source imports and calls of what is listed above."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module).partition(".")[0]]
        else:
            names = []
        yield from (f"import {name}" for name in names if name in MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if called in BARE | WHOLE or last in CALLS:
                yield called


def found_doors() -> Counter[Door]:
    files = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("tools/**/*.py")]
    found: Counter[Door] = Counter()
    for file in files:
        name = file.relative_to(ROOT).as_posix().partition("/src/")
        for does in doors(file.read_text(encoding="utf-8")):
            found[Door(name[2] or name[0], does)] += 1
    return found


def test_every_door_is_in_the_table_and_every_entry_is_a_door():
    wanted = Counter({Door(*place): count for place, (count, _) in TABLE.items()})
    found = found_doors()
    assert dict(found - wanted) == {}, "new: enter what feeds it, if it may be there at all"
    assert dict(wanted - found) == {}, "gone: take it out of the table"


def test_every_entry_says_what_feeds_it():
    assert all(len(fed.split()) >= 2 for _, fed in TABLE.values())


@pytest.mark.parametrize(
    ("source", "does"),
    [
        ("import torch\ntorch.load(path)", "torch.load"),
        ("from torch import load\nload(path)", "load"),
        ("import pickle as p\np.loads(b)", "import pickle"),
        ("from pickle import loads", "import pickle"),
        ("def f():\n    import cloudpickle", "import cloudpickle"),
        ("import yaml.constructor", "import yaml"),
        ("x = yaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("np.load(file, allow_pickle=True)", "np.load"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("__import__(name)", "__import__"),
        ("importlib.import_module(name)", "importlib.import_module"),
        ("os.system(command)", "os.system"),
        ("import subprocess", "import subprocess"),
        ("build(facts['network'])", "build"),
        ("build_network(node, where)", "build_network"),
        ("kinds.locate(path)", "kinds.locate"),
        ("torch.hub.load(repo, name)", "torch.hub.load"),
        ("gopen(url)", "gopen"),
        ("scipy.io.loadmat(file)", "scipy.io.loadmat"),
        ("runpy.run_path(file)", "runpy.run_path"),
    ],
)
def test_an_addition_is_seen(source, does):
    assert does in list(doors(source))


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(x)", "self.run(x)", "import torch"])
def test_what_is_harmless_is_not(source):
    assert list(doors(source)) == []
