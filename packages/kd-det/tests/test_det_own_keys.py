"""Keys of a user's own, modules that add them, and keys of terms in a user's script."""

import contextvars
import copy
import pickle
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("detectron2")
import kd_det  # before Detectron2
from detectron2.config import CfgNode, get_cfg
from kd_core.errors import UserError
from kd_det.config import add_kd_config, read_config, teacher_config
from kd_det.runner import work
from kd_det.settings.imports import importing
from kd_det.terms import parse_terms
from kd_det.train import argument_parser, main

FITNET = "kd_core.criteria.fitnet.FitNet"
OWN = {"MODEL": {"SWINT": {"DEPTH": 24}}}


def add_swint(cfg):
    cfg.MODEL.SWINT = CfgNode()
    cfg.MODEL.SWINT.DEPTH = 12
    cfg.MODEL.SWINT.STAGES = CfgNode({"WIDTHS": [96, 192]})
    cfg.MODEL.RESNETS.MINE = 1.5


@pytest.fixture
def files(tmp_path):
    """Write a student, and a teacher that changes one key of the user's own; return them."""
    teacher = tmp_path / "teacher.yaml"
    teacher.write_text(yaml.safe_dump({"VERSION": 2, **OWN}))
    node = {"TEACHER": {"CONFIG": str(teacher), "WEIGHTS": "random"}}
    node["TERMS"] = {"fitnet": {"CRITERION": FITNET}}
    own = {"SWINT": {"DEPTH": 6, "STAGES": {"WIDTHS": [1]}}, "RESNETS": {"MINE": 9.5, "DEPTH": 18}}
    student = tmp_path / "student.yaml"
    student.write_text(yaml.safe_dump({"VERSION": 2, "MODEL": own, "KD": node}))
    return student, teacher


def add_first(cfg):
    add_kd_config(cfg)
    add_swint(cfg)


def add_last(cfg):
    add_swint(cfg)
    add_kd_config(cfg)


def expect_defaults_in_teacher(cfg):
    teacher = teacher_config(cfg)
    assert cfg.MODEL.SWINT.DEPTH == 6
    assert teacher.MODEL.SWINT.DEPTH == 24
    assert teacher.MODEL.SWINT.STAGES.WIDTHS == [96, 192]
    assert (teacher.MODEL.RESNETS.MINE, teacher.MODEL.RESNETS.DEPTH) == (1.5, 50)
    assert teacher.KD.TEACHER.CONFIG == ""


class TestTheTeachersConfig:
    @pytest.mark.parametrize("add", [add_first, add_last])
    def test_has_the_keys_of_the_script_with_the_values_before_merging(self, add, files):
        cfg = get_cfg()
        add(cfg)
        cfg.merge_from_file(str(files[0]))
        cfg.merge_from_list(["MODEL.RESNETS.MINE", 8.5])
        for one in (cfg, cfg.clone(), copy.copy(cfg), pickle.loads(pickle.dumps(cfg))):
            expect_defaults_in_teacher(one)

    def test_takes_no_value_that_the_script_sets_without_merging(self, files):
        cfg = get_cfg()
        add_last(cfg)
        cfg.MODEL.SWINT.DEPTH, cfg.MODEL.SWINT.STAGES.WIDTHS = 6, [1]
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.KD.TEACHER.CONFIG, cfg.KD.TEACHER.WEIGHTS = str(files[1]), "random"
        expect_defaults_in_teacher(cfg)

    def test_may_have_new_keys_where_the_scripts_may(self, files):
        cfg = get_cfg()
        cfg.MODEL.set_new_allowed(True)
        add_kd_config(cfg)
        cfg.merge_from_file(str(files[0]))
        assert teacher_config(cfg).MODEL.SWINT == {"DEPTH": 24}

    def test_is_refused_where_a_default_is_not_known(self, files):
        cfg = get_cfg()
        add_swint(cfg)
        cfg.merge_from_list(["MODEL.RESNETS.DEPTH", 18])
        add_kd_config(cfg)
        cfg.merge_from_file(str(files[0]))
        told = r"teacher.yaml: no key MODEL.SWINT.*call add_kd_config\(cfg\) right after get_cfg"
        with pytest.raises(UserError, match=told):
            teacher_config(cfg)
        files[1].write_text("VERSION: 2\n")  # as without the keys
        assert "SWINT" not in teacher_config(cfg).MODEL

    def test_names_itself_where_a_key_is_nobodys(self, files):
        files[1].write_text("MODEL: {WIEGHTS: x}\n")
        cfg = get_cfg()
        add_first(cfg)
        cfg.merge_from_file(str(files[0]))
        told = r"^KD.TEACHER.CONFIG: .*did you mean 'WEIGHTS'"
        with pytest.raises(UserError, match=told) as refusal:
            teacher_config(cfg)
        assert "add_kd_config" not in str(refusal.value)


class TestTermsInAScript:
    @pytest.fixture
    def cfg(self, files):
        cfg = get_cfg()
        add_last(cfg)
        cfg.merge_from_file(str(files[0]))
        return cfg

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("WEIGHT", 2),
            ("WEIGHT", "1e-3"),
            ("WARMUP_ITERS", 2.0),
            ("STUDENT", "backbone[p3]"),
            ("TEACHER", ("backbone[p3]",)),
            ("ARGS.student_channels", 3),
        ],
    )
    def test_each_key_can_be_changed(self, cfg, key, value):
        cfg.merge_from_list([f"KD.TERMS.fitnet.{key}", value])
        node = cfg.KD.TERMS.fitnet
        for part in key.split("."):
            node = node[part]
        assert node in (value, [value], list(value) if isinstance(value, tuple) else value, 1e-3)

    def test_a_second_file_changes_a_term(self, cfg, tmp_path):
        for number, args in enumerate(({"beta": 2}, {"beta": 2.5, "alpha": {"x": 1}})):
            term = {"WEIGHT": 3, "ARGS": args}
            (tmp_path / "more.yaml").write_text(yaml.safe_dump({"KD": {"TERMS": {"fitnet": term}}}))
            cfg.merge_from_file(str(tmp_path / "more.yaml"))
            assert cfg.KD.TERMS.fitnet.WEIGHT == 3
            assert args == cfg.KD.TERMS.fitnet.ARGS, number

    def test_a_term_that_is_set_as_an_attribute_is_whole_too(self, cfg):
        cfg.KD.TERMS.other = CfgNode({"CRITERION": FITNET})
        cfg.merge_from_list(["KD.TERMS.other.WEIGHT", 2])
        assert parse_terms(cfg)["other"].call["weight"] == 2

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("KD.TERMS.fitnet.WIEGHT", 2, "Non-existent key"),
            ("KD.TERMS.fitnet.WEIGHT", "much", "WEIGHT is 'much'; wanted a finite number"),
            ("KD.TERMS.fitnet.ARGS", 3, "Type mismatch"),
        ],
    )
    def test_a_wrong_one_is_refused(self, cfg, key, value, told):
        with pytest.raises((AssertionError, ValueError), match=told):
            cfg.merge_from_list([key, value])

    def test_a_misspelt_argument_is_named_by_the_criterion(self, cfg):
        cfg.merge_from_list(["KD.TERMS.fitnet.ARGS.wieght", 2])
        with pytest.raises(UserError, match=r"KD.TERMS.fitnet.ARGS.*wieght"):
            parse_terms(cfg)


MODULE = """
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from kd_core.criteria.fitnet import FitNet
import os

def add_config(cfg):
    cfg.MODEL.MINE = CfgNode({"WIDTH": 16})

def add_other(cfg):
    add_config(cfg)
    cfg.MODEL.OTHER = 1

@BACKBONE_REGISTRY.register(suffix="BACKBONE")
def NAME(cfg, shape):
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", cfg.MODEL.MINE.WIDTH])
    return build_resnet_fpn_backbone(cfg, shape)

class Mine(FitNet): ...
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module with a new name; return the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def module(text=MODULE, name=f"own_{tmp_path.name}"):
        text = text.replace('@BACKBONE_REGISTRY.register(suffix="BACKBONE")', "@register")
        text = text.replace("@register", "@BACKBONE_REGISTRY.register()").replace("NAME", name)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield module
    for name in [name for name in sys.modules if name.startswith(f"own_{tmp_path.name}")]:
        del sys.modules[name]


class TestAModuleOfAUser:
    def test_adds_a_backbone_keys_and_a_criterion(self, module, write, tmp_path, capsys):
        name = module()
        path = write("faster_rcnn", {"own": {"CRITERION": f"{name}.Mine"}})
        for file, width in ((path, 8), (tmp_path / "teacher.yaml", 24)):
            config = yaml.safe_load(file.read_text())
            config["MODEL"] |= {"MINE": {"WIDTH": width}}
            config["MODEL"]["BACKBONE"]["NAME"] = name
            file.write_text(yaml.safe_dump(config))
        given = ["--config-file", str(path), "--dry-run"]
        assert main([*given, "--import", name]) == 0
        assert "one training step done" in capsys.readouterr().out
        assert main(given) == 2  # it holds for one command
        assert "no key MODEL.MINE" in capsys.readouterr().err
        with importing([f"{name}:add_other"]):
            assert read_config(path, ["MODEL.OTHER", "2"]).MODEL.OTHER == 2

    def test_may_be_named_in_a_yaml_file_with_its_own_criteria_only(self, module, write, capsys):
        name = module()
        path = write("retinanet", {"own": {"CRITERION": f"{name}.os.system"}})
        assert main(["--config-file", str(path), "--dry-run", "--import", name]) == 2
        assert f"{name}.os.system is not known here" in capsys.readouterr().err

    def test_is_imported_in_a_process_of_its_own_too(self, module, write, monkeypatch):
        seen = []

        def look(cfg, args):
            seen.append((teacher_config(cfg).MODEL.MINE.WIDTH, parse_terms(cfg)["own"].call))

        monkeypatch.setattr("kd_det.runner._train_or_evaluate", look)
        name = module()
        path = write("retinanet", {"own": {"CRITERION": f"{name}.Mine"}})
        args = argument_parser().parse_args(["--import", name, "--config-file", str(path)])
        with importing([name]):
            sent = pickle.dumps((read_config(path), args))
        contextvars.Context().run(work, *pickle.loads(sent))  # which knows of nothing
        assert seen[0][0] == 16

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("import nowhere_at_all", "it needs nowhere_at_all, which is not installed"),
            ("x = 1\ny = z", ".py:2: NameError: name 'z' is not defined"),
            ("x = 1\ndef f(:", ".py:2: SyntaxError: invalid syntax"),
            ("raise SystemExit(0)", ".py:1: SystemExit: 0"),
            ("add_config = 3", "has no function 'add_config'"),
            ("def add_config(): ...", "TypeError: add_config() takes 0 positional arguments"),
            ("def add_config(cfg):\n    cfg.MODEL.X.Y = 1", ".py:2: AttributeError: X"),
            ("import yaml\nyaml.safe_load('[')", ".py:2: ParserError: while parsing a flow node"),
        ],
    )
    def test_is_told_of_in_one_line_with_the_place(self, module, write, capsys, text, told):
        name = module(text)
        file = str(write("retinanet"))
        assert main(["--config-file", file, "--dry-run", "--import", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --import {name}: ")
        assert told in line

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("own_{}.py", "wanted the name of a module"),
            ("./own_{}", "wanted the name of a module"),
            ("own_{}x", "there is no module 'own_{}x' here or on PYTHONPATH; did you mean"),
            ("own_{}:add_othr", "has no function 'add_othr'; did you mean 'add_other'"),
        ],
    )
    def test_that_is_not_there_is_named(self, module, write, tmp_path, capsys, name, told):
        module()
        given = ["--config-file", str(write("retinanet")), "--dry-run"]
        assert main([*given, "--import", name.format(tmp_path.name)]) == 2
        assert told.format(*[tmp_path.name] * 2) in capsys.readouterr().err


PAGE = (Path(kd_det.__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readmes_module_and_command_work(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (source,) = re.findall(r"^```python\n(# my_module.py.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "my_module.py").write_text(source)
    write("retinanet", {"fitnet": {"CRITERION": FITNET}}).rename("my_kd.yaml")
    (command,) = re.findall(r"^uv run tools/det_train.py (--import .*)$", PAGE, re.M)
    assert main(shlex.split(command)) == 0
    assert "one training step done" in capsys.readouterr().out
