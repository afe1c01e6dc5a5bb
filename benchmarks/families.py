"""One model of every family of timm, as student and as teacher of a resnet: one step each.

uv run benchmarks/families.py                        # all families; writes docs/timm_families.md
uv run benchmarks/families.py --families levit dla   # some of them, printed alone

Each is built small by its constructor's arguments and named `timm:NAME`, with random weights and
1000 classes, and gets a new head for 7 (`new_head`). The step has cross-entropy, KD and AT between
the maps that are pooled (`@map`); a network without such a map has PKT on the vectors that its
classifier gets (`@pooled`), or AT on the end of its last stage.
"""

import argparse
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from family_models import FAMILIES, Small
from kd_cls.adapter import ADAPTER
from kd_core.errors import UserError
from kd_core.experiment.builder import build_data, build_experiment
from kd_core.experiment.parsing import parse_experiment
from kd_core.experiment.teachers import build_teachers
from kd_core.training.optimizer import build_optimizer
from kd_core.training.step import TrainStep

TABLE = Path(__file__).parents[1] / "docs/timm_families.md"
HEADING = """# Families of timm

One model of every family (module) of timm as student and as teacher of the zoo's resnet8: one step
each, most at 64 pixels, in the way that `benchmarks/families.py` describes. A cell has the role
of the feature term, or the line that refuses it. The table is written by

```bash
uv run benchmarks/families.py
```

The models and the arguments that make them small are in `benchmarks/family_models.py`. `pytest
--slow tests/test_families.py` runs the whole, ten families run always.
"""
RESNET = {"type": "kd_cls.models.build_model", "name": "resnet8"}
TERMS = {
    "@map": {"type": "kd_core.criteria.AT"},
    "@pooled": {"type": "kd_core.criteria.PKT"},
    "@stages[-1]": {"type": "kd_core.criteria.AT"},
}


class Cell(NamedTuple):
    """What came of one step."""

    family: str
    model: str
    side: str
    role: str
    """The tap of the feature term; empty where the step was refused."""
    message: str
    seconds: float


def main() -> None:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    families = parser.parse_args().families
    warnings.simplefilter("ignore")  # of timm, on deprecated names
    cells = []
    for cell in matrix(families):
        row = f"{cell.family:28}{cell.side:9}{cell.role:11}{cell.seconds:6.1f} s"
        print(f"{row}  {cell.message}", flush=True)
        cells.append(cell)
    print(text := table(cells))
    if set(families) == set(FAMILIES):
        TABLE.write_text(text, encoding="utf-8")


def matrix(families: Iterable[str]) -> Iterator[Cell]:
    """Take a step with each family on each side."""
    for family in families:
        for side in ("student", "teacher"):
            yield cell(family, side)


def cell(family: str, side: str) -> Cell:
    """Take one step; a refusal is in the message."""
    small, start, message = FAMILIES[family], time.monotonic(), ""
    for role in TERMS:
        try:
            step(small, side, role)
        except UserError as error:
            message = str(error)
            if not message.startswith(("distiller.terms.map", "term 'map'")):
                break  # another role would not help
            continue
        return Cell(family, small.model, side, role, "", time.monotonic() - start)
    return Cell(family, small.model, side, "", message, time.monotonic() - start)


def step(small: Small, side: str, role: str) -> None:
    """Take an optimizer step.

    Raises:
        UserError: If the config is refused, or a loss is not finite.
    """
    experiment = parse_experiment(ADAPTER, config(small, side, role))
    cpu = torch.device("cpu")
    data = build_data(experiment.data, 0, cpu)
    teachers = build_teachers(ADAPTER, experiment.teachers, 0, data, Path(), lambda *_: None)
    distiller = build_experiment(ADAPTER, experiment, 0, cpu, data, teachers).distiller
    distiller.train()
    distiller.begin(1)
    optimizer = build_optimizer(experiment.optimizer, distiller)
    losses = TrainStep(distiller, optimizer)([data.train.sample(4)])
    if not all(torch.isfinite(loss) for loss in losses.values()):
        raise UserError(f"a loss is not finite: {losses}")


def config(small: Small, side: str, role: str) -> dict[str, Any]:
    """Return the experiment of one cell."""
    network = {"type": f"timm:{small.model}", **small.arguments}
    pair: dict[str, Any] = {
        "student": {"network": RESNET},
        "teacher": {"network": RESNET, "weights": "random"},
    }
    pair[side] = {**pair[side], "network": network, "new_head": True}
    term = {"criterion": TERMS[role], "student": role, "teacher": role}
    return {
        "data": {
            "type": "kd_cls.data.synthetic",
            **{"image_size": small.size, "num_classes": 7, "num_train": 8, "num_test": 4},
            "batch_size": 4,
        },
        **pair,
        "distiller": {"terms": {"kd": {"criterion": {"type": "kd_core.criteria.KD"}}, "map": term}},
        "optimizer": {"type": "torch.optim.SGD", "lr": 0.01},
        "schedule": {"type": "kd_core.training.schedule.constant"},
        "trainer": {"epochs": 1, "loggers": []},
    }


def table(cells: list[Cell]) -> str:
    """Return the matrix as a page of the docs."""
    worked = sum(not cell.message for cell in cells)
    rows = {cell.family: [FAMILIES[cell.family].model, "", ""] for cell in cells}
    for cell in cells:
        rows[cell.family][1 + (cell.side == "teacher")] = cell.message or f"`{cell.role}`"
    lines = [" | ".join([family, *row]) for family, row in rows.items()]
    return "\n".join(
        [
            HEADING,
            f"{worked} of {len(cells)} steps work, with timm {timm.__version__}.",
            "",
            "| family | model | as student | as teacher |",
            "|---|---|---|---|",
            *(f"| {line} |" for line in lines),
            "",
        ]
    )


if __name__ == "__main__":
    main()
