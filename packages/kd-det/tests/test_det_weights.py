"""Weights of detectors load as a whole; damaged, ill-fitting and malicious ones are refused."""

import logging
import pickle
import random
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_core.errors import UserError
from kd_core.files import checkpoint
from kd_core.testing.damage import flip_bit, refusal, restored
from torch import nn

pytest.importorskip("detectron2")

import kd_det  # noqa: F401
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from kd_det.resume import last_checkpoint
from kd_det.trainer import WholeCheckpointer
from kd_det.weights import SafeCheckpointer, load_teacher, read_weights


class Payload:
    """Creates a file when it is unpickled by an unsafe reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Detector(nn.Module):
    """Has the names of a detector, and little else."""

    def __init__(self, width: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            OrderedDict(conv1=nn.Conv2d(3, width, 1), norm=nn.BatchNorm2d(width))
        )
        self.roi_heads = nn.Linear(width, classes)
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1), persistent=False)


@pytest.fixture
def state():
    torch.manual_seed(1)
    return Detector().state_dict()


def arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def write(contents, path, protocol=2):
    with path.open("wb") as file:
        pickle.dump(contents, file, protocol=protocol)
    return path


def zoo(state):
    return {"model": arrays(state), "__author__": "Detectron2 Model Zoo"}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class TestReading:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickle_of_detectron2_is_read(self, state, tmp_path, protocol):
        path = write(zoo(state), tmp_path / "w.pkl", protocol)
        assert_same(read_weights(path), state)

    def test_ordered_names_numpy_numbers_and_no_author_do_no_harm(self, state, tmp_path):
        contents = {"model": OrderedDict(arrays(state)), "best": np.float64(40.2), "steps": (1, 2)}
        assert_same(read_weights(write(contents, tmp_path / "w.pkl")), state)

    @pytest.mark.parametrize("protocol", [0, 2])  # in others, names have their length before them
    def test_files_written_with_numpy_1_are_read(self, state, tmp_path, protocol):
        path = write(zoo(state), tmp_path / "w.pkl", protocol)
        path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
        assert_same(read_weights(path), state)

    def test_what_torch_save_wrote_is_read(self, state, tmp_path):
        torch.save({"model": state, "iteration": 7}, tmp_path / "w.pth")
        assert_same(read_weights(tmp_path / "w.pth"), state)

    @pytest.mark.parametrize("contents", [{"blobs": {"conv1_w": 0}}, {"res2_0_branch2a_w": 0}])
    def test_names_of_caffe2_are_refused(self, tmp_path, contents):
        path = write(contents, tmp_path / "w.pkl")
        with pytest.raises(UserError, match=r"w\.pkl: holds names of Caffe2.*MSRA.*MODEL\.WEIGHTS"):
            read_weights(path)

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_code_in_a_pickle_is_refused_and_does_not_run(self, state, tmp_path, protocol):
        ran = tmp_path / "ran"
        path = write(zoo(state) | {"more": Payload(ran)}, tmp_path / "w.pkl", protocol)
        with pytest.raises(UserError, match=r"w\.pkl: holds a \S+, which cannot be read safely"):
            read_weights(path)
        assert not ran.exists()
        pickle.loads(path.read_bytes())
        assert ran.exists()  # so the payload was live

    @pytest.mark.parametrize(
        "program",
        [
            b"cbuiltins\neval\n(S'1'\ntR.",
            b"cposix\nsystem\n(S'true'\ntR.",
            b"cnumpy\nload\n(S'x'\ntR.",
            b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",  # a path of attributes
        ],
    )
    def test_no_other_function_can_be_named(self, tmp_path, program):
        (tmp_path / "w.pkl").write_bytes(program)
        with pytest.raises(UserError, match=r"which cannot be read safely"):
            read_weights(tmp_path / "w.pkl")

    def test_a_codec_of_the_file_s_choice_is_not_run(self, tmp_path):
        (tmp_path / "w.pkl").write_bytes(b"c_codecs\nencode\n(S'x'\nS'utf-16'\ntR.")
        with pytest.raises(UserError, match="damaged"):
            read_weights(tmp_path / "w.pkl")

    @pytest.mark.parametrize("contents", [b"", b"\x80\x02}q\x00(", b"not a pickle", b"I1\n("])
    def test_a_damaged_file_is_one_line(self, tmp_path, contents):
        (tmp_path / "w.pkl").write_bytes(contents)
        with pytest.raises(UserError, match=r"w\.pkl: damaged, or not a pickle"):
            read_weights(tmp_path / "w.pkl")

    @pytest.mark.parametrize("contents", [[1, 2], {"model": 3}, {"blobs": [1]}, {"model": None}])
    def test_other_contents_are_refused(self, tmp_path, contents):
        with pytest.raises(UserError, match=r"w\.pkl: wanted a dict of weights"):
            read_weights(write(contents, tmp_path / "w.pkl"))

    @pytest.mark.parametrize("value", ["text", [1.0], np.array(["a"]), np.array([None])])
    def test_a_value_that_is_no_array_of_numbers_is_refused(self, tmp_path, value):
        with pytest.raises(UserError, match=r"w\.pkl: wanted arrays by name"):
            read_weights(write({"model": {"a": value}}, tmp_path / "w.pkl"))

    @pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
    def test_a_file_that_is_not_there_is_named_with_those_nearby(self, tmp_path, name):
        (tmp_path / "weight.pkl").touch()
        with pytest.raises(UserError, match=r"no weights file .*did you mean 'weight\.pkl'"):
            read_weights(tmp_path / name)


READERS = (
    read_weights,
    lambda path: SafeCheckpointer(Detector()).load(path),
    lambda path: load_teacher(Detector(), path),
)


class TestDownload:
    def test_a_name_of_detectron2_is_looked_up_in_its_cache(self, state, tmp_path, monkeypatch):
        path = write(zoo(state), tmp_path / "w.pkl")
        asked = []
        monkeypatch.setattr(PathManager, "get_local_path", lambda n: asked.append(n) or str(path))
        assert_same(read_weights("detectron2://COCO/w.pkl"), state)
        assert asked == ["detectron2://COCO/w.pkl"]

    @pytest.mark.parametrize("read", READERS)
    def test_a_failed_download_says_what_to_do(self, read, monkeypatch):
        def fail(name):
            raise OSError("no route")

        monkeypatch.setattr(PathManager, "get_local_path", fail)
        with pytest.raises(UserError, match=r"detectron2://x\.pkl cannot be downloaded \(no route"):
            read("detectron2://x.pkl")

    @pytest.mark.parametrize("read", READERS)
    def test_an_address_of_a_kind_that_nobody_reads_is_refused(self, read):
        with pytest.raises(UserError, match=r"s3://bucket/x\.pth is not an address that is read"):
            read("s3://bucket/x.pth")


class TestTeacher:
    def test_a_whole_detector_loads(self, state, tmp_path):
        model = Detector()
        load_teacher(model, write(zoo(state), tmp_path / "w.pkl"))
        assert_same(model.state_dict(), state)

    def test_what_detectron2_no_longer_reads_is_passed_over(self, state, tmp_path):
        del state["backbone.norm.num_batches_tracked"]
        old = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.cell_anchors.0")
        more = {name: np.zeros(2, np.float32) for name in (*old, "roi_heads.num_batches_tracked")}
        model = Detector()
        load_teacher(model, write({"model": arrays(state) | more}, tmp_path / "w.pkl"))
        assert torch.equal(model.roi_heads.weight, state["roi_heads.weight"])
        assert model.pixel_mean.shape == (3, 1, 1)

    @pytest.mark.parametrize("name", ["backbone.pixel_mean", "cell_anchors", "roi_heads.mean"])
    def test_other_unknown_names_are_not(self, state, tmp_path, name):
        torch.save({**state, name: torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=rf"1 unexpected \({name}\)"):
            load_teacher(Detector(), tmp_path / "w.pth")

    def test_another_architecture_is_one_line_and_loads_nothing(self, state, tmp_path):
        del state["roi_heads.bias"]
        torch.save({**state, "head.a": torch.ones(1)}, tmp_path / "w.pth")
        model = Detector(width=5)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(UserError) as caught:
            load_teacher(model, tmp_path / "w.pth")
        text = str(caught.value)
        assert "w.pth: does not fit Detector: 1 missing (roi_heads.bias), 1 unexpected" in text
        shape = "backbone.conv1.weight is [2, 3, 1, 1] in the file, [5, 3, 1, 1] in the network"
        assert f"7 of another shape ({shape}, " in text
        assert text.endswith(
            "give the teacher the config (depth, heads, classes) that these weights are of"
        )
        assert "\n" not in text
        assert_same(model.state_dict(), before)

    def test_other_classes_are_refused(self, state, tmp_path):
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"2 of another shape \(roi_heads\.weight is \[3, 2\]"):
            load_teacher(Detector(classes=80), tmp_path / "w.pth")

    @pytest.mark.parametrize("prefix", ["backbone.", ""])
    def test_a_backbone_alone_is_refused(self, state, tmp_path, prefix):
        backbone = {prefix + name: v for name, v in Detector().backbone.state_dict().items()}
        torch.save(backbone, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"missing .*only a backbone.*whole trained detector"):
            load_teacher(Detector(), tmp_path / "w.pth")


class TestSafeCheckpointer:
    @pytest.mark.parametrize("heuristics", [False, True])
    def test_it_loads_what_detectron2_s_own_loads(self, state, tmp_path, heuristics):
        contents = zoo(state)
        if heuristics:
            names = {name: name.removeprefix("backbone.") for name in state}
            model = {names[name]: value for name, value in arrays(state).items()}
            contents = {"model": model, "__author__": "me", "matching_heuristics": True}
        path = str(write(contents, tmp_path / "w.pkl"))
        ours, theirs = Detector(), Detector()
        SafeCheckpointer(ours).load(path)
        DetectionCheckpointer(theirs).load(path)
        assert_same(ours.state_dict(), theirs.state_dict())
        assert_same(ours.state_dict(), state)

    def test_names_of_caffe2_are_translated_by_detectron2(self, state, tmp_path, caplog):
        blobs = {
            "conv1_w": state["backbone.conv1.weight"].numpy(),
            "conv1_w_momentum": np.zeros(1, np.float32),
        }
        contents = {"blobs": blobs, "cfg": "text"}
        model = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 2, 1, bias=False)})})
        with caplog.at_level(logging.WARNING):
            SafeCheckpointer(model).load(str(write(contents, tmp_path / "w.pkl")))
        assert "momentum" not in caplog.text
        assert torch.equal(model["stem"]["conv1"].weight, state["backbone.conv1.weight"])

    def test_a_run_is_resumed(self, tmp_path):
        model, other, head, empty = Detector(), Detector(), nn.Linear(2, 2), nn.Linear(2, 2)
        SafeCheckpointer(model, str(tmp_path), head=head).save("model_0000006", iteration=6)
        loaded = SafeCheckpointer(other, str(tmp_path), head=empty)
        assert loaded.resume_or_load("", resume=True) == {"iteration": 6}
        assert_same(other.state_dict(), model.state_dict())
        assert_same(empty.state_dict(), head.state_dict())

    def test_a_weight_that_does_not_fit_is_named_in_the_log(self, state, tmp_path, caplog):
        state["roi_heads.weight"] = torch.zeros(5, 2)
        torch.save(state, tmp_path / "w.pth")
        with caplog.at_level(logging.WARNING):
            SafeCheckpointer(Detector()).load(str(tmp_path / "w.pth"))
        assert "roi_heads.weight" in caplog.text

    @pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
    def test_code_does_not_run(self, state, tmp_path, name, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        ran, path = tmp_path / "ran", tmp_path / name
        contents = zoo(state) | {"more": Payload(ran)}
        if name == "w.pkl":
            write(contents, path)
        else:
            torch.save(contents, path)
        with pytest.raises(UserError, match=name):
            SafeCheckpointer(Detector()).load(str(path))
        assert not ran.exists()
        DetectionCheckpointer(Detector()).load(str(path))
        assert ran.exists()  # so the payload was live, and Detectron2's own reader runs it

    @pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            (torch.full((3, 2), torch.nan), "roi_heads.weight is not finite: 6 of its 6 values"),
            (torch.full((3, 2), 1e300, dtype=torch.float64), "roi_heads.weight is not finite"),
            (torch.ones(3, 2, dtype=torch.int64), "roi_heads.weight is int64 in the file, float32"),
            (torch.ones(3, 2, dtype=torch.bool), "roi_heads.weight is bool in the file, float32"),
        ],
        ids=["nan", "overflow", "int", "bool"],
    )
    def test_values_that_cannot_be_weights_are_refused(self, state, tmp_path, name, value, problem):
        state["roi_heads.weight"] = value
        if name == "w.pkl":
            write({"model": arrays(state)}, tmp_path / name)
        else:
            torch.save(state, tmp_path / name)
        for load in (SafeCheckpointer(Detector()).load, partial(load_teacher, Detector())):
            with pytest.raises(UserError, match=rf"{name}: {problem}"):
                load(str(tmp_path / name))


class TestWholeCheckpointer:
    @pytest.fixture
    def saved(self, tmp_path):
        for number in (8, 9):
            model = Detector()
            WholeCheckpointer(model, str(tmp_path)).save(f"model_000000{number}", iteration=number)
        return tmp_path

    def resume(self, folder):
        return SafeCheckpointer(Detector(), str(folder)).resume_or_load("", resume=True)

    def test_no_flipped_bit_gives_other_weights(self, saved):
        path, rng = saved / "model_0000009.pth", random.Random(0)
        before, found = read_weights(path), []
        for _ in range(40):
            with restored(path):
                flip_bit(path, rng)
                if not refusal(lambda: found.append(self.resume(saved)), path):
                    assert_same(read_weights(path), before)
        assert len(found) < 4

    def test_no_flipped_bit_in_its_name_gives_another_checkpoint(self, saved):
        path = saved / "last_checkpoint"
        whole, sums = path.read_bytes(), path.with_name("last_checkpoint.sha256")
        for bit in range(8 * len(whole)):
            with restored(path):
                text = bytearray(whole)
                text[bit // 8] ^= 1 << bit % 8
                path.write_bytes(text)
                assert "damaged" in (refusal(lambda: self.resume(saved), path) or "")
        found = []
        for at in range(sums.stat().st_size):
            with restored(sums):
                flip_bit(sums, at=at)
                found.clear()
                line = refusal(lambda: found.append(self.resume(saved)))
                assert line or found == [{"iteration": 9}]

    @pytest.mark.parametrize("name", ["", "nothing.pth", "../x.pth", "model\0.pth", "x" * 5000])
    def test_a_name_by_hand_must_be_one_of_a_file(self, saved, name):
        (saved / "last_checkpoint.sha256").unlink()
        (saved / "last_checkpoint").write_text(name)
        with pytest.raises(UserError, match=r"last_checkpoint: names .* not a file of this folder"):
            self.resume(saved)
        (saved / "last_checkpoint").write_text("model_0000008.pth\n")
        assert self.resume(saved) == {"iteration": 8}

    @pytest.mark.parametrize("writes", [0, 1, 2])
    def test_a_kill_between_its_writes_refuses_nothing(self, saved, monkeypatch, writes):
        left = iter(range(writes))

        def save_text(text, path):
            if next(left, None) is None:
                raise KeyboardInterrupt
            checkpoint.save_text(text, path)

        (saved / "model_0000010.pth").write_bytes((saved / "model_0000009.pth").read_bytes())
        monkeypatch.setattr(last_checkpoint, "save_text", save_text)
        with pytest.raises(KeyboardInterrupt):
            last_checkpoint.write_last(saved, "model_0000010.pth")
        assert self.resume(saved) == {"iteration": 9}
        assert last_checkpoint.read_last(saved).stem[-2:] == ("10" if writes > 1 else "09")


def test_a_pickle_whose_weights_have_no_names_is_refused(tmp_path):
    file = tmp_path / "odd.pkl"
    file.write_bytes(pickle.dumps({"model": {1: np.zeros(2, np.float32)}}))
    with pytest.raises(UserError, match=r"odd\.pkl: wanted weights by name, but one is called 1"):
        read_weights(file)
    with pytest.raises(UserError, match="wanted weights by name"):
        SafeCheckpointer(nn.Linear(1, 1), str(tmp_path))._load_file(str(file))
