"""The examples of other trainers train, evaluate, save and export a student, never its teacher."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from kd_cls.models import build_model
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
LOOPS = {
    "lightning_loop": "lightning",
    "accelerate_loop": "accelerate",
    "hf_trainer": "transformers",
}
STEPS = 4  # two epochs of two


def run(name):
    """Run an example in the working folder; return its names."""
    pytest.importorskip(LOOPS[name])
    torch.manual_seed(0)
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


def saved(name):
    """Return what the last checkpoint of an example holds of the model."""
    if name == "lightning_loop":
        (file,) = Path().rglob("*.ckpt")
        state = torch.load(file, weights_only=True)["state_dict"]
        return {key.removeprefix("distiller."): value for key, value in state.items()}
    last = {"accelerate_loop": "epoch_1", "hf_trainer": f"checkpoints/checkpoint-{STEPS}"}[name]
    return load_file(Path(last, "model.safetensors"))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_trains_the_student_alone(name, capfd):
    made = run(name)
    distiller, teacher = made["distiller"], made["teacher"]
    distiller = getattr(distiller, "module", distiller)
    assert distiller.steps == STEPS
    # Neither trained nor saved, and its BatchNorms saw nothing.
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    counts = [v for key, v in teacher.state_dict().items() if key.endswith("batches_tracked")]
    assert counts
    assert not any(counts)
    kept = saved(name)
    assert kept.keys() == distiller.state_dict().keys()
    assert kept["steps"] == STEPS  # so that a resumed warm-up continues
    torch.manual_seed(0)
    before, after = build_model("resnet8", num_classes=10).state_dict(), torch.load("student.pth")
    assert before.keys() == after.keys()
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    key = next(key for key in kept if key.endswith("network.fc.weight"))
    assert torch.equal(kept[key], after["fc.weight"])
    logged = name == "lightning_loop" and made["trainer"].callback_metrics
    assert "top1" in (logged or "".join(capfd.readouterr()))


def test_the_page_on_loops_has_a_command_for_each_and_no_other():
    page = (ROOT / "docs/own_loop.md").read_text(encoding="utf-8")
    assert re.findall(r"^uv run examples/(\w+)\.py$", page, re.MULTILINE) == [
        "own_loop",  # in tests/test_examples.py
        *LOOPS,
    ]


def test_the_page_shows_the_core_of_the_plain_loop_as_it_is():
    page = (ROOT / "docs/own_loop.md").read_text(encoding="utf-8")
    source = (ROOT / "examples/own_loop.py").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown in source
