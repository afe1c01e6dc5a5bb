"""Short names of detection: teacher and student, methods, for a config file."""

import re
from pathlib import Path

import pytest
import yaml
from kd_core.config.folder import configs_folder
from kd_det.catalogue import CATALOGUE
from kd_det.settings.names import _ROOT_KEYS, named_config, split_names
from kd_det.settings.zoo import find_config
from kd_det.train import main

R_101, R_18 = "faster_rcnn_R_101_FPN", "faster_rcnn_R_18_FPN"


def det(name):
    return configs_folder() / "det" / f"{name}.yaml"


def composed(line):
    """Return bases of the file that a line makes, the file's name and the pairs."""
    with named_config(line.split()) as found:
        bases = yaml.safe_load(Path(found.file).read_text())["_BASE_"]
        return bases, Path(found.file).name, found.options


def test_a_pair_with_a_config_of_its_own_is_that_config():
    with named_config([f"{R_101},{R_18}", "reviewkd"]) as found:
        assert found == (str(det(f"{R_18}_reviewkd")), [])
    with named_config([R_18]) as found:
        assert found == (str(det(R_18)), [])
    with named_config([]) as found:
        assert found is None


def test_any_other_pair_is_composed_and_its_file_removed():
    with named_config(["faster_rcnn_R_50_FPN,faster_rcnn_R_18_FPN", "reviewkd"]) as found:
        file = Path(found.file)
        bases = yaml.safe_load(file.read_text())["_BASE_"]
    assert bases == [str(det(R_18)), str(det("methods/reviewkd"))]
    weights = yaml.safe_load(det("faster_rcnn_MNV2_FPN_kd").read_text())["KD"]["TEACHER"]["WEIGHTS"]
    config = str(det("faster_rcnn_R_50_FPN"))
    assert found.options == ["KD.TEACHER.CONFIG", config, "KD.TEACHER.WEIGHTS", weights]
    assert not file.parent.exists()


def test_a_method_has_the_values_of_the_student_s_family():
    bases, _, _ = composed("retinanet_R_101_FPN,retinanet_R_18_FPN fgd")
    assert bases[1] == str(det("methods/fgd_retinanet"))
    bases, _, options = composed(f"{R_18},{R_18} fgd")
    assert bases[1] == str(det("methods/fgd_rcnn"))
    assert options == ["KD.TEACHER.CONFIG", str(det(R_18))]  # its weights are the user's


def test_methods_compose_and_a_library_s_network_teaches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("_BASE_: x.yaml")
    bases, name, options = composed("timm:convnext_tiny,mine.yaml pkd kd_rpn")
    assert bases == [
        str(tmp_path / "mine.yaml"),
        *(str(det(f"methods/{method}")) for method in ("pkd_rcnn", "kd_rpn")),
    ]
    assert name == "mine_pkd_kd_rpn.yaml"
    assert options == [
        "KD.TEACHER.NETWORK",
        "timm:convnext_tiny",
        "KD.TEACHER.WEIGHTS",
        "pretrained",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{R_101},faster_rcnn_R_18_FP reviewkd", f"no network .* did you mean '{R_18}'"),
        (f"{R_101},{R_18} reviewkdd", "no method 'reviewkdd'; did you mean 'reviewkd'"),
        (f"reviewkd {R_101},{R_18}", f"order is networks, method: {R_101},{R_18} reviewkd$"),
        (f"kd {R_18}", f"order is networks, method: {R_18} kd$"),
        (f"{R_18} reviewkd", f"teacher is missing; write TEACHER,{R_18} reviewkd"),
        (f"{R_101},{R_18}", f"method is missing; write {R_101},{R_18} METHOD"),
        (f"{R_101}, kd", "a pair is TEACHER,STUDENT"),
        (f"a,{R_101},{R_18} kd", "a pair is TEACHER,STUDENT"),
        (f"{R_101},timm:resnet18 kd", "timm:resnet18 is not a detector"),
        (f"{R_18}_reviewkd", f"has a teacher already; write --config-file {R_18}_reviewkd"),
        (f"{R_101},gone.yaml kd", "there is no config file gone.yaml"),
        ("FCOS.yaml", "there is no config file FCOS.yaml"),
        (f"{R_101},GONE.yml kd", "there is no config file GONE.yml"),
        ("PHOTOS/A kd", "no config file PHOTOS/A"),
        ("/", "^error: / is a folder, not a config file; .*--register-images NAME=/ "),
        ("--config-file /", "/ is a folder, not a config file"),
        (f"{R_18} --config-file {R_18}", "both name a config"),
        (f"--num-gpus 1 {R_18} --dry-run --list-taps", "are two things to do"),
        (f"--num-gpus 1 {R_101},{R_18} --dry-run kdd SEED 1", "no method 'kdd'"),
        (f"--num-gpus 1 {R_18} --dry-run SEED 1 --list-taps", "--list-taps comes after SEED"),
        (f"--num-gpus 2 {R_101},{R_18} kdd", "no method 'kdd'"),
        (f"{R_101},{R_18} kd MODEL.DEVICE", "has no value"),
        ("retinanet_R_101_FPN,retinanet_R_18_FPN kd_rpn --config-fil x", "both name a config"),
    ],
)
def test_a_line_that_is_not_right_is_refused_in_one_line(line, said, capsys):
    assert main(line.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert re.search(said, told), told


def test_keys_begin_with_a_capital_letter_and_names_do_not():
    assert split_names(["a,b", "kd", "MODEL.DEVICE", "cpu"]) == (
        ["a,b", "kd"],
        ["MODEL.DEVICE", "cpu"],
    )
    assert split_names(["--num-gpus", "2"]) == ([], ["--num-gpus", "2"])
    assert split_names(["SEED", "1"])[0] == split_names(["KD.TERMS.a.WEIGHT", "1"])[0] == []


def test_a_config_may_have_capital_letters_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("FCOS", "SEED", "A.B"):
        Path(name).touch()
    for name in ("FCOS.yaml", "FCOS.yml", "FCOS.py", "FCOS", "A.B", "./SEED"):
        assert split_names([name, "SEED", "1"]) == ([name], ["SEED", "1"])
    assert split_names(["SEED", "1"])[0] == split_names(["GONE", "1"])[0] == []


def test_keys_without_a_dot_are_those_of_detectron2():
    pytest.importorskip("detectron2")
    from detectron2.config import CfgNode, get_cfg

    found = {name for name, value in get_cfg().items() if not isinstance(value, CfgNode)}
    assert found <= set(_ROOT_KEYS)


def test_a_config_file_may_be_named_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(f"{R_18}_kd") == det(f"{R_18}_kd")
    assert find_config(f"configs/det/{R_18}.yaml") == det(R_18)


@pytest.mark.parametrize("kind", ["data", "networks", "pairs", "methods"])
def test_what_there_is_is_listed_with_a_line_each(kind, capsys):
    assert main(["--list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.partition("  ")[2].strip() for line in lines)


def test_every_config_has_a_name():
    files = {path.stem for path in (configs_folder() / "det").glob("*.yaml")}
    assert {*CATALOGUE.networks} | {*CATALOGUE.distilled} | {
        "Base-RCNN-FPN",
        "Base-RetinaNet",
    } == files
    methods = {path for files in CATALOGUE.methods.values() for path in files.values()}
    assert methods == {*(configs_folder() / "det/methods").glob("*.yaml")}
