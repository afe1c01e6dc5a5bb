"""The runs that the campaign disturbs: tiny ones of every task, each known by a name."""

from dataclasses import dataclass
from pathlib import Path

from fault_detection import DETECTORS, arguments
from fault_process import Command

METHODS = Path(__file__).parents[1] / "configs/cls/methods"

ALONE = """
data = dict(type="kd_cls.data.synthetic", num_train=48, num_test=12, num_classes=3, image_size=8,
            batch_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=6, loggers=[], allow_weak_teacher=True)
"""
PAIR = """
_base_ = "alone.py"
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="resnet8"), weights="configs/teacher.pth"
)
"""
KD = """
_base_ = "pair.py"
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
"""
RECIPE = """
_base_ = "kd.py"
teacher = dict(_delete_=True, config="configs/alone.py")
"""
FOLDERS = """
_base_ = "kd.py"
data = dict(_delete_=True, type="kd_cls.data.image_folder", root="configs/images", image_size=16,
            batch_size=8, resident=False, decoded="decoded", workers=1)
"""
ROWS = """
rows = {
    "alone": [],
    "KD": ["configs/kd.py"],
    "weak": dict(files=["configs/kd.py"], options=["distiller.terms.kd.weight=0.1"]),
}
"""
PEOPLE = """
data = dict(type="kd_reid.data.market1501", root="configs/people", image_size=(32, 16),
            batch_size=8)
student = dict(network=dict(type="kd_reid.models.build_model", name="osnet_x0_25"))
optimizer = dict(type="torch.optim.Adam", lr=0.001)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[])
"""
TRICKS = """
_base_ = "people.py"
data = dict(instances=4, augment=[dict(type="kd_reid.data.augment.RandomErasing")])
student = dict(
    bnneck=True,
    label_smoothing=0.1,
    metric_losses=dict(triplet=dict(type="kd_reid.losses.BatchHardTriplet")),
)
"""
PEOPLE_KD = """
_base_ = "people.py"
teacher = dict(config="configs/tricks.py")
distiller = dict(
    terms=dict(
        rkd=dict(
            criterion=dict(type="kd_core.criteria.rkd.RKD"),
            student="@embedding",
            teacher="@embedding",
        ),
    ),
)
"""
CONFIGS = {
    "alone": ALONE,
    "pair": PAIR,
    "kd": KD,
    "recipe": RECIPE,
    "folders": FOLDERS,
    "rows": ROWS,
    "people": PEOPLE,
    "tricks": TRICKS,
    "people_kd": PEOPLE_KD,
}


@dataclass(frozen=True)
class Run:
    """A run in the folder `run` of its working folder.

    Args:
        command: Starts it.
        again: Arguments that are added to resume it.
    """

    command: Command
    again: tuple[str, ...] = ("--resume",)

    @property
    def resumed(self) -> Command:
        """The command that resumes the run."""
        return Command(self.command.tool, (*self.again, *self.command.arguments))


def _train(
    tool: str, *files: str, options: str = "", seeds: str = "", share_teacher: bool = False
) -> Run:
    arguments = [*files, "--work-dir", "run"]
    arguments += ["--seeds", *seeds.split()] if seeds else []
    arguments += ["--share-teacher"] if share_teacher else []
    arguments += ["--cfg-options", *options.split()] if options else []
    return Run(Command(tool, tuple(arguments)))


def _cls(*names: str, **more: str | bool) -> Run:
    files = [name if name.endswith(".py") else f"configs/{name}.py" for name in names]
    return _train("cls_train", *files, **more)  # type: ignore[arg-type]


_TABLE = ("configs/alone.py", "--rows", "configs/rows.py", "--seeds", "0", "1")
_EARLY = "trainer.epochs=4 phases.{}.trainer.epochs=4"
_OFTEN = "trainer.ema=0.9 trainer.accumulate=2 trainer.save_minutes=0 trainer.clip_norm=1"
CLASSIFICATION = {
    "KD": _cls("kd"),
    "EMA, accumulation, a checkpoint a step": _cls("kd", options=_OFTEN),
    "seeds": _cls("kd", seeds="0 1", options="trainer.epochs=4"),
    "seeds sharing a teacher": _cls(
        "kd", seeds="0 1", share_teacher=True, options="data_seed=0 trainer.epochs=4"
    ),
    "teacher by recipe": _cls("recipe"),
    "phases": _cls("pair", str(METHODS / "fsp.py"), options=_EARLY.format("init")),
    "shared phase": _cls("pair", str(METHODS / "ft.py"), options=_EARLY.format("paraphrase")),
    "comparison": Run(Command("cls_compare", (*_TABLE, "--work-dir", "run")), again=()),
    "teacher cache": _cls("kd", options="trainer.teacher_cache=True"),
    "image files, decoded, a worker": _cls("folders"),
    "validation split, TensorBoard": _cls(
        "kd", options="data.val_fraction=0.25 trainer.loggers=None"
    ),
}
REID = {
    "re-ID": _train("reid_train", "configs/people.py"),
    "re-ID, BNNeck and triplets": _train(
        "reid_train", "configs/tricks.py", options="trainer.save_minutes=0"
    ),
    "re-ID, teacher by recipe": _train("reid_train", "configs/people_kd.py"),
}


DETECTION = {
    name: Run(Command("det_train", arguments(config, **options)))
    for name, (config, options) in DETECTORS.items()
}
RUNS = CLASSIFICATION | REID | DETECTION


def _twin(tool: str, *arguments: str, folder: bool = False) -> Command:
    return Command(tool, (*arguments, *(("--work-dir", "run") if folder else ())))


_LONG = ("--cfg-options", "trainer.epochs=20")
"""So that the second starts while the first is at work."""
_STAGE_LONG = (str(METHODS / "ft.py"), *_LONG, "phases.paraphrase.trainer.epochs=20")
TWINS = {
    "KD, no folder named": _twin("cls_train", "configs/kd.py", *_LONG),
    "KD, one folder": _twin("cls_train", "configs/kd.py", *_LONG, folder=True),
    "KD, one folder, --resume": _twin(
        "cls_train", "--resume", "configs/kd.py", *_LONG, folder=True
    ),
    "teacher by recipe": _twin("cls_train", "configs/recipe.py"),
    "shared phase": _twin("cls_train", "configs/pair.py", *_STAGE_LONG),
    "comparison": _twin("cls_compare", *_TABLE, folder=True),
    "seeds": _twin("cls_train", "configs/kd.py", "--seeds", "0", "1", *_LONG),
    "teacher cache": _twin("cls_train", "configs/kd.py", *_LONG, "trainer.teacher_cache=True"),
    "re-ID": _twin("reid_train", "configs/people.py", "--resume", folder=True),
    "RetinaNet": DETECTION["RetinaNet"].command,
}
"""Commands that are started twice."""
