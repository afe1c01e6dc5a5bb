"""What `fuzz.py` tries: options with values of all kinds, and damaged config files."""

import importlib
import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core.config.node import Node
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.spec import Experiment

CONFIGS = Path(__file__).parents[1] / "configs"
VALUES = (
    *("abc", "-1", "0", "1e999", "-1e999", "nan", "1e300", "-1e300", "0.5", "True", "None", "''"),
    *("[]", "{}", "[0]", "1" + "0" * 30, "-1" + "0" * 30, "'\u00e9\u2603'", "'\ud800'", "'\\0'"),
    *("{'type': 'torch.nn.Identity'}", "(1, 2, 3)", "b'x'", "1j", "3", "1e-300"),
)
"""Wrong type, negative, zero, not finite, huge, empty, unicode; and some that may be right."""

TINY = {
    "cls": """
data = dict(type="kd_cls.data.synthetic", image_size=16, num_classes=4, num_train=16, batch_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet14"), weights="random")
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[150], warmup_epochs=2)
trainer = dict(epochs=240, loggers=[])
""",
    "reid": """
data = dict(type="kd_reid.data.synthetic", image_size=(32, 16), num_ids=4, batch_size=8)
_network = dict(type="kd_reid.models.build_model", name="osnet_x0_25")
student = dict(network=_network)
teacher = dict(network=_network, weights="random")
evaluation = dict(distance="cosine")
optimizer = dict(type="torch.optim.Adam", lr=0.005, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=12, loggers=[])
""",
}
"""Of each tool, a pair that takes a step in a moment."""

METHODS = {
    "cls": ("kd", "dkd", "fitnet", "at", "rkd", "reviewkd", "dist", "sdd", "crd", "ctkd", "mlkd"),
    "reid": ("kd", "rkd", "similarity", "cosine"),
}
DETECTOR = """
MODEL:
  META_ARCHITECTURE: RetinaNet
  DEVICE: cpu
  WEIGHTS: ""
  PIXEL_STD: [57.0, 57.0, 57.0]
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 50, RES2_OUT_CHANNELS: 16, STEM_OUT_CHANNELS: 8, WIDTH_PER_GROUP: 4, NORM: BN,
    OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 16}
  RETINANET: {NUM_CLASSES: 4, NUM_CONVS: 1}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]]}
SOLVER: {CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: norm}}
"""
KD_NODE = """
KD:
  TEACHER: {CONFIG: teacher.yaml, WEIGHTS: random}
  TERMS:
    at: {CRITERION: kd_core.criteria.at.AT, WEIGHT: 2.0, WARMUP_ITERS: 3, ARGS: {p: 2.0}}
"""
_OF_TERM = ("WEIGHT", "WARMUP_ITERS", "ARGS", "ARGS.p", "STUDENT", "TEACHER", "CRITERION")


@dataclass(frozen=True)
class Try:
    """A command line of a tool, in whose folder its files are."""

    tool: str
    argv: tuple[str, ...]
    what: str


def option_tries(tool: str, draw: random.Random, count: int, folder: Path) -> Iterator[Try]:
    """Give every argument that may be a number, in all methods in turn, one of `VALUES`."""
    if tool == "det":
        for name in draw.choices(_OF_TERM, k=count):
            option = (f"KD.TERMS.at.{name}", draw.choice(VALUES))
            yield _det(
                "student.yaml", "KD.TASK_WEIGHT" if draw.random() < 0.1 else option[0], option
            )
        return
    places = {}
    for method in METHODS[tool]:
        files = (str(folder / f"{tool}.py"), str(CONFIGS / f"{tool}/methods/{method}.py"))
        places[files] = numeric_places(read_experiment(adapter_of(tool), files))
    for _ in range(count):
        files = draw.choice([*places])
        option = f"{draw.choice(places[files])}={draw.choice(VALUES)}"
        yield Try(tool, (*files, "--dry-run", "--cfg-options", option), option)


def file_tries(tool: str, draw: random.Random, count: int, folder: Path) -> Iterator[Try]:
    """Damage a config file in one of many ways."""
    source = DETECTOR + KD_NODE if tool == "det" else _with_terms(tool)
    for number in range(count):
        name, data = damaged(source, draw)
        path = folder / f"{tool}-{number}.{'yaml' if tool == 'det' else 'py'}"
        path.write_bytes(data)
        if tool == "det":
            yield _det(path.name, name)
        else:
            yield Try(tool, (str(path), "--dry-run"), name)


def damaged(source: str, draw: random.Random) -> tuple[str, bytes]:
    """Return how a text was damaged, and its bytes."""
    lines = source.splitlines()
    place, at = draw.randrange(len(lines)), draw.randrange(len(source))
    words = re.findall(r"[\w.]+", source)
    ways: dict[str, Callable[[], str | bytes]] = {
        "cut": lambda: source[:at],
        "line left out": lambda: "\n".join(lines[:place] + lines[place + 1 :]),
        "line twice": lambda: "\n".join(lines[: place + 1] + lines[place:]),
        "character left out": lambda: source[:at] + source[at + 1 :],
        "character put in": lambda: (
            source[:at] + draw.choice("()[]{}=,'\"\\:#\t\0\u2603") + source[at:]
        ),
        "byte": lambda: (
            source.encode()[:at] + bytes([draw.randrange(256)]) + source.encode()[at + 1 :]
        ),
        "word": lambda: source.replace(
            draw.choice(words), draw.choice(["3", "None", "x", "-1", "[]"]), 1
        ),
        "word for word": lambda: source.replace(draw.choice(words), draw.choice(words), 1),
        "value": lambda: re.sub(
            r"(?<=[=:] )[^,\n]+", draw.choice(VALUES[:-8]).replace("\\", ""), source, count=1
        ),
        "number": lambda: re.sub(
            r"\d+\.?\d*", draw.choice(["nan", "float('nan')", "-1", "0", "9" * 40]), source, count=1
        ),
        "deep": lambda: source + "\nx_ = " + "[" * 300 + "]" * 300,
        "endless": lambda: source + "\n_base_ = __file__\n",
        "empty": lambda: "",
        "zeros": lambda: b"\0" * 64,
        "latin": lambda: source.encode() + b"# \xe9\xff\n",
        "raises": lambda: source + "\n1 / 0\n",
        "exits": lambda: source + "\nraise SystemExit(7)\n",
    }
    name = draw.choice([*ways])
    data = ways[name]()
    return name, data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def numeric_places(experiment: Experiment) -> list[str]:
    """Return the places of all arguments of an experiment's callables that may be numbers."""
    terms = [term.call for term in experiment.terms.values()]
    parts: list[Any] = [
        experiment.data,
        experiment.student,
        experiment.optimizer,
        experiment.schedule,
    ]
    parts += [experiment.trainer, experiment.distiller, *terms, *experiment.extra.values()]
    return ["seed", "data_seed", *(place for part in parts for place in _places(part))]


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, Node):
        for name, parameter in inspect.signature(value.function).parameters.items():
            number = isinstance(parameter.default, int | float | tuple) or name in value
            if (
                number
                and not isinstance(parameter.default, bool)
                and parameter.kind is not parameter.VAR_KEYWORD
            ):
                yield f"{value.where}.{name}"
        value = value.arguments
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _places(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _places(item)


def write_files(folder: Path) -> None:
    """Write what the tries are made from."""
    for tool, text in TINY.items():
        (folder / f"{tool}.py").write_text(text, encoding="utf-8")
    (folder / "teacher.yaml").write_text(DETECTOR, encoding="utf-8")
    (folder / "student.yaml").write_text(DETECTOR + KD_NODE, encoding="utf-8")


def adapter_of(tool: str) -> TaskAdapter:
    """Return the adapter of a tool."""
    return importlib.import_module(f"kd_{tool}.adapter").ADAPTER  # type: ignore[no-any-return]


def _with_terms(tool: str) -> str:
    role = "" if tool == "cls" else ', student="@logits", teacher="@logits"'
    node = f'dict(criterion=dict(type="kd_core.criteria.kd.KD", temperature=2.0), weight=0.5{role})'
    return f"{TINY[tool]}distiller = dict(terms=dict(kd={node}))\n"


def _det(file: str, what: str, option: Sequence[str] = ()) -> Try:
    return Try("det", ("--config-file", file, "--dry-run", *option), " ".join((what, *option)))
