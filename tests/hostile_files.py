"""Files that run something when they are trusted: makers by kind, for tests and campaigns.

`KINDS` lists the makers: `for trap in KINDS["weights"]: file = trap.make(folder, canary)`. A maker
writes into `folder`, which is empty, and returns what a program is to read. Whoever runs what is in
it creates `canary`. Some need `folder` as the working directory, since a module lies there.

| kind | what `make` returns | what reads it |
|---|---|---|
| weights | `.pth`, `.pt`, `.pkl`, `.safetensors` | anything that takes weights, of any task |
| metadata | `student.safetensors` | `cls_predict`, `cls_export`, `cls_analyse`, `load_student` |
| yaml_nodes | `run.yaml` | `det_train --config-file`, with `--dry-run` too |
| bases | `run.py` | `cls_train`, `reid_train`, every tool that takes CONFIG |
| yaml_bases | `run.yaml` | `det_train --config-file` |
| proposals | `proposals.pkl` | `DATASETS.PROPOSAL_FILES_*` with `MODEL.LOAD_PROPOSALS True` |
| results | folder of a run | `cls_train --resume --work-dir`, `cls_compare` |
| teachers | folder of a finished run | a teacher's recipe whose product it is said to be |
"""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

Make = Callable[[Path, Path], Path]


class Trap(NamedTuple):
    """One hostile file.

    Args:
        name: What it tries.
        make: Writes it; takes its folder and the canary.
    """

    name: str
    make: Make


class Call:
    """Pickles as a call of a function that is named by its path."""

    def __init__(self, path: str, *arguments: Any) -> None:
        self.path, self.arguments = path, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        module, _, name = self.path.rpartition(".")
        return getattr(__import__(module, fromlist=[name]), name), self.arguments


def calls(canary: Path) -> dict[str, Call]:
    """Return calls that create the canary, by their names."""
    touch = f"touch '{canary}'"
    inner = pickle.dumps(Call("os.system", touch))
    write = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Call("os.system", touch),
        "os.popen": Call("os.popen", touch),
        "os.mkdir": Call("os.mkdir", str(canary)),
        "os.spawn": Call("os.spawnlp", 0, "touch", "touch", str(canary)),
        "eval": Call("builtins.eval", write),
        "exec": Call("builtins.exec", write),
        "open": Call("builtins.open", str(canary), "w"),
        "io.FileIO": Call("io.FileIO", str(canary), "w"),
        "subprocess.Popen": Call("subprocess.Popen", ["touch", str(canary)]),
        "subprocess.getoutput": Call("subprocess.getoutput", touch),
        "pty.spawn": Call("pty.spawn", ["touch", str(canary)]),
        "profile": Call("profile.run", write),
        "os.makedirs": Call("os.makedirs", str(canary)),
        "shutil.copy": Call("shutil.copy", "/etc/hostname", str(canary)),
        "pickle.loads": Call("pickle.loads", inner),
        "torch.save": Call("torch.save", 1, str(canary)),
        "numpy.savetxt": Call("numpy.savetxt", str(canary), [1]),
        "torch.collect_env": Call("torch.utils.collect_env.run", touch),
        "os.open": Call("os.open", str(canary), 64),
    }


CALLS = list(calls(Path("canary")))


def _pickled(how: Callable[[Any], bytes], call: str, file: str, wrap: Any = None) -> Make:
    def make(folder: Path, canary: Path) -> Path:
        trap: Any = calls(canary)[call]
        contents = trap if wrap is None else wrap(trap)
        (folder / file).write_bytes(how(contents))
        return folder / file

    return make


def _torch_zip(contents: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def _torch_legacy(contents: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _torch_script(contents: Any) -> bytes:
    """Return a TorchScript archive whose constants are a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps(contents))
        archive.writestr("archive/version", "3")
    return file.getvalue()


def _state(trap: Any) -> dict[str, Any]:
    return {"model": {"weight": torch.zeros(2), "trap": trap}}


WEIGHTS = [
    *(Trap(f"{call} in .pth", _pickled(_torch_zip, call, "w.pth", _state)) for call in CALLS),
    *(Trap(f"{call} in .pkl", _pickled(pickle.dumps, call, "w.pkl")) for call in CALLS),
    *(
        Trap(f"{call} in an old .pt", _pickled(_torch_legacy, call, "w.pt", _state))
        for call in CALLS[:5]
    ),
    *(
        Trap(f"{call} as .safetensors", _pickled(pickle.dumps, call, "w.safetensors"))
        for call in CALLS[:3]
    ),
    *(Trap(f"{call} in a script", _pickled(_torch_script, call, "w.pt")) for call in CALLS[:3]),
]


def nodes(folder: Path, canary: Path) -> dict[str, dict[str, Any]]:
    """Return nodes of networks that create the canary when built, by what they try.

    `supply` writes the files that some of them name.
    """
    shell = {"command": f"touch '{canary}'"}
    written = {"file": str(canary), "mode": "w"}
    simkd, bad = "kd_core.criteria.simkd", {"type": "os.system", **shell}
    linear = {"type": "torch.nn.Linear", "in_features": 1, "out_features": 1}
    timm = {"type": "timm.create_model", "model_name": "resnet18"}
    return {
        "os.system": bad,
        "posix.system": {"type": "posix.system", **shell},
        "torch.os.system": {"type": "torch.os.system", **shell},
        "a known package's os": {"type": "torchvision.datasets.utils.os.system", **shell},
        "os.mkdir": {"type": "os.mkdir", "path": str(canary)},
        "open": {"type": "builtins.open", **written},
        "io.open": {"type": "io.open", **written},
        "codecs.open": {"type": "codecs.open", "filename": str(canary), "mode": "w"},
        "subprocess.call": {"type": "subprocess.call", "args": ["touch", str(canary)]},
        "runpy": {"type": "runpy.run_path", "path_name": str(folder / "hubconf.py")},
        "a module that lies here": {"type": "lying_here.Net"},
        "torch.hub.load": {
            "type": "torch.hub.load",
            "repo_or_dir": str(folder),
            "model": "net",
            "source": "local",
        },
        "torch.load": {"type": "torch.load", "f": str(folder / "trap.pth"), "weights_only": False},
        "torch.save": {"type": "torch.save", "obj": 1, "f": str(canary)},
        "torch through the zoo": {"type": "kd_cls.models.torch.save", "obj": 1, "f": str(canary)},
        "torch through torch.nn": {
            "type": "torch.nn.functional.torch.save",
            "obj": 1,
            "f": str(canary),
        },
        "numpy.save": {"type": "numpy.save", "file": str(canary), "arr": [1]},
        "numpy.memmap": {
            "type": "numpy.memmap",
            "filename": str(canary),
            "mode": "w+",
            "shape": [1],
        },
        "a function of ours": {
            "type": "kd_core.files.checkpoint.save_text",
            "text": "x",
            "path": str(canary),
        },
        "a node in a known network": {
            "type": "kd_cls.models.build_model",
            "name": "resnet8",
            "num_classes": bad,
        },
        "a node in a list": {"type": "torchvision.models.resnet18", "norm_layer": [bad]},
        "a node in a deployed network": {
            "type": f"{simkd}.SimKDNetwork",
            "network": bad,
            "tap": "output",
            "projector": linear,
            "head": linear,
        },
        "timm: checkpoint_path": {**timm, "checkpoint_path": str(folder / "trap.pth")},
        "timm: pretrained_cfg": {**timm, "pretrained_cfg": {"file": str(folder / "trap.pth")}},
        "timm: local-dir": {**timm, "model_name": f"local-dir:{folder}"},
        "torchvision: a file": {
            "type": "torchvision.models.get_model",
            "name": "resnet18",
            "weights": str(folder / "trap.pth"),
            "checkpoint_file": str(folder / "trap.pth"),
        },
    }


NODES = list(nodes(Path(), Path("canary")))


def supply(folder: Path, canary: Path) -> None:
    """Write the files that `nodes` name."""
    write = f"open({str(canary)!r}, 'w').close()\n"
    (folder / "lying_here.py").write_text(write + "import torch\nNet = torch.nn.Identity\n")
    (folder / "hubconf.py").write_text(write + "def net(**_): ...\n")
    (folder / "trap.pth").write_bytes(_torch_zip(Call("os.system", f"touch '{canary}'")))


def student_file(folder: Path, network: Any, **facts: Any) -> Path:
    """Write a `student.safetensors` that says such things of itself, for either task."""
    said = {
        "classes": ["a", "b"],
        "identities": 2,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "image_size": 8,
        "bnneck": False,
        **facts,
    }
    metadata = {name: json.dumps(value) for name, value in said.items()}
    folder.mkdir(exist_ok=True)
    file = folder / "student.safetensors"
    save_file({"weight": torch.zeros(1)}, file, {"network": json.dumps(network), **metadata})
    return file


def _student(name: str) -> Make:
    def make(folder: Path, canary: Path) -> Path:
        supply(folder, canary)
        return student_file(folder, nodes(folder, canary)[name])

    return make


METADATA = [Trap(name, _student(name)) for name in NODES]


def _yaml(text: Callable[[Path, Path], str]) -> Make:
    def make(folder: Path, canary: Path) -> Path:
        supply(folder, canary)
        (folder / "run.yaml").write_text(text(folder, canary))
        return folder / "run.yaml"

    return make


def _criterion(name: str) -> Make:
    def text(folder: Path, canary: Path) -> str:
        node = nodes(folder, canary)[name]
        arguments = {key: value for key, value in node.items() if key != "type"}
        term = {"CRITERION": node["type"], "ARGS": arguments}
        return json.dumps({"KD": {"TERMS": {"trap": term}}})  # JSON is YAML

    return _yaml(text)


def _argument(name: str) -> Make:
    def text(folder: Path, canary: Path) -> str:
        node = nodes(folder, canary)[name]
        term = {"CRITERION": "kd_core.criteria.kd.KD", "ARGS": {"temperature": node}}
        return json.dumps({"KD": {"TERMS": {"trap": term}}})

    return _yaml(text)


def tags(canary: Path) -> dict[str, str]:
    """Return YAML values that create the canary where tags of Python are obeyed."""
    call, write = "!!python/object/apply", f"open({str(canary)!r}, 'w').close()"
    return {
        "apply os.system": f"{call}:os.system ['touch {canary}']",
        "apply exec": f'{call}:builtins.exec ["{write}"]',
        "apply open": f"{call}:builtins.open ['{canary}', 'w']",
        "apply Popen": f"{call}:subprocess.Popen [['touch', '{canary}']]",
        "new Popen": f"!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        "apply mkdir": f"{call}:os.mkdir ['{canary}']",
        "keywords": f"{call}:os.mkdir {{kwds: {{path: '{canary}'}}}}",
        "inside a list": f"[1, {call}:os.system ['touch {canary}']]",
        "a module": "!!python/module:lying_here",
        "a name": "!!python/name:lying_here.Net",
    }


TAGS = list(tags(Path("canary")))


def _tagged(name: str, where: str = "OUTPUT_DIR: {}") -> Make:
    return _yaml(lambda folder, canary: where.format(tags(canary)[name]) + "\n")


_DEEP = "KD: {{TERMS: {{t: {{CRITERION: kd_core.criteria.kd.KD, ARGS: {{temperature: {}}}}}}}}}"
YAML_NODES = [
    *(Trap(f"{name} as a criterion", _criterion(name)) for name in NODES),
    *(Trap(f"{name} as an argument", _argument(name)) for name in NODES),
    *(Trap(f"tag: {name}", _tagged(name)) for name in TAGS),
    *(Trap(f"tag in an argument: {name}", _tagged(name, _DEEP)) for name in TAGS),
]


def _base(name: str, written: str, base: str = "trap.yaml") -> Make:
    """Make a python config with a base; `written` is the source of `_base_`."""

    def make(folder: Path, canary: Path) -> Path:
        supply(folder, canary)
        (folder / "bases").mkdir()
        for place in (folder / base, folder / "bases" / base):
            place.write_text(f"trainer: {tags(canary)[name]}\n")
        (folder / "inner.py").write_text(f"_base_ = {base!r}\n")
        source = written.format(base=base, folder=folder)
        (folder / "run.py").write_text(source + "\nseed = 1\n")
        return folder / "run.py"

    return make


BASES = [
    *(Trap(f"YAML: {name}", _base(name, "_base_ = '{base}'")) for name in TAGS),
    Trap("in a list", _base(TAGS[0], "_base_ = ['{base}']")),
    Trap("in a tuple", _base(TAGS[0], "_base_ = ('{base}',)")),
    Trap("an absolute path", _base(TAGS[0], "_base_ = '{folder}/{base}'")),
    Trap("in a folder", _base(TAGS[0], "_base_ = './bases/../bases/{base}'")),
    Trap("computed", _base(TAGS[0], "_base_ = 'trap' + '.yaml'")),
    Trap("computed in a list", _base(TAGS[0], "_base_ = [n + '.yaml' for n in ['trap']]")),
    Trap("by mmengine's variable", _base(TAGS[0], "_base_ = '{{{{ fileDirname }}}}/{base}'")),
    Trap("by the environment", _base(TAGS[0], "_base_ = '{{{{$KD_NOT_SET:trap}}}}.yaml'")),
    Trap("of a base", _base(TAGS[0], "_base_ = 'inner.py'")),
    Trap(".yml", _base(TAGS[0], "_base_ = '{base}'", "trap.yml")),
    Trap(".json", _base(TAGS[0], "_base_ = '{base}'", "trap.json")),
]


def _yaml_base(name: str, form: str) -> Make:
    def make(folder: Path, canary: Path) -> Path:
        supply(folder, canary)
        (folder / "trap.yaml").write_text(f"OUTPUT_DIR: {tags(canary)[name]}\n")
        (folder / "inner.yaml").write_text("_BASE_: trap.yaml\n")
        (folder / "run.yaml").write_text(form.format(folder=folder) + "\n")
        return folder / "run.yaml"

    return make


YAML_BASES = [
    *(Trap(name, _yaml_base(name, "_BASE_: trap.yaml")) for name in TAGS),
    Trap("in a list", _yaml_base(TAGS[0], "_BASE_: [trap.yaml]")),
    Trap("an absolute path", _yaml_base(TAGS[0], "_BASE_: {folder}/trap.yaml")),
    Trap("of a base", _yaml_base(TAGS[0], "_BASE_: inner.yaml")),
    Trap("up and down", _yaml_base(TAGS[0], "_BASE_: ./../{folder.name}/trap.yaml")),
    Trap("the name itself", _yaml_base(TAGS[0], "_BASE_: !!python/name:lying_here.Net")),
    Trap("the name is made", _yaml_base(TAGS[0], "_BASE_: !!python/object/apply:os.getcwd []")),
]


def _proposals(trap: Any) -> dict[str, Any]:
    import numpy as np

    boxes, scores = [np.zeros((1, 4), np.float32)], [np.zeros(1, np.float32)]
    return {"ids": [1], "boxes": boxes, "objectness_logits": scores, "bbox_mode": trap}


PROPOSALS = [
    *(Trap(name, _pickled(pickle.dumps, name, "proposals.pkl")) for name in CALLS),
    *(
        Trap(f"{name} inside", _pickled(pickle.dumps, name, "proposals.pkl", _proposals))
        for name in CALLS
    ),
]

RESULT = {
    "metric": "top1",
    "last": {"epoch": 1, "top1": 50.0},
    "best": {"epoch": 1, "top1": 50.0, "chosen_on": "test data"},
    "epochs": 1,
    "seed": 0,
    "student_parameters": 1,
    "train_seconds": 1.0,
    "images_per_second": 1.0,
}
"""What a finished run of classification says; see `kd_core.experiment.run.run`."""


def _run_folder(finished: bool, call: str | None = None, node: str | None = None) -> Make:
    """Make the folder of a run: its python files are traps, and what is named is one too."""

    def make(folder: Path, canary: Path) -> Path:
        supply(folder, canary)
        run = folder / "run"
        run.mkdir()
        write = f"open({str(canary)!r}, 'w').close()\n"
        for name in ("config.py", "result.py", "sitecustomize.py", "hubconf.py"):
            (run / name).write_text(write)
        trap = nodes(folder, canary)[node] if node else "nothing"
        if call:
            contents = {"distiller": {}, "trap": calls(canary)[call]}
            for name in ("last.pth", "best.pth", "student.pth"):
                (run / name).write_bytes(_torch_zip(contents))
        student_file(run, trap)
        (run / "config.json").write_text(json.dumps({"student": {"network": trap}}))
        (run / "log.jsonl").write_text(json.dumps({"epoch": 1, "trap": trap}) + "\n")
        (run / "environment.json").write_text(json.dumps(trap))
        if finished:
            result = {**RESULT, "teachers": trap, "environment": trap, "peers": trap}
            for name in ("result.json", "summary.json"):
                (run / name).write_text(json.dumps(result))
        return run

    return make


RESULTS = [
    *(Trap(f"{name} in last.pth", _run_folder(False, call=name)) for name in CALLS),
    *(Trap(f"{name} in result.json", _run_folder(True, node=name)) for name in NODES),
]
TEACHERS = [Trap(name, _run_folder(True, CALLS[0], name)) for name in NODES]

KINDS: dict[str, list[Trap]] = {
    "weights": WEIGHTS,
    "metadata": METADATA,
    "yaml_nodes": YAML_NODES,
    "bases": BASES,
    "yaml_bases": YAML_BASES,
    "proposals": PROPOSALS,
    "results": RESULTS,
    "teachers": TEACHERS,
}
