"""What a file of weights says of classes, statistics and size is believed, checked and told."""

import json
from pathlib import Path

import pytest
import timm
import torch
from kd_cls import train
from kd_cls.adapter import ADAPTER
from kd_cls.class_names import doubt
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.student import load_student
from kd_core.distill.ensemble import Ensemble
from kd_core.errors import UserError
from kd_core.experiment.builder import build_distiller
from kd_core.files import checkpoint
from kd_core.files.weight_facts import facts_of
from kd_core.files.weights import read_state_dict
from safetensors.torch import save_file

NETWORK = {"type": "kd_cls.models.build_model", "name": "resnet8"}
NAMES = ("1", "10", "2", "3")  # folders in the order of text
RUN = """
data = dict(type="kd_cls.data.image_folder", root="images", image_size=8, batch_size=4)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"), size=16,
               mean=(0.1, 0.1, 0.1), std=(0.05, 0.05, 0.05))
optimizer = dict(type="torch.optim.SGD", lr=0.05)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[])
"""
KD = {"kd": {"criterion": {"type": "kd_core.criteria.kd.KD"}}}


def write_images(folder, names):
    from PIL import Image

    for part in ("train", "test"):
        for number, name in enumerate(names):
            (folder / part / name).mkdir(parents=True)
            for shade in (40, 50):
                image = Image.new("RGB", (8, 8), (shade + 40 * number, 60 * number, 120))
                image.save(folder / part / name / f"{shade}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run with statistics of its own; beside it are its config and data."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images(Path("images"), NAMES)
        Path("run.py").write_text(RUN)
        assert train.main(["run.py", "--work-dir", "teacher"]) == 0
    return folder / "teacher"


def data_of(*names, **changes):
    data = synthetic(image_size=8, num_classes=len(names), num_train=8, num_test=8, **changes)
    data.classes = names
    return data


def named(names, folder, *, network=None, **facts):
    """Write a file of weights whose logits have these names; return network and file."""
    network = network or build_model("resnet8", num_classes=len(names))
    facts = {"classes": list(names), "mean": [0.1] * 3, "std": [0.05] * 3, "image_size": 16} | facts
    metadata = {name: json.dumps(value) for name, value in facts.items() if value is not None}
    checkpoint.export(network.state_dict(), folder / "w", metadata)
    return network.eval(), folder / "w.safetensors"


def build(weights, data, where="teacher", **node):
    return ADAPTER.build_model(data, where, network=NETWORK, weights=str(weights), **node).eval()


def predict(model, images):
    with torch.no_grad():
        return model({"image": images})


IMAGES = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["student.safetensors", "student.pth", "best.pth", "last.pth", ""])
def test_a_teacher_named_by_its_own_run_gives_the_logits_of_that_run(finished, name, capsys):
    teacher = build(finished / name, data_of(*NAMES))
    assert teacher.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert teacher.size == 16
    torch.testing.assert_close(predict(teacher, IMAGES), predict(load_student(finished), IMAGES))
    told = f"teacher: mean, std, size 16, 4 classes from {finished / 'student.safetensors'}\n"
    assert told in capsys.readouterr().err


def test_what_the_config_says_is_taken_instead(finished, capsys):
    said = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "size": 8}
    teacher = build(finished, data_of(*NAMES), **said)
    assert teacher.mean.flatten().tolist() == [0.5] * 3
    assert teacher.size == 8
    assert "teacher: 4 classes from" in capsys.readouterr().err


def test_a_student_takes_all_but_the_size_of_its_images(finished):
    student = build(finished, data_of(*NAMES), "student")
    assert student.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert student.size is None


ORDERS = {
    "numbers in natural order": ("1", "2", "3", "10"),
    "reversed": ("3", "2", "10", "1"),
    "some of them": ("10", "1"),
}


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
def test_logits_are_in_the_order_of_the_data_s_classes(finished, names, capsys):
    chosen = [NAMES.index(name) for name in names]
    expected = predict(load_student(finished), IMAGES)[:, chosen]
    torch.testing.assert_close(predict(build(finished, data_of(*names)), IMAGES), expected)
    line = capsys.readouterr().err
    few = "of its 4 logits those of the data's 2 classes are kept (left out: 2, 3)"
    assert (few if len(names) < 4 else "logits are moved to the data's order of classes") in line


def test_a_teacher_that_is_trained_first_is_matched_by_name_too(finished, capsys):
    data = data_of("10", "3", "1", "2")
    teacher = ADAPTER.load_finished(finished, {}).eval()
    ADAPTER.match_teacher(teacher, finished, {}, data, "teacher")
    expected = predict(load_student(finished), IMAGES)[:, [1, 3, 0, 2]]
    torch.testing.assert_close(predict(teacher, IMAGES), expected)
    assert "4 logits are moved" in capsys.readouterr().err


def test_a_teacher_that_is_not_trained_yet_is_matched_for_the_checks(finished):
    own, data = data_of("a", "b", "c"), data_of("c", "a")
    teacher = ADAPTER.match_data(build("random", own), own, data)
    assert teacher.network.fc.out_features == 2
    other = ADAPTER.match_data(build("random", own), own, data_of("a", "b", "d"))
    assert "'d'" in other.other_classes


def test_the_borrowed_classifier_has_the_new_order_too(finished):
    before = build(finished, data_of(*NAMES)).network.fc
    after = build(finished, data_of("10", "1", "3", "2")).network.fc
    assert torch.equal(after.weight, before.weight[[1, 0, 3, 2]])
    assert build(finished, data_of("10", "1")).network.fc.out_features == 2


def test_classes_that_the_teacher_lacks_are_told_and_its_logits_refused(tmp_path, capsys):
    _, file = named(["cat", "dog", "bird"], tmp_path)
    data = data_of("cat", "dog", "birds")
    teacher, student = build(file, data), build("random", data, "student")
    assert "1 of 3 classes are not among the 3 that it knows: 'birds'" in capsys.readouterr().err
    sample = data.train.sample(2)
    assert ADAPTER.score_teacher(teacher, sample, data, lambda model: {"top1": 1.0}) is None
    taps = {"student": "@map", "teacher": "@map"}
    each = {"kd.KD": {}, "simkd.SimKD": taps, "sdd.SDD": taps, "catkd.CATKD": taps}
    for criterion, at in each.items():
        terms = {"t": {"criterion": {"type": f"kd_core.criteria.{criterion}"}, **at}}
        with pytest.raises(UserError, match=r"knows other classes .*did you mean 'bird'"):
            build_distiller(data, student, {"teacher": teacher}, sample, terms=terms)
    with pytest.raises(UserError, match=r"teacher 'both' knows other classes"):
        build_distiller(data, student, {"both": Ensemble([teacher])}, sample, terms=KD)
    at = {"at": {"criterion": {"type": "kd_core.criteria.at.AT"}, **taps}}
    build_distiller(data, student, {"teacher": teacher}, sample, terms=at)


def test_names_of_another_language_are_set_in_the_config(tmp_path, capsys):
    network, file = named(["Katze", "Hund"], tmp_path)
    data = data_of("dog", "cat")
    teacher = build(file, data, classes=["cat", "dog"], mean=(0, 0, 0), std=(1, 1, 1), size=8)
    assert not teacher.other_classes
    expected = network.fc.bias[[1, 0]]
    assert torch.equal(teacher.network.fc.bias, expected)
    assert "2 classes from the config; 2 logits are moved" in capsys.readouterr().err


def test_numbers_in_the_place_of_names_leave_the_order_as_it_is(tmp_path, capsys):
    _, file = named(["0", "1"], tmp_path)
    teacher = build(file, data_of("cat", "dog"))
    assert torch.equal(teacher.network.fc.bias, read_state_dict(file)["fc.bias"])
    assert "no names to compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (("1", "10", "2"), True),
        (("1", "2", "10"), True),
        (("class1", "class10", "class2"), True),
        (("Zebra", "ant"), True),
        (("cat", "dog"), False),
        (("dog", "cat"), False),  # in no usual order: the data set says so
        (tuple(map(str, range(12))), False),  # not names
    ],
)
def test_an_order_that_a_file_without_names_may_not_have_is_told(names, doubtful, tmp_path, capsys):
    torch.save(build_model("resnet8", num_classes=len(names)).state_dict(), tmp_path / "w.pth")
    assert bool(doubt(names)) is doubtful
    build(tmp_path / "w.pth", data_of(*names))
    assert ("names no classes" in capsys.readouterr().err) is doubtful


JUNK = {
    "mean of NaN": ({"mean": [float("nan")] * 3}, "mean: wanted JSON"),
    "mean of texts": ({"mean": ["a"] * 3}, "mean: wanted three numbers"),
    "no deviation": ({"std": [0, 1, 1]}, "std: wanted three numbers above 0"),
    "mean alone": ({"std": None}, "mean and std belong together"),
    "a huge size": ({"image_size": 10**9}, "image_size: wanted a side"),
    "classes of numbers": ({"classes": [1, 2, 3]}, "classes: wanted a list of names"),
    "no classes": ({"classes": []}, "classes: wanted a list of names"),
    "millions of classes": ({"classes": ["a"] * 100_001}, "classes: wanted a list of names"),
    "a name of two lines": ({"classes": ["a", "b", "c\n"]}, "wanted a list of names in printable"),
    "an endless name": ({"classes": ["a", "b", "c" * 2000]}, "classes: wanted a list of names"),
    "a class too much": ({"classes": list("abcd")}, r"fc\.weight is \[3, 64\] in the file"),
    "code": ({"mean": "__import__('os')"}, "mean: wanted three numbers"),
}


@pytest.mark.parametrize(("facts", "problem"), JUNK.values(), ids=JUNK)
def test_junk_in_a_file_is_refused_in_one_line(facts, problem, tmp_path):
    network = build_model("resnet8", num_classes=3)
    _, file = named(["a", "b", "c"], tmp_path, network=network, **facts)
    with pytest.raises(UserError, match=problem) as refused:
        build(file, data_of("a", "b", "c"))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("teacher: ")


def test_junk_that_the_config_replaces_does_no_harm(tmp_path):
    _, file = named(["a", "b"], tmp_path, mean="junk", std=None, image_size=-1)
    build(file, data_of("a", "b"), mean=(0, 0, 0), std=(1, 1, 1), size=8)


def test_names_of_classes_without_weights_are_refused():
    with pytest.raises(UserError, match="student: classes are those of trained logits"):
        ADAPTER.build_model(data_of("a", "b"), "student", network=NETWORK, classes=["a", "b"])


def test_there_is_a_name_for_each_logit(tmp_path):
    _, file = named(["a", "b"], tmp_path)
    node = {"network": {**NETWORK, "num_classes": 2}, "weights": str(file), "classes": ["a"]}
    with pytest.raises(UserError, match="teacher: 1 names of classes for 2 logits"):
        ADAPTER.build_model(data_of("a", "b"), "teacher", **node)


TIMM = {
    "architecture": "resnet8",
    "num_classes": 2,
    "pretrained_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "input_size": [3, 24, 16],
        "label_names": ["dog", "cat"],
    },
}


def test_a_folder_of_timm_s_layout_says_what_it_was_trained_on(tmp_path):
    network = build_model("resnet8", num_classes=2)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    for place in (tmp_path, tmp_path / "model.safetensors"):
        teacher = build(place, data_of("cat", "dog"))
        assert teacher.mean.flatten().tolist() == [0.5] * 3
        assert tuple(teacher.size) == (24, 16)
        assert torch.equal(teacher.network.fc.bias, network.fc.bias[[1, 0]])


def test_a_folder_of_transformers_says_what_it_was_trained_on(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "dog", "0": "cat"}}))
    shown = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 24, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(shown))
    found = facts_of(tmp_path)
    assert (found.classes, found.mean, found.size) == (["cat", "dog"], [0.5] * 3, [24, 16])


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"pretrained_cfg": {"mean": [1, NaN, 1]}}', "[" * 9999]
)
def test_a_config_of_junk_is_refused(text, tmp_path):
    save_file(build_model("resnet8", num_classes=2).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"teacher: .*config\.json"):
        build(tmp_path, data_of("cat", "dog"))


def kd_run(folder, *options):
    Path("kd.py").write_text(
        f"_base_ = {str(folder.parent / 'run.py')!r}\n"
        f"data = dict(root={str(folder.parent / 'images')!r})\n"
        "teacher = dict(network=dict(type='kd_cls.models.build_model', name='resnet8'))\n"
        f"distiller = dict(terms={KD!r})\n"
    )
    return train.main(["kd.py", "--work-dir", "kd", "--cfg-options", *options])


@pytest.fixture
def wrong(tmp_path, monkeypatch):
    """Return weights whose logits are never those of the right class, without names."""
    monkeypatch.chdir(tmp_path)
    network = build_model("resnet8", num_classes=4)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor([5.0, 0, 0, 0]))
    torch.save(network.state_dict(), "wrong.pth")
    return "teacher.weights=wrong.pth"


def test_a_teacher_at_chance_stops_the_run_before_anything_is_written(finished, wrong, capsys):
    assert kd_run(finished, wrong) == 2
    told = capsys.readouterr().err
    assert "right in 25.00 % of the test set, no more often than by guessing (25.00 %)" in told
    assert not Path("kd").exists()


@pytest.mark.parametrize(
    "options",
    [["trainer.allow_weak_teacher=True"], ["teacher.weights=random"]],
    ids=["allowed", "random"],
)
def test_a_teacher_at_chance_teaches_where_the_config_says_so(finished, wrong, options):
    assert kd_run(finished, wrong, *options) == 0


def test_a_checkpoint_is_measured_with_its_classes_in_the_data_s_order(finished, tmp_path):
    data = data_of("10", "3", "1", "2")
    model = ADAPTER.build_model(data, "student", network=NETWORK)
    ADAPTER.load_checkpoint(model, finished / "student.pth", data)
    own = read_state_dict(finished)["fc.bias"]
    assert torch.equal(model.network.fc.bias, own[[1, 3, 0, 2]])
    with pytest.raises(UserError, match="knows other classes than the data has"):
        ADAPTER.load_checkpoint(model, finished / "best.pth", data_of("10", "3", "1", "4"))


class LazyNetwork(torch.nn.Module):
    """Learns the shape of its classifier from the first pass."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = torch.nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.fc(images.flatten(1))


def test_a_lazy_network_has_its_weights_before_they_are_loaded(tmp_path):
    given = torch.nn.Linear(3 * 8 * 8, 2)
    save_file({f"fc.{k}": v for k, v in given.state_dict().items()}, tmp_path / "w.safetensors")
    node = {"network": {"type": LazyNetwork}, "weights": str(tmp_path / "w.safetensors")}
    built = ADAPTER.build_model(data_of("a", "b"), "student", **node)
    assert torch.equal(built.network.fc.weight, given.weight)


IN_GERMAN = {"dog": "Hund", "cat": "Katze"}


@pytest.mark.parametrize("as_file", [False, True], ids=["list", "file"])
def test_some_of_many_classes_are_chosen_by_other_names(as_file, tmp_path, monkeypatch, capsys):
    names = ["Maus", "Katze", "Floh", "Hund"]
    network, file = named(names, tmp_path, classes=None)
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(names) + "\n", encoding="utf-8-sig")
    classes = "names.txt" if as_file else names
    data = data_of("dog", "cat")
    teacher = build(file, data, classes=classes, class_map=IN_GERMAN, size=8)
    images = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor(0.1), torch.tensor(0.05)
    with torch.no_grad():
        expected = network((images - mean) / std)[:, [3, 1]]
    torch.testing.assert_close(predict(teacher, images), expected)
    assert "left out" in " ".join(capsys.readouterr().err.split())


def test_a_class_map_wants_names(tmp_path):
    _, file = named(["Katze", "Hund"], tmp_path, classes=None)
    with pytest.raises(UserError, match="teacher: class_map wants the names"):
        build(file, data_of("dog", "cat"), class_map=IN_GERMAN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_map": {"dgo": "Hund"}}, "the data has no class 'dgo'; did you mean 'dog'"),
        ({"class_map": {"dog": "Hunde", "cat": "Katze"}}, "'Hunde'; did you mean 'Hund'"),
        ({"class_map": {"dog": "Hund"}}, "1 of 2 classes are not among the 2 .*'cat'"),
        ({"class_map": {"dog": "Hund", "cat": "Hund"}}, "two classes .* become 'Hund'"),
        ({"classes": "name.txt"}, "no file name.txt; did you mean 'names.txt'"),
        ({"classes": "empty.txt"}, "empty.txt, line 2 is empty"),
        ({"classes": "w.pth"}, "w.pth is not a text file of names"),
        ({"classes": []}, "classes"),
    ],
    ids=str,
)
def test_wrong_choices_of_classes_are_one_line(changes, message, tmp_path, monkeypatch):
    _, file = named(["Katze", "Hund"], tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("Katze\nHund\n")
    Path("empty.txt").write_text("Katze\n\nHund\n")
    node = {"network": {**NETWORK, "num_classes": 2}, "weights": str(file), **changes}
    with pytest.raises(UserError, match=message):
        ADAPTER.build_model(
            data_of("dog", "cat"), "teacher", **ADAPTER.parse_model(node, "teacher")
        )


class TestTorchvision:
    @pytest.fixture(autouse=True)
    def weights(self, monkeypatch):
        """Give random weights for those that would be downloaded."""
        from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

        torch.manual_seed(0)
        self.network = shufflenet_v2_x0_5().eval()
        state = self.network.state_dict()
        monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights, "get_state_dict", lambda *_, **__: state)
        self.names = ShuffleNet_V2_X0_5_Weights.DEFAULT.meta["categories"]

    def teacher(self, data, **node):
        network = {"type": "torchvision.models.shufflenet_v2_x0_5", "weights": "DEFAULT"}
        return ADAPTER.build_model(data, "teacher", network=network, size=32, **node)

    @pytest.mark.parametrize("by_map", [False, True])
    @pytest.mark.parametrize(
        "said", [{}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}], ids=["", "mean"]
    )
    def test_its_classes_are_known_by_name(self, by_map, said):
        data = data_of("a", "b") if by_map else data_of("tabby", "tench")
        node = {"class_map": {"a": "tabby", "b": "tench"}} if by_map else {}
        teacher = self.teacher(data, **node, **said)
        chosen = [self.names.index("tabby"), self.names.index("tench")]
        assert torch.equal(teacher.network.fc.weight, self.network.fc.weight[chosen])
        assert not teacher.other_classes
        assert teacher.mean.flatten()[0] == pytest.approx(0.5 if said else 0.485)

    def test_folders_with_other_names_of_imagenet_keep_its_order(self):
        data = data_of(*(f"n{number:08}" for number in range(1000)))
        teacher = self.teacher(data)
        assert torch.equal(teacher.network.fc.weight, self.network.fc.weight)
        assert not teacher.other_classes


def test_a_file_that_does_not_say_how_images_were_shown_is_told_what_timm_shows(tmp_path, capsys):
    network = timm.create_model("test_efficientnet", num_classes=2)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    own = {"mean": (0.4,) * 3, "std": (0.2,) * 3}
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    other, alike = (data_of("cat", "dog", **statistics) for statistics in (own, imagenet))

    def told(data, weights=str(tmp_path / "w.pth"), **statistics):
        timms = {"type": "timm.create_model", "model_name": "test_efficientnet"}
        ADAPTER.build_model(data, "teacher", network=timms, weights=weights, **statistics)
        return capsys.readouterr().err

    assert "w.pth does not say how its images were normalised" in (text := told(other))
    assert "timm's own weights of this network have mean=[0.485, 0.456, 0.406] and" in text
    for silent in (told(alike), told(other, **own), told(other, weights="random")):
        assert "does not say" not in silent
