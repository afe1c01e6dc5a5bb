"""COCO's evaluation, of objects with any id."""

from typing import Any, TypeVar

Evaluator = TypeVar("Evaluator")


def numbered_from_one(evaluator: Evaluator) -> Evaluator:
    """Return Detectron2's evaluator of a data set; its objects have ids that it can count.

    pycocotools keeps for each prediction the id of the object that it found, as a number, and 0
    for none: an object with the id 0 would count as missed, and a text as an id would not do.
    Where there are such ids, objects are numbered from 1.
    """
    for one in getattr(evaluator, "_evaluators", [evaluator]):
        api: Any = getattr(one, "_coco_api", None)
        annotations = (api.dataset.get("annotations") or []) if api else []
        if any(not entry["id"] or isinstance(entry["id"], str) for entry in annotations):
            for number, entry in enumerate(annotations, 1):
                entry["id"] = number
            api.createIndex()
    return evaluator
