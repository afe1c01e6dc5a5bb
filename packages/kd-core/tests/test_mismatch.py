"""How a file differs from a network, in names and shapes: empty where it fits."""

import torch
from kd_core.files.mismatch import Mismatch, few


def state(**shapes):
    return {name.replace("_", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_what_fits_gives_no_text():
    same = state(fc_weight=(3, 4), fc_bias=(3,))
    assert str(Mismatch.between(same, dict(same))) == ""


def test_each_way_to_differ_is_counted_and_named():
    wrong = Mismatch.between(
        state(fc_weight=(3, 4), old_bias=(3,)), state(fc_weight=(9, 4), fc_bias=(9,))
    )
    assert (wrong.missing, wrong.unexpected, list(wrong.reshaped)) == (
        ["fc.bias"],
        ["old.bias"],
        ["fc.weight"],
    )
    text = str(wrong)
    for part in ("1 missing (fc.bias)", "1 unexpected (old.bias)", "1 of another shape"):
        assert part in text
    assert "fc.weight is [3, 4] in the file, [9, 4] in the network" in text


def test_a_counter_of_batches_may_be_missing_but_not_unexpected():
    counter = {"bn.num_batches_tracked": torch.tensor(0)}
    assert str(Mismatch.between({}, counter)) == ""
    assert "unexpected (bn.num_batches_tracked)" in str(Mismatch.between(counter, {}))


def test_long_lists_show_the_first_names_only():
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["a", "b", "c", "d"]) == "a, b, c, ..."
