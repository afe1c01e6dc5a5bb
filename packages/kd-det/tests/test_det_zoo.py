"""Names of Detectron2's model zoo stand for its config files."""

import pytest
import yaml

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from kd_core.errors import UserError
from kd_det.config import read_config, teacher_config
from kd_det.settings.zoo import VARIABLE, find_config
from kd_det.train import main

NAME = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Make a zoo of two configs with a base, as that of Detectron2; return its folder."""
    folder = tmp_path / "zoo"
    (folder / NAME).parent.mkdir(parents=True)
    (folder / "Base.yaml").write_text("MODEL: {RESNETS: {DEPTH: 101}}\n")
    (folder / NAME).write_text("_BASE_: ../Base.yaml\nMODEL: {WEIGHTS: 'detectron2://R.pkl'}\n")
    (folder / NAME.replace("3x", "1x")).write_text("_BASE_: ../Base.yaml\n")
    monkeypatch.setenv(VARIABLE, str(folder))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


def test_a_name_is_the_student_s_and_the_teacher_s_config(zoo, tmp_path):
    cfg = read_config(NAME)
    assert cfg.MODEL.RESNETS.DEPTH == 101
    assert cfg.MODEL.WEIGHTS == "detectron2://R.pkl"
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"KD": {"TEACHER": {"CONFIG": NAME, "WEIGHTS": "detectron2://COCO/x.pkl"}}})
    )
    cfg = read_config(tmp_path / "mine.yaml")
    assert teacher_config(cfg).MODEL.RESNETS.DEPTH == 101
    assert cfg.KD.TEACHER.WEIGHTS == "detectron2://COCO/x.pkl"


def test_a_file_of_that_name_beside_the_config_or_here_comes_first(zoo, tmp_path):
    mine = tmp_path / "here" / NAME
    mine.parent.mkdir()
    mine.write_text("MODEL: {RESNETS: {DEPTH: 34}}\n")
    assert read_config(NAME).MODEL.RESNETS.DEPTH == 34


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("COCO-Detection/faster_rcnn_R_50_FPN_2x.yaml", "did you mean .*FPN_3x.yaml'"),
        ("COCO-Detecton/faster_rcnn_R_50_FPN_3x.yaml", f"did you mean '{NAME}'"),
        ("faster_rcnn_R_50_FPN_3x.yaml", f"did you mean '{NAME}'"),
    ],
)
def test_a_misspelt_name_is_one_line_with_the_nearest(zoo, name, told, capsys):
    assert main(["--config-file", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no config file {name}" in line
    with pytest.raises(UserError, match=told):
        find_config(name)


def test_a_detectron2_without_its_zoo_is_told_of(zoo, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("kd_det.settings.zoo.zoo_folder", lambda: None)
    with pytest.raises(UserError, match=f"without the configs of its model zoo: set {VARIABLE}"):
        find_config(NAME)
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, str(zoo / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere', which is not a folder"):
        find_config(NAME)


EXPRESSION = '!!python/object/apply:eval ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [%s]]"]'


def test_the_anchors_of_retinanets_base_are_read_and_nothing_is_evaluated(zoo, capsys):
    text = "MODEL: {ANCHOR_GENERATOR: {SIZES: %s}}\n"
    base = zoo / "Base-RetinaNet.yaml"
    base.write_text(text % EXPRESSION % "32, 64 ")
    (zoo / NAME).write_text("_BASE_: ../Base-RetinaNet.yaml\n")
    sizes = read_config(NAME).MODEL.ANCHOR_GENERATOR.SIZES
    assert sizes == eval("[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64 ]]")
    for other in ("print(1)", "32] + [print(1)", "x for x in ()"):
        base.write_text(text % EXPRESSION % other)
        with pytest.raises(UserError, match="not plain YAML"):
            read_config(NAME)
    assert capsys.readouterr().out == ""


def test_a_folder_is_told_before_the_zoo_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kd_det.settings.zoo.zoo_folder", lambda: pytest.fail("Detectron2 is asked")
    )
    with pytest.raises(UserError, match="is a folder, not a config file"):
        find_config(str(tmp_path))
