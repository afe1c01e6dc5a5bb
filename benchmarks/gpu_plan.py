"""The parts of a GPU run: what each runs, for how long at most, and in tiny sizes.

python benchmarks/gpu_plan.py --missing    # names of distributions that are not installed
"""

import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests", *(f"packages/kd-{name}/tests" for name in ("core", "cls", "det", "reid")))

NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "mmengine": "mmengine-lite",
    "fvcore": "fvcore",
    "safetensors": "safetensors",
    "rich": "rich",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
    "detectron2": "pb1-detectron2",
    "pycocotools": "pycocotools",
    "torchreid": "torchreid",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "gdown": "gdown",
    "pytest": "pytest",
    "xdist": "pytest-xdist",
}
"""Distributions by what is imported of them; torch is best the machine's own."""


@dataclass(frozen=True)
class Part:
    """A part of a call.

    Args:
        name: That of its JSON.
        script: What python runs.
        arguments: Of the script; `{out}` is the folder of the results, `{json}` and `{xml}` are
            files that the part writes.
        tiny: The arguments of a dry run.
        seconds: After them it is ended.
        resumes: Whether a repeated call continues what was ended.
    """

    name: str
    script: str
    arguments: str
    tiny: str
    seconds: float
    resumes: bool = False

    def command(self, *, dry: bool) -> list[str]:
        """Return what python is given."""
        return [*self.script.split(), *(self.tiny if dry else self.arguments).split()]


def tests() -> list[Part]:
    """Return the parts of the first call."""
    parallel = "-q -n {workers} --dist loadscope --junitxml {xml}"
    quick = "-q -n 0 --junitxml {xml} packages/kd-core/tests/test_prefetch.py"
    steps = "tests/test_configs.py -k takes_a_step"  # every documented command
    files = " ".join(needing_cuda())
    return [
        Part("tests_cuda", "-m pytest", f"{parallel} {files}", quick, 170),
        Part("tests_configs", "-m pytest", f"{parallel} {steps}", f"{quick} -k host", 170),
    ]


def needing_cuda() -> list[str]:
    """Return the files of tests that are skipped without a GPU."""
    asks = re.compile(r"needs (CUDA|a GPU)|cuda_agrees_with_cpu")
    files = (path for folder in TESTS for path in sorted((ROOT / folder).glob("test_*.py")))
    found = [path for path in files if asks.search(path.read_text(encoding="utf-8"))]
    return [str(path.relative_to(ROOT)) for path in found]


_PAIR = "--pair resnet56_resnet20 --method kd --batch-size 2 --out {json}"
_REGIONS = "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8 MODEL.RPN.POST_NMS_TOPK_TRAIN 20"


def benchmarks() -> list[Part]:
    """Return the parts of the second call, the most wanted first."""
    return [
        Part(
            "step",
            "benchmarks/step.py",
            "--repeats 30 --warmup 10 --out {json}"
            " --ways bare bare-bf16 default bf16 eager cached cached-bf16 together",
            f"--repeats 1 --warmup 0 --ways bare default {_PAIR}",
            45,
        ),
        Part(
            "epoch_online",
            "benchmarks/epoch.py",
            "--epochs 10 --ways online-fp32 online-bf16 --out {json}",
            f"--images 4 --epochs 1 --ways online-fp32 {_PAIR}",
            50,
        ),
        Part(
            "epoch_cached",
            "benchmarks/epoch.py",
            "--epochs 10 --ways cached-fp32 cached-bf16 --out {json}",
            f"--images 4 --epochs 1 --ways cached-fp32 {_PAIR}",
            50,
        ),
        Part(
            "det_step",
            "benchmarks/det_step.py",
            "--methods reviewkd dkd --size 800 --pairs 10 --output {json}",
            "--methods dkd --size 64 --pairs 1 --warmup 0 --output {json} -- " + _REGIONS,
            45,
        ),
        Part(
            "reid_step",
            "benchmarks/reid_step.py",
            "--repeats 20 --out {json}",
            "--repeats 1 --warmup 0 --batch-size 4 --size 64 32 --ways bare default --out {json}",
            40,
        ),
        Part(
            "cifar10",
            "benchmarks/gpu_cifar.py",
            "--folder {out}/cifar10 --out {json}",
            "--tiny --folder {out}/cifar10 --out {json}",
            340,
            resumes=True,
        ),
    ]


CALLS = {"tests": tests, "benchmarks": benchmarks}


def missing() -> list[str]:
    """Return the distributions that are not installed."""
    return [name for module, name in NEEDED.items() if find_spec(module) is None]


if __name__ == "__main__" and sys.argv[1:] == ["--missing"]:
    print(*missing())
