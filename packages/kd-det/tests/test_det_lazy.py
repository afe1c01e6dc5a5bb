"""LazyConfigs as students and teachers."""

import json
import os
import pickle
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("detectron2")
import kd_det  # before Detectron2
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_det.config import read_config, teacher_config
from kd_det.data.instance_rules import Needs
from kd_det.lazy.files import lazy_of
from kd_det.lazy.trainer import LazyTrainer
from kd_det.resume import identity
from kd_det.resume.last_checkpoint import write_last
from kd_det.train import main
from kd_det.trainer import DistillationTrainer

MODEL = """
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead


def stages(width):
    kind, built = ResNet.make_stage, []
    from detectron2.modeling.backbone.resnet import BasicBlock
    for number, (before, after) in enumerate([(width, width), (width, 12), (12, 16), (16, 20)]):
        stride = 1 if number == 0 else 2
        built.append(kind(BasicBlock, 1, stride_per_block=[stride], in_channels=before,
                          out_channels=after, norm="BN"))
    return built


model = L(RetinaNet)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=8, norm="BN"),
            stages=L(stages)(width=8),
            out_features=["res3", "res4", "res5"],
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=16,
        top_block=L(LastLevelP6P7)(in_channels=20, out_channels="${..out_channels}"),
    ),
    head=L(RetinaNetHead)(
        input_shape=L(lambda channels: [ShapeSpec(channels=channels)] * 5)(
            channels="${...backbone.out_channels}"
        ),
        num_classes="${..num_classes}",
        conv_dims=[16, 16],
        num_anchors=1,
    ),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[16], [32], [64], [128], [256]],
        aspect_ratios=[1.0],
        strides=[8, 16, 32, 64, 128],
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    anchor_matcher=L(Matcher)(
        thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    num_classes=3,
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    pixel_mean=[100.0, 110.0, 120.0],
    pixel_std=[57.0, 57.0, 57.0],
    input_format="BGR",
)
"""

REST = """
import torch
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf
import detectron2.data.transforms as T
from detectron2.data import (
    DatasetMapper, build_detection_test_loader, build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from kd_core.criteria.fitnet import FitNet
from .parts import model

size = L(T.ResizeShortestEdge)(short_edge_length=(48, 64), sample_style="choice", max_size=96)
dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="SET"),
    mapper=L(DatasetMapper)(
        is_train=True, augmentations=[size, L(T.RandomFlip)(horizontal=True)], image_format="BGR"
    ),
    total_batch_size=2,
    num_workers=0,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="SET", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=96)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=0,
)
dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
optimizer = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}",
        weight_decay_norm=0.0,
        overrides={"weight": {"weight_decay": 0.5}},
    ),
    lr=1e-3,
    betas=(0.9, 0.99),
    weight_decay=0.1,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[3, 4]),
    warmup_length=0.5, warmup_factor=0.01,
)
train = dict(
    output_dir="run", init_checkpoint="", max_iter=4, amp=dict(enabled=False), seed=3,
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=1, max_to_keep=3), eval_period=2, log_period=1, device="cpu",
)
KD = dict(
    TEACHER=dict(CONFIG="parts.py", WEIGHTS="random", OPTS=["model.backbone.out_channels", 24]),
    TERMS=dict(fitnet=dict(CRITERION=L(FitNet)(), WEIGHT=2)),
)
"""


@pytest.fixture
def lazy(tmp_path, coco, monkeypatch):
    """Write a LazyConfig in two files and its data; return the path and the tool's arguments."""
    monkeypatch.chdir(tmp_path)
    name = f"set_{tmp_path.name}"
    (tmp_path / "parts.py").write_text(MODEL)
    text = "from detectron2.config import LazyCall as L\n" + REST.replace("SET", name)
    (tmp_path / "student.py").write_text(text)
    (tmp_path / "plain.py").write_text(text[: text.index("KD = dict")])
    return ["--register", f"{name}={coco[0]}:{coco[1]}", "--config-file"]


def run(*arguments):
    return main([str(one) for one in arguments])


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_equal(first, second, place=""):
    if isinstance(first, dict | list | tuple):
        pairs = first.items() if isinstance(first, dict) else enumerate(first)
        for key, value in pairs:
            assert_equal(value, second[key], f"{place}.{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    else:
        assert first == second, place


def test_a_lazy_student_of_a_lazy_teacher_trains_resumes_exactly_and_is_evaluated(
    lazy, tmp_path, capsys
):
    folder = tmp_path / "run"
    assert run(*lazy, "student.py") == 0
    whole = final(folder)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "bbox/AP" in line] == [1, 4]
    assert all(line["loss_fitnet"] > 0 for line in lines if "loss_fitnet" in line)
    assert len(list(folder.glob("model_000*.pth"))) == 3  # max_to_keep
    groups = whole["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1, 0.5}
    assert whole["distiller"]["criteria"]
    write_last(folder, "model_0000001.pth")
    assert run(*lazy, "student.py", "--resume") == 0
    assert_equal(final(folder), whole)

    capsys.readouterr()
    evaluation = [*lazy, "student.py", "--eval-only", "--resume"]
    assert run(*evaluation) == 0
    assert run(*evaluation, "model.backbone.out_channels", 24) == 2
    assert (
        "error: run was made by another config: model.backbone.out_channels is 16 there and 24 here"
        in capsys.readouterr().err
    )
    for options, told in {
        ("optimizer.lr", 0.5): "; optimizer.lr is 0.001 there and 0.5 here",
        (
            "dataloader.train.total_batch_size",
            1,
        ): "dataloader.train.total_batch_size is 2 there and 1 here",
        ("KD.TERMS.fitnet.WEIGHT", 3): "KD.TERMS.fitnet.WEIGHT is 2 there and 3 here",
        ("KD.TEACHER.OPTS", "[]"): "KD.TEACHER.CONFIG.model.backbone.out_channels is 24 there",
    }.items():
        assert run(*lazy, "student.py", "--resume", *options) == 2
        assert told in capsys.readouterr().err
    harmless = ["train.log_period", 5, "train.max_iter", 5, "dataloader.train.num_workers", 1]
    assert run(*lazy, "student.py", "--resume", *harmless) == 0
    assert final(folder)["iteration"] == 4


def test_the_readmes_lines_make_a_student_of_a_plain_lazy_config(lazy, tmp_path, capsys):
    page = (Path(kd_det.__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (node,) = re.findall(r"^```python\n(KD = dict.*?)^```$", page, re.M | re.S)
    (command,) = re.findall(r"^uv run tools/det_train.py (--config-file student.py.*)$", page, re.M)
    (tmp_path / "student.py").write_text((tmp_path / "plain.py").read_text() + node)
    (tmp_path / "parts.py").rename(tmp_path / "teacher.py")
    (tmp_path / "parts.py").write_text(MODEL)
    assert main(shlex.split(command)) == 0
    assert "loss_pkd" in capsys.readouterr().out


def test_settings_by_names_see_the_student_s_own_names(lazy, tmp_path):
    file = tmp_path / "student.py"
    file.write_text(
        file.read_text().replace('{"weight": {"weight_decay": 0.5}}', "{'bias': {'lr': 7}}")
    )
    cfg = read_config("student.py")
    model = LazyTrainer.build_model(cfg)
    groups = LazyTrainer.build_optimizer(cfg, model).param_groups
    rates = {id(one): group["lr"] for group in groups for one in group["params"]}
    trained = [one for one in model.parameters() if one.requires_grad]
    assert rates.keys() == {id(one) for one in trained}
    for name, one in model.network.named_parameters():
        assert rates[id(one)] == (7 if name.endswith("bias") else 1e-3)
    assert {rates[id(one)] for one in model.criteria.parameters()} == {1e-3}


@pytest.mark.parametrize("student", ["student.py", "plain.py"])
def test_a_lazy_config_takes_a_step_without_data(lazy, student, capsys):
    assert run("--config-file", student, "--dry-run", "model.num_classes", 5) == 0
    assert "one training step done" in capsys.readouterr().out


def test_the_same_batches_come_from_yaml_and_from_a_lazy_config(lazy, write, tmp_path):
    from kd_det.runner import register
    from kd_det.train import argument_parser

    register(argument_parser().parse_args([*lazy, "student.py"]))
    options = ["DATASETS.TRAIN", f"('set_{tmp_path.name}',)", "INPUT.MIN_SIZE_TRAIN", "(48, 64)"]
    options += ["DATALOADER.ASPECT_RATIO_GROUPING", "True"]
    cfg = read_config(write("retinanet"), options)
    theirs = iter(DistillationTrainer.build_train_loader(cfg, 1))
    ours = iter(LazyTrainer.build_train_loader(read_config("student.py"), 1))
    for _, first, second in zip(range(3), theirs, ours, strict=False):
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)


def test_another_process_reads_the_file_again_with_its_options(lazy):
    cfg = read_config("student.py", ["model.num_classes", "4", "KD.TERMS.fitnet.WEIGHT", "3"])
    other = pickle.loads(pickle.dumps(cfg))
    assert lazy_of(other).node.model.num_classes == 4
    assert other.KD.TERMS.fitnet.WEIGHT == 3
    assert lazy_of(cfg.clone()) is lazy_of(cfg)
    again = read_config("student.py")  # its functions have other addresses and modules
    assert identity.recorded(again) == identity.recorded(read_config("student.py"))


class TestTrust:
    @pytest.fixture
    def student(self, write, lazy, tmp_path):
        (tmp_path / "parts.py").write_text(MODEL + "\nopen('ran', 'a').write('x')\n")
        path = write("retinanet", {"fitnet": {"CRITERION": "kd_core.criteria.fitnet.FitNet"}})
        config = yaml.safe_load(path.read_text())
        config["KD"]["TEACHER"]["CONFIG"] = "parts.py"
        path.write_text(yaml.safe_dump(config))
        return path

    def test_a_lazy_teacher_that_a_yaml_file_names_is_run_only_if_trusted(
        self, student, tmp_path, capsys
    ):
        given = ["--config-file", student, "--dry-run"]
        assert run(*given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(f"add --trust {tmp_path / 'parts.py'}")
        assert not (tmp_path / "ran").exists()
        assert run(*given, "--trust", tmp_path / "parts.py") == 0
        assert (tmp_path / "ran").exists()
        with trusting("parts.py"):
            assert teacher_config(read_config(student)).MODEL.DEVICE == "cpu"

    def test_one_that_the_command_line_names_is_run(self, student, tmp_path, monkeypatch):
        monkeypatch.setattr("kd_det.runner.dry_run", teacher_config)
        given = ["--config-file", student, "--dry-run", "KD.TEACHER.CONFIG", "parts.py"]
        assert run(*given) == 0
        assert (tmp_path / "ran").exists()


class TestRefusals:
    @pytest.fixture
    def error(self, lazy, tmp_path, capsys):
        def error(old="", new="", *options, file="student.py", flags=()):
            path = tmp_path / file
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new, 1) if old else text + new)
            assert run(*lazy, path, *flags, *options) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert not (tmp_path / "run").exists()
            return line

        return error

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("", "\nx = (", "student.py:"),
            ("", "\nraise ValueError('no')", "ValueError: no"),
            ("from .parts", "from .prts", "prts.py has to exist"),
            ("max_iter=4", "max_itr=4", "train.max_itr: did you mean 'max_iter'?"),
            ("max_iter=4", "max_iter='x'", "SOLVER.MAX_ITER"),
            ("seed=3", "model_ema=dict(enabled=True)", "train.model_ema is not supported"),
            ("L(build_detection_train_loader)", "L(list)", "wanted LazyCall(build_detection_train"),
            ('L(get_detection_dataset_dicts)(names="', 'L(list)(names="', "names of registered"),
            ("optimizer = L", "other = L", "has no `optimizer`; a student's LazyConfig has model"),
            ("import model", "import model as net", "has no `model` that is a LazyCall"),
            ("L(FitNet)()", "3", "CRITERION"),
            ('"model.backbone.out_channels", 24', "'a.b'", "'a.b' has no value; wanted KEY, VALUE"),
            ('"parts.py"', "'${nowhere}'", "Interpolation key 'nowhere' not found"),
            ("", "\ndel dataloader.test", "Interpolation key 'test.dataset.names' not found"),
            ('"parts.py"', '"prts.py"', "there is no config file prts.py; did you mean 'parts.py'"),
        ],
    )
    def test_a_file_that_is_wrong(self, error, old, new, told):
        line = error(old, new)
        assert "student.py" in line or "KD" in line
        assert told in line

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("train.max_itr", 3, "no key train.max_itr; did you mean 'max_iter'?"),
            ("SOLVER.MAX_ITER", 3, "no key SOLVER.MAX_ITER; in a LazyConfig it is train.max_iter"),
            ("DATASETS.TEST", "x", "DATASETS.TEST; in a LazyConfig it is dataloader.test.dataset"),
            ("MODEL.BACKBONE.NAME", "x", "no key MODEL.BACKBONE.NAME; "),
            ("train.amp.enabled", True, "error: train.amp.enabled is True, but Detectron2 has"),
            ("train.device", "cud", "error: train.device is 'cud', which is not a device"),
            ("dataloader.train.dataset.names", "'nowhere'", "no data set 'nowhere'"),
            ("optimiser.lr", 3, "no key optimiser.lr; did you mean 'optimizer'?"),
            ("model.num_classes", 5, "model.num_classes is 5, but data set"),
            ("train.init_checkpoint", "nowhere.pth", "no file 'nowhere.pth'"),
        ],
    )
    def test_an_option_that_is_wrong(self, error, key, value, told):
        assert told in error("", "", key, value)

    def test_a_part_that_cannot_be_built_is_named_with_its_place(self, error):
        line = error("", "", "model.nunber", 3, flags=["--dry-run"])
        assert "student.py: model: " in line
        assert "nunber" in line

    def test_detectron2_s_other_trainer(self, lazy):
        with pytest.raises(UserError, match="LazyTrainer trains the student of a LazyConfig"):
            DistillationTrainer(read_config("student.py"))
        with pytest.raises(UserError, match="LazyTrainer"):
            DistillationTrainer.evaluate(read_config("student.py"))


@pytest.mark.skipif("DETECTRON2_CONFIGS" not in os.environ, reason="no configs of the model zoo")
def test_the_zoos_lazy_retinanet_is_read():
    cfg = read_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
    assert cfg.SOLVER.MAX_ITER == 90000
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",)


def test_what_is_asked_of_data_is_read_of_the_file_s_own_keys(lazy, tmp_path):
    text = (tmp_path / "plain.py").read_text()
    text = text.replace("is_train=True,", 'is_train=True, instance_mask_format="bitmask",')
    text = text.replace('")', '", filter_empty=False)', 1)
    (tmp_path / "own.py").write_text(
        f"{text}\nmodel.roi_heads = dict(mask_head=1, keypoint_head=1)\n"
    )
    needs = Needs.of(read_config(tmp_path / "own.py"), training=True)
    assert needs.keeps_empty
    assert needs.masks == "bitmask"
    assert needs.min_keypoints == 0


def test_a_lazy_student_learns_without_labels(lazy, coco, tmp_path):
    photos = f"photos_{tmp_path.name}"
    given = ["--register-images", f"{photos}={coco[1]}", *lazy, "student.py", "train.max_iter", 1]
    names = ["KD.TASK_WEIGHT", 0.0, "dataloader.train.dataset.names", photos]
    assert run(*given, *names) == 0
    assert final(tmp_path / "run")["iteration"] == 0


def test_an_argument_that_the_optimizer_does_not_take_is_one_line(lazy):
    cfg = read_config("plain.py", ["optimizer.foo", "3"])
    with pytest.raises(UserError, match=r"plain.py: optimizer: TypeError: .* argument 'foo'"):
        LazyTrainer.build_optimizer(cfg, torch.nn.Linear(2, 2))
