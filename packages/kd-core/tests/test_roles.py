"""Roles stand for tap paths."""

import pytest
from kd_core.errors import UserError
from kd_core.networks.roles import roles_of, tap_list
from kd_core.networks.task import Task
from torch import nn

MODEL = Task(nn.Identity(), roles={"stages": ("a", "b", "c"), "pooled": ("fc:in",), "preact": ()})


@pytest.mark.parametrize(
    ("taps", "paths"),
    [
        ("@stages", ["a", "b", "c"]),
        ("@stages[-1]", ["c"]),
        ("@stages[0]", ["a"]),
        ("@stages[:-1]", ["a", "b"]),
        ("@stages[1::2]", ["b"]),
        (["stem", "@stages[1:]", "@pooled"], ["stem", "b", "c", "fc:in"]),
        ("layer1", ["layer1"]),
        ([], []),
    ],
)
def test_roles_expand_where_they_stand(taps, paths):
    assert tap_list(taps, MODEL) == paths


@pytest.mark.parametrize(
    ("path", "tokens", "map", "mean", "cls"),
    [
        ("a", "a:nchw:tokens", "a", "a:nchw:mean", "a:nchw:cls"),
        ("a:in:nhwc", "a:in:nhwc:tokens", "a:in:nhwc", "a:in:nhwc:mean", "a:in:nhwc:cls"),
        ("a:nchw:tokens", "a:nchw:tokens", "a:nchw", "a:nchw:mean", "a:nchw:cls"),
        ("a.1:tokens", "a.1:tokens", "a.1:map", "a.1:mean", "a.1:cls"),
        (
            "a[0]:map(prefix=1,grid=2x3)",
            "a[0]:tokens(prefix=1,grid=2x3)",
            "a[0]:map(prefix=1,grid=2x3)",
            "a[0]:mean(prefix=1,grid=2x3)",
            "a[0]:cls(prefix=1,grid=2x3)",
        ),
    ],
)
def test_a_layout_behind_a_role_is_that_of_its_taps(path, tokens, map, mean, cls):
    model = Task(nn.Identity(), roles={"stages": ("b", path)})
    found = [tap_list(f"@stages[-1]:{to}", model)[0] for to in ("tokens", "map", "mean", "cls")]
    assert found == [tokens, map, mean, cls]
    assert tap_list("@stages:mean", model) == ["b:nchw:mean", mean]


def test_without_a_model_nothing_is_looked_up():
    assert tap_list("@stages[0]") == ["@stages[0]"]


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("@stage", "no such role; did you mean 'stages'"),
        ("@preact", "no such role; did you mean 'pooled', 'stages'|one of|no such role"),
        ("@stages[3]", "there are 3 of them: a, b, c"),
        ("@stages[]", "there are 3 of them"),
        ("@stages[a]", "write a role such as"),
        ("@stages.1", "write a role such as"),
        ("@stages:pooled", "a layout after it if wanted: :tokens, :map, :cls or :mean"),
        ("@stages:mean[0]", "write a role such as"),
    ],
)
def test_an_unknown_or_malformed_role_is_refused(tap, message):
    with pytest.raises(UserError, match=message):
        tap_list(tap, MODEL)


def test_a_model_without_roles_has_none():
    assert roles_of(nn.Linear(1, 1)) == {}
    with pytest.raises(UserError, match="name modules instead"):
        tap_list("@stages", nn.Linear(1, 1))


def test_logits_are_the_output_unless_the_model_says_otherwise():
    assert tap_list("@logits", Task(nn.Identity())) == ["output"]
    assert tap_list("@logits", Task(nn.Identity(), roles={"logits": "output[main]"})) == [
        "output[main]"
    ]
