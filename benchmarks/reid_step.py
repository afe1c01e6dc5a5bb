"""Cost of a distillation step of re-identification, against a loop by hand, in one process.

As in `step.py`: the loop by hand runs the teacher without gradients and trains the student with
cross-entropy on its identities; ours is the trainer with all of a run.

python benchmarks/reid_step.py --repeats 20
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from kd_core.config.node import Node, parse
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.report import environment
from kd_core.experiment.runner import Runner
from kd_core.experiment.spec import Experiment
from kd_core.training.optimizer import parse_optimizer
from kd_reid.adapter import ADAPTER
from step import BATCHES, ON_CUDA, WAYS, by_hand, make_trainer, measure, row_of, steps_of, table_of

CONFIGS = Path(__file__).parents[1] / "configs/reid"
OFFERED = ("bare", "bare-bf16", "default", "bf16", "eager", "eager-bf16")
OF_A_PERSON = 4  # images
SGD = {"type": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9}


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", default="osnet_x1_0_osnet_x0_25", help="of configs/reid/pairs")
    parser.add_argument("--method", default="kd", help="of configs/reid/methods")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128], help="height, width")
    parser.add_argument("--ways", nargs="+", choices=OFFERED)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=4, help="turns before the first that counts")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left_out = () if device.type == "cuda" else ON_CUDA
    ways = args.ways or [way for way in OFFERED if way not in left_out]
    config = config_of(args)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(ADAPTER, device, Path(folder))
        turns = {}
        for way in ways:
            if way.startswith("bare"):
                turns[way] = by_hand(runner, config, torch.bfloat16 if "bf16" in way else None)
            else:
                trainer = make_trainer(runner, config, Path(folder) / way, WAYS[way][1])
                turns[way] = steps_of(trainer)
        times = measure(turns, args.repeats, args.warmup)
    rows = [row_of(way, times, device) for way in ways]
    shown = {key: getattr(args, key) for key in ("pair", "method", "batch_size", "size")}
    print(f"{shown['pair']}, {shown['method']}, batch {shown['batch_size']}, {device.type}\n")
    print(table_of(rows))
    if args.out:
        result = {**shown, "ways": rows, "environment": environment(device)}
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def config_of(args: argparse.Namespace) -> Experiment:
    """Return the run on random images: two batches an epoch, without a frozen base first."""
    parts = ("data/market1501", f"pairs/{args.pair}", f"methods/{args.method}")
    experiment = read_experiment(ADAPTER, [CONFIGS / f"{part}.py" for part in parts])
    data: dict[str, Any] = {
        "type": "kd_reid.data.synthetic",
        "batch_size": args.batch_size,
        "image_size": args.size,
        "num_ids": BATCHES * args.batch_size // OF_A_PERSON,
        "images_per_id": OF_A_PERSON,
    }
    student: Node = ADAPTER.model_stand_in(experiment.student).changed(fixed_base_epochs=0)
    return replace(
        experiment,
        data=parse(data, "data", provided=("data_seed",)),
        student=student,
        optimizer=parse_optimizer(SGD),
    )


if __name__ == "__main__":
    main()
