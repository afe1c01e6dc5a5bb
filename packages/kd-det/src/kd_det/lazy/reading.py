"""From a LazyConfig to the config that stands for it: what of it the rest of kd_det reads."""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from kd_core.config.trusted import trust
from kd_core.errors import UserError
from omegaconf import OmegaConf

from kd_det.data.register import category_names
from kd_det.data.unlabelled import unlabelled_mark
from kd_det.lazy.files import ARCHITECTURE, LazyFile, attach, lazy_of, resolving
from kd_det.settings.merging import merge

_SAME = {
    "train.output_dir": "OUTPUT_DIR",
    "train.init_checkpoint": "MODEL.WEIGHTS",
    "train.max_iter": "SOLVER.MAX_ITER",
    "train.amp.enabled": "SOLVER.AMP.ENABLED",
    "train.checkpointer.period": "SOLVER.CHECKPOINT_PERIOD",
    "train.eval_period": "TEST.EVAL_PERIOD",
    "train.device": "MODEL.DEVICE",
    "train.seed": "SEED",
    "train.cudnn_benchmark": "CUDNN_BENCHMARK",
    "dataloader.train.total_batch_size": "SOLVER.IMS_PER_BATCH",
    "dataloader.train.num_workers": "DATALOADER.NUM_WORKERS",
    "dataloader.train.aspect_ratio_grouping": "DATALOADER.ASPECT_RATIO_GROUPING",
    "dataloader.train.dataset.filter_empty": "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "dataloader.train.dataset.min_keypoints": "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE",
    "dataloader.train.mapper.instance_mask_format": "INPUT.MASK_FORMAT",
    "dataloader.evaluator.kpt_oks_sigmas": "TEST.KEYPOINT_OKS_SIGMAS",
    "model.roi_heads.keypoint_head.num_keypoints": "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
    "model.roi_heads.train_on_pred_boxes": "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
}
"""Keys of a LazyConfig, and those of Detectron2's YAML that mean the same."""

_OWN = {theirs: ours for ours, theirs in _SAME.items()} | {
    "DATASETS.TRAIN": "dataloader.train.dataset.names",
    "DATASETS.TEST": "dataloader.test.dataset.names",
}
"""Keys of YAML, and those of a LazyConfig: what messages to users of one say."""
_DEFAULTS = {"dataloader.train.dataset.min_keypoints": 0}  # others than those of YAML

_TRAIN: tuple[str, ...] = (
    "output_dir",
    "init_checkpoint",
    "max_iter",
    "amp",
    "ddp",
    "checkpointer",
    "eval_period",
)
_TRAIN += ("log_period", "device", "seed", "cudnn_benchmark", "model_ema")
_PARTS = ("dataloader", "optimizer", "lr_multiplier", "train")
_MISSPELT = 0.85


def read_lazy(cfg: CfgNode, file: str, options: Sequence[str]) -> None:
    """Read a LazyConfig into a config of defaults with a KD node.

    Its `KD = dict(TEACHER=dict(...), TERMS=dict(...))` has the keys of the KD node in a YAML file.

    Args:
        cfg: What will stand for the LazyConfig.
        file: The LazyConfig. It is code, and is run.
        options: KEY VALUE pairs of the file's keys and of `KD`.

    Raises:
        UserError: If the file fails, or asks for what is not supported.
    """
    if len(options) % 2:
        raise UserError(f"{file}: {options[-1]!r} has no value; wanted KEY, VALUE pairs")
    pairs = list(zip(options[::2], options[1::2], strict=True))
    for theirs, _ in pairs:
        if own := _OWN.get(theirs):
            raise UserError(f"{file}: no key {theirs}; in a LazyConfig it is {own}")
    of_kd = [text for pair in pairs if str(pair[0]).startswith("KD.") for text in pair]
    lazy = LazyFile(file, [x for pair in pairs if not str(pair[0]).startswith("KD.") for x in pair])
    _check_train(lazy)
    found = [(theirs, lazy.get(ours, _DEFAULTS.get(ours))) for ours, theirs in _SAME.items()]
    values = [item for pair in found if pair[1] is not None for item in pair]
    for theirs, path in (("TRAIN", "train"), ("TEST", "test")):
        values += [f"DATASETS.{theirs}", _names(lazy, f"dataloader.{path}")]
    formats = ("dataloader.train.mapper.image_format", "model.input_format")
    form = next((value for path in formats if (value := lazy.get(path))), "BGR")
    heads = lazy.get("model.roi_heads.mask_head"), lazy.get("model.roi_heads.keypoint_head")
    values += ["MODEL.META_ARCHITECTURE", ARCHITECTURE, "INPUT.FORMAT", form]
    values += ["MODEL.MASK_ON", heads[0] is not None, "MODEL.KEYPOINT_ON", heads[1] is not None]
    merge(cfg, file, lambda: cfg.merge_from_list(values))
    if node := _kd_node(lazy):
        merge(cfg, file, lambda: cfg.merge_from_other_cfg(CfgNode({"KD": node})))
    merge(cfg, "options", lambda: cfg.merge_from_list(of_kd))
    attach(cfg, lazy)


@contextmanager
def in_own_names(cfg: CfgNode) -> Iterator[None]:
    """Name keys in errors as the LazyConfig that a config stands for does, not as YAML."""
    try:
        yield
    except UserError as error:
        if lazy_of(cfg) is None:
            raise
        text = str(error).replace("LAZY.", "")
        for theirs, ours in _OWN.items():
            text = re.sub(rf"(?<![\w.']){re.escape(theirs)}(?![\w.])", ours, text)
        raise UserError(text) from error


def require_student(lazy: LazyFile, *, training: bool) -> None:
    """Reject a LazyConfig that has only a model, or another data loader than Detectron2's.

    Raises:
        UserError: Names what is missing, or differs.
    """
    for part in _PARTS:
        if lazy.node.get(part) is None and (training or part in ("dataloader", "train")):
            raise UserError(
                f"{lazy.path}: has no `{part}`; a student's LazyConfig has model, "
                f"{', '.join(_PARTS)}"
            )
    if training and lazy.get("dataloader.train._target_") is not build_detection_train_loader:
        raise UserError(
            f"{lazy.path}: dataloader.train: wanted LazyCall(build_detection_train_loader); a run "
            "resumes exactly only with batches that are made here"
        )
    _check_classes(lazy)


def _check_classes(lazy: LazyFile) -> None:
    """Reject a model with another number of classes than its data."""
    names = [*_names(lazy, "dataloader.train"), *_names(lazy, "dataloader.test")]
    names = [name for name in names if not unlabelled_mark(name)]
    for key in ("model.num_classes", "model.roi_heads.num_classes"):
        count = lazy.get(key)
        wanted = len(category_names(names[0])) if names and isinstance(count, int) else count
        if count != wanted:
            raise UserError(
                f"{lazy.path}: {key} is {count}, but data set {names[0]!r} has {wanted} "
                f"categories; {key} {wanted} would fit"
            )


def _check_train(lazy: LazyFile) -> None:
    """Reject keys of `train` that are misspelt or have no effect here."""
    train = lazy.get("train") or {}
    for key in train:
        near = get_close_matches(str(key), _TRAIN, n=1, cutoff=_MISSPELT)
        if key not in _TRAIN and near:
            raise UserError(f"{lazy.path}: train.{key}: did you mean {near[0]!r}?")
    if lazy.get("train.model_ema.enabled"):
        raise UserError(f"{lazy.path}: train.model_ema is not supported; set its enabled to False")


def _names(lazy: LazyFile, loader: str) -> tuple[str, ...]:
    """Return the registered data sets of a loader."""
    node = lazy.get(f"{loader}.dataset")
    if node is None:
        return ()
    if lazy.get(f"{loader}.dataset._target_") is not get_detection_dataset_dicts:
        raise UserError(
            f"{lazy.path}: {loader}.dataset: wanted LazyCall(get_detection_dataset_dicts) with the "
            "names of registered data sets"
        )
    names = lazy.get(f"{loader}.dataset.names")
    names = (names,) if isinstance(names, str) else tuple(names or ())
    if loader.endswith("test") and len(names) > 1:
        raise UserError(f"{lazy.path}: {loader} has {len(names)} data sets; wanted one")
    return names


def _kd_node(lazy: LazyFile) -> dict[str, Any]:
    """Return the KD node as a YAML file has it: criteria by name."""
    found = lazy.get("KD")
    with resolving(lazy.path):
        node: Any = OmegaConf.to_container(found, resolve=True) if found is not None else None
    if not isinstance(node, dict):
        return {}
    terms = node.get("TERMS")
    for term in terms.values() if isinstance(terms, dict) else ():
        criterion = term.get("CRITERION") if isinstance(term, dict) else None
        if isinstance(criterion, dict) and "_target_" in criterion:  # a LazyCall
            arguments = {key: value for key, value in criterion.items() if key != "_target_"}
            criterion, term["ARGS"] = criterion["_target_"], arguments | term.get("ARGS", {})
        if inspect.isclass(criterion):
            criterion = f"{criterion.__module__}.{criterion.__qualname__}"
        if isinstance(criterion, str):
            term["CRITERION"] = criterion
            trust(criterion)  # the user named the file, and code names this
    return node
