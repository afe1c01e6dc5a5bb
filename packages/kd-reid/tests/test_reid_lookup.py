"""`reid_embed` embeds folders of pictures, and `reid_search` finds what is nearest in them."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_core.data.image_files import read_image
from kd_core.files import checkpoint
from kd_core.files.artifacts import FILE
from kd_reid import embed, evaluate, search
from kd_reid.data.options import Options
from kd_reid.embedder import Embedder
from kd_reid.evaluation import extract
from kd_reid.lookup import embedding, progress
from kd_reid.measuring.models import measured_model
from kd_reid.measuring.targets import open_target, read_searching
from kd_reid.models import build_model
from kd_reid.neck import attach, neck_of
from kd_reid.pictures import HIT, MISS, draw_rows
from kd_reid.student import facts_of, load_student
from kd_reid.synthetic.people import synthetic_people
from PIL import Image

NAME = "osnet_tiny"
ZOO, SET, SIZE = f"{NAME}.pth", "data/market1501", ["--size", "32", "16"]
CROPS = f"{SET}/bounding_box_test"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a set of people, and one network as a run and as a file of torchreid's zoo."""
    folder = tmp_path_factory.mktemp("place")
    few = {"num_train_ids": 2, "num_test_ids": 4, "num_cameras": 2, "images_per_camera": 2}
    crops = synthetic_people(folder / SET, image_height=64, **few) / "bounding_box_test"
    torch.manual_seed(0)
    network = build_model(NAME, 751)
    embedder = Embedder(network, size=(32, 16)).train()
    pixels = [np.array(Image.open(path)) for path in sorted(crops.glob("*.jpg"))]
    with torch.no_grad():  # for statistics by which embeddings differ
        embedder.embed(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    torch.save(network.state_dict(), folder / ZOO)
    (folder / "run").mkdir()
    facts = facts_of({"type": "kd_reid.models.build_model", "name": NAME}, 751, embedder, (32, 16))
    checkpoint.export(network.state_dict(), folder / "run" / FILE, facts)
    return folder


@pytest.fixture(scope="module")
def embedded(place):
    """The files of the gallery's embeddings."""
    line = [str(place / "run"), str(place / CROPS), "--out", str(place / "made/gallery.npy")]
    assert embed.main(line) == 0
    return place / "made"


@pytest.fixture(autouse=True)
def _inside(place, embedded, tmp_path, monkeypatch):
    """Work in a folder of its own, where all of this is."""
    for name in ("data", "run", ZOO):
        (tmp_path / name).symlink_to(place / name)
    for file in embedded.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _read_once(read, monkeypatch):
    """Read the run's network once for all tests; whatever else is named, each time."""

    def measured(args):
        if args.model != "run" or args.network:
            return measured_model(args)
        if not read:
            read.append(measured_model(args))
        return read[0]

    monkeypatch.setattr(embedding, "measured_model", measured)


@pytest.fixture(scope="module")
def read():
    return []


def refused(capsys, tool, *arguments):
    capsys.readouterr()
    assert tool.main([*map(str, arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def rows_of(file):
    array = np.load(file)
    with Path(file).with_suffix(".csv").open(newline="", encoding="utf-8") as opened:
        names = [line["path"] for line in csv.DictReader(opened)]
    return dict(zip(names, array, strict=True))


def queries():
    return sorted(Path(SET, "query").glob("*.jpg"))


def found(*arguments, out="search.png"):
    """Search, and return the ranking."""
    assert search.main([*map(str, arguments), "--out", out]) == 0
    return json.loads(Path(out).with_suffix(".json").read_text())


class TestEmbed:
    def test_rows_are_those_that_evaluation_compares(self, place):
        assert embed.main(["run", SET, "--out", "all.npy"]) == 0
        rows = rows_of("all.npy")
        target = open_target(read_searching(SET), (32, 16), Options(workers=0))
        features = extract(load_student("run"), target)
        for part, values in zip((target.query, target.gallery), features, strict=True):
            for record, value in zip(part.records, values.numpy(), strict=True):
                name = str(Path(record.path).relative_to("data"))
                np.testing.assert_allclose(rows[name], value, rtol=1e-5, atol=1e-6)

    def test_evaluation_reads_them(self):
        assert embed.main(["run", SET, "--out", "all.npy"]) == 0
        scores = []
        for model in ("all.npy", "run"):
            workers = ["--workers", "0"] if model == "run" else []
            assert evaluate.main([model, "--data", SET, "--out", "o.json", *workers]) == 0
            scores.append(json.loads(Path("o.json").read_text())["sets"]["market1501"]["metrics"])
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)

    def test_batches_change_nothing(self, embedded):
        assert embed.main(["run", CROPS, "--batch-size", "7", "--device", "cpu"]) == 0
        once = np.load(embedded / "gallery.npy")
        np.testing.assert_allclose(np.load("embeddings.npy"), once, rtol=1e-4, atol=1e-6)

    def test_mirror_images_count_as_much_and_lengths_become_one(self, embedded):
        Path("crops").mkdir()
        Path("mirrored").mkdir()
        for file in sorted(Path(CROPS).glob("*.jpg"))[:3]:
            with Image.open(file) as image:
                image.save(f"crops/{file.stem}.png")
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(f"mirrored/{file.stem}.png")
        for name, options in (("crops", []), ("mirrored", []), ("crops", ["--flip"])):
            out = f"{name}{len(options)}.npy"
            assert embed.main(["run", name, "--out", out, *options]) == 0
        mean = (np.load("crops0.npy") + np.load("mirrored0.npy")) / 2
        np.testing.assert_allclose(np.load("crops1.npy"), mean, rtol=1e-4, atol=1e-6)
        assert embed.main(["run", "crops", "--normalise", "--flip"]) == 0
        expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(np.load("embeddings.npy"), expected, rtol=1e-4, atol=1e-6)

    def test_any_usual_picture_is_read_as_it_is_seen(self):
        """Upright, in colour, in 8 bits: nested pictures of other kinds have equal rows."""
        with Image.open(queries()[0]) as image:
            pixels = np.array(image)
        colour, grey = Image.fromarray(pixels), Image.fromarray(pixels).convert("L")
        alpha = Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)]))
        deep = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        kinds = {"plain": colour, "a/alpha": alpha, "a/b/grey": grey, "a/b/deep": deep}
        kinds |= {"three_grey": grey.convert("RGB")}
        for name, image in kinds.items():
            file = Path("mixed", f"{name}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        turned = colour.transpose(Image.Transpose.ROTATE_90)
        turned.save("mixed/turned.png", exif=exif)
        assert embed.main(["run", "mixed"]) == 0
        rows = rows_of("embeddings.npy")
        names = {f"mixed/{name}.png" for name in (*kinds, "turned")}
        assert rows.keys() == names
        for one, other in (("plain", "a/alpha"), ("plain", "turned"), ("three_grey", "a/b/grey")):
            np.testing.assert_array_equal(rows[f"mixed/{one}.png"], rows[f"mixed/{other}.png"])
        np.testing.assert_array_equal(rows["mixed/a/b/grey.png"], rows["mixed/a/b/deep.png"])

    def test_broken_pictures_are_refused_or_left_out_and_told(self, capsys):
        Path("crops").mkdir()
        for number, file in enumerate(queries()[:3]):
            shutil.copy(file, f"crops/{number}, 'one'.jpg")
        whole = Path("crops/0, 'one'.jpg").read_bytes()
        for number in range(7):
            Path(f"crops/broken{number}.jpg").write_bytes(whole[: 300 * bool(number)])
        Path("crops/link.jpg").symlink_to("nowhere.jpg")
        assert "crops/link.jpg: is a link to nothing" in refused(capsys, embed, "run", "crops")
        Path("crops/link.jpg").unlink()
        assert "crops/broken0.jpg: cannot be decoded" in refused(capsys, embed, "run", "crops")
        assert not list(Path().glob("embeddings*"))
        Path("crops/link.jpg").symlink_to("nowhere.jpg")
        assert embed.main(["run", "crops", "--skip-broken"]) == 0
        told = capsys.readouterr().err
        assert "left out 1 not files ('link.jpg')" in told
        assert "left out 7 of 10 pictures, which cannot be decoded: broken0.jpg" in told
        assert "broken4.jpg and 2 more" in told
        assert list(rows_of("embeddings.npy")) == [f"crops/{n}, 'one'.jpg" for n in range(3)]
        for file in Path("crops").glob("?, *"):
            file.unlink()
        line = refused(capsys, embed, "run", "crops", "--skip-broken", "--out", "b.npy")
        assert "none of 7 pictures can be decoded" in line

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("run", ZOO), f"FOLDER {ZOO}: is a file"),
            (("run", "empty"), "empty: no pictures in it"),
            (("gallery.npy", CROPS), "gallery.npy: has embeddings; MODEL is what makes them"),
            (("run", CROPS, "--out", "gallery.npy"), "gallery.npy: is there already"),
            (("run", CROPS, "--out", "notes.npy"), "notes.csv: is there already"),
            (("run", CROPS, "--out", "rows.csv"), "wanted the name of a NPY file"),
            (("run", CROPS, "--batch-size", "0"), "batch_size"),
            (("run", CROPS, "--device", "gpu"), "--device gpu: cannot be used here"),
            (("run", CROPS, "--device", "meta"), "--device meta: cannot be used here"),
            (("run", CROPS, "--network", NAME), "--network: run"),
            (("run", "spaced"), "cannot be written into a table"),
            (("run", "bytes"), "cannot be written into a table"),
        ],
    )
    def test_what_cannot_be_is_refused(self, arguments, text, capsys):
        Path("notes.csv").write_text("mine")
        for folder, name in (("empty", b"a.txt"), ("spaced", b"a.jpg"), ("bytes", b"a\xff.jpg")):
            Path(folder).mkdir()
            shutil.copy(queries()[0], os.path.join(os.fsencode(folder), name))
        Path("spaced").rename(" spaced")
        arguments = [" spaced" if a == "spaced" else a for a in arguments]
        assert text in refused(capsys, embed, *arguments)
        assert Path("notes.csv").read_text() == "mine"

    def test_embeddings_that_are_not_finite_name_a_picture(self, capsys, monkeypatch):
        def lost(model, loader, **options):
            return torch.full((len(loader.labels), 2), torch.nan)

        monkeypatch.setattr(embedding, "embeddings", lost)
        line = refused(capsys, embed, "run", CROPS)
        assert "its embedding is not finite" in line
        assert CROPS in line

    def test_a_log_says_how_far_it_is(self, monkeypatch, capsys):
        monkeypatch.setattr(progress, "_SECONDS", 0.0)
        assert list(progress.watched(range(4), 4)) == [0, 1, 2, 3]
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith("embedded 25%, about ")
        assert len(told) == 3


class TestSearch:
    def test_the_nearest_are_those_of_the_embeddings(self, embedded):
        chosen = queries()[:2]
        report = found("run", *chosen, CROPS, "--top-k", "5")
        rows = rows_of("gallery.npy")
        assert embed.main(["run", f"{SET}/query", "--out", "q.npy"]) == 0
        own = rows_of("q.npy")
        for query, asked in zip(report["queries"], chosen, strict=True):
            assert query["query"] == str(asked)
            far = {n: np.square(own[f"query/{asked.name}"] - r).sum() for n, r in rows.items()}
            best = sorted(far, key=far.get)[:5]
            names = [os.path.relpath(match["file"], SET) for match in query["ranked"]]
            assert names == best
            distances = [match["distance"] for match in query["ranked"]]
            assert distances == pytest.approx([far[name] for name in best], rel=1e-2, abs=1e-5)
        with Image.open("search.png") as picture:
            assert picture.size == (6 + 78 + 12 + 5 * 78 + 12, 22 + 2 * (142 + 16) + 6)
            colours = {colour for _, colour in picture.getcolors(maxcolors=10**6)}
        assert (0x2B, 0x6C, 0xB0) in colours
        assert tuple(bytes.fromhex(HIT[1:])) not in colours  # nothing is known of people

    def test_one_network_is_one_however_it_is_named(self):
        state = torch.load(ZOO, weights_only=True)
        body = {f"module.{k}": v for k, v in state.items() if not k.startswith("classifier")}
        torch.save({"state_dict": body}, "weights.pth")
        line = [queries()[0], "gallery.npy", "--top-k", "4"]
        folder = found("run", queries()[0], CROPS, "--top-k", "4", out="folder.png")
        names = [Path(m["file"]).name for m in folder["queries"][0]["ranked"]]
        foreign = [*SIZE, "--network", NAME]
        for model in ([f"run/{FILE}"], [ZOO, *SIZE], ["weights.pth", *foreign]):
            report = found(*model, *line, out=f"{Path(model[0]).stem}.png")
            assert [Path(m["file"]).name for m in report["queries"][0]["ranked"]] == names

    def test_embeddings_of_another_network_or_of_other_images_are_refused(self, capsys):
        query, other = queries()[0], "other.pth"
        line = ("--network", NAME, query, "gallery.npy")
        state = torch.load(ZOO, weights_only=True)
        state["conv5.conv.weight"] = state["conv5.conv.weight"] * 1.001
        torch.save(state, other)
        assert "was made by another network" in refused(capsys, search, other, *SIZE, *line)
        assert "add --size 32 16" in refused(capsys, search, ZOO, *line)
        mean = [*SIZE, "--mean", "0.5", "0.5", "0.5"]
        assert "add --mean 0.485 0.456 0.406" in refused(capsys, search, ZOO, *mean, *line)
        said = refused(capsys, search, ZOO, *SIZE, "--flip", *line)
        assert "--flip: gallery.npy was made without it" in said
        torch.manual_seed(0)
        necked = build_model(NAME, 3)
        necked.load_state_dict(
            {k: v for k, v in state.items() if "classifier" not in k}, strict=False
        )
        attach(necked)
        neck_of(necked).bn.running_mean += 1
        torch.save(necked.state_dict(), other)
        assert "another network" in refused(capsys, search, other, *SIZE, *line)
        assert not Path("search.png").exists()

    def test_mirror_images_and_lengths_are_those_of_the_gallery(self):
        line = ["run", CROPS, "--flip", "--normalise", "--out", "unit.npy"]
        assert embed.main(line) == 0
        ranked = found("run", queries()[0], "unit.npy")["queries"][0]["ranked"]
        same = found("run", "--flip", queries()[0], CROPS, "--distance", "cosine", out="c.png")
        for match, other in zip(ranked, same["queries"][0]["ranked"], strict=True):
            assert Path(match["file"]).name == Path(other["file"]).name
            assert match["distance"] == pytest.approx(2 * other["distance"], abs=1e-5)

    def test_the_query_itself_is_left_out_but_not_its_copy(self):
        own = sorted(Path(CROPS).glob("0*.jpg"))[0]
        names = [m["file"] for m in found("run", own, CROPS)["queries"][0]["ranked"]]
        assert str(own) not in names
        shutil.copy(own, "copy.jpg")
        best = found("run", "copy.jpg", "gallery.npy", out="b.png")["queries"][0]["ranked"][0]
        assert Path(best["file"]).name == own.name
        assert best["distance"] == pytest.approx(0, abs=1e-5)

    def test_a_small_gallery_is_ranked_whole(self):
        Path("few").mkdir()
        for file in queries()[:2]:
            shutil.copy(file, "few")
        assert len(found("run", queries()[3], "few")["queries"][0]["ranked"]) == 2

    def test_pictures_that_moved_are_asked_for(self, capsys):
        shutil.copytree(Path(CROPS).resolve(), "crops")
        assert embed.main(["run", "crops"]) == 0
        Path("crops").rename("elsewhere")
        line = ("run", queries()[0], "embeddings.npy")
        assert "--images FOLDER says where it is now" in refused(capsys, search, *line)
        best = found(*line, "--images", "elsewhere")["queries"][0]["ranked"][0]["file"]
        assert best.startswith("elsewhere/")
        Path(best).unlink()
        line = refused(capsys, search, *line, "--images", "elsewhere", "--out", "b.png")
        assert f"{best}: is not there any more" in line
        assert not Path("b.png").exists()

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (lambda: Path("gallery.json").unlink(), "has no gallery.json that says what made it"),
            (lambda: Path("gallery.csv").unlink(), "gallery.csv: is not the file that"),
            (lambda: np.save("gallery.npy", np.zeros((3, 4))), "gallery.npy: is not the file that"),
            (lambda: Path("gallery.csv").write_text("path\nx\n"), "gallery.csv: is not the file"),
            (lambda: Path("gallery.json").write_text("{}"), "gallery.json: damaged"),
            (lambda: checkpoint.save_json({"files": 1}, Path("gallery.json")), "not a file that"),
        ],
    )
    def test_files_that_do_not_belong_together_are_refused(self, spoil, text, capsys):
        spoil()
        assert text in refused(capsys, search, "run", queries()[0], "gallery.npy")

    def test_every_fact_of_embeddings_is_checked(self, capsys):
        facts = checkpoint.load_json(Path("gallery.json"))
        made = facts["made_by"]
        changes = [{"made_by": {**made, name: ["x"]}} for name in made]
        changes += [{"made_by": {**made, "more": 1}}, {"folder": 3}, {"files": {".npy": ""}}]
        for change in changes:
            checkpoint.save_json({**facts, **change}, Path("gallery.json"))
            line = refused(capsys, search, "run", queries()[0], "gallery.npy")
            assert "not a file that reid_embed wrote" in line, change

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("x.jpg", CROPS), "there is no picture x.jpg"),
            (("data", CROPS), "data: is a folder, not an image file"),
            (("broken.jpg", CROPS), "broken.jpg: cannot be decoded"),
            (("@", ZOO), f"GALLERY {ZOO}: wanted a folder of pictures, or a file of embeddings"),
            (("@",), "the following arguments are required"),
            (("@", CROPS, "--top-k", "0"), "wanted a whole number from 1 to 50"),
            (("@", CROPS, "--out", "run.json"), "wanted the name of a PNG file"),
            (("@", CROPS, "--out", "gallery.png"), "gallery.json: is there already"),
            (("@", CROPS, "--images", "data"), "--images: data/market1501/bounding_box_test is a"),
            (("@", "gallery.npy", "--skip-broken"), "--skip-broken: gallery.npy is embedded"),
            ((*["@"] * 101, CROPS), "101 PICTUREs: 100 rows have room"),
        ],
    )
    def test_what_cannot_be_is_refused(self, arguments, text, capsys):
        Path("broken.jpg").write_text("not a picture")
        line = [queries()[0] if text == "@" else text for text in arguments]
        assert text in refused(capsys, search, "run", *line)
        assert not Path("search.json").exists()


def test_grey_pictures_are_drawn(tmp_path):
    read_image(str(queries()[0])).convert("L").save("grey.png")
    assert len(found("run", "grey.png", "gallery.npy", "--top-k", "1")["queries"]) == 1


DRAWN = "kd_reid.measuring.pictured.draw_galleries"


class TestPictures:
    """Of what `reid_evaluate` measures."""

    def drawn(self, *arguments, model="run"):
        sets = [] if "--data" in arguments else ["--data", SET]
        line = [model, *sets, *map(str, arguments), *(["--workers", "0"] if model == "run" else [])]
        return evaluate.main(line)

    @pytest.fixture
    def saved(self):
        """Features by which everybody is found, but nobody by the nearest image of all."""
        found = read_searching(SET)
        lines = [
            (r.path, r.identity, r.camera, split)
            for split in ("query", "gallery")
            for r in getattr(found, split).records
        ]
        number = {name: n for n, name in enumerate(sorted({line[1] for line in lines}))}
        camera = [float(line[2]) for line in lines]
        rows = [[10.0 * number[line[1]], c] for line, c in zip(lines, camera, strict=True)]
        np.save("f.npy", np.array(rows, dtype=np.float32))
        with Path("f.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "identity", "camera", "split"), *lines])
        return lines

    def test_a_run_is_shown(self, capsys):
        line = ["--galleries", "g.png", "--queries", "3", "--top-k", "4", "--rerank"]
        assert self.drawn(*line, "--tsne", "plane/t.png", "--people", "2") == 0
        said = capsys.readouterr().out
        assert "wrote g.png" in said
        assert "reranked_mAP" in said
        with Image.open("g.png") as picture:
            assert picture.size == (6 + 78 + 12 + 2 * (4 * 78 + 12), 22 + 3 * (142 + 16) + 6)
        with Image.open("plane/t.png") as picture:
            assert min(picture.size) > 200
        with Path("plane/t.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        people = {line["identity"] for line in lines}
        every = read_searching(SET)
        records = [*every.query.records, *every.gallery.records]
        assert len(people) == 2
        assert len(lines) == sum(record.identity in people for record in records)
        assert {line["split"] for line in lines} == {"query", "gallery"}
        assert all(Path(line["path"]).is_file() for line in lines)
        assert len({(line["x"], line["y"]) for line in lines}) > 2

    def test_the_same_picture_is_drawn_again(self, saved):
        for name in ("a", "b"):
            assert self.drawn("--tsne", f"{name}.png", model="f.npy") == 0
        assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()

    def test_galleries_are_those_of_the_metric(self, saved, monkeypatch):
        """The nearest of all is the same person by the same camera, which does not count."""
        drawn = []

        def kept(rows, path, *, shown):
            drawn.extend(rows)
            draw_rows(rows, path, shown=shown)

        monkeypatch.setattr("kd_reid.pictures.draw_rows", kept)
        line = ["--galleries", "g.png", "--queries", "100", "--top-k", "2", "--out", "o.json"]
        assert self.drawn(*line, model="f.npy") == 0
        scores = json.loads(Path("o.json").read_text())["sets"]["market1501"]["metrics"]
        assert scores["rank1"] == 100
        whose = {line[0]: line[1:3] for line in saved}
        assert len(drawn) == len({line[1] for line in saved if line[3] == "query"})
        for query, lists in drawn:
            person, camera = whose[query.path]
            for place, image in enumerate(lists["euclidean"]):
                right = whose[image.path][0] == person
                assert image.colour == (HIT if right else MISS)
                assert right == (place == 0)  # two cameras, an image of each in the gallery
                assert whose[image.path] != (person, camera)
        with Image.open("g.png") as picture:
            assert picture.size[1] == 22 + len(drawn) * (142 + 16) + 6

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--queries", "3"), "--queries has no effect without --galleries FILE.png"),
            (("--perplexity", "3"), "--perplexity has no effect without --tsne FILE.png"),
            (("--tsne", "t.jpg"), "--tsne t.jpg: wanted the name of a PNG file"),
            (("--tsne", "f.png"), "f.csv: is there already"),
            (("--tsne", "t.png", "--perplexity", "nan"), "--perplexity nan: wanted"),
            (("--tsne", "t.png", "--galleries", "t.png"), "t.png: is the name of two pictures"),
            (("--tsne", "t.png", "--data", SET, "run"), "a picture is of one set"),
            (("--tsne", "t.png", "--people", "0"), "wanted a whole number from 1 to 1,000"),
            (("--tsne", "t.png", "--people", "1"), "t-SNE of 4 images: wanted 5 at least"),
        ],
    )
    def test_what_cannot_be_is_refused(self, arguments, text, saved, capsys):
        extra = [] if "--data" in arguments else ["--data", SET]
        assert text in refused(capsys, evaluate, "f.npy", *extra, *arguments)
        assert not Path("t.png").exists()

    def test_images_without_files_are_not_drawn(self, saved, capsys):
        with Path("f.csv").open("w", newline="") as file:
            names = ("identity", "camera", "split")
            csv.writer(file).writerows([names, *(line[1:] for line in saved)])
        assert self.tsne_alone() == 0
        said = refused(capsys, evaluate, "f.npy", "--galleries", "g.png")
        assert "the files of these images are not known" in said

    @pytest.mark.parametrize("picture", ["tsne", "galleries"])
    def test_a_picture_that_fails_costs_no_scores(self, picture, saved, capsys, monkeypatch):
        def fails(*given, **options):
            raise OSError(errno.ENOSPC, "No space left on device", "p.png")

        place = "kd_core.experiment.pictures.tsne.draw" if picture == "tsne" else DRAWN
        monkeypatch.setattr(place, fails)
        line = [f"--{picture}", "p.png", "--out", "o.json"]
        assert self.drawn(*line, model="f.npy") == 1
        said = capsys.readouterr()
        assert "mAP" in said.out
        assert json.loads(Path("o.json").read_text())["sets"]
        (told,) = said.err.splitlines()
        assert "p.png" in told

    def test_a_damaged_image_costs_no_scores(self, saved, capsys):
        Path("gone.jpg").write_text("not a picture")
        lines = [("gone.jpg", *line[1:]) if line[3] == "query" else line for line in saved]
        with Path("f.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "identity", "camera", "split"), *lines])
        assert evaluate.main(["f.npy", "--galleries", "g.png"]) == 1
        said = capsys.readouterr()
        assert "mAP" in said.out
        assert "gone.jpg" in said.err

    def test_wrong_rates_are_refused_before_the_set_is_read(self, saved, capsys, monkeypatch):
        monkeypatch.setattr("kd_reid.measuring.run.read_searching", None)
        for option in (["--fpr", "2"], ["--squared-twice"]):
            assert option[0][2:5] in refused(capsys, evaluate, "f.npy", "--data", SET, *option)

    def tsne_alone(self):
        return evaluate.main(["f.npy", "--tsne", "t.png"])


PACKAGE = Path(__file__).parents[1]
TOOLS = {"embed": embed, "search": search, "evaluate": evaluate}


def commands_of(page):
    text = (PACKAGE / page).read_text(encoding="utf-8")
    return re.findall(r"^uv run tools/reid_(embed|search|evaluate)\.py (.+)$", text, re.MULTILINE)


def test_the_commands_of_the_page_run_one_after_the_other():
    """On few pictures, one of which is broken, and a smaller network in the zoo's file."""
    Path("runs").mkdir()
    Path("runs/NAME").symlink_to(Path("run").resolve())
    shutil.copy(ZOO, "osnet_x1_0_market1501.pth")
    Path("crops").mkdir()
    for file, name in zip(queries(), ("photo", "other", "crops/a", "crops/b"), strict=False):
        shutil.copy(file, f"{name}.jpg")
    commands = commands_of("../../docs/reid.md")
    short = [command for command in commands_of("README.md") if command[0] != "evaluate"]
    assert short
    assert set(short) <= set(commands)
    for tool, line in commands:
        given = shlex.split(line)
        if given[0].endswith(".pth"):
            given += [*SIZE, "--network", NAME]
            Path("crops/broken.jpg").write_bytes(b"cut off")
        if tool == "evaluate" and not given[0].endswith(".npy"):
            given += ["--workers", "0"]
        assert TOOLS[tool].main(given) == 0, line
    files = set(re.findall(r"[\w/]+\.(?:npy|png)", " ".join(line for _, line in commands)))
    assert files >= {"crops.npy"}
    assert all(Path(name).is_file() for name in files)


def test_a_package_that_is_missing_is_told_before_the_search(capsys, monkeypatch):
    Path("all.npy").touch()  # not read
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    told = refused(capsys, evaluate, "all.npy", "--data", SET, "--tsne", "t.png")
    assert "scikit-learn" in told


def test_an_ending_in_capitals_is_written_as_the_search_reads_it(capsys):
    assert embed.main(["run", CROPS, "--out", "BIG.NPY"]) == 0
    assert "wrote BIG.npy" in capsys.readouterr().out
    assert found("run", queries()[0], "BIG.npy")


def test_a_picture_that_fails_costs_no_ranking(capsys, monkeypatch):
    def fails(*given, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "search.png")

    monkeypatch.setattr("kd_reid.lookup.searching.draw_rows", fails)
    assert search.main(["run", str(queries()[0]), CROPS, "--workers", "0"]) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "search.json has the ranking" in told
    assert json.loads(Path("search.json").read_text())["queries"]


def test_a_gallery_of_the_picture_alone_is_refused(capsys):
    Path("alone").mkdir()
    shutil.copy(queries()[0], "alone/same.jpg")
    told = refused(capsys, search, "run", "alone/same.jpg", "alone", "--workers", "0")
    assert "GALLERY alone: has nothing but the PICTURE itself" in told
    assert not Path("search.json").exists()
