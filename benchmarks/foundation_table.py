"""The tables of docs/foundation.md, from the cells of `benchmarks/foundation.py`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pages import spread

Cell = Mapping[str, Any]
Column = tuple[str, Callable[[Cell], float | None]]

SPEED = "images/s, fastest run"
"""Other jobs on the machine make a run slower, never faster; a mean would measure those."""

NAMES = {
    "unic both": "UNIC, both teachers",
    "unic lite0": "UNIC, EfficientNet-Lite0",
    "unic lite2": "UNIC, EfficientNet-Lite2",
    "mse lite0": "squared errors of maps, EfficientNet-Lite0",
    "labels": "labels of all training images",
    "lightly lite0": "lightly-train, EfficientNet-Lite0",
    "untrained": "untrained",
    "lite0": "EfficientNet-Lite0 itself",
    "lite2": "EfficientNet-Lite2 itself",
}


def table(results: Mapping[str, Any]) -> str:
    """Return all tables in Markdown."""
    plan, machine = results["plan"], results["machine"]
    cells: dict[str, list[Cell]] = {"cifar": [], "elpv": []}
    for cell in results["cells"]:
        cells[cell["images"]].append(cell)
    shots = [number for number in plan["shots"] if number]
    trained = 10 * plan["train"] * 49 // 50
    parts = [
        f"CIFAR-10, {trained:,} training images of {plan['size']} pixels, {plan['epochs']} epochs, "
        f"teachers at {plan['teacher_size']} pixels, {10 * plan['test']:,} test images; top-1 % of "
        "probes of the features, relative errors of the teachers' features:",
        rows(
            cells["cifar"],
            [
                ("k-NN", lambda c: c.get("knn")),
                ("linear", lambda c: c.get("linear")),
                ("own classifier", lambda c: c.get("top1")),
                ("error to Lite0", lambda c: c.get("lite0", {}).get("relative_error")),
                ("error to Lite2", lambda c: c.get("lite2", {}).get("relative_error")),
                (SPEED, lambda c: c.get("images_per_second")),
            ],
        ),
        f"ELPV, {plan['elpv_epochs']} epochs of {plan['elpv_size']} pixels, "
        f"{2 * plan['elpv_test']} test images, half of them defect; accuracy %:",
        rows(
            cells["elpv"],
            [
                ("k-NN, all labels", lambda c: c.get("knn")),
                ("linear, all labels", lambda c: c.get("linear")),
                *(
                    (f"linear, {number} a class", lambda c, n=number: c.get(f"linear_{n}"))
                    for number in shots
                ),
                ("own classifier", lambda c: c.get("top1")),
            ],
        ),
        f"Mean ± sd over seeds; {machine['device']}, two runs side by side of one thread each, "
        f"commit {machine['commit']}.",
    ]
    return "\n\n".join(parts)


def rows(cells: Sequence[Cell], columns: Sequence[Column]) -> str:
    """Return one table: a row for each arm."""
    lines = [
        "| student | seeds | " + " | ".join(name for name, _ in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for arm in dict.fromkeys(cell["arm"] for cell in cells):
        group = [cell for cell in cells if cell["arm"] == arm]
        values = [
            (fastest if name == SPEED else spread)([value(cell) for cell in group])
            for name, value in columns
        ]
        lines.append(f"| {_name(arm)} | {len(group)} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def fastest(values: Sequence[float | None]) -> str:
    """Return the largest value."""
    known = [value for value in values if value is not None]
    return f"{max(known):.0f}" if known else ""


def _name(arm: str) -> str:
    kind, _, shots = arm.partition(" ")
    if kind == "labels" and shots:
        return "labels alone, all" if shots == "0" else f"labels alone, {shots} of each class"
    return NAMES[arm]
