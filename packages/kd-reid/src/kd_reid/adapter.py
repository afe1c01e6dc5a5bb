"""Task adapter of re-identification."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.config.folder import configs_folder
from kd_core.config.locate import locate
from kd_core.config.node import Node, parse, parse_call
from kd_core.config.parameters import parameters_of
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError, located
from kd_core.experiment.adapter import Measures, TaskAdapter
from kd_core.experiment.models import as_teacher, is_pretrained
from kd_core.experiment.spec import RANDOM, Experiment
from kd_core.networks.latency import Timed
from kd_core.networks.task import Batch, network_of
from kd_core.runtime import distributed
from kd_core.training.hooks import Evaluate
from torch import nn

from kd_reid import TITLE
from kd_reid.adaptation.embedder import AdaptiveEmbedder
from kd_reid.adaptation.evaluation import BeforeAndAfter
from kd_reid.adaptation.target import UnlabelledData
from kd_reid.catalogue import CATALOGUE
from kd_reid.data import DataSplits
from kd_reid.data.splits import TrainingSet
from kd_reid.embedder import ID, Embedder
from kd_reid.evaluation import Evaluation
from kd_reid.label_free import LabelFree
from kd_reid.networks import build_embedder, check_identities, parse_embedder, require_loss
from kd_reid.other_people import fit_heads
from kd_reid.student import HEADLESS, embeddings, facts_of, load_student
from kd_reid.teacher_features import FeatureEmbedder
from kd_reid.unlabelled import CropSplits
from kd_reid.weights import load_checkpoint

_NAMED = [f"kd_reid.data.{name}" for name in ("market1501", "public", "merged", "generated")]
"""Data sets that a dry run replaces by random images."""

_UNLABELLED = "kd_reid.adaptation.unlabelled"


class ReidAdapter(TaskAdapter):
    """Adapter of embedders: ranks, mAP."""

    title = TITLE
    metric = "rank1"
    headings = {  # noqa: RUF012 - declared a ClassVar in the parent
        **{f"rank{rank}": f"rank-{rank} %" for rank in (1, 5, 10, 20)},
        "mAP": "mAP %",
        "cosine": "cosine",
        "relative_error": "relative error",
        "cka": "linear CKA",
        "effective_rank": "effective rank",
    }
    catalogue = CATALOGUE
    demo_config = configs_folder() / "demo/reid_distilled.py"
    extra = {"evaluation": Evaluation}  # noqa: RUF012 - declared a ClassVar in the parent
    of_teacher_config = (
        "network",
        "bnneck",
        "backbone_weights",
        "label_smoothing",
        "metric_losses",
        "fixed_base_epochs",
    )
    of_network = ("network", "bnneck", "mean", "std", "size", "roles")

    def build_model(
        self,
        data: TrainingSet,
        where: str,
        /,
        *,
        adaptation: Mapping[str, Any] | None = None,
        **node: Any,
    ) -> Embedder:
        """Build the embedder of a node: see `build_embedder` for its keys.

        Args:
            data: The data of the run.
            where: Place of the node in the config.
            adaptation: Arguments of an `AdaptiveEmbedder`, if it is one.
            node: The other keys.
        """
        embedder = build_embedder(data, where, **node)
        if adaptation is None:
            return embedder
        if not isinstance(data, UnlabelledData):
            raise UserError(
                f"{where}.adaptation is for a set whose identities are hidden; set data.type to "
                f"{_UNLABELLED}"
            )
        require_loss(embedder, where)
        with located(f"{where}.adaptation"):
            return AdaptiveEmbedder(embedder, data, **adaptation)

    def parse_model(self, node: Mapping[str, Any], where: str) -> Node:
        """Check a node and return it."""
        call = parse_embedder(_source(node), where)
        if node.get("adaptation") is None:
            return call
        place, given = f"{where}.adaptation", ("source", "data")
        adaptation = parse_call(AdaptiveEmbedder, node["adaptation"], place, provided=given)
        return call.changed(adaptation=adaptation)

    def loss_names(self, node: Node) -> tuple[str, ...]:
        """Return the names of the cross-entropy and of the losses on embeddings."""
        return (ID, *(node.get("metric_losses") or {}))

    def is_pretrained(self, network: Mapping[str, Any]) -> bool:
        """Return whether a library's weights are asked for, of general features.

        Not of torchreid: its downloads are trained on ImageNet's classes, which are not people.
        """
        of_torchreid = ("torchreid.", "kd_reid.models.")
        return is_pretrained(network) and not str(network["type"]).startswith(of_torchreid)

    def load_finished(self, folder: Path, node: Mapping[str, Any]) -> Embedder:
        """Rebuild a finished student as a teacher."""
        student = load_student(folder)
        if isinstance(student, FeatureEmbedder):
            return as_teacher(FeatureEmbedder, student, node).eval()
        return as_teacher(partial(Embedder, heads=student.heads), student, node).eval()

    def deployed(self, folder: Path, threads: int) -> dict[str, Timed]:
        """Return a finished student's embeddings of images in PyTorch."""
        return {"PyTorch": embeddings(folder)}

    def check_student(
        self, student: nn.Module, sample: Batch, data: TrainingSet, where: str
    ) -> None:
        """Reject a network whose number of logits is not that of the data's identities."""
        if isinstance(data, UnlabelledData) and not isinstance(student, AdaptiveEmbedder):
            raise UserError(f"{where}: the data has no labels; give it adaptation=dict()")
        check_identities(student, sample, data, where)

    def evaluators(
        self, experiment: Experiment, data: DataSplits
    ) -> tuple[Evaluate, Evaluate | None]:
        """Return the evaluation on query and gallery; nothing is held out."""
        evaluation = Evaluation(data, **experiment.extra["evaluation"])
        student = experiment.student
        if not isinstance(data, UnlabelledData) or student.get("weights") in (None, RANDOM):
            return evaluation, None
        source = partial(build_embedder, data, "student", **_source(student))
        return BeforeAndAfter(evaluation, source), None

    def measures(self, experiment: Experiment, data: TrainingSet, distiller: Distiller) -> Measures:
        """Without identities, measure embeddings, one of whose measures has the best epoch."""
        settings = experiment.extra["evaluation"]
        if isinstance(data, CropSplits):
            if data.searched is None and settings:
                distributed.print_note(
                    "evaluation has no effect: without data.evaluate_on nothing is searched"
                )
            measure = LabelFree.of(distiller, data, settings)
            distributed.print_note(f"the best epoch is that of the largest {measure.metric}")
            on = "held-out images" if data.searched is None else "test data"
            return Measures(measure, None, measure.metric, on)
        if distiller.train_student and distiller.task_weight != 0:
            require_loss(distiller.student, "student")
        for name, peer in distiller.peers.items():
            require_loss(peer, f"peers.{name}")
        return super().measures(experiment, data, distiller)

    def evaluate(
        self,
        model: nn.Module,
        experiment: Experiment,
        data: TrainingSet,
        teachers: dict[str, Any],
    ) -> dict[str, float]:
        """Measure a model for `--eval-only`."""
        if not isinstance(data, CropSplits):
            return super().evaluate(model, experiment, data, teachers)
        distributed.print_note(
            "cosine and relative error need the criteria of the run: its result.json has them"
        )
        settings = experiment.extra["evaluation"]
        found: dict[str, float] = LabelFree(model, teachers, {}, {}, data, settings)(model)
        return found

    def exported_node(self, network: Mapping[str, Any], student: Embedder) -> Mapping[str, Any]:
        """Return the node of the network, without the classifier if it was left out."""
        if not student.left_out:
            return network
        node = dict(network)
        made = locate(node["type"]) if isinstance(node["type"], str) else node["type"]
        if "num_classes" not in node and parameters_of(made).takes_offer("num_classes"):
            node["num_classes"] = 1
        return {"type": HEADLESS, "network": node, "paths": list(student.left_out)}

    def metadata(
        self, network: Mapping[str, Any], data: TrainingSet, student: Embedder
    ) -> dict[str, str]:
        """Return the metadata that `load_student` needs."""
        return facts_of(network, data.num_classes, student, data.image_size)

    def data_stand_in(self, data: Node) -> Node:
        """Replace a known data set by random images."""
        return parse(_data(data.plain()), data.where, provided=("data_seed",))

    def model_stand_in(self, model: Node) -> Node:
        """Omit pretrained weights, and those of a backbone."""
        return model.changed(weights=model.get("weights") or RANDOM, backbone_weights=None)

    def score_teacher(
        self, teacher: nn.Module, sample: Batch, data: TrainingSet, test: Evaluate
    ) -> dict[str, float] | None:
        """Measure a teacher, whatever people it was trained on, where people are searched for."""
        if isinstance(test, LabelFree):
            return test.labelled(teacher) or None
        return test(teacher)

    def load_checkpoint(self, model: nn.Module, path: Path, data: TrainingSet) -> None:
        """Load any checkpoint of a run, whatever its people; the neck may be a file beside it."""
        network = network_of(model)
        fit_heads(network, path, data.num_classes)
        load_checkpoint(network, path)


def _source(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node of the model that an adaptation starts from."""
    return {key: value for key, value in node.items() if key != "adaptation"}


def _data(node: dict[str, Any]) -> dict[str, Any]:
    if node["type"] == _UNLABELLED:
        hidden = _data({**node, **(node.get("arguments") or {}), "type": node["of"]})
        if hidden["type"] == "kd_reid.data.synthetic":
            return {**node, "of": hidden["type"], "arguments": {"num_ids": hidden["num_ids"]}}
    if str(node["type"]) not in _NAMED:
        return node
    kept = ("batch_size", "instances", "image_size", "augment", "mean", "std", "drop_last")
    given = {key: node[key] for key in kept if key in node}
    people = -(-given.get("batch_size", 64) // (given.get("instances") or 4))
    # As many identities as a batch needs, and enough for negatives of a metric loss.
    return {"type": "kd_reid.data.synthetic", "num_ids": max(people, 8), **given}


ADAPTER = ReidAdapter()
