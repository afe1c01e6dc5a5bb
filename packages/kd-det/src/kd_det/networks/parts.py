"""The parts of a detector that a teacher runs alone: a new part is one entry here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from torch import Tensor

Maps = Mapping[str, Tensor]
"""Maps of a backbone, by name."""

Run = Callable[[Any, Maps, Sequence[Any]], Any]
"""Runs a part of a network on the maps of its backbone, and on boxes of every image."""


@dataclass(frozen=True)
class Part:
    """A part of a detector behind its backbone that runs without the others.

    Args:
        key: Its name: the path of the module that predicts.
        modules: Paths of all modules that run in it and in no other part.
        run: Runs it; the network is an argument, since a teacher's may be replaced by a copy.
        on_regions: Whether it runs on regions, so that a teacher's needs those of the student.
    """

    key: str
    modules: tuple[str, ...]
    run: Run
    on_regions: bool = False

    def holds(self, path: str) -> bool:
        """Return whether a module is in this part."""
        return any(path == module or path.startswith(f"{module}.") for module in self.modules)


def parts_of(network: Any) -> list[Part]:
    """Return the parts of a detector that run alone; none of a model that hides its backbone."""
    if not has_backbone(network):
        return []
    return [*_dense_parts(network), *_region_parts(network)]


def has_backbone(network: Any) -> bool:
    """Return whether a model has a backbone that can run alone, on images that it normalises."""
    normalises = hasattr(network, "preprocess_image") or hasattr(network, "pixel_mean")
    return normalises and hasattr(network, "backbone")


def part_of(path: str, parts: Sequence[Part]) -> Part | None:
    """Return the part that a module is in."""
    return next((part for part in parts if part.holds(path)), None)


def module_path(tap: str) -> str:
    """Return the path of the module that a tap reads."""
    return tap.partition("[")[0].partition(":")[0]


def _dense_parts(network: Any) -> Iterator[Part]:
    if isinstance(getattr(network, "proposal_generator", None), RPN):
        key = "proposal_generator.rpn_head"
        yield Part(key, (key,), _run_rpn)
    if hasattr(network, "head") and hasattr(network, "head_in_features"):
        yield Part("head", ("head",), _run_dense_head)
    if getattr(network, "sem_seg_head", None) is not None:
        yield Part("sem_seg_head", ("sem_seg_head",), _run_semantic)


def _region_parts(network: Any) -> Iterator[Part]:
    heads = getattr(network, "roi_heads", None)
    if isinstance(heads, Res5ROIHeads):
        yield _on_regions(_run_res5, "box_predictor", "pooler", "res5")
        if heads.mask_on and hasattr(heads.mask_head, "layers"):
            yield _on_regions(_run_res5_mask, "mask_head")
    elif isinstance(heads, CascadeROIHeads):
        for stage in range(heads.num_cascade_stages):
            run = partial(_run_stage, stage=stage)
            yield _on_regions(run, f"box_predictor.{stage}", f"box_head.{stage}")
    elif isinstance(heads, StandardROIHeads):
        yield _on_regions(_run_boxes, "box_predictor", "box_head", "box_pooler")
    if isinstance(heads, StandardROIHeads):
        for kind in ("mask", "keypoint"):
            head = getattr(heads, f"{kind}_head", None)
            if hasattr(head, "layers") and getattr(heads, f"{kind}_pooler", None) is not None:
                yield _on_regions(partial(_run_head, kind=kind), f"{kind}_head", f"{kind}_pooler")


def _on_regions(run: Run, key: str, *others: str) -> Part:
    modules = tuple(f"roi_heads.{module}" for module in (key, *others))
    return Part(modules[0], modules, run, on_regions=True)


def _run_rpn(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    generator = network.proposal_generator
    return generator.rpn_head([maps[name] for name in generator.in_features])


def _run_dense_head(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    return network.head([maps[name] for name in network.head_in_features])


def _run_semantic(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    return network.sem_seg_head(maps, None)


def _run_boxes(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    heads = network.roi_heads
    return heads.box_predictor(heads.box_head(_pooled(heads, "box", maps, boxes)))


def _run_stage(network: Any, maps: Maps, boxes: Sequence[Any], *, stage: int) -> Any:
    heads = network.roi_heads
    head, predictor = heads.box_head[stage], heads.box_predictor[stage]
    return predictor(head(_pooled(heads, "box", maps, boxes)))


def _run_head(network: Any, maps: Maps, boxes: Sequence[Any], *, kind: str) -> Any:
    heads = network.roi_heads
    # Not the head itself, which would turn its maps into masks or keypoints, at a cost.
    return getattr(heads, f"{kind}_head").layers(_pooled(heads, kind, maps, boxes))


def _run_res5(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    heads = network.roi_heads
    return heads.box_predictor(_res5_maps(heads, maps, boxes).mean((2, 3)))


def _run_res5_mask(network: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    return network.roi_heads.mask_head.layers(_res5_maps(network.roi_heads, maps, boxes))


def _res5_maps(heads: Any, maps: Maps, boxes: Sequence[Any]) -> Any:
    return heads.res5(heads.pooler([maps[name] for name in heads.in_features], list(boxes)))


def _pooled(heads: Any, kind: str, maps: Maps, boxes: Sequence[Any]) -> Any:
    levels = [maps[name] for name in getattr(heads, f"{kind}_in_features")]
    return getattr(heads, f"{kind}_pooler")(levels, list(boxes))
