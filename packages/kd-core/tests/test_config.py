import errno
import math
import os
import tempfile
from pathlib import Path

import mmengine
import pytest
from kd_core.config.reading import load_config, merge, save_config
from kd_core.errors import UserError
from kd_core.experiment.cli import parse_options


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def example(write):
    return write(
        "example.py",
        "_criterion = dict(type='a.DKD', alpha=1.0)\n"
        "distiller = dict(terms=dict(dkd=dict(criterion=_criterion, weight=1)))\n"
        "phases = [dict(epochs=1), dict(epochs=2)]\n"
        "mean = (0.1, 0.2)\n"
        "trainer = dict(epochs=3, ema=None)\n",
    )


class TestFiles:
    def test_values_keep_their_kinds(self, write):
        path = write("a.py", "a = dict(b=[1, (2, dict(c='x'))], d=None, e={1: 2.5}, f=())\n")
        config = load_config(path)
        assert config == {"a": {"b": [1, (2, {"c": "x"})], "d": None, "e": {1: 2.5}, "f": ()}}
        assert type(config["a"]) is type(config["a"]["b"][1][1]) is dict

    def test_base_files_come_first_and_dicts_merge_into_them(self, write):
        write("bases/one.py", "a = dict(x=1, y=dict(z=2))\n")
        write("bases/two.py", "b = [1]\n")
        path = write(
            "child.py",
            "_base_ = ['bases/one.py', 'bases/two.py']\n"
            "a = dict(y=dict(w=3))\n"
            "b = _base_.b + [2]\n",
        )
        assert load_config(path) == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": [1, 2]}

    def test_what_is_not_a_plain_value_stays_in_the_file(self, write):
        path = write(
            "a.py",
            '"""A config with helpers."""\n'
            "import math\n"
            "import os.path as path\n"
            "from collections import OrderedDict\n"
            "from math import sqrt\n"
            "import numpy\n"
            "_depth = 2\n"
            "class Helper: pass\n"
            "def _double(x):\n    return 2 * x\n"
            "def triple(x):\n    return _depth * x + x\n"
            "a = OrderedDict(sorted(dict(y=triple(_double(1)), x=sqrt(4)).items()))\n"
            "b = []\n"
            "for _i in range(_depth):\n    b.append(dict(index=_i))\n",
        )
        config = load_config(path)
        assert config == {"a": {"x": 2.0, "y": 6}, "b": [{"index": 0}, {"index": 1}]}
        assert type(config["a"]) is dict

    def test_several_files_merge_left_to_right(self, write):
        data = write("data.py", "data = dict(name='x', batch_size=64)\n")
        pair = write("pair.py", "data = dict(batch_size=32)\nstudent = dict(type='a.b')\n")
        assert load_config([data, str(pair)]) == {
            "data": {"name": "x", "batch_size": 32},
            "student": {"type": "a.b"},
        }

    def test_no_file_gives_an_empty_config(self):
        assert load_config([]) == {}

    def test_two_loads_share_nothing(self, example):
        first = load_config(example)
        first["distiller"]["terms"]["dkd"]["weight"] = 5
        assert load_config(example)["distiller"]["terms"]["dkd"]["weight"] == 1

    def test_no_temporary_file_is_left(self, write, tmp_path, monkeypatch):
        good, bad = write("good.py", "a = 1\n"), write("bad.py", "a = 1 / 0\n")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        load_config(good)
        with pytest.raises(UserError):
            load_config(bad)
        assert list(scratch.iterdir()) == []


class TestFileErrors:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\xef\xbb\xbfa = 1\r\n", "starts with a byte order mark; save it as UTF-8 without"),
            ("a = 1".encode("utf-16"), "starts with a byte order mark"),
            (b"a = 1\0", "has null bytes"),
            (b"a = 1\nb = [{'x': 1, 'y': {1: 2, 1: 3}}]\n", "line 2: 1 is repeated in a dict"),
            (b"a = 1\n# caf\xe9\n", "line 2: is not UTF-8"),
            (b"# coding: latin-1\n# caf\xe9\n", "line 2: is not UTF-8"),
            (b"_base_ = []\n_base_ += ['b.py']\n", "line 2: `_base_` is read once"),
            (b"_base_ = []\n_base_ = 'b.py'\n", "line 2: `_base_` is read once"),
            (b"if True:\n    _base_ = 'b.py'\n", "line 2: `_base_` is read once"),
            (b"_base_: list = ['b.py']\n", "line 1: `_base_` is read once"),
            (b"_base_ = _x = ['b.py']\n", "line 1: `_base_` is read once"),
            (b"from .b import a\n", "line 1: a config is not part of a package.*`_base_ = "),
            (b"with read_base():\n    from .b import *\n", "line 2: a config is not part of"),
        ],
    )
    def test_what_editors_spoil_or_would_count_in_part_is_refused(self, write, content, message):
        path = write("spoilt.py", "")
        path.write_bytes(content)
        for file in (path, write("child.py", "_base_ = 'spoilt.py'\n")):
            with pytest.raises(UserError, match=rf"spoilt\.py.*{message}") as raised:
                load_config(file)
            assert "\n" not in str(raised.value)

    def test_windows_lines_and_equal_keys_of_two_dicts_are_read(self, write):
        path = write("windows.py", "")
        path.write_bytes(b"a = {'x': 1}\r\nb = {'x': 2, **a}\r\n")
        assert load_config(path) == {"a": {"x": 1}, "b": {"x": 1}}

    def test_missing_file_names_the_nearest_in_its_folder(self, example):
        with pytest.raises(UserError, match=r"no config file .*exmple\.py; did.*'example.py'"):
            load_config(example.with_name("exmple.py"))

    def test_missing_folder_names_the_nearest_folder(self, write):
        path = write("methods/dkd.py", "a = 1\n")
        with pytest.raises(UserError, match="did you mean 'methods'"):
            load_config(path.parent.with_name("method") / "dkd.py")

    def test_only_python_files_are_configs(self, write):
        with pytest.raises(UserError, match="a config file is a python file"):
            load_config(write("a.yaml", "a: 1\n"))

    def test_missing_base_is_named_with_the_file_that_wants_it(self, write):
        write("bases/schedule.py", "a = 1\n")
        path = write("child.py", "_base_ = 'bases/shedule.py'\n")
        with pytest.raises(
            UserError, match=r"no config file .*shedule\.py.*'schedule.py'.*child\.py"
        ):
            load_config(path)

    @pytest.mark.parametrize("base", ["3", "None", "['a.py', 3]", "b'a.py'", "print", "{'a': 1}"])
    def test_a_base_that_is_not_a_name_is_refused(self, write, base):
        path = write("child.py", f"_base_ = {base}\n")
        write("a.py", "a = 1\n")
        with pytest.raises(UserError, match=r"child\.py: `_base_` is .*; wanted a file's name"):
            load_config(path)

    def test_bases_may_stand_in_a_tuple(self, write):
        write("a.py", "a = 1\n")
        write("b.py", "b = 2\n")
        assert load_config(write("child.py", "_base_ = ('a.py', 'b.py')\n")) == {"a": 1, "b": 2}

    def test_a_base_that_leads_back_is_refused(self, write):
        itself = write("itself.py", "_base_ = 'itself.py'\n")
        other = write("one.py", "_base_ = 'two.py'\n")
        write("two.py", "_base_ = ['one.py']\n")
        for path in (itself, other):
            with pytest.raises(UserError, match=rf"{path.name}: its `_base_` leads back to it"):
                load_config(path)

    def test_a_base_that_is_a_pipe_or_a_device_is_not_opened(self, write, tmp_path):
        os.mkfifo(tmp_path / "pipe.py")
        (tmp_path / "zero.py").symlink_to("/dev/zero")
        (tmp_path / "lost.py").symlink_to("nowhere.py")
        kinds = {"pipe.py": "a pipe or a device", "zero.py": "a pipe or a dev", "lost.py": "a link"}
        for base, kind in kinds.items():
            path = write("child.py", f"_base_ = '{base}'\n")
            with pytest.raises(UserError, match=rf"{base} is {kind}.*a `_base_` of .*child\.py"):
                load_config(path)

    def test_a_text_that_is_nested_too_deeply_is_an_error(self, write):
        with pytest.raises(UserError, match=r"deep\.py: RecursionError"):
            load_config(write("deep.py", f"a = {'-' * 5000}1\n"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a = 1\nb = dict(c=1\n", "line 2: '\\(' was never closed"),
            ("a = 1\n\nb = 1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
            ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
            ("def f():\n    return g\n\na = f()\n", "line 2: NameError"),
            ("import json\n\na = json.loads('{')\n", "line 3: JSONDecodeError"),
        ],
    )
    def test_failing_file_is_named_with_its_line(self, write, text, message):
        path = write("broken.py", text)
        with pytest.raises(UserError, match=rf"broken\.py, {message}"):
            load_config(path)
        child = write("child.py", "_base_ = ['broken.py']\n")
        with pytest.raises(UserError, match=rf"broken\.py, {message}"):
            load_config(child)

    def test_name_that_mmengine_reserves_is_an_error(self, write):
        with pytest.raises(UserError, match=r"a\.py: KeyError: 'text is reserved"):
            load_config(write("a.py", "text = 'x'\n"))

    def test_callable_as_a_type_is_told_to_be_an_import_path(self, write):
        path = write("a.py", "from fractions import Fraction\na = dict(b=[dict(type=Fraction)])\n")
        with pytest.raises(UserError, match=r"a\.b\.0\.type: .*write its import path"):
            load_config(path)

    def test_a_number_that_cannot_be_shown_is_an_error(self, write):
        with pytest.raises(UserError, match=r"big\.py: a\.b: wanted a number of at most 64 bits"):
            load_config(write("big.py", "a = dict(b=10**5000)\n"))

    @pytest.mark.parametrize("value", ["{1, 2}", "range(3)", "b'x'", "__import__('numpy').ones(2)"])
    def test_value_that_is_not_plain_is_an_error(self, write, value):
        with pytest.raises(UserError, match=r"a\.b: .* is not a plain value"):
            load_config(write("a.py", f"a = dict(b={value})\n"))

    def test_unknown_top_level_name_is_an_error_that_names_the_nearest(self, write):
        path = write("a.py", "optimzer = dict(lr=0.1)\n")
        with pytest.raises(UserError, match=r"a\.py: unknown name 'optimzer'.*'optimizer'"):
            load_config(path, known=("data", "optimizer"))
        assert load_config(path) == {"optimzer": {"lr": 0.1}}


class TestMerge:
    def test_dicts_merge_deeply_and_the_rest_is_replaced(self):
        earlier = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}
        later = {"a": {"c": [3]}, "d": None, "f": {"g": 1}}
        assert merge(earlier, later) == {"a": {"b": 1, "c": [3]}, "d": None, "f": {"g": 1}}
        assert earlier["a"] == {"b": 1, "c": [1, 2]}

    def test_delete_replaces_and_is_gone_afterwards(self):
        earlier = {"a": {"b": 1}}
        assert merge(earlier, {"a": {"_delete_": True, "c": 2}}) == {"a": {"c": 2}}
        assert merge({}, {"a": {"_delete_": True, "c": {"_delete_": False}}}) == {"a": {"c": {}}}

    def test_node_of_another_type_replaces_the_earlier_one(self):
        sgd = {"optimizer": {"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}}
        adam = {"optimizer": {"type": "torch.optim.AdamW", "lr": 0.001}}
        assert merge(sgd, adam) == adam
        assert merge(sgd, {"optimizer": {"type": "torch.optim.SGD", "lr": 1}}) == {
            "optimizer": {"type": "torch.optim.SGD", "lr": 1, "momentum": 0.9}
        }

    def test_arguments_may_come_before_the_type(self):
        assert merge({"a": {"beta": 6}}, {"a": {"type": "x.DKD"}}) == {
            "a": {"beta": 6, "type": "x.DKD"}
        }

    def test_delete_in_a_file_acts_on_the_files_before_it(self, write):
        first = write("first.py", "a = dict(b=1)\n")
        second = write("second.py", "a = dict(_delete_=True, c=2)\n")
        assert load_config([first, second]) == {"a": {"c": 2}}
        assert load_config(second) == {"a": {"c": 2}}

    def test_delete_in_a_stage_waits_for_the_stage_to_be_merged(self, write):
        phase = "dict(_delete_=True, type='a.B')"
        first = write("first.py", "phases = dict(warm=dict(optimizer=dict(c=1), epochs=1))\n")
        second = write("second.py", f"phases = dict(warm=dict(optimizer={phase}))\n")
        phases = load_config([first, second])["phases"]
        assert phases == {"warm": {"optimizer": {"_delete_": True, "type": "a.B"}, "epochs": 1}}
        base = {"optimizer": {"lr": 0.1}, "epochs": 5}
        assert merge(base, phases["warm"]) == {"optimizer": {"type": "a.B"}, "epochs": 1}


class TestParseOptions:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1),
            ("-1e-3", -0.001),
            ("true", True),
            ("FALSE", False),
            ("None", None),
            ("none", None),
            ("'true'", "true"),
            ("''", ""),
            ("[1, (2,), {'a': 'b'}]", [1, (2,), {"a": "b"}]),
            ("1,2", (1, 2)),
            ("resnet8x4", "resnet8x4"),
            ("kd_core.criteria.kd.KD", "kd_core.criteria.kd.KD"),
            ("/some/where=else", "/some/where=else"),
            ("2024-01-01", "2024-01-01"),
            ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ],
    )
    def test_values_are_literals_or_strings(self, text, value):
        parsed = parse_options([f"a.b={text}"])["a.b"]
        assert parsed == value
        assert type(parsed) is type(value)

    @pytest.mark.parametrize("text", ["a.b=", "a.b= ", "a.b", "=1", "a..b=1", ".a=1"])
    def test_text_that_is_not_key_and_value_is_an_error(self, text):
        with pytest.raises(UserError, match="wanted KEY=VALUE"):
            parse_options([text])

    def test_later_option_wins(self):
        assert parse_options(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


class TestOverrides:
    def test_entries_of_dicts_lists_and_tuples_are_set(self, example):
        options = parse_options(
            ["distiller.terms.dkd.weight=2", "phases.1.epochs=5", "mean.0=0.5", "trainer.ema=0.9"]
        )
        config = load_config(example, options)
        assert config["distiller"]["terms"]["dkd"] == {
            "criterion": {"type": "a.DKD", "alpha": 1.0},
            "weight": 2,
        }
        assert config["phases"] == [{"epochs": 1}, {"epochs": 5}]
        assert config["mean"] == (0.5, 0.2)
        assert config["trainer"] == {"epochs": 3, "ema": 0.9}

    @pytest.mark.parametrize("option", ["trainer", "distiller.terms", "distiller.terms.dkd"])
    def test_an_empty_dict_would_change_nothing_and_is_refused(self, example, option):
        with pytest.raises(UserError, match=rf"option {option}: {{}} changes nothing"):
            load_config(example, {option: {}})

    def test_an_empty_dict_replaces_what_is_none(self, example):
        assert load_config(example, {"trainer.epochs": {}})["trainer"]["epochs"] == {}

    def test_a_dict_is_emptied_by_its_mark(self, example):
        config = load_config(example, {"trainer": {"_delete_": True}, "distiller.new": {}})
        assert (config["trainer"], config["distiller"]["new"]) == ({}, {})

    def test_argument_that_the_file_leaves_at_its_default_can_be_set(self, example):
        config = load_config(example, {"distiller.terms.dkd.criterion.beta": 2})
        assert config["distiller"]["terms"]["dkd"]["criterion"]["beta"] == 2

    def test_dict_as_a_value_merges_as_a_file_would(self, example):
        path = "distiller.terms.dkd.criterion"
        same = load_config(example, {path: {"beta": 2}})
        assert same["distiller"]["terms"]["dkd"]["criterion"] == {
            "type": "a.DKD",
            "alpha": 1.0,
            "beta": 2,
        }
        other = load_config(example, {path: {"type": "a.KD"}})
        assert other["distiller"]["terms"]["dkd"]["criterion"] == {"type": "a.KD"}

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("distiler.terms.dkd.weight", "the config has no 'distiler'; did you mean 'distiller'"),
            ("distiller.terms.dkdd.weight", "there is no 'dkdd'; did you mean 'dkd'"),
            ("distiller.term.dkd.weight", "there is no 'term'; did you mean 'terms'"),
            ("trainer.epochs.x", "'x' cannot be set inside 3"),
            ("trainer.ema.decay", "'decay' cannot be set inside None"),
            ("phases.2.epochs", "'2' is not an index below 2"),
            ("phases.first.epochs", "'first' is not an index below 2"),
            ("seed", "the config has no 'seed'"),
        ],
    )
    def test_path_that_leads_nowhere_is_an_error(self, example, option, message):
        with pytest.raises(UserError, match=f"option {option}: {message}"):
            load_config(example, {option: 1})

    def test_known_name_can_be_started_by_an_option(self, example):
        known = ("distiller", "phases", "mean", "trainer", "optimizer", "seed")
        config = load_config(example, {"optimizer.lr": 0.1, "seed": 3}, known=known)
        assert config["optimizer"] == {"lr": 0.1}
        assert config["seed"] == 3
        with pytest.raises(UserError, match="no 'optimiser'; did you mean 'optimizer'"):
            load_config(example, {"optimiser.lr": 0.1}, known=known)
        with pytest.raises(UserError, match=r"option optimizer\.a\.b: there is no 'a'"):
            load_config(example, {"optimizer.a.b": 0.1}, known=known)


CONFIG = {
    "student": {"type": "torchvision.models.resnet18", "weights": None},
    "distiller": {
        "terms": {
            f"term{i}": {"criterion": {"type": "kd_core.criteria.dkd.DKD", "beta": 8.0}}
            for i in range(3)
        },
        "class": {"layer4.1": [1, 2], 3: (1,), None: ()},
    },
    "limits": (math.inf, -math.inf, 1e-300),
    "flags": [True, False, None, [], {}],
    "note": 'it\'s "quoted"\n\tand → \\ wide {{ here }}',
    "long": list(range(100)),
}


class TestSave:
    def test_saved_config_reads_back_equal(self, tmp_path):
        path = tmp_path / "config.py"
        save_config(CONFIG, path)
        loaded = load_config(path)
        assert loaded == CONFIG
        assert list(loaded["distiller"]["terms"]) == ["term0", "term1", "term2"]

    def test_saved_config_is_readable(self, tmp_path):
        path = tmp_path / "config.py"
        save_config(CONFIG, path)
        text = path.read_text()
        assert 'student = dict(type="torchvision' in text.replace("'", '"')
        assert max(map(len, text.splitlines())) <= 100

    def test_not_a_number_survives(self, tmp_path):
        save_config({"a": math.nan}, tmp_path / "config.py")
        assert math.isnan(load_config(tmp_path / "config.py")["a"])

    def test_value_that_could_not_be_read_back_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"a\.type: .*import path"):
            save_config({"a": {"type": dict}}, tmp_path / "config.py")
        assert not (tmp_path / "config.py").exists()


def test_no_room_for_mmengines_temporary_files_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.py").write_text("x = 1")
    monkeypatch.setattr(mmengine.Config, "_substitute_predefined_vars", full)
    with pytest.raises(UserError, match=r"a temporary file.*: the disk is full; free space"):
        load_config(tmp_path / "a.py")
