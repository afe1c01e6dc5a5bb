"""docs/export.md: its commands run, one after the other, on few generated images."""

import json
import re
import shlex
from pathlib import Path

import pytest
from kd_cls import analyse, compare, export
from kd_core.networks.latency import Plan, measure
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line.removeprefix("uv run ")) for text in BLOCKS for line in text.splitlines()
]
TOOLS = {"compare": compare.main, "export": export.main, "analyse": analyse.main}
FEW = ["--cfg-options", "trainer.epochs=1", "schedule.warmup_epochs=0", "data.limit_per_class=2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work beside the configs, and measure a few calls."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "packages"):
        Path(name).symlink_to(ROOT / name)

    def measure_few(timed, plan):
        return measure(timed, Plan(plan.batch_sizes, repeats=2, threads=plan.threads))

    for place in ("kd_core.experiment.tables.students", "kd_core.experiment.tables.latencies"):
        monkeypatch.setattr(f"{place}.measure", measure_few)


def test_a_comparison_is_exported_and_looked_at(folder, capsys):
    pytest.importorskip("onnxruntime")
    for tool, *given in COMMANDS:
        name = re.fullmatch(r"tools/cls_(\w+)\.py", tool)[1]
        place = given.index("--seeds") if "--seeds" in given else None
        if place is not None:
            given[place + 1 : place + 4] = ["0"]
            given.remove("0.1")  # one row will do
            given += FEW
        status = TOOLS[name](given)
        assert status == 0, capsys.readouterr().err
        if name == "compare":
            check_comparison(Path("runs/rates"))
            run = next(Path("runs/rates").glob("optimizer_lr_0_05-*"))
            run.rename("runs/NAME")
    sizes = json.loads(Path("runs/NAME/export.json").read_text())["latency"]["ms"]["PyTorch"]
    assert list(sizes) == ["1", "8"]
    assert min(Image.open("runs/NAME/analysis/reliability.png").size) > 200


def check_comparison(folder):
    """Compare the files of a comparison with those that the page names."""
    named = set(re.findall(r"^\| `(\w+\.\w+)` \|", PAGE, re.MULTILINE))
    assert {path.name for path in folder.iterdir() if path.is_file()} - {".claim"} == named
    assert "ONNX Runtime, batch 32: p50 / p95, ms" in (folder / "table.md").read_text()


def test_every_tool_of_the_page_is_run():
    assert [command[0] for command in COMMANDS] == [
        "tools/cls_compare.py",
        "tools/cls_export.py",
        "tools/cls_export.py",
        "tools/cls_analyse.py",
    ]
