"""What a command line names without a file: data, networks, pairs and methods."""

import re
from pathlib import Path

import pytest
from kd_cls.adapter import ADAPTER as CLASSIFICATION
from kd_cls.compare import main as compare_classifiers
from kd_cls.models import MODELS
from kd_cls.train import main as train_classifier
from kd_core.catalogue.compose import sources_of
from kd_core.catalogue.names import KINDS, LISTED
from kd_core.config.folder import configs_folder
from kd_core.config.reading import load_config
from kd_core.experiment.parsing import known_names, read_experiment
from kd_reid.adapter import ADAPTER as REID
from kd_reid.models import model_names
from kd_reid.train import main as train_embedder

ROOT = Path(__file__).parents[1]
CLS, OF_REID = CLASSIFICATION.catalogue, REID.catalogue
PAIRS = {  # of the data and the networks' names: the file
    "cifar100 resnet32x4,resnet8x4": "resnet32x4_resnet8x4",
    "cifar100 wrn_40_2,ShuffleV1": "wrn_40_2_ShuffleV1",
    "cifar100 vgg13,MobileNetV2": "vgg13_MobileNetV2",
    "cifar10_small resnet20,resnet8": "cifar10_resnet20_resnet8",
    "imagenet resnet34,resnet18": "imagenet_resnet34_resnet18",
    "imagenet deit_tiny,resnet18": "imagenet_deit_tiny_resnet18",
    "tiny_imagenet ResNet18,MobileNetV2": "tiny_imagenet_ResNet18_MobileNetV2",
    "cifar100_224 resnet50,mobilenet_v2": "cifar100_224_resnet50_mobilenet_v2",
    "image_folder torchvision_resnet50,resnet18": "torchvision_resnet50_resnet18",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, outside the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(line, adapter=CLASSIFICATION, told=None):
    """Return the sources of a line, and the config that they make."""
    known, said = known_names(adapter), [] if told is None else told
    sources = sources_of(line.split(), adapter.catalogue, known=known, note=said.append)
    return sources, load_config(sources, known=known, note=said.append)


def ours(name):
    return configs_folder() / f"{name}.py"


@pytest.mark.parametrize("line", PAIRS)
def test_two_networks_are_the_pair_that_was_published_for_the_data(line):
    sources, _ = composed(line)
    data = line.split()[0]
    assert sources == [ours(f"cls/data/{data}"), ours(f"cls/pairs/{PAIRS[line]}")]


def test_a_line_of_names_is_the_config_of_the_files():
    told = []
    _, config = composed("cifar100 resnet32x4,resnet8x4 dkd", told=told)
    names = ("data/cifar100", "pairs/resnet32x4_resnet8x4", "methods/dkd")
    assert config == load_config([ours(f"cls/{name}") for name in names])
    assert config["distiller"]["terms"]["dkd"]["criterion"]["beta"] == 8.0
    assert told[0].startswith("resnet32x4,resnet8x4: the pair resnet32x4_resnet8x4")


def test_every_pair_of_cifar_is_found_by_the_names_of_its_networks():
    found = []
    for stem in CLS.files("pairs"):
        for place in [match.start() for match in re.finditer("_", stem)]:
            teacher, student = stem[:place], stem[place + 1 :]
            if {teacher, student} <= {*CLS.zoo()}:
                assert CLS.tuned("cifar100", teacher, student) == ours(f"cls/pairs/{stem}")
                found.append(stem)
    assert len(found) == 14


def test_a_pair_of_other_data_has_a_teacher_of_these_data_and_no_published_values():
    told = []
    _, config = composed("cifar10 resnet32x4,resnet8x4 dkd", told=told)
    assert config["teacher"]["config"]["data"] == config["data"]
    assert config["data"]["type"] == "kd_cls.data.cifar10"
    assert "beta" not in config["distiller"]["terms"]["dkd"]["criterion"]
    assert any("no values for the pair cifar10_resnet32x4_resnet8x4" in line for line in told)


@pytest.mark.parametrize(
    ("line", "adapter", "options"),
    [
        ("people resnet18,osnet_x0_25 rkd_kd", REID, {"data.source": "mine", "data.camera": "c"}),
        ("image_folder timm:a,timm:b kd", CLASSIFICATION, {"data.root": "mine"}),
        ("image_folder timm:a,timm:b kd", CLASSIFICATION, {"data": {"root": "mine"}, "seed": 3}),
    ],
)
def test_a_teacher_that_is_trained_first_has_the_data_of_the_command(line, adapter, options):
    known = known_names(adapter)
    given = {**options, "data.no.such": 1}  # what cannot be set is told of the student's data
    sources = sources_of(line.split(), adapter.catalogue, known=known, note=str, options=given)
    config = load_config(sources, options, known=known)
    of_teacher = config["teacher"]["config"]["data"]
    same = ("type", "source", "camera", "root")  # a recipe has its own batch size
    assert [of_teacher.get(key) for key in same] == [config["data"].get(key) for key in same]
    assert "mine" in of_teacher.values()
    assert "seed" not in config["teacher"]["config"]


def test_data_of_another_kind_behind_the_pair_are_the_student_s_alone():
    Path("crops.py").write_text('data = dict(type="kd_reid.data.crops", root="crops")')
    line, known = ["people", "resnet18,osnet_x0_25", "crops.py"], known_names(REID)
    options = {"data.root": "mine"}
    sources = sources_of(line, OF_REID, known=known, note=str, options=options)
    config = load_config(sources, options, known=known)
    assert config["data"]["root"] == "mine"
    assert "root" not in config["teacher"]["config"]["data"]


@pytest.mark.parametrize(
    ("options", "training", "is_told"),
    [({}, True, True), ({}, False, False), ({"teacher.weights": "t.pth"}, True, False)],
)
def test_only_a_teacher_that_will_be_trained_is_told_so(options, training, is_told):
    told, known = [], known_names(CLASSIFICATION)
    line = ["digits", "resnet14,resnet8", "kd"]
    given = {"known": known, "note": told.append, "options": options, "training": training}
    sources_of(line, CLS, **given)
    assert any("is trained first" in text for text in told) is is_told


def test_an_error_of_a_teacher_s_own_training_says_whose_it_is(capsys):
    folder = ["type=kd_cls.data.image_folder", "root=nowhere", "image_size=8"]
    options = [f"teacher.data.{text}" for text in folder]
    assert train_classifier(["digits", "resnet14,resnet8", "kd", "--cfg-options", *options]) == 2
    told = capsys.readouterr().err
    assert "error: training of teacher (its options begin with teacher.): data: nowhere" in told


def test_any_two_networks_make_a_pair():
    _, config = composed("digits timm:convnext_tiny,MobileNetV2 kd")
    assert config["student"]["network"]["name"] == "MobileNetV2"
    assert config["optimizer"]["lr"] == 0.01  # of networks/MobileNetV2.py
    teacher = config["teacher"]["config"]["student"]
    network = {"type": "timm:convnext_tiny", "pretrained": True}
    assert teacher == {"network": network, "new_head": True}
    _, config = composed("digits resnet14,torchvision.models.resnet18 kd")
    assert config["teacher"]["config"]["student"]["network"]["name"] == "resnet14"
    assert config["student"]["network"] == {"type": "torchvision.models.resnet18"}


@pytest.mark.parametrize("data", ["imagenet", "unlabelled"])
def test_a_teacher_that_its_library_trained_is_not_trained_first(data):
    _, config = composed(f"{data} resnet50,resnet18 pkt")
    assert "config" not in config["teacher"]
    assert config["teacher"]["network"]["weights"] == "DEFAULT"
    assert "new_head" not in config["teacher"]
    assert config["student"]["weights"] == "random"
    read_experiment(CLASSIFICATION, composed(f"{data} resnet50,resnet18 pkt")[0])


def test_a_method_has_its_values_for_the_data():
    told = []
    _, config = composed("imagenet resnet34,resnet18 crd", told=told)
    assert config == composed("imagenet resnet34,resnet18 crd_imagenet")[1]
    assert "crd on imagenet is crd_imagenet" in told


def test_a_name_that_a_library_prefix_was_left_out_of_is_told():
    told = []
    composed("image_folder resnet34", told=told)
    assert told == ["resnet34 is torchvision_resnet34"]


def test_one_s_own_files_stand_beside_names():
    data = ours("cls/data/digits").read_text() + "data['val_fraction'] = 0.1\n"
    Path("mine.py").write_text(data)
    _, config = composed("mine.py resnet20,resnet8 dkd")
    assert config["teacher"]["config"]["data"]["val_fraction"] == 0.1
    Path("small.py").write_text('student = dict(network=dict(type="my_module.Net"))')
    _, config = composed("digits resnet20,small.py dkd")
    assert config["student"]["network"] == {"type": "my_module.Net"}
    _, with_recipe = composed("cifar10 recipes/mixup resnet20,resnet8 kd")
    assert with_recipe["data"]["augment"] == with_recipe["teacher"]["config"]["data"]["augment"]


def test_networks_of_re_identification_bring_their_recipe():
    sources, _ = composed("market1501 osnet_x1_0,osnet_x0_25 rkd", REID)
    names = ("data/market1501", "pairs/osnet_x1_0_osnet_x0_25", "methods/rkd")
    assert sources == [ours(f"reid/{name}") for name in names]
    _, config = composed("msmt17 resnet50,osnet_x0_25 rkd", REID)
    assert config["optimizer"]["lr"] == 0.0015
    teacher = config["teacher"]["config"]
    assert (teacher["optimizer"]["lr"], teacher["data"]["name"]) == (3e-4, "msmt17")
    _, config = composed("market1501 recipes/osnet_cosine osnet_x1_0,osnet_x0_25 rkd", REID)
    assert config["trainer"]["epochs"] == config["teacher"]["config"]["trainer"]["epochs"] == 250
    assert composed("market1501 resnet50", REID)[1]["trainer"]["epochs"] == 60
    line = "market1501 osnet_x1_0,resnet50 configs/cls/methods/at.py"
    assert composed(line, REID)[1]["trainer"]["epochs"] == 60
    Path("mine.py").write_text("trainer = dict(epochs=3)\noptimizer = dict(type='torch.optim.SGD')")
    assert composed("market1501 mine.py resnet50", REID)[1]["trainer"]["epochs"] == 3


def test_generated_pairs_of_re_identification_are_the_files_of_the_published_ones():
    """So these files have no value of their own but the name."""
    for path in (configs_folder() / "reid/pairs").glob("*.py"):
        teacher, student = OF_REID_NETWORKS[path.stem]
        line = f"market1501 recipes/{OF_REID.recipe(student)} {teacher},{student}"
        _, config = composed(line, REID)
        config["teacher"] = config["teacher"]["config"]
        wanted = load_config([ours("reid/data/market1501"), path])
        wanted["teacher"] = load_config(wanted["teacher"]["config"])
        assert config == wanted


OF_REID_NETWORKS = {
    "densenet121_resnet50": ("densenet121", "resnet50"),
    "osnet_x1_0_osnet_x0_25": ("osnet_x1_0", "osnet_x0_25"),
    "osnet_x1_0_osnet_x0_75": ("osnet_x1_0", "osnet_x0_75"),
    "resnet101_resnet50": ("resnet101", "resnet50"),
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cifr100 resnet20", "'cifr100' is neither a config file.* did you mean 'cifar100'"),
        ("cifar100 resnet20,resnet9 kd", "no network 'resnet9'; did you mean 'resnet"),
        ("cifar100 resnet20,resnet8 dkdd", "'dkdd' is neither.* did you mean 'dkd'"),
        ("cifar100 tim:x,resnet8 kd", "there is no network 'tim:x'"),
        ("dkd cifar100 resnet20,resnet8", "order is data, networks, method: cifar100 resnet20,"),
        ("resnet20,resnet8 cifar100 dkd", ": cifar100 resnet20,resnet8 dkd$"),
        ("resnet20,resnet8 dkd", "data are missing; write DATA resnet20,resnet8 dkd"),
        ("cifar100 dkd", "networks are missing; write cifar100 TEACHER,STUDENT dkd"),
        ("cifar100 resnet20 resnet8 dkd", "teacher and student are one word, resnet20,resnet8"),
        ("cifar100 digits resnet8", "cifar100 and digits are both data"),
        ("cifar100 a,b,c kd", "a pair is TEACHER,STUDENT"),
        ("digits resnet20,smal.py kd", "there is no network 'smal.py'"),
        ("cifar100 resnet20, kd", "a pair is TEACHER,STUDENT"),
        ("cifar100 mixup resnet20", "'mixup' is one of recipes; write recipes/mixup"),
        ("recipes/mixpu resnet20", "'mixpu' is neither a config file"),
        ("data/cifr100.py", "'cifr100' is neither a config file, .* name of data; did you mean"),
        ("configs/cls/data/cifr100.py", "no config file configs/cls/data/cifr100.py; did you mean"),
        ("notes.yaml resnet20", "there is no config file notes.yaml"),
        ("my/photos resnet20", "^error: my/photos is a folder, .* data.root=my/photos"),
        ("my resnet20,resnet8 kd", "^error: my is a folder, not a config .*: image_folder "),
    ],
)
def test_a_line_that_is_not_right_is_refused_in_one_line(line, said, capsys):
    Path("my/photos").mkdir(parents=True)
    assert train_classifier(line.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert re.search(said, told), told


def test_tables_are_named_too(capsys):
    line = ["cifar100", "resnet32x4,resnet8x4", "--rows"]
    assert compare_classifiers([*line, "mdistillr"]) == 2
    assert "nor one of tables: agglomerative" in capsys.readouterr().err
    options = ["--only", "KD", "--dry-run", "--cfg-options", "data.batch_size=2"]
    assert compare_classifiers([*line, "mdistiller", *options]) == 0
    assert "resnet32x4,resnet8x4: the pair resnet32x4_resnet8x4" in capsys.readouterr().err


@pytest.mark.parametrize("catalogue", [CLS, OF_REID], ids=["cls", "reid"])
def test_no_bare_name_is_of_two_kinds(catalogue):
    names = [name for kind in LISTED for name in catalogue.files(kind)]
    assert len(names) == len(set(names))
    networks = {*catalogue.zoo()}
    assert not networks & {name for kind in ("data", "pairs", "methods") for name in names} - {
        *catalogue.files("networks")
    }


def test_the_zoos_are_known_before_torch_is_imported():
    assert {*CLS.zoo()} == {*MODELS}
    assert {*OF_REID.zoo()} == {*model_names()}


@pytest.mark.parametrize("kind", LISTED)
@pytest.mark.parametrize("main", [train_classifier, train_embedder])
def test_what_there_is_is_listed_with_a_line_each(main, kind, capsys):
    assert main(["--list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    catalogue = CLS if main is train_classifier else OF_REID
    listed = {line.split()[0]: line.partition("  ")[2].strip() for line in lines}
    assert {*catalogue.files(kind)} <= {*listed}
    assert all(listed.values())


def test_documented_paths_hold_outside_the_checkout():
    assert not Path("configs").exists()
    sources, _ = composed("configs/cls/data/cifar100.py networks/resnet20.py methods/kd")
    names = ("data/cifar100", "networks/resnet20", "methods/kd")
    assert sources == [ours(f"cls/{name}") for name in names]
    text = 'teacher = dict(config="configs/demo/teacher.py")'
    Path("learns.py").write_text(f'_base_ = "{ours("demo/student")}"\n{text}\n')
    assert read_experiment(CLASSIFICATION, "learns.py").teachers


def test_a_file_of_one_s_own_goes_before_one_of_ours():
    Path("methods").mkdir()
    Path("methods/kd.py").write_text("trainer = dict(epochs=7)")
    assert composed("cifar100 resnet20 methods/kd.py")[1]["trainer"]["epochs"] == 7
    Path("kd").write_text("not a config: what has no .py is a name")
    assert "kd" in composed("cifar100 resnet20 kd")[1]["distiller"]["terms"]


def test_every_kind_is_a_folder():
    for task in ("cls", "reid"):
        found = {path.name for path in (configs_folder() / task).iterdir() if path.is_dir()}
        assert found - {"__pycache__"} <= {*KINDS}
