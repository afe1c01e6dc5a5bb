"""Report of a run at its start: models, taps, terms, environment."""

import logging
import platform
import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.table import Column, Table
from torch import Tensor, nn

from kd_core.criteria.tap_advice import described, is_shape
from kd_core.distill.distiller import Distiller
from kd_core.experiment.spec import Experiment
from kd_core.networks.probe import shapes, untouched
from kd_core.networks.roles import tap_list
from kd_core.networks.sharding import is_sharded
from kd_core.networks.tap_paths import entries
from kd_core.networks.task import Batch, network_of

_OURS = ("kd-core", "kd-cls", "kd-det", "kd-reid")
_PACKAGES = (*_OURS, "torch", "torchvision", "numpy", "mmengine-lite", "fvcore")


def parameter_count(module: nn.Module) -> int:
    """Count all parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops(network: nn.Module, image: Tensor) -> int | None:
    """Count the multiply-adds of one image with fvcore; None if the network cannot be traced."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), untouched(network):
            warnings.simplefilter("ignore")  # of torch.jit, which fvcore traces with
            from fvcore.nn import FlopCountAnalysis

            return int(FlopCountAnalysis(network, image).total())
    except Exception:  # jit, which traces it, and networks may raise anything
        return None


def models_table(networks: Mapping[str, tuple[nn.Module, Tensor]]) -> Table:
    """Show parameters and multiply-adds of each plain network.

    Args:
        networks: By role (student, teacher): the network and one prepared image, [1, C, H, W].
    """
    table = Table("model", "class", "parameters", "multiply-adds", title="networks")
    for role, (network, image) in networks.items():
        count = None if is_sharded(network) else flops(network, image)  # one process asks
        mega = "not traceable" if count is None else f"{count / 1e6:,.1f} M"
        table.add_row(role, type(network).__name__, f"{parameter_count(network):,}", mega)
    return table


def terms_table(distiller: Distiller) -> Table:
    """Show every term: its weight, what it taps with which shapes, its extra parameters.

    The task's own losses have a row where their weight is not 1.
    """
    taps = [Column(side, overflow="fold") for side in ("student", "teacher")]  # no name is cut
    table = Table("term", "criterion", "weight", *taps, "extra parameters", title="terms")
    for name, term in distiller.terms.items():
        source = distiller.source(name)
        by = ", by step" if term.warmup_by == "step" else ""
        warmup = f" (warm-up {term.warmup_epochs:g} epochs{by})" if term.warmup_epochs else ""
        falls = term.decay_after is not None
        decay = f" (falls after {term.decay_after:g} epochs)" if falls else ""
        table.add_row(
            name,
            type(term.criterion).__name__,
            f"{term.weight:g}{warmup}{decay}",
            taps_text(distiller.tap_shapes["student"], tap_list(term.student)),
            taps_text(distiller.tap_shapes[source], tap_list(term.teacher), source),
            f"{parameter_count(term.criterion):,}",
        )
    for name, weight in _task_weights(distiller).items():
        table.add_row(name, "", f"{weight:g}" if weight else "0 (off)", "", "", "")
    return table


def _task_weights(distiller: Distiller) -> dict[str, float]:
    """Return the weights of the task's losses that are not 1, by what the table calls them."""
    if not distiller.train_student:  # only criteria are trained: these losses are not computed
        return {}
    given = distiller.task_weight
    named = given if isinstance(given, Mapping) else {"": given}
    return {f"task loss {name}".strip(): weight for name, weight in named.items() if weight != 1}


def recipe_line(experiment: Experiment) -> str:
    """Return how the student of a phase is trained, in one line, by what its config says."""
    batch = {"batch_size": experiment.data.get("batch_size")}
    nodes = (experiment.optimizer, experiment.schedule)
    parts = [f"{_short(node.get('type'))} {_values(node)}".strip() for node in nodes if node]
    return "; ".join([*parts, _values({**batch, **(experiment.trainer or {})})])


def _short(kind: Any) -> str:
    """Return the last part of an import path, or the name of what it stands for."""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _values(given: Mapping[str, Any]) -> str:
    """Return the numbers and texts of a mapping; nested nodes are left to the config's file."""
    plain = {key: value for key, value in given.items() if key != "type" and _is_plain(value)}
    return " ".join(f"{key}={value}".replace(" ", "") for key, value in plain.items())


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, int | float) for one in value)
    return isinstance(value, str | int | float)


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, device, threads and commit, for the run's folder."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": found,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "bf16": has_bf16(device),
        "commit": _commit(),
        "command": sys.argv,
    }


def taps_text(shapes: Mapping[str, Any], taps: list[str], source: str = "teacher") -> str:
    """Return taps with their shapes, a line each; the name of another teacher than "teacher"."""
    prefix = "" if source == "teacher" else f"{source}: "
    return "\n".join(f"{prefix + tap} {_shape_text(shapes[tap])}" for tap in taps)


def precision_note(precision: str, device: torch.device) -> str:
    """Return what a device does not gain by a precision; "" if it may gain."""
    if precision == "fp16" and device.type == "cpu":
        return "precision=fp16 is for GPUs without bf16; a CPU may take longer than with fp32"
    if precision == "bf16" and has_bf16(device) is False:
        return "this device has no bf16 arithmetic: precision=bf16 may take longer than fp32"
    return ""


def has_bf16(device: torch.device) -> bool | None:
    """Return whether a device computes in bf16; None if a CPU does not report it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = _cpuinfo("flags", "Features").split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags)) if flags else None


def cpu_name() -> str:
    """Return the name of the processor."""
    return _cpuinfo("model name") or platform.processor() or "cpu"


def _cpuinfo(*names: str) -> str:
    """Return Linux's entry of one of these names for the first core, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(names)]
    return found[0] if found else ""


def _commit() -> str | None:
    """Return the commit of the working directory, marked when the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def taps_listing(model: nn.Module, sample: Batch) -> Table:
    """Return a table of all modules that run, with their output shapes; N is the batch."""
    network = network_of(model)
    seen: dict[str, list[Any]] = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: seen.setdefault(name, []).append(shapes(output))
        )
        for name, module in network.named_modules()
    ]
    try:
        with untouched(model):
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    # A name that is cut could not be copied.
    table = Table(Column("tap", no_wrap=True), "module", "output", title=type(network).__name__)
    for name, module in network.named_modules():
        if name in seen:
            calls = len(seen[name])
            several = f" (first of {calls} calls)" if calls > 1 else ""
            tap = (name or "output") + ("[*]" if several else "")
            table.add_row(tap, type(module).__name__, _shape_text(seen[name][0]) + several)
    return table


def _shape_text(value: Any) -> str:
    """Return the shape of a tensor, or of every entry of several that can be tapped."""
    if is_shape(value):
        return described(value)
    found = {key: item for key, item in entries(value).items() if is_shape(item)}
    return "\n".join(f"[{key}] {described(item)}" for key, item in found.items()) or "no tensor"
