"""Measure what a pass keeps for its backward, with activation checkpointing; and CRD's banks.

uv run benchmarks/memory.py
uv run benchmarks/memory.py --only banks --samples 50000 1281167

Prints a line for each case as JSON. Bytes are those of the tensors that autograd keeps after the
forward pass, each storage once, without parameters and buffers; `seconds` are those of forward and
backward, the smallest of some. On a GPU `peak` is `torch.cuda.max_memory_allocated` of both.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from kd_cls.models import build_model
from kd_core.criteria.crd import CRD
from kd_core.functional import tensors
from kd_core.networks.activation_checkpointing import checkpoint_activations, has_checkpointed
from torch import Tensor, nn

CPU = torch.device("cpu")

CASES = {"resnet8x4": (64, 32), "resnet20": (64, 32), "wrn_16_2": (64, 32), "vgg8": (64, 32)}
"""Networks for CIFAR-100, with batch and pixels."""
LARGE = {"resnet18": (16, 224), "resnet50": (8, 224), "vit_b_16": (4, 224)}
"""Networks of torchvision for ImageNet."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the lines; returns the exit status."""
    args = _parser().parse_args(argv)
    device = torch.device("cuda") if torch.cuda.is_available() else CPU
    if "activations" in args.only:
        for name in args.networks:
            for wanted in (False, True):
                _show(activations(name, wanted, device, args.repeats))
    if "banks" in args.only:
        for samples in args.samples:
            for precision in ("fp32", "fp16"):
                _show(banks(samples, precision, device, args.repeats))
    return 0


def activations(name: str, wanted: bool, device: torch.device, repeats: int) -> dict[str, Any]:
    """Return what training a network takes, with or without checkpointed blocks."""
    torch.manual_seed(0)
    batch, size = {**CASES, **LARGE}[name]
    network = _built(name).to(device).train()
    blocks = checkpoint_activations([network], True) if wanted else 0
    images = torch.randn(batch, 3, size, size, device=device)
    fixed = [*network.parameters(), *network.buffers(), images]
    inputs = [module for module in network.modules() if has_checkpointed([module])]

    def loss_of() -> Tensor:
        return network(images).float().square().mean()

    found = measured(loss_of, fixed, device, repeats, inputs)
    return {"network": name, "batch": batch, "blocks_that_run_again": blocks, **found}


def banks(samples: int, precision: Any, device: torch.device, repeats: int) -> dict[str, Any]:
    """Return what CRD takes on a data set of so many samples, batch 64, 16384 negatives."""
    torch.manual_seed(0)
    width = 256 if samples < 10**6 else 512
    labels = torch.arange(samples) % (100 if samples < 10**6 else 1000)
    criterion = CRD(((width,),), ((width,),), labels, bank_precision=precision).to(device)
    vectors = [torch.randn(64, width, device=device) for _ in range(2)]
    index = {"index": torch.randperm(samples, device=device)[:64]}
    fixed = [*criterion.parameters(), *criterion.buffers(), *vectors]
    found = measured(lambda: criterion(*vectors, index), fixed, device, repeats)
    bank = criterion.memories
    return {"crd": samples, "bank": precision, "bank_bytes": bank.nbytes, **found}


def measured(
    loss_of: Callable[[], Tensor],
    fixed: Sequence[Tensor],
    device: torch.device,
    repeats: int,
    keep_inputs: Sequence[nn.Module] = (),
) -> dict[str, Any]:
    """Return bytes kept for the backward, seconds and, on a GPU, the peak of both passes.

    Args:
        loss_of: The forward pass.
        fixed: Tensors that are there anyway.
        device: Where it runs.
        repeats: The smallest of so many times counts.
        keep_inputs: Modules that keep their inputs without autograd's knowledge.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in fixed}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def note_inputs(module: nn.Module, inputs: Any) -> None:
        for tensor in tensors(inputs):
            note(tensor)

    handles = [module.register_forward_pre_hook(note_inputs) for module in keep_inputs]
    seconds = []
    for number in range(repeats):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _wait(device)
        began = time.perf_counter()
        if number:
            loss_of().backward()
        else:  # keeps what it notes, so that no storage is used twice
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                loss = loss_of()
            loss.backward()
            for handle in handles:
                handle.remove()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    found = {"kept_bytes": sum(kept.values()), "seconds": round(min(seconds), 3)}
    if device.type == "cuda":
        found["peak"] = torch.cuda.max_memory_allocated()
    return found


def _built(name: str) -> nn.Module:
    if name in CASES:
        return build_model(name=name, num_classes=100)
    import torchvision

    return torchvision.models.get_model(name)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _show(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = ("activations", "banks")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--networks", nargs="+", choices=(*CASES, *LARGE), default=[*CASES, *LARGE])
    parser.add_argument("--samples", nargs="+", type=int, default=[50_000])
    parser.add_argument("--repeats", type=int, default=3)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
