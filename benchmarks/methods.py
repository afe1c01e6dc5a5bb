"""The measured table: one student, every method, one small budget.

uv run benchmarks/methods.py --seeds 0 1 2            # resnet20 -> resnet8, a fifth of CIFAR-10
uv run benchmarks/methods.py --methods kd dkd at      # some of the methods
uv run benchmarks/methods.py --table                  # print what is there

Cells (method, seed) that the results file has are skipped, so a stopped run continues, and later
runs add cells. CIFAR-10 is in data/cifar10/{train,test}/<class>/.
"""

import argparse
import json
import re
import resource
import runpy
import subprocess
import sys
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs/cls"
ALONE = "student alone"
SKIPPED = ("dml", "random_labels", "deit_hard", "deit_soft", "reviewkd_torchvision")
"""Without a teacher, or for networks of another kind."""
OWN_OPTIONS = {"catkd": ["optimizer.lr=0.02"]}  # at 0.1 it has 20 %, 10 % and NaN

Cell = dict[str, Any]


def main() -> None:
    """Run what is missing, then print the table."""
    args = parse()
    results = Path(args.results)
    if not args.table:
        known = {(cell["method"], cell["seed"]) for cell in read(results)}
        methods = dict.fromkeys(args.methods)
        wanted = [(method, seed) for seed in args.seeds for method in methods]
        missing = [cell for cell in wanted if cell not in known]
        for number, (method, seed) in enumerate(missing, start=1):
            print(f"[{number}/{len(missing)}] {method}, seed {seed}", flush=True)
            cell = run(method, seed, args)
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")
    print(table(read(results)))


def parse() -> argparse.Namespace:
    """Read the command line."""
    files = [p for p in CONFIGS.glob("methods/*.py") if "_base_" not in p.read_text("utf-8")]
    names = [p.stem for p in sorted(files) if not p.stem.endswith("_imagenet")]
    known = [ALONE, *(name for name in names if name not in SKIPPED)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", default="cifar10_small", help="file in configs/cls/data")
    parser.add_argument("--pair", default="cifar10_resnet20_resnet8", help="in configs/cls/pairs")
    parser.add_argument("--student", default="resnet8", help="file in configs/cls/networks")
    parser.add_argument("--work-dir", default="runs/methods")
    fast = ["trainer.precision=bf16", "trainer.channels_last=True"]  # 2.7 times on a CPU with bf16
    parser.add_argument("--options", nargs="*", default=fast, help="further --cfg-options")
    default = ROOT / "docs/results/cifar10_resnet20_resnet8.jsonl"
    parser.add_argument("--results", default=str(default))
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    return parser.parse_args()


def run(method: str, seed: int, args: argparse.Namespace) -> Cell:
    """Train one cell in a process of its own, and return what was measured."""
    files = [CONFIGS / "data" / f"{args.data}.py"]
    if method == ALONE:
        files.append(CONFIGS / f"networks/{args.student}.py")
    else:
        files += [CONFIGS / f"pairs/{args.pair}.py", CONFIGS / f"methods/{method}.py"]
    folder = Path(args.work_dir) / f"{method.replace(' ', '_')}-{seed}"
    options = [f"trainer.epochs={args.epochs}", *phase_epochs(files, args.epochs), *args.options]
    options += OWN_OPTIONS.get(method, [])
    command = [sys.executable, str(Path(__file__)), "--child", *map(str, files)]
    command += ["--work-dir", str(folder), "--seeds", str(seed), "--resume"]
    done = subprocess.run(
        [*command, "--cfg-options", *options], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{method}, seed {seed}: the run failed; its messages are above")
    from kd_core.files.checkpoint import load_json

    result = load_json(folder / "result.json")
    peak = re.findall(r"peak (\d+)", done.stdout)[-1]
    extra = sum(1 for _ in folder.glob("criteria/*.pth"))
    return {
        "method": method,
        "seed": seed,
        "epochs": args.epochs,
        "top1_last": result["last"]["top1"],
        "top1_best": result["best"]["top1"],
        "train_seconds": result["train_seconds"],
        "ms_per_step": round(1000 * batch_size(files) / result["images_per_second"], 1),
        "extra_parameters": extra_parameters(folder) if extra else 0,
        "peak_memory_mb": int(peak) // 1024,
        "device": result["environment"]["device"],
        "commit": result["environment"]["commit"],
    }


def phase_epochs(files: list[Path], epochs: int) -> list[str]:
    """Return options that give phases with a length of their own no more than the budget."""
    phases = runpy.run_path(str(files[-1])).get("phases", {})
    own = [name for name, phase in phases.items() if "epochs" in phase.get("trainer", {})]
    return [f"phases.{name}.trainer.epochs={epochs}" for name in own]


def batch_size(files: list[Path]) -> int:
    """Return the batch size that the data file sets."""
    return runpy.run_path(str(files[0]))["data"]["batch_size"]


def extra_parameters(folder: Path) -> int:
    """Count what the criteria of a finished run have saved: adapters and memories."""
    from kd_core.files.weights import read_state_dict

    files = folder.glob("criteria/*.pth")
    return sum(value.numel() for file in files for value in read_state_dict(file).values())


def child(argv: list[str]) -> int:
    """Train, and say how much memory it took at most, in KiB."""
    from kd_cls.train import main as train

    status = train(argv)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return status


def read(path: Path) -> list[Cell]:
    """Return the cells of a results file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(cells: list[Cell]) -> str:
    """Return the table in Markdown, the best last epoch first.

    Extra numbers are what the criteria save: adapters and memories. The best epoch is chosen on the
    test set.
    """
    methods = {
        cell["method"]: [c for c in cells if c["method"] == cell["method"]] for cell in cells
    }
    rows = sorted(methods.items(), key=lambda item: -mean(c["top1_last"] for c in item[1]))
    lines = [
        "| method | seeds | top-1, last | top-1, best | ms/step | extra numbers | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, group in rows:
        last, best = (spread([c[f"top1_{which}"] for c in group]) for which in ("last", "best"))
        speed = f"{median(c['ms_per_step'] for c in group):,.0f}"
        memory = f"{max(c['peak_memory_mb'] for c in group):,} MB"
        extra = f"{group[0]['extra_parameters']:,}"
        lines.append(
            f"| {method} | {len(group)} | {last} | {best} | {speed} | {extra} | {memory} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2:]))
    main()
