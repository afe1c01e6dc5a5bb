"""A detection run that is killed and resumed ends like one that is not, bit for bit."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from kd_core.errors import RunError, UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer
from kd_det import distiller
from kd_det.config import read_config
from kd_det.resume.hooks import forget_metrics
from kd_det.resume.last_checkpoint import write_last
from kd_det.resume.state import ModelState
from kd_det.trainer import DistillationTrainer

FPN = {"CRITERION": "kd_core.criteria.reviewkd.ReviewKD", "WARMUP_ITERS": 3}
FGD = {"CRITERION": "kd_core.criteria.fgd.FGD"}
REGIONS = {"STUDENT": "@roi_logits", "TEACHER": "@roi_logits"}
DKD = {"CRITERION": "kd_core.criteria.dkd.DKD", **REGIONS}
CWD = {"CRITERION": "kd_core.criteria.cwd.CWD"}
TERMS = {
    "retinanet": {"review": FPN, "fgd": FGD},
    "faster_rcnn": {"review": FPN, "dkd": DKD, "cwd": CWD},
}
SCHEDULE = ("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2)
UNTESTED = ("DATASETS.TEST", "()")
EVALUATED = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2)
PRECISE = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1, "TEST.EVAL_PERIOD", 2)
SMALLER = ("INPUT.MIN_SIZE_TRAIN", "(48, 64)", "INPUT.RANDOM_FLIP", "vertical")


@pytest.fixture
def config(write, coco, tmp_path):
    """Return a function that gives the config of a tiny detector on tiny data."""
    json_file, images = coco
    name = f"set_{tmp_path.name}"
    register_coco_instances(name, {}, str(json_file), str(images))

    def config(kind, *options, terms=True):
        sets = {"DATASETS": {"TRAIN": [name], "TEST": [name]}}
        path = write(kind, TERMS[kind] if terms else None, **sets)
        cfg = read_config(path, [str(one) for one in (*SCHEDULE, *SMALLER, *options)])
        cfg.OUTPUT_DIR = str(tmp_path / "run")
        return cfg

    return config


def train(cfg, folder, resume=False, trainer=DistillationTrainer):
    """Run a config in a folder, as a process of its own would; return its last checkpoint."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir(exist_ok=True)
    torch.manual_seed(int(resume))  # on which no resumed run may depend
    run = trainer(cfg)
    run.resume_or_load(resume)
    run.train()
    return torch.load(folder / "model_final.pth", weights_only=True)


def go_back(folder, iteration):
    """Leave what a kill right after a checkpoint leaves."""
    write_last(folder, f"model_{iteration:07}.pth")


def assert_equal(first, second, place=""):
    assert type(first) is type(second), place
    if isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_equal(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), place
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{place}[{index}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    else:
        assert first == second, place


@pytest.mark.parametrize(
    ("kind", "terms", "options"),
    [
        ("retinanet", False, ()),
        ("retinanet", True, ("DATALOADER.NUM_WORKERS", 2)),
        ("retinanet", True, ("DATALOADER.ASPECT_RATIO_GROUPING", True)),
        ("faster_rcnn", False, ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")),
        ("faster_rcnn", True, ("DATALOADER.NUM_WORKERS", 2)),
        ("faster_rcnn", True, PRECISE),
    ],
    ids=["plain", "kd-workers", "kd-grouped", "rcnn-plain", "rcnn-kd-workers", "rcnn-precise-bn"],
)
def test_resumed_run_equals_uninterrupted_run(kind, terms, options, config, tmp_path):
    cfg = config(kind, *UNTESTED, *options, terms=terms)
    whole = train(cfg, tmp_path / "run")
    go_back(tmp_path / "run", 1)
    cfg.KD.ACTIVATION_CHECKPOINTING = True  # it may be resumed with less memory
    assert_equal(train(cfg, tmp_path / "run", resume=True), whole)


@pytest.mark.parametrize("terms", [False, True])
def test_final_file_that_a_kill_prevented_is_written(terms, config, tmp_path):
    cfg = config("retinanet", *UNTESTED, terms=terms)
    whole = train(cfg, tmp_path / "run")
    go_back(tmp_path / "run", 3)  # the last iteration's own checkpoint
    (tmp_path / "run" / "model_final.pth").unlink()
    assert_equal(train(cfg, tmp_path / "run", resume=True), whole)


def test_workers_change_nothing(config, tmp_path):
    first = train(config("retinanet", *UNTESTED), tmp_path / "none")
    second = train(config("retinanet", *UNTESTED, "DATALOADER.NUM_WORKERS", 2), tmp_path / "two")
    assert_equal(first, second)


def test_run_without_seed_resumes_with_the_one_it_drew(config, tmp_path):
    cfg = config("faster_rcnn", *UNTESTED, "SEED", -1, *PRECISE)
    whole = train(cfg, tmp_path / "run")
    go_back(tmp_path / "run", 1)
    assert_equal(train(cfg, tmp_path / "run", resume=True), whole)
    assert cfg.SEED == -1


def resume(name, folder):
    """Resume the run in a folder, with its data set of that name."""
    # As in all tests: a random teacher's BatchNorms are calibrated by it.
    distiller.sample_batch = partial(distiller.sample_batch, size=64)
    register_coco_instances(name, {}, str(folder / "boxes.json"), str(folder / "images"))
    train(read_config(folder / "config.yaml"), folder / "run", resume=True)


def test_fresh_process_rounds_like_one_that_has_trained(config, tmp_path, forks):
    cfg = config("retinanet", *UNTESTED)
    whole = train(cfg, tmp_path / "run")
    go_back(tmp_path / "run", 1)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    status, said = forks.start(resume, f"set_{tmp_path.name}", tmp_path, folder=tmp_path).end()
    assert status == 0, said
    assert_equal(torch.load(tmp_path / "run/model_final.pth", weights_only=True), whole)


class TestMetrics:
    def lines(self, folder):
        return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]

    def scores(self, folder):
        scored = [line for line in self.lines(folder) if "bbox/AP" in line]
        return {line["iteration"]: str(line["bbox/AP"]) for line in scored}

    @pytest.fixture
    def whole(self, config, tmp_path):
        train(config("retinanet", *EVALUATED, terms=False), tmp_path / "run")
        return self.scores(tmp_path / "run")

    def test_evaluation_that_a_kill_fell_into_is_made_up_for(self, whole, config, tmp_path):
        run = tmp_path / "run"
        assert list(whole) == [1, 3, 6]
        go_back(run, 3)
        kept = [json.dumps(line) for line in self.lines(run) if line["iteration"] < 3]
        (run / "metrics.json").write_text("\n".join(kept) + '\n{"bbox/AP": 1')
        train(config("retinanet", *EVALUATED, terms=False), run, resume=True)
        assert self.scores(run) == whole
        iterations = [line["iteration"] for line in self.lines(run)]
        assert iterations == sorted(set(iterations))

    def test_evaluation_that_was_done_is_not_done_again(self, whole, config, tmp_path, monkeypatch):
        go_back(tmp_path / "run", 3)
        calls = []
        evaluate = DistillationTrainer.test
        counted = staticmethod(lambda *given: calls.append(1) or evaluate(*given))
        monkeypatch.setattr(DistillationTrainer, "test", counted)
        train(config("retinanet", *EVALUATED, terms=False), tmp_path / "run", resume=True)
        assert len(calls) == 1  # the last one
        assert self.scores(tmp_path / "run") == whole

    def test_last_evaluation_is_made_up_for(self, whole, config, tmp_path):
        run = tmp_path / "run"
        forget_metrics(str(run), 6)
        assert list(self.scores(run)) == [1, 3]
        train(config("retinanet", *EVALUATED, terms=False), run, resume=True)
        assert self.scores(run) == whole

    def test_what_is_going_to_be_done_again_is_cut_off(self, tmp_path):
        file = tmp_path / "metrics.json"
        good = '{"iteration": 0}\n{"iteration": 1}\n'
        for rest in ('{"iteration": 2}\n{"iteration": 1}\n', '{"iterat', "[1]\n", "\x00\n"):
            file.write_text(good + rest)
            forget_metrics(str(tmp_path), 2)
            assert file.read_text() == good
        forget_metrics(str(tmp_path / "nowhere"), 2)


class TestRefusals:
    def test_checkpoint_without_a_part(self, config, tmp_path):
        cfg = config("retinanet", *UNTESTED, terms=False)
        contents = train(cfg, tmp_path / "run")
        del contents["state"]
        torch.save(contents, tmp_path / "run/model_final.pth")
        with pytest.raises(UserError, match=r"has no part 'state'.*as MODEL\.WEIGHTS"):
            train(cfg, tmp_path / "run", resume=True)
        wider = cfg.clone()
        wider.MODEL.FPN.OUT_CHANNELS = 24
        with pytest.raises(UserError, match=r"MODEL\.FPN\.OUT_CHANNELS is 16 there and 24 here"):
            train(wider, tmp_path / "run", resume=True)
        cfg.MODEL.WEIGHTS = str(tmp_path / "run/model_final.pth")
        train(cfg, tmp_path / "other")

    @pytest.mark.parametrize(
        "numbers",
        [
            {"": {"forward": 1.0}},
            {"": {"training": 1}},
            {"": {"loss_normalizer": "1"}},
            {"": {"loss_normalizer": float("nan")}},
            {"nowhere": {"loss_normalizer": 1.0}},
            [1],
        ],
    )
    def test_numbers_that_a_model_does_not_keep(self, numbers):
        state = ModelState(torch.nn.Sequential(torch.nn.ReLU()))
        with pytest.raises(UserError, match="does not fit this model"):
            state.load_state_dict({"processes": [{"numbers": numbers, "buffers": {}}]})

    def test_seed_that_is_none(self, config, tmp_path):
        cfg = config("retinanet", *UNTESTED, terms=False)
        contents = train(cfg, tmp_path / "run")
        torch.save({**contents, "seed": {"seed": "1"}}, tmp_path / "run/model_final.pth")
        with pytest.raises(UserError, match=r"seed is .*wanted an integer"):
            train(cfg, tmp_path / "run", resume=True)


def test_losses_that_are_not_finite_are_named_in_one_line(config, tmp_path):
    cfg = config("retinanet", *UNTESTED, "SOLVER.BASE_LR", 1e12, terms=False)
    with pytest.raises(RunError, match=r"iteration \d+: losses are not finite \(.*loss.*BASE_LR"):
        train(cfg, tmp_path / "run")


def test_full_model_clips_the_norm_of_all_gradients(config):
    options = ["CLIP_TYPE", "full_model", "CLIP_VALUE", 0.5]
    options = [f"SOLVER.CLIP_GRADIENTS.{x}" if i % 2 == 0 else x for i, x in enumerate(options)]
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    cfg = config("retinanet", *options, "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0)
    optimizer = DistillationTrainer.build_optimizer(cfg, model)
    before = [one.detach().clone() for one in model.parameters()]
    for one in model.parameters():
        one.grad = torch.ones_like(one)
    optimizer.step()
    moved = [(old - new).flatten() for old, new in zip(before, model.parameters(), strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_norms_of_parameters_are_clipped_as_detectron2_does_it_to_the_bit(config, norm_type):
    options = ["ENABLED", True, "CLIP_TYPE", "norm", "CLIP_VALUE", 0.5, "NORM_TYPE", norm_type]
    options = [f"SOLVER.CLIP_GRADIENTS.{x}" if i % 2 == 0 else x for i, x in enumerate(options)]
    cfg = config("retinanet", *options)
    ends = []
    for trainer in (DefaultTrainer, DistillationTrainer):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
        optimizer = trainer.build_optimizer(cfg, model)
        for step in range(3):
            for place, one in enumerate(model.parameters()):
                one.grad = torch.randn_like(one) * 10.0 ** (place - 2) if place != step else None
            optimizer.step()
        ends.append([one.detach().clone() for one in model.parameters()])
    assert all(map(torch.equal, *ends))


def test_numbers_that_did_not_change_are_not_kept():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    state = ModelState(model)
    assert state.own()["numbers"] == {}
    model[0].count = 3
    other = SimpleNamespace(**state.state_dict())
    assert other.processes[0]["numbers"] == {"0": {"count": 3}}
    del model[0].count
    state.load_state_dict(vars(other))
    assert model[0].count == 3
