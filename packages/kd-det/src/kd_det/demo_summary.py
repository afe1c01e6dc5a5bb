"""What the demo shows at its end: a table of all seeds, the gain by its teacher, and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from kd_core.experiment.seeds import seed_folder, text
from kd_core.experiment.tables.plots import plot_curves
from rich.table import Table

from kd_det.pictures import Row, draw_predictions, predicted_boxes, true_boxes
from kd_det.running.metrics_file import read_records

METRICS = ("AP", "AP50", "AP75")
PICTURES = 5

Result = Mapping[str, Any]


def table(
    teacher: Result, summaries: Mapping[str, Result], results: Mapping[str, Sequence[Result]]
) -> Table:
    """Return a row for the teacher and for each student.

    Args:
        teacher: Its result.
        summaries: Of the students, by name; see `kd_core.experiment.seeds.summarise`.
        results: Of every seed, by student.
    """
    count = len(next(iter(results.values())))
    title = f"shapes, last iteration, {count} seed{'s' * (count > 1)}"
    shown = Table("", *METRICS, "AP50 by seed", "parameters", "seconds a run", title=title)
    rows = {"teacher": ([f"{teacher['last'][name]:.2f}" for name in METRICS], [teacher])}
    for name, summary in summaries.items():
        rows[name] = [text(summary["last"][metric]) for metric in METRICS], [*results[name]]
    for name, (scores, runs) in rows.items():
        seeds = "  ".join(f"{run['last']['AP50']:.1f}" for run in runs)
        seconds = mean(run["train_seconds"] for run in runs)
        size = runs[0]["student_parameters"]
        shown.add_row(name, *scores, seeds, f"{size:,}", f"{seconds:.1f}")
    return shown


def gain(alone: Sequence[Result], distilled: Sequence[Result]) -> str:
    """Return by how much the second is better, seed by seed.

    Args:
        alone: Results of the student without a teacher, one a seed.
        distilled: With it, of the same seeds in the same order.
    """
    pairs = zip(alone, distilled, strict=True)
    gains = [with_it["last"]["AP50"] - without["last"]["AP50"] for without, with_it in pairs]
    if len(gains) == 1:
        return (
            f"the teacher adds {gains[0]:+.1f} AP50; one seed says little: --seeds 0 1 2 gives "
            "mean and standard deviation"
        )
    better = sum(one > 0 for one in gains)
    return (
        f"the teacher adds {mean(gains):+.1f} ± {stdev(gains):.1f} AP50, in {better} of "
        f"{len(gains)} seeds; last iteration, on the validation images"
    )


def draw_curves(places: Mapping[str, Path], seeds: Sequence[int], length: int, path: Path) -> None:
    """Draw the AP50 of every student over the iterations.

    Args:
        places: Folder of the runs of all seeds, by student.
        seeds: Those of the runs.
        length: Iterations of a run.
        path: File of the picture.
    """
    runs = {
        name: [read_records(seed_folder(place, seed, seeds), length) for seed in seeds]
        for name, place in places.items()
    }
    plot_curves(runs, "bbox/AP50", path, ylabel="AP50", over="iteration")


def draw_examples(configs: Mapping[str, CfgNode], folders: Mapping[str, Path], path: Path) -> None:
    """Draw the first validation images with true boxes and each detector's."""
    predictors = {}
    for name, cfg in configs.items():
        cfg = cfg.clone()
        cfg.MODEL.WEIGHTS = str(folders[name] / "model_final.pth")
        predictors[name] = DefaultPredictor(cfg)
    rows = []
    for record in DatasetCatalog.get("shapes_val")[:PICTURES]:
        image = read_image(record["file_name"], format="BGR")
        columns = {"ground truth": true_boxes(record)}
        for name, predict in predictors.items():
            columns[name] = predicted_boxes(predict(image)["instances"])
        rows.append(Row(image[:, :, ::-1], columns))
    draw_predictions(rows, path, MetadataCatalog.get("shapes_val").thing_classes)
