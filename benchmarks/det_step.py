"""Cost of a detector's distillation step, against plain training and the teacher's backbone.

(a) bare: the student's own training step, and the teacher's backbone on the same images.
(b) ours: the same student in the distiller, everything included.
(c) own: what the method itself computes: criteria forward and backward, the teacher's box head.

All three are interleaved in one run; (b - c) / a is what the machinery costs.

python benchmarks/det_step.py --methods reviewkd dkd --pairs 20 --size 256
python benchmarks/det_step.py --profile    # what takes the time of (a), by operation
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import kd_det  # noqa: F401  before Detectron2
import torch
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from kd_core.experiment.report import environment
from kd_det.config import read_config
from kd_det.distiller import DetectionDistiller, build_distiller
from kd_det.matching.regions import watched
from kd_det.networks.detector import TeacherDetector
from kd_det.running.dry_run import synthetic_inputs
from torch import Tensor, nn

CONFIGS = Path(__file__).parents[1] / "configs/det"


def main() -> None:
    """Print medians and the ratio of every method; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="faster_rcnn_R_18_FPN", help="in configs/det")
    parser.add_argument("--methods", nargs="+", default=["reviewkd", "dkd"])
    parser.add_argument("--size", type=int, default=256, help="pixels of the images' sides")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="shares of the operations of (a)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("opts", nargs="*", help="further KEY VALUE of the config, after --")
    args = parser.parse_args()
    results = [measure(method, args) for method in args.methods]
    report = {"results": results, "environment": environment(torch.device(_device()))}
    print(json.dumps(report, indent=2))
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of the three, in ms, and the ratio."""
    options = ["KD.TEACHER.WEIGHTS", "random", "MODEL.DEVICE", _device(), *args.opts]
    options += ["SOLVER.BASE_LR", "0.0"]  # untrained weights would diverge; the work is the same
    cfg = read_config(CONFIGS / f"{args.network}_{method}.yaml", options)
    distiller = build_distiller(cfg)
    distiller.train()
    distiller.accelerate_teachers()  # as the trainer does
    plain = copy.deepcopy(distiller.network)
    inputs = synthetic_inputs(plain, args.size)
    steps = {
        "bare": stepper(cfg, plain, inputs),
        "ours": stepper(cfg, distiller, inputs),
        "own": own_cost(distiller, inputs),
    }
    teacher = distiller.teachers["teacher"].network
    ms: dict[str, list[float]] = {name: [] for name in steps}
    with EventStorage():
        for number in range(args.warmup + args.pairs):
            for name, step in steps.items():
                began = _now()
                step()
                if name == "bare":
                    look(teacher, inputs)
                if number >= args.warmup:
                    ms[name].append(1e3 * (_now() - began))
    shares = {"profile": profile(steps["bare"], teacher, inputs)} if args.profile else {}
    ratios = [(b - c) / a for a, b, c in zip(*ms.values(), strict=True)]
    medians = {f"{name}_ms": round(median(values), 1) for name, values in ms.items()}
    return {
        "config": f"{args.network}_{method}",
        **medians,
        "ratio": round(median(ratios), 3),
    } | shares


def profile(step: Callable[[], None], teacher: Any, inputs: Any) -> dict[str, float]:
    """Return the largest shares of the time of (a) by operation, and that of the teacher."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with EventStorage(), torch.profiler.profile(activities=activities) as seen:
        step()
        with torch.profiler.record_function("teacher's backbone"):
            look(teacher, inputs)
    events = [one for one in seen.key_averages() if one.self_cpu_time_total > 0]
    whole = sum(one.self_cpu_time_total for one in events)
    events.sort(key=lambda one: -one.self_cpu_time_total)
    own = next(one.cpu_time_total for one in events if one.key == "teacher's backbone")
    largest = {one.key: round(one.self_cpu_time_total / whole, 3) for one in events[:8]}
    return {"teacher's backbone, all of it": round(own / whole, 3), **largest}


def stepper(cfg: Any, model: nn.Module, inputs: Any) -> Callable[[], None]:
    """Return a training step of a model with its own optimizer."""
    optimizer = build_optimizer(cfg, model)

    def step() -> None:
        losses: Tensor = sum(model(inputs).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()

    return step


@torch.no_grad()
def look(teacher: Any, inputs: Any) -> None:
    """Run what every method on maps needs of the teacher."""
    teacher.backbone(teacher.preprocess_image(inputs).tensor)


def own_cost(distiller: DetectionDistiller, inputs: Any) -> Callable[[], None]:
    """Return a function that runs criteria, and the teacher's heads on regions, alone."""
    pairs = distiller.regions["teacher"]
    with EventStorage(), watched(distiller.network, pairs.values()) as regions:
        batch: Any = {"inputs": inputs, "regions": regions}
        _, seen = distiller._run_student(batch)
    shown = distiller.run_teacher("teacher", batch, seen)
    batch = distiller.complete(batch, seen)
    leaves = {key: _leaf(value) for key, value in seen.items()}
    teacher: Any = distiller.teachers["teacher"].model
    assert isinstance(teacher, TeacherDetector)
    network: Any = teacher.network
    with torch.no_grad():
        features = network.backbone(network.preprocess_image(inputs).tensor)

    def run() -> None:
        with torch.no_grad():
            for part in teacher.parts:
                if part.key in pairs:
                    part.run(network, features, regions[pairs[part.key]].boxes)
        for term in distiller.terms.values():
            term.loss(leaves, shown, batch).backward()

    return run


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
