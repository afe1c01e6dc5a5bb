"""The criteria that `criteria.py` measures, each with its plain way, at the sizes of real pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import plain_adapters
import plain_fgd
import plain_labels
import plain_logits
import plain_maps
import plain_vectors
import plain_wkd
import torch
from criterion_features import FEATURES
from criterion_methods import Method, Size, both
from kd_core.criteria.criterion import Borrowed, Criterion, Shapes
from kd_core.criteria.ofd import margin
from kd_core.functional import tensors
from kd_core.testing import make, sample
from plain_crd import PlainCRD
from torch import Tensor

Step = Callable[[], list[Tensor]]


@dataclass
class Case:
    """Two ways to the same loss and gradients, and what the plain one needs at least."""

    size: str
    plain_bytes: int
    ours: Step
    plain: Step


def cases(name: str, device: torch.device, *, small: bool = False) -> Iterator[Case]:
    """Make the cases of a row of `METHODS`, or of OFD's margins."""
    if name == "ofd margins":
        yield margin_case(device, 8 if small else 256 + 512 + 1024 + 2048)
        return
    method = METHODS[name]
    for size in (method.small,) if small else method.real:
        yield criterion_case(method, size, device)


def criterion_case(method: Method, size: Size, device: torch.device) -> Case:
    """Make a criterion with its adapters, and what it is fed, as after a ReLU but for logits."""
    known = {"num_samples": max(size.batch, 12), **size.shapes}
    criterion = make(method.type, **method.options, **known).to(device)
    inputs = {"dtype": torch.get_default_dtype(), "device": str(device), **known}
    student, teacher, batch = sample(method.type, size=size.batch, **inputs)
    for side, needed in ((student, True), (teacher, False)):
        for tensor in tensors(side):
            if tensor.ndim > 2 and not method.before_activation:
                tensor.data.relu_()
            tensor.requires_grad_(needed)
    complete(criterion, teacher, batch)
    borrowed = [one.module for one in getattr(criterion, "heads", ()) if isinstance(one, Borrowed)][
        :1
    ]
    parameters = [p for module in (criterion, *borrowed) for p in module.parameters()]
    leaves = [leaf for leaf in (*tensors(student), *parameters) if leaf.requires_grad]
    plain = method.plain
    plain = plain(criterion) if isinstance(plain, type) else partial(plain, criterion)
    ways = [step_of(way, leaves, student, teacher, batch) for way in (criterion, plain)]
    return Case(described(criterion, student, teacher), size.plain_bytes, *ways)


def complete(criterion: Criterion, teacher: Any, batch: dict[str, Any]) -> None:
    """Make a batch a real one; add what both ways must share: masks and noise."""
    shown = tuple(tensors(teacher))
    if type(criterion).__name__ == "MGD":
        drawn = (torch.rand_like(maps[:, :, :1, :1]) for maps in shown)
        batch["mask"] = tuple((mask >= criterion.ratio).to(mask.dtype) for mask in drawn)
    if type(criterion).__name__ == "ViTKD":
        batch["noise"] = torch.rand(shown[2].shape[:2], device=shown[2].device)
    if type(criterion).__name__ == "SoftLabelEncoder":
        batch["noise"] = torch.randn(len(shown[0]), 100, device=shown[0].device)
    if type(criterion).__name__ != "FGD":
        for key in ("boxes", "padded_size", "image_sizes"):
            del batch[key]  # no classifier's batch has these
    elif shown[0].shape[2] > 8:  # COCO: 7 objects an image
        corners, sides = (torch.rand(len(shown[0]), 7, 2) * side for side in (500.0, 300.0))
        batch["boxes"] = list(torch.cat([corners, corners + sides], 2).to(shown[0]))
        batch["padded_size"] = tuple(8 * side for side in shown[0].shape[2:])


def described(criterion: Criterion, student: Any, teacher: Any) -> str:
    """Return the shapes of what a criterion is fed."""
    kinds = criterion.takes if isinstance(criterion.takes, tuple) else (criterion.takes,)
    if kinds == ("maps",):
        sides = [[list(maps.shape) for maps in side] for side in (student, teacher) if side]
        texts = [f"{side[0]}{f' to {side[-1]}' if side[1:] else ''}" for side in sides]
        counts = [f"{len(side)} maps " if len(side) > 2 else "maps " for side in sides]
        texts = [count + text for count, text in zip(counts, texts, strict=True)]
        return texts[0] if len({str(side) for side in sides}) == 1 else ", ".join(texts)
    shapes = [list(tensor.shape) for tensor in tensors(student)]
    texts = [f"{kind} {shape}" for kind, shape in zip(kinds, shapes, strict=True)]
    samples = f", {len(criterion.labels):,} samples" if hasattr(criterion, "labels") else ""
    return ", ".join(texts) + samples


def step_of(loss: Callable[..., Tensor], leaves: list[Tensor], *arguments: Any) -> Step:
    """Return what computes a loss and its gradient by those leaves that it depends on."""

    def step() -> list[Tensor]:
        value = loss(*arguments)
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        return [value, *(gradient for gradient in gradients if gradient is not None)]

    return step


def margin_case(device: torch.device, channels: int) -> Case:
    """Margins of BatchNorms; they are computed once, and have no gradient."""
    weight, bias = torch.randn(2, channels, device=device)
    ways = (lambda way=way: [way(weight, bias)] for way in (margin, plain_maps.margin))
    return Case(f"margins of {channels:,} channels", 0, *ways)


# resnet32x4 and resnet8x4 on CIFAR-100, ResNet50 on ImageNet, a detector's pyramid on COCO.
STAGES: Shapes = ((64, 32, 32), (128, 16, 16), (256, 8, 8))
DEEP: Shapes = ((256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
PYRAMID: Shapes = tuple((256, side, round(1.68 * side)) for side in (100, 50, 25, 13, 7))
LOGITS = Size(64, {"num_classes": 100}), Size(64, {"num_classes": 1000})
SETS = tuple(replace(size, shapes={**size.shapes, "num_samples": 50_000}) for size in LOGITS)
WKD_WIDE = Size(64, {"num_classes": 1000}, plain_bytes=4 * 6 * 64 * 999**2)
VECTORS = (both(64, (256,)), both(64, (2048,)))
PAIR = (both(64, (100,), (256,), num_classes=100),)
CIFAR, LAST = (both(64, *STAGES),), (both(64, STAGES[-1], num_classes=100),)
TEACHERS = {"teacher_shapes": STAGES[-1:], "student_shapes": ()}
BLOCKS = {"student_shapes": STAGES, "teacher_shapes": [s for s in STAGES for _ in range(5)]}
WIDE = both(64, DEEP[-1], num_classes=1000)
LABELS = (both(64, (80,), (80, 256)),)
RKD_512 = both(512, (256,))
RKD_WIDE = Size(512, both(512, (2048,)).shapes, plain_bytes=4 * 6 * 512**2 * 2048)
CRD_SETS = (
    both(64, (256,), num_classes=100, num_samples=50_000),
    both(64, (512,), num_classes=1000, num_samples=1_281_167),
)
FEW = both(4, (8,), num_classes=3, num_samples=30)

METHODS = {
    "kd": Method("KD", plain_logits.kd, LOGITS),
    "kd, standardised": Method("KD", plain_logits.lskd, LOGITS, {"standardize": True}),
    "ctkd": Method("CTKD", plain_logits.ctkd, LOGITS),
    "dkd": Method("DKD", plain_logits.dkd, LOGITS),
    "rld": Method("RLD", plain_logits.rld, LOGITS),
    "wkd, logits": Method("WKDLogits", plain_wkd.wkd_logits, (LOGITS[0], WKD_WIDE)),
    "wkd, distances": Method("ClassDistances", plain_wkd.class_distances, SETS, small=Size(4)),
    "nkd": Method("NKD", plain_logits.nkd, LOGITS),
    "wsld": Method("WSLD", plain_logits.wsld, LOGITS),
    "ttm": Method("TTM", plain_logits.ttm, LOGITS),
    "wttm": Method("WTTM", plain_logits.wttm, LOGITS),
    "dist": Method("DIST", plain_logits.dist, LOGITS),
    "mlkd": Method("MLKD", plain_logits.mlkd, LOGITS),
    "clkd": Method("CLKD", plain_logits.clkd, LOGITS),
    "skd": Method("SKD", plain_logits.skd, LOGITS),
    "sl": Method("SoftLabel", plain_logits.soft_label, LOGITS),
    "sl-enc": Method("SoftLabelEncoder", plain_logits.sl_enc, LOGITS),
    "hard labels": Method("HardLabel", plain_logits.hard_label, LOGITS),
    "top-k labels": Method("TopKLabels", plain_logits.topk_labels, LOGITS),
    "label smoothing": Method("LabelSmoothing", plain_logits.label_smoothing, LOGITS),
    "mld": Method("MLD", plain_labels.mld, LOGITS),
    "l2d": Method("L2D", plain_labels.l2d, LABELS, small=both(6, (7,), (7, 6))),
    "pkt": Method("PKT", plain_vectors.pkt, VECTORS),
    "rkd": Method("RKD", plain_vectors.rkd, (*VECTORS, RKD_512, RKD_WIDE)),
    "cc": Method("CC", plain_vectors.cc, VECTORS),
    "cc, neighbours": Method("CCNeighbour", plain_vectors.cc_neighbour, VECTORS),
    "crd": Method("CRD", PlainCRD, CRD_SETS, small=FEW),
    "sskd": Method("SSKD", plain_vectors.sskd, PAIR),
    "sskd, head": Method("SSKDHead", plain_vectors.sskd_head, VECTORS[:1]),
    "mag": Method("MultiGranularity", plain_vectors.multi_granularity, PAIR),
    "mas": Method("MultiGranularity", plain_vectors.multi_granularity, PAIR, {"stable": True}),
    "mag, codes": Method("SelfAnalysis", plain_vectors.self_analysis, PAIR),
    "at": Method("AT", plain_maps.at, (*CIFAR, both(16, *DEEP))),
    "nst": Method("NST", plain_maps.nst, (*CIFAR, both(16, DEEP[-1])), small=both(2, (16, 3, 3))),
    "sp": Method("SP", plain_maps.sp, (*LAST, WIDE)),
    "fsp": Method("FSP", plain_maps.fsp, (both(64, (32, 32, 32), *STAGES),)),
    "kdsvd": Method("KDSVD", plain_maps.kdsvd, CIFAR, small=both(2, (4, 16, 16), (8, 8, 8))),
    "catkd": Method("CATKD", plain_maps.catkd, (*LAST, WIDE)),
    "sdd, kd": Method("SDD", plain_maps.sd_kd, (*LAST, WIDE), {"base": "kd"}),
    "sdd, dkd": Method("SDD", plain_maps.sd_dkd, (*LAST, WIDE)),
    "sdd, nkd": Method("SDD", plain_maps.sd_nkd, (*LAST, WIDE), {"base": "nkd"}),
    "fitnet": Method("FitNet", plain_adapters.fitnet, (both(64, STAGES[1]),)),
    "ab": Method("AB", plain_adapters.ab, CIFAR, before_activation=True),
    "ofd": Method("OFD", plain_adapters.ofd, CIFAR, before_activation=True),
    "vid": Method("VID", plain_adapters.vid, CIFAR, {"learn_variance": True}),
    "reviewkd": Method("ReviewKD", plain_adapters.reviewkd, (both(64, *STAGES, (256, 1, 1)),)),
    "wkd, features": Method("WKDFeatures", plain_wkd.wkd_features, LAST),
    "ft": Method("FT", plain_adapters.ft, LAST),
    "ft, paraphraser": Method("Paraphraser", plain_adapters.paraphraser, (Size(64, TEACHERS),)),
    "afd": Method("AFD", plain_adapters.afd, (Size(64, BLOCKS),)),
    "afds": Method("AFDS", plain_adapters.afds, CIFAR),
    "mgd": Method("MGD", plain_adapters.mgd, LAST),
    "simkd": Method("SimKD", plain_adapters.simkd, LAST),
    "cwd": Method("CWD", plain_adapters.cwd, (both(2, *PYRAMID),)),
    "pkd": Method("PKD", plain_adapters.pkd, (both(2, *PYRAMID),)),
    "fgd": Method("FGD", plain_fgd.fgd, (both(2, *PYRAMID),)),
}

METHODS |= FEATURES
NAMES = (*METHODS, "ofd margins")
