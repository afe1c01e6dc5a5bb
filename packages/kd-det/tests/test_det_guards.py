"""What has no effect, or what this machine cannot do, is refused in one line before any work."""

import json

import pytest
import torch
from kd_core.errors import UserError
from kd_core.networks.activation_checkpointing import has_checkpointed

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from kd_det.config import read_config, teacher_config
from kd_det.running.machine import on_cpu
from kd_det.settings.choices import check_choices
from kd_det.terms import parse_terms
from kd_det.train import main
from kd_det.trainer import DistillationTrainer

PKD = {"pkd": {"CRITERION": "kd_core.criteria.pkd.PKD"}}
KEYPOINTS = ["MODEL.KEYPOINT_ON", "True"]
PROPOSALS = ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "MODEL.LOAD_PROPOSALS"]
PROPOSALS += ["True"]


@pytest.fixture
def refused(write, coco, tmp_path, capsys, monkeypatch):
    """Run the tool, which must refuse; return its line."""
    monkeypatch.chdir(tmp_path)
    name = f"set_{tmp_path.name}"

    def refused(*options, flags=(), kind="faster_rcnn", terms=PKD, node=None):
        nodes = {} if node is None else {"KD": node}
        sets = {"TRAIN": [name], "TEST": [name]}
        path = write(kind, terms, DATASETS=sets, **nodes)
        given = ["--register", f"{name}={coco[0]}:{coco[1]}", "--config-file", str(path), *flags]
        assert main([*given, *options]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert not (tmp_path / "output").exists()
        return lines[0]

    return refused


class TestMachine:
    @pytest.mark.parametrize("flags", [(), ("--dry-run",)])
    def test_mixed_precision_on_a_cpu(self, refused, flags):
        message = refused("SOLVER.AMP.ENABLED", "True", flags=flags)
        assert "mixed precision on CUDA devices alone" in message

    def test_mixed_precision_on_a_cpu_in_a_script(self, write):
        cfg = read_config(write("retinanet"), ["SOLVER.AMP.ENABLED", True])
        with pytest.raises(UserError, match=r"SOLVER.AMP.ENABLED"):
            DistillationTrainer(cfg)

    @pytest.mark.parametrize(
        ("images", "processes", "reference", "told"),
        [
            (3, 2, 0, "a multiple of the 2 processes, such as 2"),
            (1, 2, 0, "the 2 processes, such as 2"),
            (0, 1, 0, "SOLVER.IMS_PER_BATCH is 0; wanted numbers above 0"),
            (6, 2, 4, "a multiple of SOLVER.REFERENCE_WORLD_SIZE 4, such as 4"),
        ],
    )
    def test_a_batch_that_processes_cannot_share(self, refused, images, processes, reference, told):
        size = ["SOLVER.IMS_PER_BATCH", str(images), "SOLVER.REFERENCE_WORLD_SIZE", str(reference)]
        assert told in refused(*size, flags=["--num-gpus", str(processes)])

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (["--num-gpus", "0"], "--num-gpus is 0; wanted at least 1"),
            (["--num-machines", "0"], "--num-machines is 0"),
            (["--machine-rank", "1"], "--machine-rank is 1; wanted 0 to 0"),
            (["--num-machines", "2"], "on a CPU all processes are of one machine"),
        ],
    )
    def test_processes_that_cannot_be(self, refused, flags, told):
        assert told in refused(flags=flags)

    def test_a_device_that_is_not_one(self, refused):
        assert "'gpu', which is not a device" in refused("MODEL.DEVICE", "gpu")

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("INPUT.MASK_FORMAT", "bitmsk", "INPUT.MASK_FORMAT is 'bitmsk'; did you mean 'bitmask"),
            ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_modle", "did you mean 'full_model'?"),
            ("DATALOADER.SAMPLER_TRAIN", "Foo", "SAMPLER_TRAIN is 'Foo'; valid names: "),
            (
                "DATASETS.TEST",
                "t",
                "DATASETS.TEST takes a tuple, in quotes for the shell: DATASETS",
            ),
        ],
    )
    def test_a_name_or_value_that_detectron2_does_not_know(self, refused, key, value, told):
        assert told in refused(key, value)

    @pytest.mark.parametrize(
        ("build", "key", "value", "told"),
        [
            ("model", "MODEL.RESNETS.DEPTH", 19, "MODEL: Detectron2 cannot build it: 19 is not"),
            ("train_mapper", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT: .*: short_edge_len"),
            ("train_mapper", "INPUT.CROP.TYPE", "x", "INPUT: .* build it: assert crop_type in"),
            ("lr_scheduler", "SOLVER.LR_SCHEDULER_NAME", "x", "SOLVER: .*: Unknown LR scheduler"),
            ("optimizer", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "x", "SOLVER: .*: 'x' is not a valid"),
        ],
    )
    def test_a_value_that_detectron2_cannot_build(self, write, build, key, value, told):
        options = ["MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", key, value]
        cfg = read_config(write("retinanet"), [*options, "INPUT.CROP.ENABLED", True])
        more = [torch.nn.Linear(1, 1)] if build == "optimizer" else []
        more = [torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 1.0)] * ("lr" in build) or more
        with pytest.raises(UserError, match=told):
            getattr(DistillationTrainer, f"build_{build}")(cfg, *more)

    def test_a_cpu_with_a_number_is_a_cpu(self, write):
        cfg = read_config(write("retinanet"), ["MODEL.DEVICE", "cpu:0"])
        assert on_cpu(cfg)
        cfg.MODEL.DEVICE = "cuda"
        assert not on_cpu(cfg)


class TestTeacher:
    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("INPUT.MIN_SIZE_TEST", 1200, "sees the student's images"),
            ("INPUT.MAX_SIZE_TEST", 2000, "has no effect"),
            ("TEST.AUG.ENABLED", True, "has no effect"),
            ("SOLVER.BASE_LR", 0.1, "is not trained"),
            ("SEED", 1, "has no effect"),
            ("MODEL.DEVICE", "cuda", "runs on the student's MODEL.DEVICE"),
            ("MODEL.WEIGHTS", "x.pth", "its weights are KD.TEACHER.WEIGHTS"),
            ("KD.TASK_WEIGHT", 2.0, "has no effect"),
        ],
    )
    def test_an_option_without_effect(self, refused, key, value, told):
        message = refused("KD.TEACHER.OPTS", str([key, value]), flags=["--dry-run"])
        assert f"KD.TEACHER.OPTS: {key} has no effect" in message
        assert told in message

    def test_larger_images_in_its_own_config_are_told(self, build, capsys):
        build("retinanet", PKD)
        assert "INPUT.MIN_SIZE_TEST" not in capsys.readouterr().err
        build("retinanet", PKD, ["INPUT.MIN_SIZE_TRAIN", (48, 56)])
        told = "gets the student's images, of 56 pixels (INPUT.MIN_SIZE_TRAIN), and not of 64"
        assert told in capsys.readouterr().err

    @pytest.mark.parametrize("flags", [(), ("--dry-run",)])
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("KD.TEACHER.CONFIG", "t.yaml"),
            ("KD.TEACHER.WEIGHTS", "random"),
            ("KD.INHERIT", "['head.']"),
            ("KD.TASK_WEIGHT", "0.5"),
        ],
    )
    def test_a_teacher_without_terms(self, refused, key, value, flags):
        message = refused(key, value, terms=None, flags=flags)
        assert f"{key} has no effect, since KD.TERMS is empty" in message


class TestAugmentation:
    ON = ("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(48, 80)", "TEST.AUG.MAX_SIZE", "96")

    @pytest.mark.parametrize(
        ("kind", "options", "told"),
        [
            ("retinanet", [], "for a RetinaNet, only for R-CNNs"),
            ("faster_rcnn", KEYPOINTS, "for keypoints"),
            ("faster_rcnn", PROPOSALS, "for files of proposals"),
            ("faster_rcnn", ["TEST.AUG.MIN_SIZES", "()"], "TEST.AUG.MIN_SIZES is ()"),
        ],
    )
    @pytest.mark.parametrize("flags", [["--dry-run"], ["--eval-only"]])
    def test_what_detectron2_cannot_augment(self, refused, kind, options, told, flags):
        assert told in refused(*self.ON, *options, kind=kind, terms=None, flags=flags)

    def test_it_is_evaluated_beside_the_plain_images(
        self, write, coco, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        name = f"set_{tmp_path.name}"
        path = write("faster_rcnn", PKD, DATASETS={"TRAIN": [name], "TEST": [name]})
        given = ["--register", f"{name}={coco[0]}:{coco[1]}", "--config-file", str(path)]
        quick = ["SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0"]
        quick += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", *self.ON]
        assert main([*given, *quick, "OUTPUT_DIR", "run"]) == 0
        last = json.loads((tmp_path / "run/metrics.json").read_text().splitlines()[-1])
        assert {"bbox/AP", "bbox_TTA/AP"} <= last.keys()
        weights = ["MODEL.WEIGHTS", "run/model_final.pth", "OUTPUT_DIR", "eval"]
        assert main([*given, "--eval-only", *quick, *weights]) == 0
        file = f"inference/{name}/coco_instances_results.json"
        for folder in ("run", "eval"):
            found = [tmp_path / folder / part / file for part in ("", "augmented")]
            plain, augmented = (json.loads(one.read_text()) for one in found)
            assert plain
            assert augmented
            assert plain != augmented
        impossible = ["TEST.EXPECTED_RESULTS", "[['bbox_TTA', 'AP', 200.0, 1.0]]"]
        with pytest.raises(SystemExit):  # Detectron2's own answer
            main([*given, "--eval-only", *quick, *weights, *impossible])


def test_the_student_s_blocks_alone_run_again_and_one_without_is_refused(write, monkeypatch):
    terms = {"cwd": {"CRITERION": "kd_core.criteria.cwd.CWD"}}
    cfg = read_config(write("retinanet", terms), ["KD.ACTIVATION_CHECKPOINTING", True])
    model = DistillationTrainer.build_model(cfg)
    assert has_checkpointed(model.network.modules())
    assert not has_checkpointed(model.teachers["teacher"].network.modules())
    monkeypatch.setattr("kd_core.networks.activation_checkpointing.blocks_of", lambda network: [])
    with pytest.raises(UserError, match=r"^KD\.ACTIVATION_CHECKPOINTING: RetinaNet has no blocks"):
        DistillationTrainer.build_model(cfg)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"SEED: 1\nMODEL: {DEVICE: cpu}\nSEED: 2\n", "line 3: key SEED is repeated"),
        (b"SOLVER:\n  STEPS: [{A: 1, A: 2}]\n", "line 2: key A is repeated"),
        ("SEED: 1".encode("utf-16"), "is not a text in UTF-8"),
        (b"", "wanted keys with values, such as MODEL: ..., got nothing"),
        (b"- a\n", "got a list"),
        (b"hello", "got a str"),
    ],
)
def test_a_yaml_of_which_a_part_would_count_is_refused(content, told, tmp_path):
    path = tmp_path / "spoilt.yaml"
    path.write_bytes(content)
    (tmp_path / "child.yaml").write_text("_BASE_: spoilt.yaml\n")
    for name in ("spoilt.yaml", "child.yaml"):
        with pytest.raises(UserError, match=r"spoilt\.yaml") as raised:
            read_config(tmp_path / name)
        assert told in str(raised.value)


def test_marks_windows_lines_and_aliases_of_yaml_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfSOLVER: &s\r\n  MAX_ITER: 7\r\nSEED: 1\r\n")
    assert read_config(path).SOLVER.MAX_ITER == 7


@pytest.mark.parametrize(
    ("pair", "wanted"),
    [
        (("SOLVER.CHECKPOINT_PERIOD", 0), "numbers above 0"),
        (("SOLVER.MAX_ITER", 0), "numbers above 0"),
        (("SOLVER.IMS_PER_BATCH", -2), "numbers above 0"),
        (("INPUT.MIN_SIZE_TRAIN", (64, -5)), "numbers above 0"),
        (("INPUT.MIN_SIZE_TRAIN", ()), "numbers above 0"),
        (("INPUT.MIN_SIZE_TRAIN", ("a",)), "numbers above 0"),
        (("MODEL.PIXEL_STD", [float("inf")] * 3), "numbers above 0"),
        (("MODEL.PIXEL_MEAN", [1.0, 2.0]), "as many finite numbers"),
        (("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]), "numbers above 0"),
        (("MODEL.PIXEL_STD", [1.0, "nan", 1.0]), "numbers above 0"),
        (("MODEL.PIXEL_STD", [1.0, None, True]), "numbers above 0"),
        (("SOLVER.GAMMA", -1.0), "numbers above 0"),
        (("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0), "numbers above 0"),
        (("SOLVER.WARMUP_FACTOR", -1.0), "numbers of 0 or more"),
        (("SOLVER.STEPS", ("a",)), "numbers of 0 or more"),
        (("SOLVER.STEPS", (-1,)), "numbers of 0 or more"),
        (("SOLVER.BASE_LR", -0.1), "numbers of 0 or more"),
        (("SOLVER.BASE_LR", float("nan")), "numbers of 0 or more"),
        (("TEST.EVAL_PERIOD", -1), "numbers of 0 or more"),
        (("DATALOADER.NUM_WORKERS", -1), "numbers of 0 or more"),
        (("SEED", 2**32), "a number below"),
    ],
)
def test_numbers_that_detectron2_fails_at_in_its_work_are_refused(pair, wanted, write):
    cfg = read_config(write("retinanet"), list(pair))
    with pytest.raises(UserError, match=f"{pair[0]} is .*; wanted {wanted}"):
        check_choices(cfg)


def test_pixels_of_a_teacher_are_checked_too(write):
    options = ["KD.TEACHER.OPTS", ["MODEL.PIXEL_STD", [0.0, 1.0, 1.0]]]
    cfg = read_config(write("retinanet", PKD), options)
    with pytest.raises(UserError, match=r"KD.TEACHER.CONFIG: MODEL.PIXEL_STD is .*above 0"):
        teacher_config(cfg)


@pytest.mark.parametrize("name", ["", "a.b", "a/b"])
def test_a_term_needs_a_name_that_a_module_can_have(name, write):
    cfg = read_config(write("retinanet", {name: PKD["pkd"]}))
    with pytest.raises(UserError, match=f"KD.TERMS: {name!r} cannot be a name"):
        parse_terms(cfg)
