"""Weights are found in the files of common tools; what is ambiguous is asked for."""

import json
from collections import OrderedDict

import pytest
import torch
from kd_core.errors import UserError
from kd_core.files.weights import load_weights, read_state_dict
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn


def network(classes: int = 3) -> nn.Sequential:
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, classes))
    return nn.Sequential(layers)


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def mmengine_log():
    buffer = HistoryBuffer()
    buffer.update(1.0, 2)
    return {"log_scalars": {"loss": buffer}}


STATE = {name: value + 1 for name, value in network().state_dict().items()}
AVERAGE = {name: value + 1 for name, value in STATE.items()}
BODY = {name: value for name, value in STATE.items() if not name.startswith("fc")}
HEAD = {name: value for name, value in STATE.items() if name.startswith("fc")}
OTHER = {"criterion.projector.weight": torch.ones(2, 2), "loss.weight": torch.ones(3)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
LIGHTNING = {"pytorch-lightning_version": "2.2", "loops": {}, "callbacks": {"best": torch.ones(1)}}

CONTENTS = {
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER},
    "ema alone": {"model_ema": STATE, "epoch": 3},
    "Lightning": {**LIGHTNING, "state_dict": {**under("model.", STATE), **OTHER}},
    "Lightning, net": {**LIGHTNING, "state_dict": {**under("net.", STATE), **OTHER}},
    "Lightning, compiled": {"state_dict": {**under("model._orig_mod.", STATE), **OTHER}},
    "mmengine": {
        "meta": {"epoch": 1, "dataset_meta": {"classes": ("a", "b", "c")}},
        "state_dict": {**under("backbone.", BODY), **under("head.", HEAD)},
        "message_hub": mmengine_log(),
        "optimizer": OPTIMIZER,
    },
    "a distiller's, of two shapes": {
        **under("student.", STATE),
        **{f"teacher.{name}": torch.ones(7) for name in STATE},
    },
    **{f"under {p}": under(p, STATE) for p in ("model.", "student.", "backbone.", "x.y.z.")},
    "DDP twice": under("module.module.", STATE),
    "ema and plain are equal": {"state_dict": STATE, "state_dict_ema": dict(STATE)},
    "a stranger's key": {"my_best_weights": {"of": {"all": STATE}}},
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_a_network_is_found_in_a_checkpoint_of(contents, tmp_path, capsys):
    torch.save(contents, tmp_path / "w.pth")
    loaded = network()
    load_weights(loaded, tmp_path / "w.pth")
    assert all(torch.equal(v, STATE[k]) for k, v in loaded.state_dict().items())


def test_the_choice_is_printed_with_what_is_left_out(tmp_path, capsys):
    torch.save(CONTENTS["Lightning"], tmp_path / "w.pth")
    load_weights(network(), tmp_path / "w.pth")
    told = "w.pth: took the 9 tensors under 'state_dict.model'; left out: criterion (1), loss (1)"
    assert told in capsys.readouterr().err


def test_nothing_is_printed_of_a_bare_state_dict(tmp_path, capsys):
    torch.save(STATE, tmp_path / "w.pth")
    load_weights(network(), tmp_path / "w.pth")
    assert not capsys.readouterr().err


TIES = {
    "timm's average": ({"state_dict": STATE, "state_dict_ema": AVERAGE}, "state_dict_ema"),
    "mmengine's average": (
        {"state_dict": STATE, "ema_state_dict": under("module.", AVERAGE)},
        "ema_state_dict.module",
    ),
    "in one dict": (
        {"state_dict": {**under("model.", STATE), **under("model_ema.module.", AVERAGE)}},
        "state_dict.model_ema.module",
    ),
    "student and teacher": (
        {**under("teacher.", STATE), **under("student.", AVERAGE)},
        "student",
    ),
}


@pytest.mark.parametrize(("contents", "place"), TIES.values(), ids=TIES)
def test_of_several_that_fit_one_must_be_named(contents, place, tmp_path):
    file, loaded = tmp_path / "w.pth", network()
    torch.save(contents, file)
    with pytest.raises(UserError, match=rf"w\.pth: holds several .* differ: .*{place}.*FILE#"):
        load_weights(loaded, file)
    load_weights(loaded, f"{file}#{place}")
    assert all(torch.equal(v, AVERAGE[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(UserError, match=rf"under 'x{place}'; did you mean .*'{place}'"):
        load_weights(loaded, f"{file}#x{place}")


def test_what_one_network_lacks_is_not_taken_from_another(tmp_path):
    student = {name: value for name, value in under("student.", STATE).items() if "fc" not in name}
    torch.save({**student, **under("teacher.", AVERAGE)}, tmp_path / "w.pth")
    loaded = network()
    load_weights(loaded, tmp_path / "w.pth")  # only the teacher is whole
    assert torch.equal(loaded.conv.weight, AVERAGE["conv.weight"])
    with pytest.raises(UserError, match=r"2 missing \(fc\.weight, fc\.bias\)"):
        load_weights(network(), f"{tmp_path / 'w.pth'}#student")


def test_names_that_would_not_print_in_one_line_are_not_taken(tmp_path):
    torch.save({"a\nb": STATE, "c\x1b[31m": AVERAGE, "d" * 600: AVERAGE}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: wanted a state dict") as refused:
        load_weights(network(), tmp_path / "w.pth")
    assert "\n" not in str(refused.value)


def test_another_number_of_classes_is_still_guessed_inside_a_checkpoint(tmp_path):
    torch.save({"state_dict": under("model.", STATE)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"fc\.weight is \[3, 4\] .*other number of classes"):
        load_weights(network(classes=5), tmp_path / "w.pth")


def test_a_name_with_the_sign_of_a_choice_is_a_file_first(tmp_path):
    torch.save(STATE, tmp_path / "run#2.pth")
    load_weights(network(), tmp_path / "run#2.pth")
    torch.save({"a": {"ema": STATE}}, tmp_path / "run#2.pth")
    assert read_state_dict(f"{tmp_path / 'run#2.pth'}#a.ema").keys() == STATE.keys()


def write_shards(folder, *, kind="model.safetensors"):
    stem, ending = kind.rsplit(".", 1)
    files = {f"{stem}-1-of-2.{ending}": BODY, f"{stem}-2-of-2.{ending}": HEAD}
    for name, part in files.items():
        (save_file if ending == "safetensors" else torch.save)(part, folder / name)
    places = {tensor: name for name, part in files.items() for tensor in part}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{kind}.index.json").write_text(json.dumps(index))
    return index


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("named", ["", "index"])
def test_shards_of_hugging_face_load_by_folder_or_index(tmp_path, kind, named):
    write_shards(tmp_path, kind=kind)
    loaded = network()
    load_weights(loaded, tmp_path / f"{kind}.index.json" if named else tmp_path)
    assert all(torch.equal(v, STATE[k]) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "student.safetensors", "pytorch_model.bin"])
def test_a_folder_stands_for_the_weights_in_it(tmp_path, name):
    (save_file if name.endswith("tensors") else torch.save)(STATE, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert read_state_dict(tmp_path).keys() == STATE.keys()


def spoil(index, **changes):
    return {**index, "weight_map": {**index["weight_map"], **changes}}


BAD = {
    "outside": (lambda i: spoil(i, **{"fc.bias": "../w.safetensors"}), "not a file of its own"),
    "absolute": (lambda i: spoil(i, **{"fc.bias": "/etc/passwd"}), "not a file of its own"),
    "the folder": (lambda i: spoil(i, **{"fc.bias": ".."}), "not a file of its own"),
    "on Windows": (lambda i: spoil(i, **{"fc.bias": "..\\w.bin"}), "not a file of its own"),
    "absent": (lambda i: spoil(i, **{"fc.bias": "w.safetensors"}), "there is no shard"),
    "a number": (lambda i: spoil(i, **{"fc.bias": 3}), "no file's name for fc.bias"),
    "another": (lambda i: spoil(i, **{"x": "model-1-of-2.safetensors"}), "lacks x, which"),
    "no map": (lambda i: {"weight_map": []}, "wanted an index with a `weight_map`"),
    "a list": (lambda i: [i], "wanted an index with a `weight_map`"),
}


@pytest.mark.parametrize(("change", "problem"), BAD.values(), ids=BAD)
def test_an_index_of_shards_is_data_that_is_checked(tmp_path, change, problem):
    (tmp_path / "sub").mkdir()
    save_file(HEAD, tmp_path / "w.safetensors")
    index = write_shards(tmp_path / "sub")
    (tmp_path / "sub" / "model.safetensors.index.json").write_text(json.dumps(change(index)))
    with pytest.raises(UserError, match=problem):
        read_state_dict(tmp_path / "sub")


def test_an_index_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="wanted JSON"):
        read_state_dict(tmp_path)


def test_a_folder_with_weights_and_an_index_of_one_kind_is_asked_about(tmp_path):
    write_shards(tmp_path)
    save_file(STATE, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"has both model\.safetensors and model\.safetensors\.index"
    ):
        read_state_dict(tmp_path)
