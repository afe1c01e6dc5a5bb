"""Teachers whose logits are in a file: `teacher.outputs=FILE`, and how such a file is made."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_core.config.node import Node, parse_call
from kd_core.config.values import NamesOrFile
from kd_core.data.loader_set import has_labels
from kd_core.data.split_loader import SplitLoader, data_fingerprint
from kd_core.distill.stored_outputs import StoredOutputs
from kd_core.errors import UserError, located
from kd_core.files.outputs import KINDS, Outputs, read_outputs, write_outputs
from kd_core.files.weight_facts import class_names
from kd_core.networks.class_order import places_of, renamed
from kd_core.runtime import distributed
from kd_core.runtime.paths import nearest_path


def build_stored(
    data: Any,
    where: str,
    /,
    *,
    outputs: str,
    classes: NamesOrFile | None = None,
    class_map: Mapping[str, str] | None = None,
) -> StoredOutputs:
    """Build the teacher of a node with `outputs`.

    Args:
        data: Of the student.
        where: Place of the node in the config.
        outputs: File of logits [training images, classes], in the order of the training set.
        classes: Names of the columns, unless the file says them; those that the data lacks are
            left out. A list, or a text file with a name in each line.
        class_map: What the data's classes are called there, where the names differ.

    Raises:
        UserError: If the file does not fit the data.
    """
    path = Path(outputs).expanduser()
    with located(where):
        found = read_outputs(path)
        if len(found.logits) != data.num_samples:
            raise UserError(
                f"{path} has {len(found.logits)} rows, but there are {data.num_samples} training "
                "images (without those that data.val_fraction and the like leave out); a row for "
                "each is wanted, in their order"
            )
        if found.data is not None and found.data != images_of(data):
            raise UserError(
                f"{path} was made from other training images, or in another order: set `data` and "
                "data_seed as they were then, or make the file again"
            )
        found = replace(found, classes=class_names(classes) or found.classes)
        logits = _by_name(found, class_map, data, path)
    augment = [type(each).__name__ for each in data.train.augment]
    if augment:
        distributed.print_note(
            f"{where}: {path} has one output for each image, but the student sees images changed "
            f"by {', '.join(augment)}; data.augment=[] gives it the images as they are"
        )
    return StoredOutputs(logits)


def parse_stored(node: Mapping[str, Any], where: str) -> Node:
    """Check a teacher's node with `outputs`; the file is only looked for.

    Raises:
        UserError: If it has other keys, or there is no such file.
    """
    others = [key for key in node if key not in ("outputs", "classes", "class_map")]
    if others:
        raise UserError(
            f"{where}: a teacher from a file of outputs has no network, so no {others[0]!r}; leave "
            f"{others[0]!r} or outputs out"
        )
    call = parse_call(build_stored, node, where)
    path = Path(call["outputs"]).expanduser()
    if not path.is_file():
        raise UserError(f"{where}.outputs: there is no file {path}{nearest_path(path)}")
    if path.suffix not in KINDS:
        raise UserError(f"{where}.outputs: {path} is none of {', '.join(KINDS)}")
    return call


def untrained(data: Any) -> StoredOutputs:
    """Return a stand-in for a dry run."""
    return StoredOutputs(torch.zeros(data.num_samples, data.num_classes))


def score(teacher: nn.Module, data: Any) -> float | None:
    """Return in how many percent of the training images stored outputs are right; None if unknown.

    The labels may be hidden, mixed up on purpose, or of other classes; or there are none.
    """
    if not isinstance(teacher, StoredOutputs) or not has_labels(data):
        return None
    if teacher.logits.shape[1] != data.num_classes:
        return None
    right = teacher.logits.argmax(1).cpu() == data.labels.cpu()
    return round(100 * right.double().mean().item(), 4)


def images_of(data: Any) -> str:
    """Return the fingerprint of the training images in their order."""
    return data_fingerprint(_TrainingPart(data))


@torch.no_grad()
def save_outputs(teacher: nn.Module, data: Any, path: Path) -> None:
    """Write the logits of a teacher for every training image, without augmentation.

    Args:
        teacher: A classifier.
        data: Its training images; they are prepared as those of the test set are.
        path: A `.safetensors` file.

    Raises:
        UserError: If the teacher does not give logits.
    """
    logits = [teacher.eval()(batch) for batch in in_order(data).epoch(0)]
    if not all(isinstance(each, Tensor) and each.dim() == 2 for each in logits):
        raise UserError(f"--save-outputs: {type(teacher).__name__} does not give logits [N, C]")
    whole = torch.cat(logits).float()
    same = whole.shape[1] == data.num_classes and not getattr(teacher, "other_classes", "")
    names = getattr(data, "classes", None) if same else None
    write_outputs(path, Outputs(whole, names, images_of(data)))


def in_order(data: Any) -> SplitLoader:
    """Return a loader of the training images once each, prepared as those of the test set are."""
    loader: SplitLoader = data.train.shard(0, 1)
    loader.sampler, loader.shuffle, loader.drop_last, loader.copies = None, False, False, 1
    loader.augment = getattr(getattr(data, "test", None), "augment", ())
    return loader


class _TrainingPart:
    """A data set's training part alone, as `data_fingerprint` wants it."""

    def __init__(self, data: Any) -> None:
        self.train, self.num_classes = data.train, data.num_classes


def _by_name(found: Outputs, class_map: Mapping[str, str] | None, data: Any, path: Path) -> Tensor:
    """Return the columns of the data's classes, where both sides have names."""
    names, wanted = found.classes, renamed(getattr(data, "classes", ()), class_map)
    if names is not None and len(names) != found.logits.shape[1]:
        raise UserError(f"{len(names)} classes for the {found.logits.shape[1]} columns of {path}")
    if class_map and not names:
        raise UserError(f"class_map wants names, but {path} has none; set classes to them")
    if not names or not wanted or list(names) == wanted:
        return found.logits
    return found.logits[:, places_of(wanted, names)]
