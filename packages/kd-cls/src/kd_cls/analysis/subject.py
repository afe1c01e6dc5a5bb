"""The models and images of an analysis."""

from collections.abc import Mapping
from dataclasses import dataclass

from kd_core.data.split_loader import SplitLoader
from kd_core.errors import UserError

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits


@dataclass(frozen=True)
class Subject:
    """The models and images of an analysis.

    Attributes:
        data: Data set with the names of the classes.
        models: By label; all have the data's classes.
        teacher: Label and model of the teacher, if there is one.
    """

    data: DataSplits
    models: Mapping[str, Classifier]
    teacher: tuple[str, Classifier] | None = None

    @property
    def all_models(self) -> dict[str, Classifier]:
        """Return the teacher, if there is one, and the models."""
        return {**dict([self.teacher] if self.teacher else []), **self.models}

    @property
    def test(self) -> SplitLoader:
        """Return the loader of the test set."""
        return self.data.test

    def require_teacher(self) -> tuple[str, Classifier]:
        """Return label and model of the teacher.

        Raises:
            UserError: If there is none.
        """
        if self.teacher is None:
            raise UserError("students are compared with a teacher; name it with --teacher MODEL")
        return self.teacher
