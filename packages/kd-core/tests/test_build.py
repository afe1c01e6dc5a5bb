import sys

import pytest
import torch
from kd_core.config.build import build, check, check_arguments, locate
from kd_core.errors import UserError
from torch import nn


class Box:
    """Remembers what it was built with."""

    def __init__(self, *, num_classes: int = 10, content: object = None, label: str = "") -> None:
        self.num_classes, self.content, self.label = num_classes, content, label


class Needy:
    def __init__(self, student_shapes: tuple, num_classes: int, weight: float = 1.0) -> None:
        if weight < 0:
            raise ValueError("weight must not be negative")
        if weight > 1:
            raise UserError("weight above one; use at most 1")
        self.student_shapes, self.num_classes = student_shapes, num_classes


class Silent(nn.Module):
    """A module without constructor."""


def zoo_model(*, pretrained: bool = False, **kwargs: object) -> dict:
    return {"pretrained": pretrained, **kwargs}


def outer(inner: dict, where_inner: str) -> object:
    return build(inner, where_inner)


def needs_two(a, b):
    return a + b


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A package on the path, made of the files given by name."""

    def make(**files: str) -> None:
        (tmp_path / "madeup").mkdir()
        (tmp_path / "madeup" / "__init__.py").write_text(files.pop("init", ""))
        for name, text in files.items():
            (tmp_path / "madeup" / f"{name}.py").write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield make
    for name in set(sys.modules) - before:
        if name.startswith("madeup"):
            del sys.modules[name]


class TestLocate:
    def test_finds_functions_classes_and_what_is_inside_them(self, modules):
        modules(boxes="class Box:\n    class Inner:\n        size = 3\n")
        assert locate("torch.optim.SGD") is torch.optim.SGD
        assert locate("torch.nn.functional.relu") is torch.nn.functional.relu
        assert locate("os.path.join").__name__ == "join"
        assert locate("madeup.boxes.Box.Inner.size") == 3
        assert locate("madeup.boxes").__name__ == "madeup.boxes"

    def test_function_may_share_the_name_of_its_module(self, modules):
        modules(init="from madeup.kd import kd\n", kd="def kd(): ...\nclass KD: ...\n")
        assert locate("madeup.kd").__name__ == "kd"
        assert callable(locate("madeup.kd"))
        assert locate("madeup.kd.KD").__name__ == "KD"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("torhc.optim.SGD", "there is no module 'torhc'; did you mean .*'torch'"),
            ("torch.optmi.SGD", "torch has no 'optmi'; did you mean .*'optim'"),
            ("torch.optim.AdamX", "torch.optim has no 'AdamX'; did you mean .*'Adam'"),
            ("torch.nn.mseloss", "torch.nn has no 'mseloss'; valid names: MSELoss$"),
            ("torch.optim.SGD.stepp", "torch.optim.SGD has no 'stepp'; did you mean 'step'"),
            ("torch.optim.SGD.step.more", "torch.optim.SGD.step has no 'more'"),
            ("madeup.box.Box", "madeup has no 'box'; did you mean 'boxes'"),
            ("SGD", "'SGD' is not an import path such as"),
            ("torch..SGD", "not an import path"),
            ("", "not an import path"),
        ],
    )
    def test_wrong_part_is_named_with_the_nearest_right_one(self, modules, path, message):
        modules(boxes="")
        with pytest.raises(UserError, match=message):
            locate(path)

    def test_missing_dependency_of_a_module_is_not_a_missing_module(self, modules):
        modules(export="import nothing_of_this_name.inside\n", broken="from torch import Tensro\n")
        message = r"madeup\.export needs nothing_of_this_name, which is not installed"
        with pytest.raises(UserError, match=message):
            locate("madeup.export.main")
        with pytest.raises(UserError, match=r"madeup\.broken cannot be imported: .*'Tensro'"):
            locate("madeup.broken.main")

    def test_error_inside_a_module_is_a_bug_and_passes(self, modules):
        modules(bad="1 / 0\n")
        with pytest.raises(ZeroDivisionError):
            locate("madeup.bad.main")


class TestBuild:
    def test_keys_are_arguments(self):
        layer = build({"type": "torch.nn.Linear", "in_features": 2, "out_features": 3})
        assert isinstance(layer, nn.Linear)
        assert layer.weight.shape == (3, 2)

    def test_nested_nodes_are_built_wherever_they_stand(self):
        box = {"type": Box, "label": "inner"}
        built = build({"type": Box, "content": {"plain": [1, (box, {"deep": box})], "node": box}})
        plain = built.content["plain"]
        assert plain[0] == 1
        assert type(plain[1]) is tuple
        assert plain[1][0].label == plain[1][1]["deep"].label == built.content["node"].label
        assert plain[1][0] is not plain[1][1]["deep"]

    def test_node_is_not_changed_by_what_is_built(self):
        node = {"type": Box, "content": [1]}
        build(node).content.append(2)
        assert node == {"type": Box, "content": [1]}

    def test_provided_arguments_go_where_they_are_named_and_not_given(self):
        node = {"type": Box, "content": [{"type": Box}, {"type": Box, "num_classes": 5}]}
        built = build(node, num_classes=100, student_shapes=((3,),))
        assert built.num_classes == built.content[0].num_classes == 100
        assert built.content[1].num_classes == 5

    def test_only_num_classes_is_offered_through_kwargs(self):
        built = build({"type": zoo_model, "width": 2}, num_classes=100, labels=[0], pretrained=True)
        assert built == {"pretrained": True, "width": 2, "num_classes": 100}

    def test_unknown_argument_names_path_callable_and_nearest(self):
        node = {"type": Box, "content": [{"type": "torch.optim.SGD", "momentun": 0.9}]}
        message = (
            r"model\.content\.0: torch\.optim\.sgd\.SGD has no parameter 'momentun'; .*'momentum'"
        )
        with pytest.raises(UserError, match=message):
            build(node, "model", params=[])

    def test_missing_arguments_are_named(self):
        with pytest.raises(UserError, match=r"model: .*Needy needs 'student_shapes', 'num_c"):
            build({"type": Needy}, "model")
        assert build({"type": Needy}, num_classes=2, student_shapes=()).num_classes == 2

    def test_module_without_constructor_takes_no_argument(self):
        assert isinstance(build({"type": Silent}, num_classes=3), Silent)
        with pytest.raises(UserError, match="Silent has no parameter 'beta'"):
            build({"type": Silent, "beta": 2})

    def test_error_of_the_constructor_keeps_its_text_and_cause(self):
        with pytest.raises(UserError, match=r"a\.b: .*Needy: weight must not") as caught:
            build({"type": Needy, "weight": -1.0}, "a.b", num_classes=1, student_shapes=())
        assert type(caught.value.__cause__) is ValueError
        with pytest.raises(UserError, match=r"a: .*needs_two: unsupported operand") as caught:
            build({"type": needs_two, "a": 1, "b": "x"}, "a")
        assert type(caught.value.__cause__) is TypeError

    def test_user_error_of_the_constructor_gets_the_path_once(self):
        node = {"type": Needy, "weight": 2.0, "num_classes": 1, "student_shapes": ()}
        with pytest.raises(UserError) as caught:
            build({"type": Box, "content": node}, "a")
        assert str(caught.value) == "a.content: weight above one; use at most 1"
        with pytest.raises(UserError) as caught:
            build({"type": outer, "where_inner": "a.inner"} | {"inner": {}}, "a")
        assert str(caught.value).startswith("a.inner: a node needs `type`")

    def test_wrong_type_is_named_with_its_path(self):
        with pytest.raises(UserError, match=r"model\.content\.type: torch\.optim has no 'SGDD'"):
            build({"type": Box, "content": {"type": "torch.optim.SGDD"}}, "model")
        with pytest.raises(UserError, match=r"^type: 3 cannot be called"):
            build({"type": 3})
        with pytest.raises(UserError, match=r"model: a node needs `type`, .*'lr'"):
            build({"lr": 1}, "model")


class TestCheck:
    def test_nothing_is_called(self):
        def explode(a: int, b: int = 1) -> None:
            raise AssertionError

        check({"x": [{"type": explode, "a": {"type": explode, "a": 1}}]})

    def test_misspelt_key_is_found_at_any_depth(self):
        config = {"stages": [{"terms": {"dkd": ({"type": Box, "lable": "x"},)}}]}
        message = r"stages\.0\.terms\.dkd\.0: .*Box has no parameter 'lable'; did you mean 'label'"
        with pytest.raises(UserError, match=message):
            check(config)

    def test_required_arguments_may_be_provided_later(self):
        config = {"criterion": {"type": Needy}}
        with pytest.raises(UserError, match=r"needs 'student_shapes'; set criterion\.stu"):
            check(config, provided=("num_classes",))
        check(config, provided=("num_classes", "student_shapes"))

    def test_every_type_is_located(self):
        with pytest.raises(UserError, match=r"config\.a\.1\.type: torch\.optim has no 'SGDD'"):
            check({"a": [1, {"type": "torch.optim.SGDD"}]}, "config")

    def test_fixed_callable_is_checked_by_its_signature(self):
        check_arguments(needs_two, {"a": 1}, "trainer", provided=("b",))
        with pytest.raises(UserError, match=r"trainer: .*needs_two needs 'b'; set trainer\.b"):
            check_arguments(needs_two, {"a": 1}, "trainer")
        with pytest.raises(UserError, match=r"trainer: .*needs_two has no parameter 'c'.*: a, b"):
            check_arguments(needs_two, {"a": 1, "b": 2, "c": 3}, "trainer")

    def test_callable_without_signature_takes_any_argument(self):
        check_arguments(torch.zeros, {"size": [2]})
        assert build({"type": torch.zeros, "size": [2]}).tolist() == [0, 0]
