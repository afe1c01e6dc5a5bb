"""Every pair builds the two networks that its reference builds, and methods know it by its name."""

from pathlib import Path

import pytest
import torch
from kd_cls.compare import main as compare
from kd_cls.train import main as train
from kd_core.config.build import build_network
from kd_core.config.python_files import read_python
from kd_core.config.reading import load_config
from kd_core.experiment.models import without_pretrained

ALL = Path(__file__).parents[1] / "configs"
CONFIGS = ALL / "cls"
PAIRS = sorted(ALL.glob("*/pairs/*.py"))

CIFAR = {
    "resnet8x4": ("ResNet", 1_233_540),
    "resnet20": ("ResNet", 278_324),
    "resnet32": ("ResNet", 472_756),
    "resnet56": ("ResNet", 861_620),
    "resnet110": ("ResNet", 1_736_564),
    "resnet32x4": ("ResNet", 7_433_860),
    "wrn_16_2": ("WideResNet", 703_284),
    "wrn_40_1": ("WideResNet", 569_780),
    "wrn_40_2": ("WideResNet", 2_255_156),
    "vgg8": ("VGG", 3_965_028),
    "vgg13": ("VGG", 9_462_180),
    "ResNet50": ("ResNetCifarStem", 23_705_252),
    "MobileNetV2": ("MobileNetV2", 812_836),
    "ShuffleV1": ("ShuffleNetV1", 949_258),
    "ShuffleV2": ("ShuffleNetV2", 1_355_528),
}
"""What mdistiller builds under these names for 100 classes: our class of it, its parameters."""

TORCHVISION = {
    "resnet18": ("ResNet", 11_227_812),
    "resnet50": ("ResNet", 23_712_932),
    "resnet152": ("ResNet", 58_348_708),
    "resnext101_32x8d": ("ResNet", 86_947_236),
    "mobilenet_v2": ("MobileNetV2", 2_351_972),
}
"""torchvision's, with a head for 100 classes, as KnowledgeReview uses them."""

TINY_IMAGENET = {
    "ResNet18": ("ResNetCifarStem", 11_271_432),
    "MobileNetV2": ("MobileNetV2Tiny", 2_497_480),
    "ShuffleV2": ("ShuffleNetV2", 1_458_028),
}
"""What mdistiller builds under these names for the 200 classes of Tiny-ImageNet."""

OTHERS = {
    "cifar10_resnet20_resnet8": (10, ("ResNet", 272_474), ("ResNet", 78_042)),
    "label_wise_resnet20_resnet8": (10, ("LabelWise", 302_426), ("LabelWise", 107_994)),
    "imagenet_resnet34_resnet18": (1000, ("ResNet", 21_797_672), ("ResNet", 11_689_512)),
    "imagenet_resnet50_mobilenetv1": (1000, ("ResNet", 25_557_032), ("MobileNetV1", 4_231_976)),
    "imagenet_regnety_160_deit_tiny": (
        1000,
        ("RegNet", 83_590_140),
        ("VisionTransformerDistilled", 5_910_800),
    ),
    "imagenet_deit_tiny_resnet18": (
        1000,
        ("VisionTransformer", 5_717_416),
        ("ResNet", 11_689_512),
    ),
    "imagenet_deit3_small_deit_tiny": (
        1000,
        ("VisionTransformer", 22_059_496),
        ("VisionTransformer", 5_717_416),
    ),
    "torchvision_resnet50_resnet18": (100, TORCHVISION["resnet50"], TORCHVISION["resnet18"]),
}


def of_names(prefix, networks, classes):
    """Yield pairs whose files are named after two networks: classes, teacher and student."""
    for file in sorted(CONFIGS.glob(f"pairs/{prefix}*.py")):
        names = file.stem.removeprefix(prefix)
        for teacher, student in ((t, s) for t in networks for s in networks):
            if names == f"{teacher}_{student}":
                yield file.stem, (classes, networks[teacher], networks[student])


REFERENCES = {
    **dict(of_names("", CIFAR, 100)),
    **dict(of_names("cifar100_224_", TORCHVISION, 100)),
    **dict(of_names("tiny_imagenet_", TINY_IMAGENET, 200)),
    **OTHERS,
}


def built(node, classes):
    """Return class and parameters of what a node's network is, without its memory."""
    given = without_pretrained(node["network"])
    with torch.device("meta"):
        network = build_network(given, "network", num_classes=classes)
    return type(network).__name__, sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("pair", sorted(path.stem for path in CONFIGS.glob("pairs/*.py")))
def test_pair_builds_the_networks_of_its_reference(pair):
    classes, teacher, student = REFERENCES[pair]
    config = load_config(CONFIGS / f"pairs/{pair}.py")
    assert built(config["student"], classes) == student
    node = config["teacher"]
    if "config" in node:
        node = load_config(node["config"])["student"]
    assert built(node, classes) == teacher


def read(path, key):
    """Return what a file and its bases, each for itself, have under a top-level key."""
    found = []

    def edit(file, values):
        if key in values:
            found.append(values.pop(key))
        return values

    read_python(path, edit)
    return found


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_pair_has_the_name_of_its_file_and_knows_of_no_method(path):
    assert read(path, "pair") == [path.stem]
    assert not load_config(path).keys() & {"distiller", "phases"}


@pytest.mark.parametrize("kind", ["pair", "recipe"])
def test_values_by_name_are_of_names_that_a_file_has(kind):
    files = sorted(ALL.rglob("*.py"))
    names = {name for path in files for name in read(path, kind)}
    tables = {path: table for path in files for table in read(path, f"by_{kind}")}
    assert tables
    for path, table in tables.items():
        assert set(table) <= names, path


def test_tools_say_which_values_a_run_takes(capsys):
    files = [str(CONFIGS / f"{name}.py") for name in ("data/cifar100", "pairs/vgg13_vgg8")]
    dkd, reviewkd = (str(CONFIGS / f"methods/{name}.py") for name in ("dkd", "reviewkd"))
    options = ["--dry-run", "--cfg-options", "data.batch_size=2"]
    line = "values for the pair vgg13_vgg8: distiller.terms.dkd.criterion.beta=6.0\n"
    assert train([*files, dkd, reviewkd, *options]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"{line}no values for the pair vgg13_vgg8 in reviewkd.py: its defaults")
    rows = ["--sweep", "distiller.terms.dkd.warmup_epochs", "1", "2"]
    only = "distiller.terms.dkd.warmup_epochs = 2"
    assert compare([*files, dkd, *rows, "--only", only, *options]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"{only}: {line}")
    assert told.count("values for the pair") == 1
