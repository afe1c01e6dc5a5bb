"""What several test modules look at."""

import pytest
from kd_core.distill.teacher import Teacher
from kd_core.experiment.tables.products import Products


@pytest.fixture
def curves():
    """Let a comparison draw its curves, which takes a while and few tests need."""


@pytest.fixture(autouse=True)
def _without_curves(request, monkeypatch):
    if "curves" not in request.fixturenames:
        monkeypatch.setattr(Products, "draw", lambda self, rows: None)


@pytest.fixture
def passes(monkeypatch):
    """Note how many images go through a teacher in each pass."""
    noted, call = [], Teacher.__call__

    def note(self, batch):
        noted.append(len(batch["image"]))
        return call(self, batch)

    monkeypatch.setattr(Teacher, "__call__", note)
    return noted
