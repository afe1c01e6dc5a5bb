"""A run through the tool; its checkpoints are plain Detectron2's."""

import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.utils import comm
from kd_core.files.checkpoint import load_json
from kd_core.testing.damage import full_disk
from kd_det.config import read_config
from kd_det.release.compat import launch_on_cpu
from kd_det.resume.last_checkpoint import write_last
from kd_det.train import argument_parser, main

TERMS = {
    "review": {"CRITERION": "kd_core.criteria.reviewkd.ReviewKD", "WARMUP_ITERS": 3},
    "dkd": {
        "CRITERION": "kd_core.criteria.dkd.DKD",
        "STUDENT": "@roi_logits",
        "TEACHER": "@roi_logits",
    },
}


class Tool:
    """Runs the tool on the tiny data, with a config beside them."""

    def __init__(self, name, write, coco):
        json_file, images = coco
        self.path = write("faster_rcnn", TERMS, DATASETS={"TRAIN": [name], "TEST": [name]})
        registered = ["--register", f"{name}={json_file}:{images}"]
        self.arguments = [*registered, "--config-file", str(self.path)]

    def __call__(self, *options, flags=(), file=None):
        named = [*self.arguments[:-1], str(file or self.path)]
        return main([*named, *flags, *map(str, options)])


@pytest.fixture
def command(write, coco, tmp_path, monkeypatch):
    """Return a function that runs the tool on the tiny data, and the path of its config."""
    monkeypatch.chdir(tmp_path)
    return Tool(f"set_{tmp_path.name}", write, coco)


@pytest.fixture(scope="module")
def finished(writers, tmp_path_factory):
    """Return the tool, whose `run` is the folder of a run that has ended: not to be changed.

    Its network is one that Detectron2 has without us.
    """
    folder = tmp_path_factory.mktemp("finished")
    write, coco = writers
    tool = Tool(f"set_{folder.name}", partial(write, folder), coco(folder))
    text = tool.path.read_text()
    tool.path.write_text(text.replace("build_resnet10_fpn", "build_resnet_fpn"))
    tool.run = folder / "run"
    assert tool("OUTPUT_DIR", tool.run) == 0
    return tool


def checkpoint(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)


def test_resume_rejects_another_config_and_trains_more_iterations(command, tmp_path, capsys):
    run = tmp_path / "run"
    assert command("OUTPUT_DIR", run) == 0
    before = (run / "model_final.pth").read_bytes()
    result = load_json(run / "result.json")
    assert result["peak_memory"]["bytes"] > 10**7  # of this process
    assert {"bbox/AP", "bbox/AP50"} <= result["last"].keys()
    teacher = tmp_path / "teacher.yaml"
    for options, shown in {
        ("SOLVER.BASE_LR", 0.5): "SOLVER.BASE_LR is 0.005 there and 0.5 here",
        ("KD.TERMS.review.WEIGHT", 2.0): "KD.TERMS.review.WEIGHT is 1.0 there and 2.0 here",
        ("KD.TEACHER.OPTS", "['MODEL.FPN.OUT_CHANNELS', 8]"): "KD.TEACHER.OPTS",
        ("SOLVER.MAX_ITER", 3): "SOLVER.MAX_ITER is 3, but",
        ("MODEL.FPN.OUT_CHANNELS", 24): "MODEL.FPN.OUT_CHANNELS is 16 there and 24 here",
        ("SOLVER.IMS_PER_BATCH", 1): "SOLVER.IMS_PER_BATCH is 2 there and 1 here",
        ("DATASETS.TEST", "()"): "DATASETS.TEST.0 is",
        ("KD.TERMS.dkd.CRITERION", "kd_core.criteria.kd.KD"): "config: KD.TERMS.dkd.CRITERION is",
    }.items():
        capsys.readouterr()
        assert command("OUTPUT_DIR", run, *options, flags=["--resume"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert shown in line
    for name, config in other_methods(command.path).items():
        assert command("OUTPUT_DIR", run, flags=["--resume"], file=config) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"another config: KD.TERMS is dkd, review there and {name} here; name " in line
    text = teacher.read_text()
    teacher.write_text(text.replace("PIXEL_STD:\n  - 57.0", "PIXEL_STD:\n  - 58.0"))
    assert teacher.read_text() != text
    assert command("OUTPUT_DIR", run, flags=["--resume"]) == 2
    assert "KD.TEACHER.CONFIG.MODEL.PIXEL_STD.0 is 57.0 there" in capsys.readouterr().err
    teacher.write_text(text)
    assert (run / "model_final.pth").read_bytes() == before
    evaluation = {"flags": ["--eval-only", "--resume"]}
    assert command("OUTPUT_DIR", run, "MODEL.FPN.OUT_CHANNELS", 24, **evaluation) == 2
    assert "MODEL.FPN.OUT_CHANNELS is 16 there and 24 here; evaluate" in capsys.readouterr().err
    other = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2, "TEST.DETECTIONS_PER_IMAGE", 5]
    assert command("OUTPUT_DIR", run, *other, **evaluation) == 0
    quiet = ["DATALOADER.NUM_WORKERS", 1, "SOLVER.CHECKPOINT_PERIOD", 5]
    quiet += ["KD.WORKER_TIMEOUT", 100.0, "TEST.EVAL_PERIOD", 50]
    run = f"{run.parent}/./run/"
    assert command("OUTPUT_DIR", run, "SOLVER.MAX_ITER", 6, *quiet, flags=["--resume"]) == 0
    run = Path(run)
    assert checkpoint(run)["iteration"] == 5
    assert load_json(run / "result.json")["iterations"] == 6 > result["iterations"]
    (run / "config.json").unlink()
    assert command("OUTPUT_DIR", run, "SOLVER.MAX_ITER", 6, flags=["--resume"]) == 2
    assert "but no config.json" in capsys.readouterr().err


def test_programs_get_lines_of_json_alone_and_the_folder_has_curves(
    command, tmp_path, capsys, drawn_curves
):
    run = tmp_path / "run"
    length = ["SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "KD.TERMS.review.WARMUP_ITERS", 1]
    assert command("OUTPUT_DIR", run, *length, flags=["--json"]) == 0
    *lines, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert {(line["event"], line["run"]) for line in lines} == {("iteration", str(run))}
    records = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert [line["record"]["iteration"] for line in lines] == [r["iteration"] for r in records]
    assert all(line["record"].keys() == r.keys() for line, r in zip(lines, records, strict=True))
    assert (result["event"], result["work_dir"], result["iterations"]) == ("result", str(run), 4)
    assert result["last"] == load_json(run / "result.json")["last"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert command("OUTPUT_DIR", run, *length, flags=["--json", "--eval-only", "--resume"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["scores"] == pytest.approx(result["last"], nan_ok=True)


def other_methods(path):
    """Write the config with another term, and without distillation; return them by their terms."""
    config = yaml.safe_load(path.read_text())
    files = {}
    for name, terms in (("cwd", {"cwd": {"CRITERION": "kd_core.criteria.cwd.CWD"}}), ("empty", {})):
        config["KD"] = {**config["KD"], "TERMS": terms} if terms else {}
        files[name] = path.with_name(f"{name}.yaml")
        files[name].write_text(yaml.safe_dump(config))
    return files


PLAIN = """
import sys
import types

# What today's Pillow lacks, and the compiled extension, which a plain installation has.
from PIL import Image
if not hasattr(Image, "LINEAR"):
    Image.LINEAR = Image.BILINEAR
try:
    import detectron2._C
except ImportError:
    sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")

import torch
import yaml
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor

config, image, out = sys.argv[1:]
cfg = get_cfg()
cfg.merge_from_file(config)
cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
boxes = DefaultPredictor(cfg)(torch.load(image).numpy())["instances"].pred_boxes.tensor
assert not any(name.startswith("kd_") for name in sys.modules)
torch.save(boxes, out)
"""


def test_checkpoint_is_a_plain_detectors(finished, tmp_path, capsys):
    from detectron2.engine import DefaultPredictor
    from kd_det.distiller import build_distiller
    from kd_det.weights import SafeCheckpointer

    file, config = finished.run / "model_final.pth", finished.run / "student.yaml"
    (tmp_path / "plain.py").write_text(PLAIN)
    image = torch.randint(256, (64, 80, 3), dtype=torch.uint8)
    torch.save(image, tmp_path / "image.pt")
    given = [str(tmp_path / "plain.py"), str(config)]
    given += [str(tmp_path / name) for name in ("image.pt", "boxes.pt")]
    done = subprocess.run([sys.executable, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    student = build_distiller(read_config(finished.path)).network
    SafeCheckpointer(student).load(str(file))
    predictor = DefaultPredictor(read_config(config))
    predictor.model = student.eval()
    student.roi_heads.box_predictor.test_score_thresh = 0.0
    ours = predictor(image.numpy())["instances"].pred_boxes.tensor
    assert len(ours) > 0
    assert torch.equal(torch.load(tmp_path / "boxes.pt"), ours)


def test_distilled_student_can_teach(finished):
    from kd_det.distiller import build_distiller

    file = finished.run / "model_final.pth"
    student = str(finished.run / "student.yaml")
    teacher = ["KD.TEACHER.WEIGHTS", str(file), "KD.TEACHER.CONFIG", student]
    cfg = read_config(finished.path, teacher)
    teacher = build_distiller(cfg).teachers["teacher"].network.state_dict()
    taught = torch.load(file, weights_only=True)["model"]
    names = [name for name in taught if not name.endswith("num_batches_tracked")]
    assert names
    assert all(torch.equal(teacher[name], taught[name]) for name in names)


def test_evaluation_alone(finished, tmp_path, capsys):
    weights = ["MODEL.WEIGHTS", finished.run / "model_final.pth"]
    assert finished("OUTPUT_DIR", tmp_path / "eval", *weights, flags=["--eval-only"]) == 0
    assert (tmp_path / "eval/inference").is_dir()


def train_and_resume(args):
    """Train, then resume after the first step, as one of two processes; keep what came out."""
    from kd_det.runner import register
    from kd_det.trainer import DistillationTrainer

    register(args)
    cfg = read_config(args.config_file, args.opts)
    for name in ("whole", "resumed"):
        trainer = DistillationTrainer(cfg)
        trainer.resume_or_load(resume=name == "resumed")
        trainer.train()
        file = Path(cfg.OUTPUT_DIR, f"{name}{comm.get_rank()}.pt")
        torch.save(trainer.distiller.state_dict(), file)
        comm.synchronize()
        if comm.is_main_process():
            write_last(Path(cfg.OUTPUT_DIR), "model_0000000.pth")
        comm.synchronize()


def in_two_processes(arguments):
    """Launch both; they are forked, so that none imports torch, but get what spawned ones get."""

    def forked(function, args, nprocs):
        function, args = pickle.loads(pickle.dumps((function, args)))
        torch.multiprocessing.start_processes(function, args, nprocs, start_method="fork")

    torch.multiprocessing.spawn = forked
    launch_on_cpu(train_and_resume, 2, (argument_parser().parse_args(arguments),))


def test_two_processes_end_with_equal_weights_also_when_resumed(command, tmp_path, forks):
    options = ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()"]
    options += ["SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0"]
    launched = forks.start(in_two_processes, [*command.arguments, *options], folder=tmp_path)
    status, said = launched.end()
    assert status == 0, said
    first, second = (torch.load(tmp_path / f"whole{rank}.pt") for rank in (0, 1))
    for rank, whole in enumerate((first, second)):  # with its own BatchNorm statistics
        resumed = torch.load(tmp_path / f"resumed{rank}.pt")
        assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    parameters = [key for key in first if "running" not in key]  # BatchNorm's are each rank's own
    assert any(key.startswith("criteria.") for key in parameters)
    assert all(torch.equal(first[key], second[key]) for key in parameters)
    assert not all(torch.equal(first[key], second[key]) for key in first)


def test_dry_run_reads_no_data(command, capsys):
    options = ["DATASETS.TRAIN", "('nowhere',)", "SOLVER.IMS_PER_BATCH", 6, "SOLVER.MAX_ITER", 90]
    assert command(*options, "SOLVER.BASE_LR", 0.03, flags=["--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "recipe: SGD lr=0.03; 90 iterations of 6 images; fp32" in shown
    assert "one training step done" in shown


def test_dry_run_of_a_detector_on_proposals(command, capsys):
    options = [
        "MODEL.LOAD_PROPOSALS",
        True,
        "MODEL.PROPOSAL_GENERATOR.NAME",
        "PrecomputedProposals",
    ]
    assert command(*options, flags=["--dry-run"]) == 0
    assert "one training step done" in capsys.readouterr().out


class TestFailures:
    def test_no_traceback_but_with_debug(self, command, coco, tmp_path, capsys, monkeypatch):
        images = coco[1]
        for image in images.iterdir():
            image.write_text("no image")
        for flags, count in ({(): 0, ("--debug",): 2}).items():
            status = command("OUTPUT_DIR", tmp_path / f"run{count}", flags=flags)
            said = capsys.readouterr()
            assert status == 1
            assert (said.out + said.err).count("Traceback") >= count
            assert count or (said.out + said.err).count("Traceback") == 0
            assert count or said.err.count("error: ") == 1

    def test_messages_that_cannot_be_written_are_not_spoken_of(self, command, tmp_path, capsys):
        with full_disk(25_000):
            assert command("OUTPUT_DIR", tmp_path / "run") == 1
        said = capsys.readouterr()
        assert said.err.splitlines()[-1].startswith("error: ")
        assert "Logging error" not in said.err
        assert "Traceback" not in said.out + said.err


class TestRefusals:
    @pytest.fixture
    def error(self, command, capsys):
        def error(*options, **arguments):
            assert command(*options, **arguments) == 2
            lines = capsys.readouterr().err.strip().splitlines()
            lines = [line for line in lines if "No CUDA runtime is found" not in line]  # of torch
            assert len(lines) == 1
            return lines[0]

        return error

    def test_folder_that_holds_a_run(self, error, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/last_checkpoint").write_text("model_final.pth")
        assert "has a run; add --resume" in error("OUTPUT_DIR", tmp_path / "run")

    @pytest.mark.parametrize("name", ["", "None"])
    def test_folder_without_a_name(self, error, name):
        assert "OUTPUT_DIR is " in error("OUTPUT_DIR", name)

    @pytest.mark.parametrize(
        ("base", "told"),
        [
            ("pipe", "is not a file"),
            (".", "is not a file"),
            ("nowhere.yaml", "is not a file; did you mean"),
            ("http://127.0.0.1:9/x.yaml", "wanted a YAML file of this machine"),
            ("base.yaml", "leads back to itself"),
            ("3", "wanted a YAML file"),
        ],
    )
    def test_base_that_is_no_file_here(self, error, tmp_path, base, told):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "base.yaml").write_text("_BASE_: mine.yaml\n")
        (tmp_path / "mine.yaml").write_text(f"_BASE_: {base}\n")
        assert re.search(told, error(file=tmp_path / "mine.yaml"))

    def test_config_file_that_is_not_there(self, error, tmp_path):
        message = error(file=tmp_path / "faster_rcn.yaml")
        assert "no config file" in message
        assert "'faster_rcnn.yaml'" in message

    @pytest.mark.parametrize(
        ("key", "value", "problem"),
        [
            ("ARGS", [1], "ARGS is [1]; wanted a node of arguments"),
            ("ARGS", "x", "ARGS is 'x'; wanted"),
            ("WEIGHT", "much", "WEIGHT is 'much'; wanted a finite number"),
            ("WEIGHT", float("nan"), "WEIGHT is nan; wanted a finite number"),
            ("WEIGHT", True, "WEIGHT is True; wanted a finite number"),
            ("WEIGHT", {"type": "os.system"}, "wanted a finite number"),
            ("WARMUP_ITERS", "inf", "WARMUP_ITERS is 'inf'; wanted a finite number"),
            ("STUDENT", 3, "STUDENT is 3; wanted a tap"),
            ("TEACHER", ["@fpn", 3], "TEACHER is ['@fpn', 3]; wanted a tap"),
        ],
    )
    def test_a_term_of_other_types(self, error, write, key, value, problem):
        file = write("faster_rcnn", {"dkd": {**TERMS["dkd"], key: value}})
        assert problem in error(file=file, flags=["--dry-run"])

    @pytest.mark.parametrize("key", ["MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME"])
    def test_a_part_that_detectron2_does_not_have(self, error, key):
        message = error(key, "os.system", flags=["--dry-run"])
        assert "Detectron2 does not have: No object named 'os.system'" in message

    @pytest.mark.parametrize("flags", [["--dry-run"], ["--eval-only"]])
    def test_values_that_detectron2_cannot_build(self, error, write, command, flags):
        plain = write("faster_rcnn", DATASETS=yaml.safe_load(command.path.read_text())["DATASETS"])
        given = ["MODEL.RESNETS.NORM", "GN", "MODEL.WEIGHTS", plain]
        message = error(*given, file=plain, flags=flags)
        assert "error: MODEL: Detectron2 cannot build it: num_channels" in message

    def test_data_set_that_is_not_registered(self, error):
        assert "no data set 'nowhere'" in error("DATASETS.TRAIN", "('nowhere',)")

    def test_weights_of_the_student_that_are_not_there(self, error):
        message = error("MODEL.WEIGHTS", "resnet18.pth")
        assert "no file 'resnet18.pth'; tools/det_convert.py makes it" in message

    def test_evaluation_of_nothing(self, error, tmp_path):
        assert "--eval-only needs MODEL.WEIGHTS" in error(flags=["--eval-only"])
        message = error("OUTPUT_DIR", tmp_path / "new", flags=["--eval-only", "--resume"])
        assert "has no checkpoint to evaluate" in message

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("KD.TEACHER.CONFIG", "techer.yaml", "CONFIG: there is no config file techer.yaml"),
            ("KD.TEACHER.CONFIG", ".", "CONFIG: . is a folder, not a config file"),
            ("KD.TEACHER.WEIGHTS", "t.pth", "KD.TEACHER.WEIGHTS: no weights file 't.pth'"),
            ("KD.TEACHER.WEIGHTS", ".", "KD.TEACHER.WEIGHTS: no weights file '.', it is a folder"),
            ("KD.TEACHER.OPTS", "['MODEL.WIEGHTS', '']", "KD.TEACHER.CONFIG: options: no key"),
            ("OUTPUT_DIR", "teacher.yaml", "teacher.yaml is a file; a run needs a folder"),
            ("OUTPUT_DIR", "teacher.yaml/run", "is a file; a run needs a folder"),
        ],
    )
    def test_files_that_are_not_there_before_any_work(self, error, tmp_path, key, value, told):
        folder = [] if key == "OUTPUT_DIR" else ["OUTPUT_DIR", "run"]
        assert told in error(*folder, key, value)
        assert not (tmp_path / "run").exists()

    def test_images_and_proposals_that_are_not_there(self, error, coco, tmp_path):
        from detectron2.data.datasets import register_coco_instances

        name, images = f"lost_{tmp_path.name}", tmp_path / "imags"
        classes = {"thing_classes": ["red", "green", "blue"]}  # else the set is read, and logged
        register_coco_instances(name, classes, str(coco[0]), str(images))
        message = error("DATASETS.TRAIN", f"('{name}',)")
        assert f"data set '{name}': no folder of images {images}; did you mean 'images'" in message
        proposals = ["DATASETS.PROPOSAL_FILES_TRAIN", "('p.pkl',)", "MODEL.LOAD_PROPOSALS", True]
        proposals += ["DATASETS.PROPOSAL_FILES_TEST", "('p.pkl',)"]
        assert "PROPOSAL_FILES_TRAIN: there is no file p.pkl" in error(*proposals)

    def test_model_of_other_categories(self, error):
        assert "has 3 categories" in error("MODEL.ROI_HEADS.NUM_CLASSES", 5)


@pytest.mark.skipif("KD_DATA" not in os.environ, reason="KD_DATA names no folder of real data")
def test_real_images_train_and_are_evaluated(write, tmp_path, capsys):
    root = Path(os.environ["KD_DATA"]) / "coco_tiny"
    sets = []
    for split in ("train", "val"):
        images = next(root.glob(f"{split}*"))
        sets.append(f"tiny_{split}={root}/annotations/instances_{images.name}.json:{images}")
    path = write("faster_rcnn", TERMS, DATASETS={"TRAIN": ["tiny_train"], "TEST": ["tiny_val"]})
    options = ["MODEL.ROI_HEADS.NUM_CLASSES", "80", "OUTPUT_DIR", str(tmp_path / "run")]
    options += ["KD.TEACHER.OPTS", "['MODEL.ROI_HEADS.NUM_CLASSES', 80]"]
    assert main(["--register", *sets, "--config-file", str(path), *options]) == 0
    assert "bbox/AP" in (tmp_path / "run/metrics.json").read_text()


def test_a_criterion_of_a_user_is_run_when_the_command_line_names_it(
    write, tmp_path, monkeypatch, capsys
):
    source = "from kd_core.criteria.fitnet import FitNet\nclass Own(FitNet): ...\n"
    (tmp_path / "criteria_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    name, fitnet = "criteria_of_mine.Own", "kd_core.criteria.fitnet.FitNet"
    path = write("retinanet", {"own": {"CRITERION": name}})
    assert main(["--config-file", str(path), "--dry-run"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"add --trust {name}")
    assert "criteria_of_mine" not in sys.modules
    assert main(["--config-file", str(path), "--dry-run", "--trust", name]) == 0
    path = write("retinanet", {"own": {"CRITERION": fitnet}})
    assert main(["--config-file", str(path), "--dry-run", "KD.TERMS.own.CRITERION", name]) == 0
