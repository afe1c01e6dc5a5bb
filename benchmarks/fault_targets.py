"""The files that break: in which situation they lie, and what reads them."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fault_place import Need, Place, copy, undisturbed
from fault_process import Command
from fault_runs import RUNS, Run


@dataclass(frozen=True)
class Situation:
    """What is in a folder when a file of it breaks.

    Args:
        run: Name of the run that left it.
        sign: The run is killed when a file matches; "" if it ended.
        gone: Folder that is taken away, so that only what it shares with other runs is left.
    """

    run: str
    sign: str = ""
    gone: str = ""

    @property
    def name(self) -> str:
        """Under which it is kept."""
        return f"{self.run}, until {self.sign}" if self.sign else self.run

    @property
    def training(self) -> Run:
        """The run."""
        return RUNS[self.run]

    @property
    def need(self) -> Need:
        """What is kept of it."""
        if not self.sign:
            return undisturbed(self.run, self.training.command)
        make = partial(Place.interrupt, name=self.name, training=self.training, sign=self.sign)
        return Need(0, self.name, make)

    def copy(self, place: Place, folder: Path) -> None:
        """Bring a folder into this situation."""
        copy(place.kept(self.name), folder)
        if self.gone:
            shutil.rmtree(folder / self.gone)


@dataclass(frozen=True)
class Target:
    """A file that breaks, and the command that reads it.

    Args:
        pattern: Of the file, or of several, one of which is taken.
        situation: In which it lies.
        command: Reads it; None resumes the run.
    """

    pattern: str
    situation: Situation
    command: Command | None = None

    @property
    def reads(self) -> Command:
        """The command that reads it."""
        return self.command or self.situation.training.resumed

    @property
    def name(self) -> str:
        """Under which the command's undisturbed end is kept."""
        return f"{self.situation.name} {self.situation.gone} {self.reads}"


_DETECTOR = "RetinaNet, CrossKD"
_KD, _PART, _VAL = "KD", "EMA, accumulation, a checkpoint a step", "validation split, TensorBoard"
_TEACHER = Situation("teacher by recipe", gone="run")
_FINISHED, _CACHE = Situation(_KD), Situation("teacher cache", gone="run")
_IMAGES = Situation("image files, decoded, a worker", gone="run")
_PICTURE = "configs/images/test/class0/0.png"


def _evaluate(file: str) -> Command:
    return Command("cls_train", ("configs/kd.py", "--eval-only", file))


def _detect(file: str) -> Command:
    command = RUNS[_DETECTOR].command
    return Command(command.tool, ("--eval-only", *command.arguments, "MODEL.WEIGHTS", file))


TARGETS = (
    Target("run/last.pth", Situation(_PART, "run/last.pth")),
    Target("run/result.json", _FINISHED),
    Target("teachers/*/student.safetensors", _TEACHER),
    Target("run/model_*.pth", Situation(_DETECTOR, "run/last_checkpoint")),
    Target("teachers/**/values.f16", _CACHE),
    Target("decoded/*/pixels", _IMAGES),
    Target("run/init-*/student.pth", Situation("phases", "run/init-*/result.json")),
    Target("run/student.safetensors", _FINISHED, Command("cls_predict", ("run", _PICTURE))),
    Target("run/best.pth", Situation(_VAL, "run/last.pth")),
    Target("run/config.json", _FINISHED),
    Target("teachers/*/criteria/*.pth", Situation("shared phase", gone="run")),
    Target("run/last_checkpoint", Situation(_DETECTOR, "run/last_checkpoint")),
    Target("run/student.pth", _FINISHED, _evaluate("run/student.pth")),
    Target("teachers/*/last.pth", Situation("teacher by recipe", "teachers/*/last.pth")),
    Target("run/seed-0/result.json", Situation("seeds")),
    Target("teachers/**/sums.u32", _CACHE),
    Target("run/*/*/result.json", Situation("comparison")),
    Target("run/best.pth", Situation(_VAL), _evaluate("run/best.pth")),
    Target("teachers/*/result.json", _TEACHER),
    Target("run/last.pth", Situation("re-ID, BNNeck and triplets", "run/last.pth")),
    Target("teachers/*/config.json", _TEACHER),
    Target("run/model_final.pth", Situation(_DETECTOR), _detect("run/model_final.pth")),
    Target("decoded/*/sizes.*", _IMAGES),
    Target("teachers/**/shape.json", _CACHE),
    Target("run/seed-1/last.pth", Situation("seeds sharing a teacher", "run/seed-1/last.pth")),
)
