"""Task adapter of image classification."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.config.folder import configs_folder
from kd_core.config.node import Node
from kd_core.distill.compared import Watched
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment.adapter import Measures, TaskAdapter
from kd_core.experiment.models import as_teacher, is_pretrained, without_pretrained
from kd_core.experiment.spec import Experiment
from kd_core.files.artifacts import find_student
from kd_core.files.weight_facts import facts_of
from kd_core.networks.latency import Timed
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from kd_core.training.hooks import Evaluate
from torch import nn

from kd_cls import TITLE
from kd_cls.catalogue import CATALOGUE
from kd_cls.class_names import match_classes
from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits, UnlabelledSplits
from kd_cls.data.splits import is_multi_label
from kd_cls.deployment import deployed
from kd_cls.evaluation import evaluate, evaluator
from kd_cls.feature_network import FeatureNetwork
from kd_cls.label_free import LabelFree, pooled_of, probe
from kd_cls.libraries.names import exported_node
from kd_cls.networks import (
    build_classifier,
    check_logits,
    class_count,
    parse_classifier,
)
from kd_cls.stand_ins import data_stand_in, model_stand_in
from kd_cls.student import load_student, size_facts
from kd_cls.trained import Trained

_HEADLESS = "kd_core.criteria.headless.without_head"


class ClassificationAdapter(TaskAdapter):
    """Adapter of classifiers: logits, accuracy."""

    title = TITLE
    metric = "top1"
    headings = {  # noqa: RUF012 - declared a ClassVar in the parent
        "top1": "top-1 %",
        "top5": "top-5 %",
        "cross_entropy": "cross-entropy, nats",
        "ece": "ECE, 15 bins, 0 to 1",
        "ece_10": "ECE, 10 bins, 0 to 1",
        "mAP": "mAP %",
        "CF1": "CF1 %",
        "OF1": "OF1 %",
        "binary_cross_entropy": "binary cross-entropy, nats",
        "knn": "k-NN %",
        "linear": "linear probe %",
        "agreement": "agreement %",
        "cosine": "cosine",
        "relative_error": "relative error",
        "cka": "linear CKA",
        "effective_rank": "effective rank",
    }
    catalogue = CATALOGUE
    demo_config = configs_folder() / "demo/dkd.py"
    of_teacher_config = (
        *("network", "classes", "new_head", "head", "output"),
        *("label_smoothing", "class_weights"),
    )
    of_network = ("network", "new_head", "head", "output", "mean", "std", "size", "roles")

    def metric_of(self, data: DataSplits) -> str:
        """Return mAP where an image has several labels."""
        return "mAP" if is_multi_label(data) else self.metric

    def build_model(self, data: DataSplits, where: str, /, **node: Any) -> Classifier:
        """Build the classifier of a node: see `build_classifier` for its keys."""
        return build_classifier(data, where, **node)

    def parse_model(self, node: Mapping[str, Any], where: str) -> Node:
        """Check a node and return it."""
        return parse_classifier(node, where)

    def loss_names(self, node: Node) -> tuple[str, ...]:
        """Return the names of the cross-entropies of one class and of several."""
        return ("ce", "bce")

    def is_pretrained(self, network: Mapping[str, Any]) -> bool:
        """Return whether the node asks torchvision or timm for pretrained weights."""
        return is_pretrained(network)

    def load_finished(self, folder: Path, node: Mapping[str, Any]) -> Classifier:
        """Rebuild a finished student as a teacher."""
        trained = load_student(folder)
        return as_teacher(partial(type(trained), output=trained.output), trained, node)

    def deployed(self, folder: Path, threads: int) -> dict[str, Timed]:
        """Return a finished student in PyTorch and, where it can be exported, ONNX Runtime."""
        return deployed(folder, threads)

    def match_data(self, teacher: Classifier, own_data: DataSplits, data: DataSplits) -> Classifier:
        """Match the classes of both data sets by their names."""
        match_classes(teacher, own_data.classes, data)
        return teacher

    def match_teacher(
        self,
        teacher: Classifier,
        folder: Path,
        node: Mapping[str, Any],
        data: DataSplits,
        where: str,
    ) -> Classifier:
        """Match the classes by their names, and print what its file says."""
        file = str(find_student(folder))
        Trained.of(where, file, node, new_head=False).fit(teacher, data)
        return teacher

    def check_student(
        self, student: nn.Module, sample: Batch, data: DataSplits, where: str
    ) -> None:
        """Reject a network whose number of logits is not that of the data's classes."""
        check_logits(student, sample, data, where)

    def evaluators(
        self, experiment: Experiment, data: DataSplits
    ) -> tuple[Evaluate, Evaluate | None]:
        """Return the evaluations on test and validation set."""
        return evaluator(distributed.shard(data.test), data.classes), (
            evaluator(distributed.shard(data.val), data.classes) if data.val else None
        )

    def exported_node(self, network: Mapping[str, Any], student: Classifier) -> Mapping[str, Any]:
        """Add the head that a network got, and name what its file describes without a download.

        That a network's own head was left out is in the node too.
        """
        node = exported_node(network, student.network)
        if isinstance(student, FeatureNetwork) and student.removed:
            paths = list(student.removed)
            return {"type": _HEADLESS, "network": node, "paths": paths}
        return node

    def metadata(
        self, network: Mapping[str, Any], data: DataSplits, student: Classifier
    ) -> dict[str, str]:
        """Return the metadata that `load_student` and `kd-cls-predict` need."""
        facts: dict[str, Any] = {
            "network": without_pretrained(network),  # its weights are in the same file
            **_ends_in(student, data),
            "mean": student.mean.flatten().tolist(),
            "std": student.std.flatten().tolist(),
            **size_facts(student.size, data),
            **({"multi_label": True} if student.multi_label else {}),
        }
        if student.output is not None:
            facts["output"] = student.output
        return {name: json.dumps(value) for name, value in facts.items()}

    def measures(self, experiment: Experiment, data: DataSplits, distiller: Distiller) -> Measures:
        """Without labels, measure features; the best epoch is that of a metric that there is."""
        if not isinstance(data, UnlabelledSplits):
            return super().measures(experiment, data, distiller)
        criteria = [term.criterion for term in distiller.terms.values()]
        if data.classes and not any(criterion.compares_classes() for criterion in criteria):
            raise UserError(
                "data.classes: no term learns the teacher's logits, so the student's classifier "
                "would stay untrained; leave data.classes out for a student of features, or add a "
                "criterion on logits, such as KD"
            )
        measure = LabelFree.of(distiller, data)
        distributed.print_note(f"the best epoch is that of the largest {measure.metric}")
        on = "held-out images" if data.queries is None else "test data"
        return Measures(measure, None, measure.metric, on)

    def data_stand_in(self, data: Node) -> Node:
        """Replace a known data set by random images."""
        return data_stand_in(data)

    def model_stand_in(self, model: Node) -> Node:
        """Omit pretrained weights."""
        return model_stand_in(model)

    def score_teacher(
        self, teacher: nn.Module, sample: Batch, data: DataSplits, test: Evaluate
    ) -> dict[str, float] | None:
        """Measure a teacher that has the same classes."""
        if isinstance(data, UnlabelledSplits):
            return probe(Watched(teacher, pooled_of(teacher), sample), data, teacher) or None
        if getattr(teacher, "other_classes", ""):
            return None
        return test(teacher) if class_count(teacher, sample) == data.num_classes else None

    def chance(self, data: DataSplits) -> float | None:
        """Return the accuracy of guessing, in percent; None for one class, or several an image."""
        if isinstance(data, UnlabelledSplits):
            return None
        guessable = data.num_classes > 1 and not is_multi_label(data)
        return 100 / data.num_classes if guessable else None

    def load_checkpoint(self, model: nn.Module, path: Path, data: DataSplits) -> None:
        """Load a file, and match its classes by their names; its statistics are the config's.

        Raises:
            UserError: If it does not fit, or knows other classes.
        """
        super().load_checkpoint(model, path, data)
        names = facts_of(path, known=("mean", "std", "image_size")).classes
        if names is None or not isinstance(model, Classifier):
            return
        if done := match_classes(model, names, data):
            distributed.print_note(f"{path}{done}")
        if model.other_classes:
            raise UserError(f"{path} {model.other_classes}; measure it on data of these")

    def evaluate(
        self,
        model: nn.Module,
        experiment: Experiment,
        data: DataSplits,
        teachers: dict[str, Any],
    ) -> dict[str, float]:
        """Measure a model, and how often it agrees with every teacher of the same classes."""
        if not isinstance(data, UnlabelledSplits):
            return evaluate(model, distributed.shard(data.test), teachers, data.classes)
        distributed.print_note(
            "cosine and relative error need the criteria of the run: its result.json has them"
        )
        return LabelFree(model, teachers, {}, {}, data)(model)


def _ends_in(student: Classifier, data: DataSplits) -> dict[str, Any]:
    """Return what a student's file says of its output: names of classes, or how many features."""
    if isinstance(student, FeatureNetwork):
        return {"features": class_count(student, data.train.sample(1))}
    return {"classes": data.classes}


ADAPTER = ClassificationAdapter()
