"""`reid_evaluate` measures any network and any features on any set, as torchreid's engine does."""

import copy
import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from kd_core.experiment.parsers import ToolParser
from kd_core.files import checkpoint
from kd_core.files.artifacts import FILE
from kd_reid import torchreid
from kd_reid.arguments import add_network, add_passes
from kd_reid.data.options import Options
from kd_reid.data.records import Record
from kd_reid.data.sources import read_source
from kd_reid.embedder import Embedder
from kd_reid.evaluate import main
from kd_reid.evaluation import Evaluation, Features, extract
from kd_reid.measuring.models import Measured
from kd_reid.measuring.run import note_own_data
from kd_reid.measuring.targets import Images, Searching, Target, open_target, read_searching
from kd_reid.models import build_model
from kd_reid.neck import attach, neck_of
from kd_reid.student import facts_of, load_student
from kd_reid.synthetic.people import synthetic_people
from PIL import Image

NAME = "osnet_tiny"
ZOO, SET = f"{NAME}_market1501.pth", "data/market1501"
SIZE = ["--size", "64", "32", "--workers", "0"]


def images_of(folder):
    arrays = [np.array(Image.open(path)) for path in sorted(folder.glob("*.jpg"))]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a set, and a network whose embeddings differ, as a file of torchreid's zoo."""
    folder = tmp_path_factory.mktemp("place")
    few = {"num_train_ids": 5, "num_test_ids": 8, "num_cameras": 3, "images_per_camera": 2}
    synthetic_people(folder / "data/market1501", image_height=64, **few)
    torch.manual_seed(0)
    network = build_model(NAME, 751)
    embedder = Embedder(network, size=(64, 32)).train()
    with torch.no_grad():
        embedder.embed(images_of(folder / "data/market1501/bounding_box_train"))
    torch.save(network.state_dict(), folder / ZOO)
    node = {"type": "kd_reid.models.build_model", "name": NAME}
    (folder / "run").mkdir()
    facts = facts_of(node, 751, embedder, (64, 32))
    checkpoint.export(network.state_dict(), folder / "run" / FILE, facts)
    return folder


@pytest.fixture(autouse=True)
def _inside(place, tmp_path, monkeypatch):
    """Work in a folder of its own with the set and the file."""
    (tmp_path / "data").symlink_to(place / "data")
    (tmp_path / ZOO).symlink_to(place / ZOO)
    shutil.copytree(place / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)


def measured(*arguments, sets=(SET,), size=SIZE):
    """Run the tool and return the metrics of its only set."""
    line = [*map(str, arguments), *(["--data", *sets] if sets else []), "--out", "out.json"]
    assert main([*line, *size]) == 0
    found = json.loads(Path("out.json").read_text())["sets"]
    return next(iter(found.values()))["metrics"]


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def of_networks():
    """Return the options that say what network there is, and how images reach it."""
    parser = ToolParser(add_help=False)
    add_network(parser)
    add_passes(parser)
    return parser._actions


class Own(NamedTuple):
    """A finished run's features of the set."""

    embedder: Embedder
    target: Target
    features: Features


@pytest.fixture(scope="module")
def own_features(place):
    searching = read_searching(str(place / SET))
    target = open_target(searching, (64, 32), Options(workers=0))
    embedder = load_student(place / "run")
    return Own(embedder, target, extract(embedder, target))


@pytest.fixture
def own(own_features):
    query, gallery = (copy.deepcopy(getattr(own_features.target, p)) for p in ("query", "gallery"))
    return own_features._replace(target=Target("set", query, gallery))


@pytest.fixture(scope="module")
def plain(place, tmp_path_factory):
    """What the file of the zoo reaches."""
    out = tmp_path_factory.mktemp("out") / "out.json"
    line = [str(place / ZOO), "--data", str(place / SET), "--out", str(out)]
    assert main([*line, *SIZE]) == 0
    return json.loads(out.read_text())["sets"]["market1501"]["metrics"]


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_torchreid_s_own_engine_finds_the_same(rerank, monkeypatch):
    found = []
    ranking = torchreid.metrics.evaluate_rank

    def recorded(*arguments, **options):
        found.append(ranking(*arguments, **options, use_cython=False))
        return found[-1]

    monkeypatch.setattr(torchreid.metrics, "evaluate_rank", recorded)
    data = torchreid.data.ImageDataManager(
        root="data", sources="market1501", height=64, width=32, use_gpu=False, workers=0,
        batch_size_train=4, batch_size_test=10,
    )  # fmt: skip
    network = torchreid.models.build_model(NAME, 751, pretrained=False, use_gpu=False)
    torchreid.utils.load_pretrained_weights(network, ZOO)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torchreid.engine.ImageSoftmaxEngine(data, network, optimizer, use_gpu=False).test(rerank=rerank)
    ((cmc, mean_ap),) = found
    scores = measured(ZOO, *(["--rerank", "--squared-twice"] if rerank else []))
    prefix = "reranked_" if rerank else ""
    assert 0.05 < mean_ap < 0.95
    assert scores[f"{prefix}mAP"] / 100 == pytest.approx(mean_ap, abs=1e-6)
    for rank in (1, 5, 10, 20):
        assert scores[f"{prefix}rank{rank}"] / 100 == pytest.approx(cmc[rank - 1], abs=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
        lambda state: {"model": {f"backbone.{k}": v for k, v in state.items()}},
        lambda state: {f"model.{k}": v for k, v in state.items()},
        lambda state: {k: v for k, v in state.items() if not k.startswith("classifier")},
        lambda state: {**state, "fc_attributes.weight": torch.zeros(30, 512)},
    ],
)
def test_prefixes_and_classifiers_change_nothing(wrap, plain):
    torch.save(wrap(torch.load(ZOO, weights_only=True)), "weights.pth")
    assert measured("weights.pth", "--network", NAME) == plain


@pytest.mark.parametrize("name", ["bottleneck", "classifier.bn", "heads.bnneck"])
def test_the_search_takes_the_embedding_behind_a_neck(name, plain, own):
    state = torch.load(ZOO, weights_only=True)
    torch.manual_seed(1)
    parts = {"weight": torch.rand(512) + 0.2, "running_mean": torch.rand(512)}
    parts |= {"running_var": torch.rand(512) + 0.1}
    body = {f"base.{k}": v for k, v in state.items() if not k.startswith("classifier")}
    if name.startswith("classifier"):
        body = {k.removeprefix("base."): v for k, v in body.items()}
    torch.save({**body, **{f"{name}.{k}": v for k, v in parts.items()}}, "neck.pth")
    network = build_model(NAME, 751)
    network.load_state_dict(state)
    attach(network)
    neck_of(network).bn.load_state_dict(parts, strict=False)
    embedder = Embedder(network.eval(), size=(64, 32)).eval()
    expected = Evaluation(own.target, "cosine")(embedder)
    found = measured("neck.pth", "--network", NAME, "--distance", "cosine")
    assert found == pytest.approx(expected, abs=1e-3)
    assert found != plain


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"embed.weight": torch.zeros(8, 128)}, "embed.weight beside the network's own"),
        ({"extra": torch.zeros(3)}, "extra beside"),
        ({"bn.running_mean": torch.zeros(9)}, "BatchNorms that are not of this network: bn"),
        ({"conv1.bn.weight": torch.zeros(9)}, r"conv1.bn.weight is \[9\]"),
        ({"conv1.bn.weight": None}, "lacks|missing"),
        ({"conv1.bn.weight": torch.full((16,), torch.nan)}, "conv1.bn.weight"),
    ],
)
def test_files_of_other_networks_are_refused(more, text, capsys):
    state = {**torch.load(ZOO, weights_only=True), **more}
    torch.save({k: v for k, v in state.items() if v is not None}, f"{NAME}.pth")
    line = refused(capsys, f"{NAME}.pth", "--data", SET, "--network", NAME)
    assert re.search(text, line)


@pytest.mark.parametrize("file", ["", FILE])
def test_a_finished_run_says_its_network_and_size(file, plain):
    assert measured(Path("run", file), size=["--workers", "0"]) == plain


@pytest.mark.parametrize(
    "options", [["--network", NAME], ["--mean", "0", "0", "0"], ["--network-options", "a=1"]]
)
def test_what_a_run_says_already_is_refused(options, capsys):
    assert f"{options[0]}: run" in refused(capsys, "run", "--data", SET, *options)


@pytest.mark.parametrize("option", ["name=resnet50", "num_classes=5", "pretrained=True"])
def test_arguments_of_the_network_that_are_no_options_are_refused(option, capsys):
    told = refused(capsys, ZOO, "--data", SET, "--network-options", option)
    assert f"--network-options {option.partition('=')[0]}: leave it out" in told


@pytest.mark.parametrize("content", [b"", b"x" * 50])
def test_a_damaged_file_is_told_in_one_line(content, capsys):
    Path("w.safetensors").write_bytes(content)
    told = refused(capsys, "w.safetensors", "--network", NAME, "--data", SET)
    assert "w.safetensors: damaged" in told


@pytest.mark.parametrize(
    ("out", "text"), [("run", "JSON file"), (f"{ZOO}", "JSON file"), (f"{ZOO}/o.json", "is a file")]
)
def test_results_that_cannot_be_written_are_refused_before_the_work(out, text, capsys):
    assert text in refused(capsys, ZOO, "--data", SET, "--out", out)


def test_a_run_that_has_not_ended_is_told_how_to_continue_it(capsys):
    Path("begun").mkdir()
    for name in ("config.json", "config.py", "best.pth"):
        Path("begun", name).write_bytes(b"")
    for model in ("begun", "begun/best.pth"):
        told = refused(capsys, model, "--data", SET)
        assert "not finished; the same command with --resume continues it" in told


@pytest.mark.parametrize(
    ("searched", "same_camera", "texts"),
    [
        ({"is_whole": True}, False, ["trained on a part of it", "add --camera 'c(.)'"]),
        ({"is_whole": False}, False, ["add --camera 'c(.)'"]),
        ({"is_whole": False}, True, []),
        ({"is_whole": False, "camera": "1"}, False, []),
        ({"is_whole": True, "source": "others"}, False, []),
    ],
)
def test_what_differs_from_the_run_s_own_evaluation_is_told(searched, same_camera, texts, capsys):
    record = Record("a.jpg", "a", searched.get("camera"))
    images, source = Images([record]), searched.get("source", "./data/people")
    searching = Searching(source, images, images, is_whole=searched["is_whole"])
    own = Measured(None, (64, 32), {}, "data/people", "c(.)")
    note_own_data(searching, own, same_camera=same_camera)
    told = capsys.readouterr().err
    assert len(told.splitlines()) == len(texts)
    assert all(text in told for text in texts)


def test_a_set_with_a_part_to_train_on_is_not_searched_as_a_whole():
    assert not read_searching(SET).is_whole
    paths = [f"p{n}/{name}.jpg" for n in range(2) for name in "ab"]
    for path in paths:
        Path("own", path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 32)).save(Path("own", path))
    assert read_searching("own").is_whole


def test_a_mirror_image_counts_as_much(own):
    once, target = own.features, own.target
    target.query.loader.images, target.gallery.loader.images = (
        part.loader.images.flip(-1) for part in (target.query, target.gallery)
    )
    mirrored = extract(own.embedder, target)
    mean = Features(*((a + b) / 2 for a, b in zip(once, mirrored, strict=True)))
    found = measured("run", "--flip")
    assert found == pytest.approx(Evaluation(target).measure(mean), abs=1e-3)


class TestSets:
    def table(self, columns, rows):
        with Path("set.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])

    def test_a_csv_file_and_several_sets_are_searched(self, plain, capsys):
        found = read_source(SET)
        images = [*found.query, *found.gallery]
        rows = [(Path(i.path).resolve(), i.identity, i.camera) for i in images]
        self.table(("path", "identity", "camera"), rows)
        line = [ZOO, "--data", SET, "set.csv", "market1501:data", "--out", "o.json", *SIZE]
        assert main([*line, "--fpr", "0.1"]) == 0
        sets = json.loads(Path("o.json").read_text())["sets"]
        assert sets[SET]["metrics"].items() >= plain.items()  # a short name would not be clear
        assert sets["market1501:data"]["metrics"] == sets[SET]["metrics"]
        assert sets["set.csv"]["images"]["query"] > 0
        assert "TPR@FPR=0.1" in capsys.readouterr().out

    def test_identity_folders_of_one_camera_need_the_option(self, capsys):
        for record in read_source(SET).gallery:
            target = Path("own", record.identity, "cam1", Path(record.path).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(record.path, target)
        camera = ["--data", "own", "--camera", r"cam(\d)"]
        assert "--same-camera" in refused(capsys, ZOO, *camera)
        assert measured(ZOO, "--camera", r"cam(\d)", "--same-camera", sets=["own"])["rank20"] > 0
        assert measured(ZOO, sets=["own"])["rank20"] > 0  # by their names

    def test_a_set_needs_no_training_part(self, plain):
        for name in ("query", "bounding_box_test"):
            Path("test", name).parent.mkdir(exist_ok=True)
            Path("test", name).symlink_to(Path(SET, name).resolve())
        assert measured(ZOO, sets=["test"]) == plain

    def test_said_cameras_of_named_sets_are_refused(self, capsys):
        assert "leave camera out" in refused(
            capsys, ZOO, "--data", "market1501:data", "--camera", "c(.)"
        )
        Path("set.py").write_text('data = dict(type="kd_reid.data.market1501", root="data")')
        assert "data.same_camera" in refused(capsys, ZOO, "--data", "set.py", "--same-camera")

    def test_a_config_s_data_are_searched(self, plain):
        options = "image_size=(64, 32), workers=0"
        text = f'data = dict(type="kd_reid.data.market1501", root="{SET}", {options})'
        Path("set.py").write_text(text)
        assert measured(ZOO, sets=["set.py"]) == plain

    @pytest.mark.parametrize(
        ("sets", "text"),
        [
            ([], "name the sets that are searched"),
            ([SET, SET], "twice"),
            (["market15:data"], "did you mean 'market1501'"),
            (["nowhere"], "there is no set nowhere; valid names: data, empty.py, gone.csv"),
            (["market1501"], "there is no set market1501: a public set is named with its folder"),
            (["empty.py"], "empty.py: wanted a config with data=dict(type=...)"),
            (["gone.csv"], "gone.jpg"),
        ],
    )
    def test_unclear_sets_are_refused(self, sets, text, capsys):
        Path("empty.py").write_text("trainer = dict()")
        rows = [(name, "1", camera) for name in ("gone.jpg", ZOO) for camera in "12"]
        self.table(("path", "identity", "camera"), rows)
        Path("set.csv").rename("gone.csv")
        assert text in refused(capsys, ZOO, *(["--data", *sets] if sets else []))


class TestSavedFeatures:
    @pytest.fixture
    def saved(self, own, place):
        rows = torch.cat(own.features)
        lines = [
            (
                Path(record.path).relative_to(place / "data").as_posix(),
                record.identity,
                f"c0{record.camera}",
                split,
            )
            for split in ("query", "gallery")
            for record in getattr(own.target, split).records
        ]
        order = np.random.default_rng(0).permutation(len(lines))
        np.save("f.npy", rows.numpy()[order])
        self.write([lines[n] for n in order])
        return [lines[n] for n in order]

    def write(self, lines, columns=("path", "identity", "camera", "split")):
        with Path("f.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *lines])

    def test_they_are_searched_as_the_network_s(self, saved, plain):
        alone = measured("f.npy", sets=[], size=[])
        assert alone == pytest.approx(plain, abs=1e-3)
        found = measured("f.npy", sets=[SET], size=[])
        assert found == pytest.approx(plain, abs=1e-3)

    def test_windows_paths_and_no_cameras_are_read(self, saved):
        self.write([(line[0].replace("/", "\\"), *line[1:]) for line in saved])
        whole = measured("f.npy", sets=[SET], size=[])
        assert whole["rank1"] > 0
        self.write([(line[1], line[3]) for line in saved], ("identity", "split"))
        assert measured("f.npy", sets=[], size=[])["rank1"] >= whole["rank1"]

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (lambda: Path("f.csv").unlink(), "f.csv: there is no such file"),
            (lambda: np.save("f.npy", np.array([{}] * 40)), "not an array that np.save wrote"),
            (lambda: np.save("f.npy", np.zeros((3, 4))), "has 3 features"),
            (lambda: np.save("f.npy", np.zeros(64)), r"wanted features [images, width], got [64]"),
            (lambda: np.save("f.npy", np.zeros((64, 2), int)), "as floats, got int64"),
            (lambda: np.save("f.npy", np.full((64, 2), np.nan)), "not finite"),
            (lambda: Path("f.npy").write_bytes(b"\x93NUMPY\x01\x00v"), "not an array"),
            (
                lambda: np.save("f.npy", np.zeros((24, 0))),
                "wanted features [images, width], got [24, 0]",
            ),
            (lambda: np.save("f.npy", np.zeros((64, 2), complex)), "as floats, got complex"),
            (lambda: Path("f.npy").unlink(), "there is no finished run or file of weights f.npy"),
            (lambda: in_place_of("f.npy"), "f.npy: cannot be read (Is a directory)"),
            (lambda: in_place_of("f.csv"), "f.csv: there is no such file"),
            (lambda: Path("f.csv").write_text(""), "f.csv: is empty"),
            (lambda: Path("f.csv").write_text("path,path\na,b\n"), "each once, got"),
            (lambda: Path("f.csv").write_bytes(b"path,identity\n\xff\xfe,\x00\n"), "f.csv"),
            (lambda: Path("f.csv").write_text("path,who\na,b\n"), "column 'who' is not known"),
            (lambda: Path("f.csv").write_text("path,identity\na,\n"), "f.csv:2: identity is empty"),
        ],
    )
    def test_damaged_files_are_refused(self, spoil, text, saved, capsys):
        spoil()
        assert text in refused(capsys, "f.npy")

    @pytest.mark.parametrize("missing", ["identity", "split", "path"])
    def test_a_column_that_is_missing_is_named(self, missing, saved, capsys):
        names = ["path", "identity", "camera", "split"]
        place = names.index(missing)
        del names[place]
        self.write([[*line[:place], *line[place + 1 :]] for line in saved], names)
        sets = ["--data", SET] if missing == "path" else []
        assert f"f.csv: has no column '{missing}'" in refused(capsys, "f.npy", *sets)

    def test_images_without_one_row_are_refused(self, saved, capsys):
        self.write([("x.jpg", *saved[0][1:]), *saved[1:]])
        assert "has no row for" in refused(capsys, "f.npy", "--data", SET)
        self.write([(*line[:3], "test") for line in saved])
        assert "split is query or gallery, got 'test'" in refused(capsys, "f.npy")
        rows = np.load("f.npy")
        np.save("f.npy", np.concatenate([rows, rows[:1]]))
        self.write([*saved, saved[0]])
        assert "has several rows for" in refused(capsys, "f.npy", "--data", SET)

    @pytest.mark.parametrize("action", of_networks(), ids=lambda action: action.dest)
    def test_options_of_networks_are_refused(self, action, saved, capsys):
        """Of all of them, also where the value is 0."""
        option = action.option_strings[0]
        value = "a=1" if action.dest == "network_options" else "0"
        values = [value] * (action.nargs if isinstance(action.nargs, int) else 1)
        told = refused(capsys, "f.npy", option, *values)
        assert f"{option}: f.npy has features already" in told

    @pytest.mark.parametrize("option", [["--no-distractors"], ["--camera", "c(.)"]])
    def test_options_of_sets_without_a_set_are_refused(self, option, saved, capsys):
        assert f"{option[0]} is for --data" in refused(capsys, "f.npy", *option)


def in_place_of(name):
    """Put a folder where a file was."""
    Path(name).unlink()
    Path(name).mkdir()


README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize(
    "command",
    re.findall(r"^uv run tools/reid_evaluate\.py (.+)$", README.read_text(), re.MULTILINE),
)
def test_the_commands_of_the_readme_run(command, own, place):
    """With the same files under their names, but small."""
    arguments = shlex.split(command)
    Path(arguments[0]).parent.mkdir(exist_ok=True)
    if arguments[0].endswith(".npy"):
        np.save(arguments[0], torch.cat(own.features).numpy())
        records = [*own.target.query.records, *own.target.gallery.records]
        lines = "".join(f"{Path(r.path).name}\n" for r in records)
        Path(arguments[0]).with_suffix(".csv").write_text(f"path\n{lines}")
        assert main(arguments) == 0
        return
    if arguments[0].startswith("runs"):
        Path("run").rename(arguments[0])
        rows = [
            f"{Path(SET, 'query').resolve()}/{p.name},{p.name[:4]}"
            for p in Path(SET, "query").iterdir()
        ]
        Path("people.csv").write_text("\n".join(["path,identity", *rows]))
        arguments = [a.replace("data/people.csv", "people.csv") for a in arguments]
    else:
        shutil.copy(ZOO, arguments[0])
        arguments = [{"resnet50": NAME, "msmt17:data": SET}.get(a, a) for a in arguments]
        if "osnet_x1_0" in arguments[0]:
            arguments += ["--network", NAME]
        if "--network-options" in arguments:
            place = arguments.index("--network-options")
            del arguments[place : place + 2]  # of ResNets alone
        arguments += ["--size", "64", "32"]
    assert main([*arguments, "--workers", "0"]) == 0
