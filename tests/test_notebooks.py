"""The notebooks run from top to bottom, with a few epochs, and hold no outputs."""

import json
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs/notebooks"
FEW = "'data.limit_per_class=2', 'schedule.warmup_epochs=0', 'trainer.allow_weak_teacher=True'"
FASTER = {  # what is replaced, so that a notebook takes seconds
    "distil_a_classifier": {"EPOCHS = 20, 60": "EPOCHS = 3, 2"},
    "look_into_a_student": {'["trainer.epochs=10",': f'["trainer.epochs=1", {FEW},'},
}


def cells(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module", params=sorted(FASTER))
def executed(request, tmp_path_factory):
    """The names that a notebook leaves behind, and its folder."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    code = "\n\n".join("".join(cell["source"]) for cell in cells(request.param))
    for slow, quick in FASTER[request.param].items():
        assert slow in code
        code = code.replace(slow, quick)
    folder, names = tmp_path_factory.mktemp(request.param), {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        exec(compile(code, request.param, "exec"), names)
    return request.param, names, folder


def test_all_notebooks_are_run():
    assert {path.stem for path in NOTEBOOKS.iterdir()} == set(FASTER)


def test_a_notebook_does_what_it_says(executed):
    name, names, folder = executed
    if name == "distil_a_classifier":
        assert (folder / "student.pth").is_file()
        assert names["top1"](names["teacher"]) > 50
        assert names["distiller"].teachers
    else:
        assert names["student_features"]["layer3"].shape == (797, 64, 8, 8)
        assert {0 <= value <= 1.001 for row in names["cka"] for value in row} == {True}
        assert 0 <= names["same"] <= 100


@pytest.mark.parametrize("name", sorted(FASTER))
def test_no_outputs_are_committed(name):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(name))
