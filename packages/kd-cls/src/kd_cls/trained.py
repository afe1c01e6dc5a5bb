"""What is known of a network's training: what its weights say and the config does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kd_core.errors import UserError, located
from kd_core.experiment.models import is_pretrained, is_trained_here, weights_file
from kd_core.experiment.spec import RANDOM
from kd_core.files.weight_facts import WeightFacts, class_names, facts_of
from kd_core.runtime import distributed

from kd_cls.class_names import doubt, match_classes
from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.libraries.pretrained import other_statistics


@dataclass(frozen=True)
class Trained:
    """What the weights of a node say, as far as the node does not.

    Args:
        where: Place of the node in the config.
        weights: A file, "random", or None.
        facts: What the weights say, without what the node says.
        classes: Names of the logits, if the node has them.
        new_head: Whether the logits are not those of the weights.
        class_map: What the data's classes are called in the weights, where their names differ.
        own_statistics: Whether the node says mean or std.
    """

    where: str
    weights: str | None
    facts: WeightFacts
    classes: Sequence[str] | None = None
    new_head: bool = False
    class_map: Mapping[str, str] | None = None
    own_statistics: bool = False

    @classmethod
    def of(
        cls, where: str, weights: str | None, own: Mapping[str, Any], *, new_head: bool
    ) -> "Trained":
        """Read what the weights of a node say.

        Args:
            where: Place of the node in the config.
            weights: A file, "random", or None.
            own: What the node says itself: its `network`, `classes`, `class_map`, `mean`, `std` and
                `size`.
            new_head: Whether the logits are not those of the weights.

        Raises:
            UserError: If the file says what cannot be, or the node names classes of no weights.
        """
        with located(where):
            classes = class_names(own.get("classes"))
        class_map = own.get("class_map")
        if (classes or class_map) and (new_head or not (weights or is_pretrained(own["network"]))):
            raise UserError(
                f"{where}: classes are those of trained logits, but this node has "
                f"{'a new head' if new_head else 'no weights'}; leave classes out"
            )
        said = {
            "classes": new_head or classes,
            "image_size": own.get("size") or is_trained_here(where),
        }
        said |= dict.fromkeys(("mean", "std"), own.get("mean") or own.get("std"))
        with located(where):
            file, known = weights_file(weights), [name for name, value in said.items() if value]
            facts = facts_of(file, known=known) if file else WeightFacts()
        kept = None if weights == RANDOM else classes
        of_node = bool(own.get("mean") or own.get("std"))
        return cls(where, weights, facts, kept, new_head, class_map, of_node)

    @property
    def names(self) -> Sequence[str] | None:
        """The names of the logits' classes, if they are known."""
        return self.classes or self.facts.classes

    def with_pretrained(self, found: WeightFacts | None, *, said: bool = False) -> "Trained":
        """Return the same with what a library says of its own weights, where no file says it.

        Args:
            found: What it says, if anything.
            said: Whether the node itself says mean and std; then only classes are taken.
        """
        if found is None:
            return self
        facts = self.facts
        if facts.mean is None and not said:
            source = facts.source or found.source
            facts = replace(facts, mean=found.mean, std=found.std, source=source)
        if self.weights is None:
            size = None if said or is_trained_here(self.where) else found.size
            classes = None if self.new_head else found.classes
            source = facts.source or (found.source if classes else "")
            facts = replace(facts, size=size, classes=classes, source=source)
        return replace(self, facts=facts)

    def fit(self, classifier: Classifier, data: DataSplits) -> None:
        """Bring a trained classifier into the order of the data's classes; print what was taken."""
        if self.weights == RANDOM:
            return
        done = ""
        if self.names:
            with located(self.where):
                done = match_classes(classifier, self.names, data, self.class_map)
        elif self.class_map:
            raise UserError(
                f"{self.where}: class_map wants the names of the weights' logits, which nothing "
                "says; set classes to them, in their order"
            )
        elif weights_file(self.weights) and not self.new_head and (why := doubt(data.classes)):
            distributed.print_note(f"{self.where}: {self.weights} {why}")
        if weights_file(self.weights) and not (self.own_statistics or self.facts.mean):
            shown = (classifier.mean.flatten().tolist(), classifier.std.flatten().tolist())
            if usual := other_statistics(classifier.network, *shown):
                distributed.print_note(f"{self.where}: {self.weights} {usual}")
        if self.facts.source or done:
            distributed.print_note(f"{self.where}: {self._taken()}{done}")

    def _taken(self) -> str:
        facts = self.facts
        size = [facts.size] if isinstance(facts.size, int) else facts.size or []
        taken = [
            *["mean", "std"] * bool(facts.mean),
            *[f"size {' x '.join(map(str, size))}"] * bool(size),
            *[f"{len(facts.classes or ())} classes"] * bool(facts.classes and not self.classes),
        ]
        named = f"{len(self.classes)} classes from the config" if self.classes else ""
        found = f"{', '.join(taken)} from {facts.source}" if taken else ""
        return " and ".join(filter(None, [found, named])) or f"nothing taken from {facts.source}"
