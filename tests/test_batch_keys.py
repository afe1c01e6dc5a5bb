"""Every key of a batch that a package reads or writes is documented in `Batch`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from kd_core.networks.task import Batch

ROOT = Path(__file__).parents[1]
NAMES = {"batch", "sample", "joined"}
SOURCES = sorted((ROOT / "packages").glob("*/src/**/*.py"))


def keys_in(source: str) -> Iterator[str]:
    """Yield the texts by which variables that are batches are read, written or asked."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and of_batch(node.value):
            yield from text(node.slice)
        elif isinstance(node, ast.Compare) and any(map(of_batch, node.comparators)):
            yield from text(node.left)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in ("get", "pop") and of_batch(node.func.value):
                yield from text(node.args[0])
        elif isinstance(node, ast.Dict) and any(
            key is None and of_batch(value)
            for key, value in zip(node.keys, node.values, strict=True)
        ):
            yield from (each for key in node.keys if key is not None for each in text(key))


def of_batch(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in NAMES


def text(node: ast.AST) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_every_key_that_is_used_is_documented():
    used = {key for path in SOURCES for key in keys_in(path.read_text(encoding="utf-8"))}
    assert used - set(Batch.__annotations__) == set()
    assert {"image", "label", "num_views", "mixed_labels", "boxes", "contrast", "epoch"} <= used


@pytest.mark.parametrize(
    "source",
    [
        "batch['x']",
        "'x' in batch",
        "'x' not in batch",
        "batch.get('x', 1)",
        "batch.pop('x')",
        "batch['x'] = 1",
        "f({**batch, 'x': 1})",
    ],
)
def test_a_key_is_found_however_it_is_used(source):
    assert list(keys_in(source)) == ["x"]
    assert list(keys_in(source.replace("batch", "facts"))) == []
