import sys
from collections.abc import Mapping, Sequence

import pytest
import torch
from kd_core.config.build import build
from kd_core.config.locate import locate
from kd_core.config.node import Node, parse, parse_call
from kd_core.config.parameters import parameters_of
from kd_core.config.places import NetworkNode
from kd_core.errors import UserError
from kd_core.runtime.ranks import Terminated
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


SILENT = {"type": Silent}


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

    def test_a_library_of_networks_that_is_not_installed_is_named(self, monkeypatch):
        monkeypatch.setattr("kd_core.config.locate._import_module", lambda name: None)
        with pytest.raises(UserError, match=r"timm is not installed: pip install timm$"):
            locate("timm.create_model")

    def test_missing_dependency_of_a_module_is_not_a_missing_module(self, modules):
        modules(export="import nothing_of_this_name.inside\n", broken="from torch import Tensro\n")
        message = r"madeup\.export needs nothing_of_this_name, which is not installed"
        with pytest.raises(UserError, match=message):
            locate("madeup.export.main")
        with pytest.raises(UserError, match=r"madeup\.broken cannot be imported: .*'Tensro'"):
            locate("madeup.broken.main")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("x = 1\n1 / 0\n", r"bad\.py:2: ZeroDivisionError: division by zero"),
            ("def f(:\n", r"bad\.py:1: SyntaxError: invalid syntax"),
            ("import sys\nsys.exit(0)\n", r"bad\.py:2: SystemExit: 0"),
            ("raise SystemExit\n", r"bad\.py:1: SystemExit$"),
            (
                "import argparse\nargparse.ArgumentParser().parse_args(['--x'])",
                r"bad\.py:2: SystemE",
            ),
        ],
    )
    def test_error_inside_a_module_is_told_with_its_place(self, modules, text, told):
        modules(bad=text)
        with pytest.raises(UserError, match=rf"^madeup\.bad cannot be imported: .*{told}"):
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

    def test_a_constructor_that_misses_something_or_exits_is_told(self):
        def misses(name: object) -> object:
            return name.lower()

        def lacks(key: str) -> object:
            return {}[key]

        def exits(code: int) -> object:
            sys.exit(code)

        with pytest.raises(UserError, match=r"^a: .*misses: 'int' object has no attribute 'lower"):
            build({"type": misses, "name": 3}, "a")
        with pytest.raises(UserError, match=r"^a: .*lacks: KeyError 'x'"):
            build({"type": lacks, "key": "x"}, "a")
        with pytest.raises(UserError, match=r"^a: .*exits: SystemExit 0"):
            build({"type": exits, "code": 0}, "a")

    def test_a_signal_passes(self, modules):
        modules(slow="from kd_core.runtime.ranks import Terminated\nraise Terminated\n")

        def stopped() -> object:
            raise Terminated

        with pytest.raises(Terminated):
            build({"type": stopped}, "a")
        with pytest.raises(Terminated):
            locate("madeup.slow.main")

    def test_user_error_of_the_constructor_gets_the_path_once(self):
        node = {"type": Needy, "weight": 2.0, "num_classes": 1, "student_shapes": ()}
        with pytest.raises(UserError) as caught:
            build({"type": Box, "content": node}, "a")
        assert str(caught.value) == "a.content: weight above one; use at most 1"
        with pytest.raises(UserError) as caught:
            build({"type": outer, "where_inner": "a.inner"} | {"inner": {}}, "a")
        assert str(caught.value).startswith("a.inner: wanted a dict with `type`")

    def test_wrong_type_is_named_with_its_path(self):
        with pytest.raises(UserError, match=r"model\.content\.type: torch\.optim has no 'SGDD'"):
            build({"type": Box, "content": {"type": "torch.optim.SGDD"}}, "model")
        with pytest.raises(UserError, match=r"^type: 3 cannot be called"):
            build({"type": 3})
        with pytest.raises(
            UserError, match=r"model: wanted a dict with `type`, an import path, got .*'lr'"
        ):
            build({"lr": 1}, "model")


class TestParse:
    def test_nothing_is_called(self):
        def explode(a: object, b: int = 1) -> None:
            raise AssertionError

        parse({"type": Box, "content": [{"type": explode, "a": {"type": explode, "a": 1}}]})

    def test_what_was_parsed_is_called_later_as_often_as_one_likes(self):
        node = parse({"type": Box, "content": {"type": Box, "label": "inner"}}, "a")
        one, other = node.build(num_classes=3), node.build()
        assert (one.num_classes, other.num_classes) == (3, 10)
        assert one.content is not other.content
        assert one.content.label == "inner"

    def test_a_node_is_the_mapping_that_was_written(self):
        written = {"type": Box, "content": [1, ({"type": Box, "label": "x"},)], "num_classes": 2}
        node = parse(written)
        assert node == written
        assert node.plain() == written
        assert type(node.plain()["content"][1][0]) is dict
        assert [*node] == [*written]
        assert parse(node) is node
        assert parse(node.plain()) == node

    def test_a_node_can_be_changed_and_keeps_the_old_one_as_it_is(self):
        node = parse({"type": Box, "label": "x"})
        assert node.changed(label="y") == {"type": Box, "label": "y"}
        assert node["label"] == "x"

    def test_misspelt_key_is_found_at_any_depth(self):
        config = {"type": Box, "content": [{"dkd": ({"type": Box, "lable": "x"},)}]}
        message = r"a\.content\.0\.dkd\.0: .*Box has no parameter 'lable'; did you mean 'label'"
        with pytest.raises(UserError, match=message):
            parse(config, "a")

    def test_required_arguments_may_be_provided_later(self):
        with pytest.raises(UserError, match=r"needs 'student_shapes'; set criterion\.stu"):
            parse({"type": Needy}, "criterion", provided=("num_classes",))
        node = parse({"type": Needy}, provided=("num_classes", "student_shapes"))
        assert node.build(num_classes=2, student_shapes=()).num_classes == 2

    def test_every_type_is_located(self):
        with pytest.raises(UserError, match=r"a\.content\.1\.type: torch\.optim has no 'SGDD'"):
            parse({"type": Box, "content": [1, {"type": "torch.optim.SGDD"}]}, "a")

    def test_fixed_callable_is_checked_by_its_signature(self):
        parse_call(needs_two, {"a": 1}, "trainer", provided=("b",))
        with pytest.raises(UserError, match=r"trainer: .*needs_two needs 'b'; set trainer\.b"):
            parse_call(needs_two, {"a": 1}, "trainer")
        with pytest.raises(UserError, match=r"trainer: .*needs_two has no parameter 'c'.*: a, b"):
            parse_call(needs_two, {"a": 1, "b": 2, "c": 3}, "trainer")
        with pytest.raises(UserError, match=r"trainer: wanted a dict, got \[1\]"):
            parse_call(needs_two, [1], "trainer")

    def test_callable_without_signature_takes_any_argument(self):
        assert parse_call(torch.zeros, {"size": [2]}).build().tolist() == [0, 0]
        with pytest.raises(UserError, match="has no parameter 3"):
            parse_call(torch.zeros, {3: [2]})

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")]])
    def test_a_number_that_is_not_finite_is_refused_whatever_takes_it(self, value):
        with pytest.raises(UserError, match=r"a\.content(\.1)?: wanted a finite number, got "):
            parse({"type": Box, "content": value}, "a")

    def test_a_node_cannot_stand_for_a_number_or_a_text(self):
        for name, wanted in (("num_classes", "a whole number"), ("label", "text")):
            with pytest.raises(UserError, match=rf"a\.{name}: wanted {wanted}, got .*'type'"):
                parse({"type": Box, name: {"type": Box}}, "a")

    def test_none_may_be_given_where_it_is_the_default(self):
        def older(size: int = None) -> object:  # noqa: RUF013
            return size

        assert build({"type": older, "size": None}) is None


class TestPlaces:
    """An argument annotated as a node of a kind."""

    @staticmethod
    def holder(
        network: NetworkNode | None = None,
        losses: Mapping[str, NetworkNode] | None = None,
        row: Sequence[NetworkNode] = (),
        either: Sequence[NetworkNode] | Mapping[str, NetworkNode] = (),
    ) -> tuple:
        return network, losses, row

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"network": 3},
                r"a\.network: wanted a dict with `type`, the import path of a network",
            ),
            ({"network": {}}, r"a\.network: wanted a dict with `type`"),
            ({"network": {"type": "torch.optim.SGD"}}, r"a\.network\.type: .* is not a network"),
            ({"losses": {"x": {"p": 1}}}, r"a\.losses\.x: wanted a dict with `type`"),
            ({"losses": "triplet"}, r"a\.losses: wanted a dict, got 'triplet'"),
            ({"losses": SILENT}, r"a\.losses: wanted a dict of nodes by name, got"),
            ({"losses": [SILENT]}, r"a\.losses: wanted a dict of nodes by name, got"),
            ({"row": SILENT}, r"a\.row: wanted a list of dicts with `type`, got"),
            ({"row": {"x": SILENT}}, r"a\.row: wanted a list of dicts with `type`, got"),
            ({"either": SILENT}, r"a\.either: wanted a dict of nodes by name or a list of"),
            ({"row": [{"type": Box}]}, r"a\.row\.0\.type: .* is not a network"),
        ],
    )
    def test_takes_such_nodes_alone(self, arguments, message):
        with pytest.raises(UserError, match=message):
            parse_call(self.holder, arguments, "a")

    def test_takes_none_where_none_may_stand(self):
        assert (
            parse_call(self.holder, {"network": None, "losses": None}).arguments["losses"] is None
        )

    def test_its_node_is_parsed(self):
        call = parse_call(self.holder, {"row": [{"type": "torch.nn.Identity"}]})
        assert isinstance(call["row"][0], Node)

    @pytest.mark.parametrize("value", [[SILENT], {"x": SILENT}])
    def test_of_two_kinds_takes_both(self, value):
        found = parse_call(self.holder, {"either": value})["either"]
        (node,) = found.values() if isinstance(found, dict) else found
        assert node.function is Silent


def test_what_a_callable_without_a_hash_takes_is_known_too():
    class Unhashable:
        __hash__ = None

        def __call__(self, box, *, label=""):
            raise NotImplementedError

    assert parameters_of(Unhashable()).names == ("box", "label")
