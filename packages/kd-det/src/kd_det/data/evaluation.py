"""COCO's evaluation of a registered data set."""

from pathlib import Path

from detectron2.evaluation import COCOEvaluator

from kd_det.release.preparation import has_extension


def build_evaluator(name: str, folder: Path) -> COCOEvaluator:
    """Return Detectron2's evaluator of a data set.

    pycocotools keeps for each prediction the id of the object that it found, as a number, and 0
    for none: an object with the id 0 would count as missed, and a text as an id would not do.
    Where there are such ids, objects are numbered from 1.

    Args:
        name: Of the data set.
        folder: For its results.
    """
    evaluator = COCOEvaluator(name, output_dir=str(folder), use_fast_impl=has_extension())
    api = evaluator._coco_api
    annotations = api.dataset.get("annotations") or []
    if any(not one["id"] or isinstance(one["id"], str) for one in annotations):
        for number, one in enumerate(annotations, 1):
            one["id"] = number
        api.createIndex()
    return evaluator
