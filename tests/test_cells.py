"""Every cell of the tables, a method with a pair, has the published values and takes a step.

    uv run pytest tests/test_cells.py --slow

runs every cell of CIFAR-100 and ImageNet; without `--slow` ReviewKD alone, with all pairs, whose
networks have fewer blocks and channels.
"""

import re
import sys
from pathlib import Path

import pytest
from kd_cls.train import main
from kd_core.config.reading import load_config

sys.path.insert(0, str(Path(__file__).parent))
from documented import make_small

CONFIGS = Path(__file__).parents[1] / "configs/cls"
METHODS = [path.stem for path in sorted(CONFIGS.glob("methods/*.py"))]
NETWORKS = [
    path.stem
    for path in sorted(CONFIGS.glob("networks/*.py"))
    if not path.stem.startswith(("torchvision_", "timm_"))  # of other sizes than CIFAR's
]

R34_R18, R50_MV1 = "imagenet_resnet34_resnet18", "imagenet_resnet50_mobilenetv1"
PUBLISHED = {
    "resnet56_resnet20": (0.05, 2, 0.6, 0.7, 0.025, 240),
    "resnet110_resnet20": (0.05, None, None, None, 0.025, 240),
    "resnet110_resnet32": (0.05, 2, 1, 1.8, 0.025, 240),
    "resnet32x4_resnet8x4": (0.05, 8, 5, 15, 0.025, 240),
    "wrn_40_2_wrn_16_2": (0.05, 6, 5, 12, 0.025, 240),
    "wrn_40_2_wrn_40_1": (0.05, 6, 5, 1.5, 0.025, 240),
    "vgg13_vgg8": (0.05, 6, None, 4.5, 0.025, 240),
    "vgg13_MobileNetV2": (0.01, 6, None, 15, 0.01, 480),
    "ResNet50_MobileNetV2": (0.01, 8, 30, 40, 0.01, 480),
    "resnet32x4_MobileNetV2": (0.01, None, None, None, 0.01, 480),
    "ResNet50_vgg8": (0.05, None, None, None, None, None),
    "resnet32x4_ShuffleV1": (0.01, 8, 5, 600, 0.01, 960),
    "resnet32x4_ShuffleV2": (0.01, 8, 8, 600, 0.01, 960),
    "wrn_40_2_ShuffleV1": (0.01, 8, 5, 80, 0.01, 480),
    R34_R18: (0.2, 0.5, 1, 0.5, None, 100),
    R50_MV1: (0.2, 2, 8, 10, 0.2, 100),
}
"""By pair: rate, DKD's beta, weights of ReviewKD and CAT-KD, MLKD's rate and epochs; or unknown."""

OWN_TEACHERS = ("dml", "mag_dml")
"""Methods that compose with a network, not with a pair."""

RECIPES = {
    "kd": (512, 0.2),
    "at": (512, 0.2),
    "dkd": (512, 0.2),
    "dot": (512, 0.2),
    "crd": (256, 0.1),
    "reviewkd": (256, 0.1),
    "ofd": (128, 0.05),
    "skd": (64, 0.1),
    "nkd": (256, 0.1),
    "wsld": (256, 0.1),
    "mgd": (256, 0.1),
}
"""Batch and rate on ImageNet, by method."""

WEIGHTS = {
    "kd": 0.9,
    "fitnet": 100,
    "at": 1000,
    "nst": 50,
    "pkt": 30000,
    "sp": 3000,
    "crd": 0.8,
    "ofd": 1e-3,
    "cc_neighbour": 0.02,
    "ft": 200,
}
"""Weights that suit every pair of CIFAR-100."""

SAME_WIDTHS = {
    "resnet56_resnet20",
    "resnet110_resnet20",
    "resnet110_resnet32",
    "resnet32x4_resnet8x4",
    "wrn_40_2_wrn_16_2",
    "vgg13_vgg8",
    R34_R18,
}
SAME_SIZES = SAME_WIDTHS | {"wrn_40_2_wrn_40_1"}
TAKEN = {
    "fsp": SAME_WIDTHS,
    "afds": SAME_WIDTHS,
    "kdsvd": SAME_SIZES | {R50_MV1},
    "mgd": SAME_SIZES | {R50_MV1, "ResNet50_vgg8"},
    "reviewkd_torchvision": {R34_R18},
    "deit_hard": set(),
    "deit_soft": set(),
    "l2d": set(),
    "vitkd": set(),
    "vkd_deit": set(),
}
"""The pairs that a method takes, where it does not take all."""

REFUSALS = {
    "fsp": "compares channels one by one|taps of the student|no such role",
    "afds": "compares channels one by one",
    "kdsvd": "needs maps of equal widths|taps of the student",
    "mgd": "compares maps position by position",
    "reviewkd_torchvision": "no such role",
    "deit_hard": "has no module 'head'",
    "deit_soft": "has no module 'head'",
    "l2d": "no such role",
    "vitkd": "no such role",
    "vkd_deit": "has no module 'head'",
}
"""What a method says of the others."""


def files(row, column):
    """Return the config files of a cell: of a method with a pair, or of DML with a network."""
    data = "imagenet" if column.startswith("imagenet") else "cifar100"
    variants = (f"{row}_{data}", row)
    method = next(name for name in variants if name in METHODS)
    place = "networks" if row in OWN_TEACHERS else "pairs"
    paths = (f"data/{data}", f"{place}/{column}", f"methods/{method}")
    return [str(CONFIGS / f"{path}.py") for path in paths]


def cells():
    """Yield every row with every column; all of them take minutes."""
    rows = sorted({re.sub(r"_imagenet$", "", method) for method in METHODS})
    for row in rows:
        for column in NETWORKS if row in OWN_TEACHERS else PUBLISHED:
            marks = [] if row == "reviewkd" else [pytest.mark.slow]
            yield pytest.param(row, column, marks=marks)


def value(config, path):
    """Return what stands in a config, at a dotted path."""
    for key in path.split("."):
        config = config[key]
    return config


@pytest.fixture
def small_networks(monkeypatch, pytestconfig):
    """Let networks have fewer blocks and channels, unless `--slow`."""
    if not pytestconfig.getoption("--slow"):
        make_small(monkeypatch)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(("row", "column"), list(cells()))
def test_cell_takes_a_step_or_says_what_does_not_fit(row, column, capsys):
    options = ["data.batch_size=2"]
    if column.startswith("imagenet"):
        options += ["data.image_size=64"]
    status = main([*files(row, column), "--dry-run", "--cfg-options", *options])
    printed = capsys.readouterr()
    if column in TAKEN.get(row, [column]):
        assert status == 0, printed.err
        assert "one training step done" in printed.out
    else:
        assert status == 2
        assert re.search(REFUSALS[row], printed.err)


@pytest.mark.parametrize("pair", PUBLISHED)
def test_values_of_a_pair_arrive(pair):
    rate, beta, reviewkd, catkd, mlkd_rate, mlkd_epochs = PUBLISHED[pair]
    expected = [
        ("dkd", "optimizer.lr", rate),
        ("dkd", "distiller.terms.dkd.criterion.beta", beta),
        ("sdd", "distiller.terms.sdd.criterion.beta", beta),
        ("sd_nkd", "distiller.terms.sd_nkd.criterion.beta", beta),
        ("reviewkd", "distiller.terms.reviewkd.weight", reviewkd),
        ("catkd", "distiller.terms.catkd.weight", catkd),
        ("mlkd_views", "optimizer.lr", mlkd_rate),
        ("mlkd_views", "trainer.epochs", mlkd_epochs),
    ]
    for row, path, published in expected:
        if published is not None:
            assert value(load_config(files(row, pair)), path) == published, (row, path)


@pytest.mark.parametrize("row", WEIGHTS)
def test_weight_of_a_method_arrives(row):
    config = load_config(files(row, "resnet32x4_resnet8x4"))
    config = config.get("phases", {}).get("student", config)
    assert value(config, f"distiller.terms.{row}.weight") == WEIGHTS[row]


@pytest.mark.parametrize("pair", [R34_R18, R50_MV1])
@pytest.mark.parametrize("row", RECIPES)
def test_recipe_of_imagenet_arrives(row, pair):
    config = load_config(files(row, pair))
    assert (config["data"]["batch_size"], config["optimizer"]["lr"]) == RECIPES[row]
    assert config["schedule"]["milestones"] == [30, 60, 90]
    assert config["optimizer"]["weight_decay"] == 1e-4


@pytest.mark.parametrize(
    ("row", "pair", "path", "published"),
    [
        ("kd", R34_R18, "kd.weight", 0.5),
        ("kd", R34_R18, "kd.criterion.temperature", 1),
        ("dot", R50_MV1, "kd.criterion.temperature", 1),
        ("dkd", R34_R18, "dkd.warmup_epochs", 0),
        ("dkd", R50_MV1, "dkd.warmup_epochs", 0),
        ("sdd", R34_R18, "sdd.warmup_epochs", 0),
        ("sdd", R50_MV1, "sdd.warmup_epochs", 0),
        ("sd_nkd", R34_R18, "sd_nkd.warmup_epochs", 0),
        ("sd_nkd", R50_MV1, "sd_nkd.warmup_epochs", 0),
        ("dkd", "resnet32x4_resnet8x4", "dkd.warmup_epochs", 20),
        ("reviewkd", "resnet32x4_resnet8x4", "reviewkd.warmup_epochs", 20),
        ("vid_learned", "resnet32x4_resnet8x4", "vid.criterion.learn_variance", True),
        ("catkd", "resnet32x4_resnet8x4", "catkd.criterion.bias", False),
        ("catkd", R34_R18, "catkd.criterion.bias", False),
        ("dkd", R50_MV1, "dkd.criterion.temperature", 1),
        ("sdd", R34_R18, "sdd.criterion.scales", (1, 2)),
        ("sd_kd", R34_R18, "sd_kd.criterion.scales", (1, 2)),
        ("sd_nkd", R34_R18, "sd_nkd.criterion.scales", (1, 2)),
        ("sd_nkd", R50_MV1, "sd_nkd.criterion.temperature", 1),
        ("sd_kd", "resnet32x4_resnet8x4", "sd_kd.criterion.scales", (1, 2)),
        ("ofd", R50_MV1, "ofd.weight", 1e-4),
        ("reviewkd", R50_MV1, "reviewkd.criterion.max_mid_channel", 256),
        ("skd", R34_R18, "skd.criterion.temperature", 1),
        ("mlkd_views", R50_MV1, "mlkd.weight", 0.5),
        ("mlkd_views", R50_MV1, "mlkd.criterion.temperatures", (1, 3, 5, 2, 6)),
        ("dist", "resnet56_resnet20", "dist.criterion.temperature", 4),
        ("catkd", "ResNet50_MobileNetV2", "catkd.criterion.normalize", True),
        ("catkd", "resnet32x4_ShuffleV1", "catkd.criterion.resolution", 4),
        ("rld", "resnet32x4_resnet8x4", "rld.warmup_epochs", 20),
        ("rld", R34_R18, "rld.criterion.beta", 0.5),
        ("rld", R50_MV1, "rld.criterion.temperature", 1),
        ("wkd_features", "resnet32x4_resnet8x4", "wkd_features.criterion.mean_ratio", 4),
        ("wkd_features", "wrn_40_2_ShuffleV1", "wkd_features.criterion.grid", 4),
        ("wkd_features", R50_MV1, "wkd_features.weight", 0.005),
    ],
)
def test_value_of_a_cell_arrives(row, pair, path, published):
    assert value(load_config(files(row, pair)), f"distiller.terms.{path}") == published


@pytest.mark.parametrize(
    ("row", "pair", "logits", "features"),
    [
        ("wkd_logits", "resnet32x4_resnet8x4", (600, 8, 150), None),
        ("wkd_logits", "wrn_40_2_ShuffleV1", (200, 6, 150), None),
        ("wkd_logits", R34_R18, (30, 2, 0), None),
        ("wkd_logits", R50_MV1, (25, 2, 0), None),
        ("wkd", "resnet32x4_resnet8x4", (200, 8, 150), (0.08, 8)),
        ("wkd", "wrn_40_2_ShuffleV1", (60, 4, 150), (0.5, 3)),
        ("wkd", R34_R18, (10, 2, 0), (1.0, 2)),
    ],
)
def test_values_of_wkd_arrive_in_its_last_phase(row, pair, logits, features):
    terms = load_config(files(row, pair))["phases"]["student"]["distiller"]["terms"]
    term = terms["wkd_logits"]
    assert (term["weight"], term["criterion"]["temperature"], term["decay_after"]) == logits
    if features:
        term = terms["wkd_features"]
        assert (term["weight"], term["criterion"]["mean_ratio"]) == features


@pytest.mark.parametrize(("pair", "sharpness"), [(R34_R18, None), (R50_MV1, 2)])
def test_distances_of_imagenet_s_classes_are_of_central_crops(pair, sharpness):
    phase = load_config(files("wkd_logits", pair))["phases"]["distances"]
    assert [t["size"] for t in phase["data"]["transform"]["transforms"]] == [256, 224]
    criterion = phase["distiller"]["terms"]["distances"]["criterion"]
    assert criterion.get("sharpness") == sharpness


@pytest.mark.parametrize("pair", [name for name in PUBLISHED if not name.startswith("imagenet")])
def test_paraphraser_of_ft_has_the_rate_of_its_reference(pair):
    """0.01, but for the students vgg8, whose own rate it has there: RepDistiller's pretrain.py."""
    phases = load_config(files("ft", pair))["phases"]
    rate = 0.05 if pair.endswith("vgg8") else 0.01
    assert phases["paraphrase"]["optimizer"]["lr"] == rate
    assert "optimizer" not in phases["student"]


@pytest.mark.parametrize("pair", PUBLISHED)
def test_views_of_mlkd_are_apart_and_those_of_sskd_one_batch(pair):
    assert load_config(files("mlkd_views", pair))["student"]["views_apart"] is True
    assert "views_apart" not in load_config(files("sskd", pair))["student"]


def test_every_pair_of_both_data_sets_is_in_the_table():
    pairs = {path.stem for path in CONFIGS.glob("pairs/*.py")}
    others = {name for name in pairs if name.startswith("cifar100_224_")}  # KnowledgeReview's
    others |= {name for name in pairs if name.startswith("tiny_imagenet_")}  # DOT's
    others |= {"cifar10_resnet20_resnet8", "torchvision_resnet50_resnet18"}
    others |= {"label_wise_resnet20_resnet8"}  # ours, for the demo's data
    others |= {name for name in pairs if "_deit" in name}  # transformers
    assert pairs - set(PUBLISHED) == others
