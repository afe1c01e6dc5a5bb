"""Values for a pair or recipe, by its name, and what is told of them."""

import pytest
from kd_core.config.reading import load_config
from kd_core.errors import UserError

KNOWN = ("distiller", "optimizer", "phases", "pair", "by_pair", "recipe", "by_recipe")
TERM = "distiller = dict(terms=dict(dkd=dict(criterion=dict(type='x.Y', beta=8.0), weight=1.0)))\n"
BY_PAIR = (
    "by_pair = dict("
    "a_b=dict(distiller=dict(terms=dict(dkd=dict(criterion=dict(beta=6.0))))), "
    "a_c=dict(optimizer=dict(lr=0.5)))\n"
)


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def pair(write):
    return write("pair", "pair = 'a_b'\noptimizer = dict(lr=0.1)\n")


@pytest.fixture
def method(write):
    return write("method", TERM + BY_PAIR)


def beta(config):
    return config["distiller"]["terms"]["dkd"]["criterion"]["beta"]


def told(*paths, options=None):
    lines = []
    load_config(paths, options, known=KNOWN, note=lines.append)
    return lines


class TestValues:
    def test_those_of_the_pair_are_merged_over_the_methods_own(self, pair, method):
        config = load_config([pair, method], known=KNOWN)
        criterion = {"type": "x.Y", "beta": 6.0}
        assert config == {
            "optimizer": {"lr": 0.1},
            "distiller": {"terms": {"dkd": {"criterion": criterion, "weight": 1.0}}},
        }

    def test_pair_may_follow_the_method(self, pair, method):
        assert beta(load_config([method, pair], known=KNOWN)) == 6.0

    def test_last_pair_counts(self, pair, method, write):
        later = write("later", "pair = 'a_c'\n")
        config = load_config([pair, method, later], known=KNOWN)
        assert (beta(config), config["optimizer"]["lr"]) == (8.0, 0.5)

    def test_renamed_pair_file_keeps_its_name(self, pair, method):
        assert beta(load_config([pair.rename(pair.with_name("mine.py")), method])) == 6.0

    @pytest.mark.parametrize("text", ["pair = 'other'\n", "pair = None\n", ""])
    def test_defaults_hold_for_another_pair_and_for_none(self, method, write, text):
        assert beta(load_config([write("pair", text), method], known=KNOWN)) == 8.0

    def test_later_file_and_option_come_over_them(self, pair, method, write):
        term = "dict(dkd=dict(criterion=dict(beta=3.0)))"
        later = write("later", f"distiller = dict(terms={term})\n")
        assert beta(load_config([pair, method, later])) == 3.0
        options = {"distiller.terms.dkd.criterion.beta": 2.0}
        assert beta(load_config([pair, method], options)) == 2.0

    def test_child_comes_over_those_of_its_base(self, pair, method, write):
        own = "distiller = dict(terms=dict(dkd=dict(criterion=dict(beta=3.0))))\n"
        child = write("child", f"_base_ = 'method.py'\n{own}")
        grandchild = write("grandchild", "_base_ = 'child.py'\n")
        assert beta(load_config([pair, child])) == 3.0
        assert beta(load_config([pair, grandchild])) == 3.0
        assert beta(load_config([pair, write("plain", "_base_ = 'method.py'\n")])) == 6.0

    def test_child_adds_a_pair_and_a_base_may_name_one(self, pair, method, write):
        own = "by_pair = dict(mine=dict(distiller=dict(terms=dict(dkd=dict(weight=7.0)))))\n"
        child = write("child", f"_base_ = ['method.py', 'pair.py']\n{own}")
        assert beta(load_config(child)) == 6.0
        config = load_config([child, write("later", "pair = 'mine'\n")])
        assert beta(config) == 8.0
        assert config["distiller"]["terms"]["dkd"]["weight"] == 7.0

    def test_phases_of_a_method_have_theirs(self, write):
        pair = write("pair", "pair = 'a_b'\n")
        init = "dict(optimizer=dict(_delete_=True, lr=0.1))"
        table = "dict(a_b=dict(phases=dict(init=dict(optimizer=dict(lr=0.5)))))"
        method = write("method", f"phases = dict(init={init}, train={{}})\nby_pair = {table}\n")
        phases = load_config([pair, method], known=KNOWN)["phases"]
        assert phases == {"init": {"optimizer": {"_delete_": True, "lr": 0.5}}, "train": {}}

    def test_delete_in_them_acts_on_earlier_files(self, pair, write):
        table = "dict(a_b=dict(optimizer=dict(_delete_=True, rate=1)))"
        method = write("method", f"optimizer = dict(decay=2)\nby_pair = {table}\n")
        assert load_config([pair, method]) == {"optimizer": {"rate": 1}}

    def test_of_several_methods_each_gives_its_own(self, pair, method, write):
        table = "by_pair = dict(a_b=dict(distiller=dict(terms=dict(at=dict(weight=2.0)))))\n"
        other = write("other", f"distiller = dict(terms=dict(at=dict(weight=1.0)))\n{table}")
        config = load_config([pair, method, other])
        assert (beta(config), config["distiller"]["terms"]["at"]["weight"]) == (6.0, 2.0)

    def test_recipe_has_its_own(self, pair, method, write):
        recipe = write("recipe", "recipe = 'long'\n")
        table = "dict(long=dict(distiller=dict(terms=dict(dkd=dict(weight=9.0)))))"
        both = write("both", f"{TERM}{BY_PAIR}by_recipe = {table}\n")
        config = load_config([recipe, pair, both], known=KNOWN)
        assert (beta(config), config["distiller"]["terms"]["dkd"]["weight"]) == (6.0, 9.0)

    def test_option_names_the_pair_or_none(self, pair, method):
        assert beta(load_config(method, {"pair": "a_b"}, known=KNOWN)) == 6.0
        assert beta(load_config([pair, method], {"pair": None}, known=KNOWN)) == 8.0


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("pair = dict(a_b=1)", "pair: wanted a name .*, got {'a_b': 1}"),
            ("pair = ''", "pair: wanted a name .*, got ''"),
            ("by_pair = ['a_b']", r"by_pair: wanted a dict of configs by pair, got \['a_b'\]"),
            ("by_pair = dict(a_b=6.0)", "by_pair: wanted .* got 'a_b' and 6.0"),
            ("by_pair = {3: dict()}", "by_pair: wanted .* got 3 and {}"),
            ("by_pair = dict(x=dict(optimzer={}))", r"by_pair\.x: .*'optimzer'.*'optimizer'"),
            ("by_pair = dict(x=dict(by_pair={}))", r"by_pair\.x: .*'by_pair'; valid names: dist"),
            ("by_pair = dict(x=dict(optimizer=dict(lr=set())))", r"by_pair\.x\.optimizer\.lr: "),
            ("by_pairs = dict()", "unknown name 'by_pairs'; did you mean 'by_pair'"),
        ],
    )
    def test_table_or_name_of_another_kind_is_refused(self, write, text, message):
        file = write("broken", f"{text}\n")
        with pytest.raises(UserError, match=rf"broken\.py: {message}"):
            load_config(file, known=KNOWN)

    def test_table_in_a_table_is_refused_where_any_name_is_allowed(self, write):
        with pytest.raises(UserError, match=r"by_pair\.x: unknown name 'pair'"):
            load_config(write("broken", "by_pair = dict(x=dict(pair='y'))\n"))

    def test_error_in_a_base_names_the_base(self, write):
        write("broken", "by_pair = 3\n")
        with pytest.raises(UserError, match=r"child\.py: by_pair: .*got 3 \(.*broken\.py\)"):
            load_config(write("child", "_base_ = 'broken.py'\n"), known=KNOWN)

    def test_file_that_has_no_methods_has_no_pair(self, pair):
        with pytest.raises(UserError, match="unknown name 'pair'"):
            load_config(pair, known=("rows", "optimizer"))

    def test_option_that_no_file_has_values_for_is_refused(self, method):
        message = "option pair: no file has values for 'a_bb' in `by_pair`; did you mean 'a_b'"
        with pytest.raises(UserError, match=message):
            load_config(method, {"pair": "a_bb"}, known=KNOWN)
        with pytest.raises(UserError, match=r"option pair: wanted a name .*, got 3"):
            load_config(method, {"pair": 3}, known=KNOWN)

    @pytest.mark.parametrize("option", ["by_pair.a_b.optimizer.lr", "pair.x", "by_recipe"])
    def test_option_sets_no_table(self, method, option):
        with pytest.raises(UserError, match=f"option {option}: only files have"):
            load_config(method, {option: 1}, known=KNOWN)


class TestNotes:
    def test_values_that_hold_are_told_in_a_line(self, pair, method, write):
        line = "values for the pair a_b: distiller.terms.dkd.criterion.beta=6.0"
        assert told(pair, method) == [line]
        assert told(pair, method, write("again", "_base_ = 'method.py'\n")) == [line]

    def test_values_that_were_replaced_are_not_told(self, pair, method):
        assert told(pair, method, options={"distiller.terms.dkd.criterion.beta": 2.0}) == []

    def test_marks_are_not_told(self, pair, write):
        table = "dict(a_b=dict(phases=dict(one=dict(optimizer=dict(_delete_=True, lr=0.5)))))"
        method = write("method", f"phases = dict(one={{}})\nby_pair = {table}\n")
        assert told(pair, method) == ["values for the pair a_b: phases.one.optimizer.lr=0.5"]

    def test_pair_without_values_is_told_with_the_nearest_name(self, method, write):
        table = "by_pair = dict(resnet32x4_resnet8x44=dict(optimizer=dict(lr=0.5)))\n"
        typo = write("typo", table)
        pair = write("pair", "pair = 'resnet32x4_resnet8x4'\n")
        assert told(pair, method, typo) == [
            "no values for the pair resnet32x4_resnet8x4 in method.py, typo.py: its defaults hold"
            "; nearest name there: 'resnet32x4_resnet8x44'"
        ]

    def test_nothing_is_told_without_a_pair_or_without_values_by_pair(self, pair, method):
        assert told(method) == told(pair) == []
