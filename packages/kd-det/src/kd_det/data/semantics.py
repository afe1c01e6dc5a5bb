"""Semantic labels of data sets against the head of a model that predicts them."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from kd_core.errors import UserError

from kd_det.data.unlabelled import learns_without_labels


def check_semantics(cfg: CfgNode, *, training: bool) -> None:
    """Reject a semantic model with other classes, or another value to ignore, than its data.

    Args:
        cfg: A config.
        training: Whether the training data sets are read too.

    Raises:
        UserError: Names the data set, and both values.
    """
    if cfg.MODEL.META_ARCHITECTURE not in ("SemanticSegmentor", "PanopticFPN"):
        return
    head = cfg.MODEL.SEM_SEG_HEAD
    training = training and not learns_without_labels(cfg)
    for name in (*cfg.DATASETS.TRAIN * training, *cfg.DATASETS.TEST):
        meta = MetadataCatalog.get(name)
        classes = meta.get("stuff_classes")
        if classes is None:
            raise UserError(
                f"data set {name!r} has no semantic labels (no stuff_classes), which "
                f"{cfg.MODEL.META_ARCHITECTURE} learns; name one that has, such as "
                "coco_2017_train_panoptic_separated, or register yours in a script"
            )
        facts = {"NUM_CLASSES": len(classes), "IGNORE_VALUE": meta.get("ignore_label", 255)}
        for key, value in facts.items():
            if head[key] != value:
                raise UserError(
                    f"MODEL.SEM_SEG_HEAD.{key} is {head[key]}, but data set {name!r} has {value}"
                )
