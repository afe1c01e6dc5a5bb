"""Every name in a config is checked when it is read, those of later phases and recipes too."""

import json
from dataclasses import FrozenInstanceError

import pytest
from kd_cls.adapter import ADAPTER
from kd_core.config.reading import save_config
from kd_core.errors import UserError
from kd_core.experiment import parsing
from kd_core.experiment.cli import parse_options
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import teacher_folder

NETWORK = {"type": "kd_cls.models.build_model", "name": "resnet8"}
KD = {"criterion": {"type": "kd_core.criteria.kd.KD"}}
CONFIG = {
    "data": {"type": "kd_cls.data.synthetic"},
    "student": {"network": NETWORK},
    "optimizer": {"type": "torch.optim.SGD", "lr": 0.05},
    "schedule": {"type": "kd_core.training.schedule.cosine"},
    "trainer": {"epochs": 1},
}
DISTILLED = {
    **CONFIG,
    "teacher": {"network": NETWORK, "weights": "random"},
    "distiller": {"terms": {"kd": KD}},
}
STAGED = {
    **DISTILLED,
    "phases": {
        "hint": {"trainer": {"epochs": 2}, "distiller": {"task_weight": 0}},
        "main": {"student": {"weights": "phase:hint"}, "distiller": {"terms": {"kd": KD}}},
    },
}


def whole(config):
    """Return a config with the seed that it has if it names none."""
    return {**config, "seed": 0}


@pytest.fixture
def read(tmp_path):
    """Write a config and read it back, as a tool does."""

    def write_and_read(config, *options, training=True):
        save_config(config, tmp_path / "config.py")
        return read_experiment(
            ADAPTER, tmp_path / "config.py", parse_options(options), training=training
        )

    return write_and_read


@pytest.mark.parametrize("config", [CONFIG, DISTILLED], ids=["alone", "kd"])
def test_a_good_config_is_read_as_it_is_and_written_as_it_was(read, config):
    assert read(config).plain() == whole(config)


@pytest.mark.parametrize("name", ["alone", "kd", "staged", "teacher", "peers"])
def test_what_is_written_is_read_back_as_the_same_experiment(read, tmp_path, name):
    save_config(CONFIG, tmp_path / "teacher.py")
    config = {
        "alone": CONFIG,
        "kd": DISTILLED,
        "staged": STAGED,
        "teacher": {**DISTILLED, "teacher": {"config": str(tmp_path / "teacher.py"), "size": 9}},
        "peers": {**CONFIG, "peers": {"peer": {"size": 9}}, "data_seed": 3},
    }[name]
    experiment = read(config)
    if name == "staged":  # what its phases have in common is written in each of them
        assert [*experiment.phases] == ["hint"]
    else:
        assert read(experiment.plain()) == experiment
    assert json.loads(json.dumps(experiment.plain()))


def test_an_experiment_cannot_be_changed(read):
    experiment = read(CONFIG)
    with pytest.raises(FrozenInstanceError):
        experiment.seed = 1
    with pytest.raises(TypeError):
        experiment.data["type"] = "x"


def test_what_only_training_needs_may_be_absent_otherwise(read):
    config = {"data": CONFIG["data"], "student": CONFIG["student"]}
    experiment = read(config, training=False)
    assert experiment.plain() == whole(config)
    with pytest.raises(UserError, match="nothing says how to train: set optimizer"):
        experiment.training()
    with pytest.raises(UserError, match="the config has no 'optimizer'; compose it from data"):
        read(config)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.batchsize=4", r"data: .*synthetic has no parameter 'batchsize'.*'batch_size'"),
        ("data.type=kd_cls.data.cifar", r"data\.type: kd_cls.data has no 'cifar'.*'cifar10'"),
        ("student.sizes=4", r"student: .* has no parameter 'sizes'; did you mean 'size'"),
        ("teacher.weight=a", r"teacher: .* has no parameter 'weight'; did you mean 'weights'"),
        ("distiller.task_wight=1", r"distiller: .* 'task_wight'; did you mean 'task_weight'"),
        ("distiller.terms.kd.warmup=1", r"terms\.kd: .* 'warmup'; did you mean 'warmup_by'"),
        ("distiller.terms.kd.criterion.temprature=1", r"criterion: .*mean 'temperature'"),
        ("distiller.terms.kd=4", r"distiller\.terms\.kd: wanted a dict, got 4"),
        ("distiller.terms=4", r"distiller\.terms: wanted a dict, got 4"),
        ("optimizer.momentun=1", r"optimizer: .* 'momentun'; did you mean 'momentum'"),
        ("schedule.warmup=1", r"schedule: .*cosine has no parameter 'warmup'.*'warmup_epochs'"),
        ("trainer.epoch=1", r"trainer: .* no parameter 'epoch'; did you mean 'epochs'"),
        ("trainr.epochs=1", r"option trainr\.epochs: .*did you mean 'trainer'"),
        ("data=cifar10", r"data: wanted a dict.* got 'cifar10'"),
        ("student=resnet8", r"student: wanted a dict, got 'resnet8'"),
        ("student.network=resnet8", r"student\.network: wanted a dict with `type`.* 'resnet8'"),
        ("teacher=resnet8", "teacher: wanted a dict, got 'resnet8'"),
        ("student=none", "student: wanted a dict, got None"),
        ("seed=zero", "seed: wanted a whole number, got 'zero'"),
        ("seed=-1", "seed: wanted a number of at least 0, got -1"),
        (f"seed={2**32}", "seed: wanted a number less than 4294967296"),
        ("data_seed={'type': 'torch.nn.Identity'}", "data_seed: wanted a whole number, got {"),
        ("data_seed=true", "data_seed: wanted a whole number, got True"),
        ("phases=3", "phases: wanted a dict, got 3"),
    ],
)
def test_a_mistake_is_one_message_with_place_and_nearest_name(read, option, message):
    with pytest.raises(UserError, match=message):
        read(DISTILLED, option)


BEFORE_ANY_WORK = [
    ("optimizer.lr=-1", r"optimizer\.lr: .*Invalid learning rate: -1"),
    ("optimizer.lr='\"0.1\"'", r"optimizer\.lr: wanted a number, got '.*0\.1"),
    ("optimizer.momentum=-2", r"optimizer\.momentum: .*Invalid momentum value: -2"),
    ("optimizer.nesterov=True", r"optimizer\.nesterov: .*Nesterov momentum requires a momentum"),
    ("schedule.warmup_epochs=7", r"schedule\.warmup_epochs is 7, of 1 epochs"),
    ("schedule.warmup_epochs=1e999", r"schedule\.warmup_epochs: wanted a finite number, got inf"),
    ("trainer.epochs=abc", r"trainer\.epochs: wanted a whole number, got 'abc'"),
    ("trainer.precision=fp8", r"trainer\.precision: wanted 'fp32', 'bf16' or 'fp16', got 'fp8'"),
    ("trainer.clip_norm=-1", r"trainer\.clip_norm: wanted a number greater than 0"),
    ("trainer.log_every=0", r"trainer\.log_every: wanted a number greater than 0"),
    ("distiller.task_weight=-1", r"distiller\.task_weight: wanted a number of at least 0"),
    ("distiller.task_weight.ce=-1", r"distiller\.task_weight: wanted a number of at least 0"),
    ("distiller.terms.kd.weight=-1", r"terms\.kd\.weight: wanted a number of at least 0"),
    ("distiller.terms.kd.weights=3", r"terms\.kd\.weights: wanted a file's name, got 3"),
    ("distiller.terms.kd.criterion.temperature=-1", r"criterion\.temperature: wanted a number gr"),
    ("distiller.terms.kd.warmup_epochs=1e999", r"kd\.warmup_epochs: wanted a finite number"),
    ("data.std=0", r"data\.std: wanted a list"),
    ("data.std=(1,1,0)", r"data\.std: wanted a number greater than 0"),
    ("data.mean=(1,1)", r"data\.mean: wanted at least 3 values"),
    ("data.image_size=0", r"data\.image_size: wanted a number greater than 0"),
    ("data.batch_size=0", r"data\.batch_size: wanted a number greater than 0"),
    ("data.val_fraction=1", r"data\.val_fraction: wanted a number less than 1"),
    ("student.std=(0,0,0)", r"student\.std: wanted a number greater than 0"),
    ("student.label_smoothing=2", r"student\.label_smoothing: wanted a number of at most 1"),
    ("student.size=0", r"student\.size: wanted a number greater than 0"),
]


@pytest.mark.parametrize(("option", "message"), BEFORE_ANY_WORK, ids=lambda value: value[:40])
def test_a_value_out_of_its_range_is_refused_as_the_config_is_read(read, option, message):
    config = {**DISTILLED, "distiller": {"terms": {"kd": KD}, "task_weight": {}}}
    with pytest.raises(UserError, match=message):
        read(config, option)


@pytest.mark.parametrize("name", ["data", "optimizer", "schedule"])
def test_a_node_without_type_is_refused(read, name):
    arguments = {key: value for key, value in CONFIG[name].items() if key != "type"}
    with pytest.raises(UserError, match=f"{name}: wanted a dict with `type`"):
        read({**CONFIG, name: arguments})


class TestTeachers:
    def test_are_known_by_name_and_place(self, read):
        one, two = ({"network": NETWORK, "size": size, "weights": "random"} for size in (8, 9))
        alone, both = (
            read({**CONFIG, "teacher": one}),
            read({**CONFIG, "teachers": {"a": one, "b": two}}),
        )
        assert [(n, t.where, t.plain()) for n, t in alone.teachers.items()] == [
            ("teacher", "teacher", one)
        ]
        assert [(n, t.where, t.plain()) for n, t in both.teachers.items()] == [
            ("a", "teachers.a", one),
            ("b", "teachers.b", two),
        ]
        assert read(CONFIG).teachers == {}

    def test_one_and_several_at_once_are_refused(self, read):
        with pytest.raises(UserError, match=r"not both.*`teacher = None` leaves"):
            read({**DISTILLED, "teachers": {}})

    def test_none_is_no_teacher(self, read):
        several = {"a": {"network": NETWORK, "weights": "random"}}
        assert [*read({**DISTILLED, "teacher": None, "teachers": several}).teachers] == ["a"]
        assert read({**CONFIG, "teacher": None}).teachers == {}

    def test_none_in_a_later_file_leaves_the_teacher_of_a_pair_out(self, tmp_path):
        several = {"a": {"network": NETWORK, "weights": "random"}}
        save_config(DISTILLED, tmp_path / "pair.py")
        save_config({"teacher": None, "teachers": several}, tmp_path / "method.py")
        experiment = read_experiment(ADAPTER, [tmp_path / "pair.py", tmp_path / "method.py"])
        assert {name: t.plain() for name, t in experiment.teachers.items()} == several

    def test_none_goes_with_peers_and_one_does_not(self, read):
        config = {**CONFIG, "peers": {"peer": {}}}
        assert read({**config, "teacher": None}).peers == {"peer": CONFIG["student"]}
        with pytest.raises(UserError, match="`peers` learn from one another, without a teacher"):
            read({**config, "teacher": DISTILLED["teacher"]})
        with pytest.raises(UserError, match="mutual learning needs a peer"):
            read({**CONFIG, "peers": {}})

    def test_a_config_takes_the_place_of_a_network(self, read, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        config = {**DISTILLED, "teacher": {"config": str(tmp_path / "teacher.py"), "size": 64}}
        teacher = read(config).teachers["teacher"]
        assert teacher.experiment.plain() == whole(CONFIG)
        assert teacher.model == {"network": NETWORK, "size": 64}
        assert teacher.own == {"size": 64}

    def test_a_config_may_be_written_in_the_place_of_its_file(self, read):
        teacher = read({**DISTILLED, "teacher": {"config": CONFIG}}).teachers["teacher"]
        assert teacher.experiment.plain() == whole(CONFIG)

    @pytest.mark.parametrize("config", [3, [], [3], None, ""])
    def test_a_config_is_a_file_or_several(self, read, config):
        with pytest.raises(UserError, match=r"teacher\.config: "):
            read({**DISTILLED, "teacher": {"config": config}})

    def test_a_config_that_leads_back_to_itself_is_refused(self, read, tmp_path):
        again = {**CONFIG, "teacher": {"config": str(tmp_path / "config.py")}}
        with pytest.raises(UserError, match="this config leads back to itself"):
            read(again)
        save_config(again, tmp_path / "config.py")
        born_again = {"config": str(tmp_path / "config.py"), "teacher": None}
        save_config({**CONFIG, "teacher": born_again}, tmp_path / "other.py")
        teacher = read_experiment(ADAPTER, tmp_path / "other.py").teachers["teacher"]
        assert teacher.experiment.teachers == {}

    def test_a_misspelt_recipe_names_its_neighbour(self, read, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        with pytest.raises(UserError, match=r"teacher\.config: .*taecher\.py.*'teacher\.py'"):
            read({**CONFIG, "teacher": {"config": str(tmp_path / "taecher.py")}})

    def test_a_mistake_inside_a_recipe_is_found(self, read, tmp_path):
        save_config({**CONFIG, "trainer": {"epoch": 1}}, tmp_path / "teacher.py")
        with pytest.raises(UserError, match=r"teacher\.config: trainer: .*'epoch'"):
            read({**CONFIG, "teacher": {"config": str(tmp_path / "teacher.py")}})

    def test_each_is_read_once(self, read, tmp_path, monkeypatch):
        save_config(CONFIG, tmp_path / "teacher.py")
        loaded = []
        load = parsing.load_config
        monkeypatch.setattr(
            parsing, "load_config", lambda *a, **k: loaded.append(a) or load(*a, **k)
        )
        config = {**STAGED, "teacher": {"config": str(tmp_path / "teacher.py")}}
        experiment = read(config)
        assert len(loaded) == 2
        first, last = (phase.teachers["teacher"].experiment for phase in experiment.each_phase)
        assert first is last

    def test_a_network_beside_a_recipe_is_refused(self, read, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        teacher = {"config": str(tmp_path / "teacher.py"), "network": NETWORK}
        with pytest.raises(UserError, match="teacher: 'network' is what its config says"):
            read({**CONFIG, "teacher": teacher})


class TestOptionsOfATeacher:
    @pytest.fixture
    def config(self, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        return {**DISTILLED, "teacher": {"config": str(tmp_path / "teacher.py")}}

    def test_change_its_own_training(self, read, config):
        options = ["teacher.trainer.epochs=2", "teacher.data.image_size=9", "trainer.epochs=3"]
        experiment = read(config, *options)
        teacher = experiment.teachers["teacher"].experiment
        assert (teacher.trainer["epochs"], teacher.data["image_size"]) == (2, 9)
        assert experiment.trainer["epochs"] == 3
        assert "image_size" not in experiment.data

    def test_reach_one_of_several_and_every_phase(self, read, config):
        several = {"a": config["teacher"], "b": config["teacher"]}
        whole = {**STAGED, "teacher": None, "teachers": several}
        for phase in read(whole, "teachers.b.seed=3").each_phase:
            assert [phase.teachers[name].experiment.seed for name in "ab"] == [0, 3]

    def test_reach_the_teacher_of_a_teacher(self, read, config, tmp_path):
        save_config(config, tmp_path / "middle.py")
        middle = {**CONFIG, "teacher": {"config": str(tmp_path / "middle.py")}}
        found = read(middle, "teacher.teacher.trainer.epochs=5").teachers["teacher"].experiment
        assert found.trainer["epochs"] == 1
        assert found.teachers["teacher"].experiment.trainer["epochs"] == 5

    def test_may_stand_in_a_file_too_and_those_of_the_line_win(self, read, config):
        node = {**config["teacher"], "trainer": {"epochs": 4}, "seed": 8}
        teacher = read({**config, "teacher": node}, "teacher.seed=9").teachers["teacher"]
        assert (teacher.experiment.trainer["epochs"], teacher.experiment.seed) == (4, 9)
        assert teacher.own == {}

    def test_make_another_teacher(self, read, config, tmp_path):
        folders = {
            teacher_folder(read(config, *options).teachers["teacher"].experiment, tmp_path)
            for options in ([], ["teacher.trainer.epochs=2"], ["teacher.optimizer.lr=0.1"])
        }
        assert len(folders) == 3

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("teacher.trainer.epoch=2", r"teacher\.config: .*'epoch'; did you mean 'epochs'"),
            ("teacher.trainer.epochs=0", r"teacher\.config: trainer\.epochs: wanted a number gre"),
            ("teacher.trainr.epochs=2", r"teacher\.config: option trainr.*did you mean 'trainer'"),
            ("teacher.data.size.x=2", r"teacher\.config: option data\.size\.x: there is no 'size'"),
            (
                "teachers.a.trainer.epochs=2",
                r"option teachers\.a\.trainer\.epochs: there is no tea",
            ),
        ],
    )
    def test_are_as_strict_as_all_others(self, read, config, option, message):
        with pytest.raises(UserError, match=message):
            read(config, option)

    def test_are_refused_beside_weights_but_for_its_network(self, read, config):
        node = {**config["teacher"], "weights": "random", "trainer": {"epochs": 4}}
        for option in ("trainer.epochs", "data.image_size", "seed"):
            with pytest.raises(UserError, match=rf"teacher: '{option}' .* teacher\.weights"):
                read({**config, "teacher": node}, f"teacher.{option}=9")
        found = read({**config, "teacher": node}, "teacher.student.mean=[0.5]")
        assert found.teachers["teacher"].model["mean"] == [0.5]

    def test_are_refused_without_its_config(self, read):
        message = (
            r"teacher: 'trainer\.epochs' is of a teacher's own training, .* set teacher\.config"
        )
        with pytest.raises(UserError, match=message):
            read(DISTILLED, "teacher.trainer.epochs=2")
        node = {**DISTILLED["teacher"], "trainer": {"epochs": 2}}
        with pytest.raises(UserError, match="'trainer' is of a teacher's own training"):
            read({**DISTILLED, "teacher": node})


class TestStages:
    def test_each_is_the_rest_with_its_overrides(self, read):
        hint, main = read(STAGED).each_phase
        assert hint.trainer == {"epochs": 2}
        assert hint.distiller == {"task_weight": 0}
        assert [*hint.terms] == ["kd"]
        assert main.trainer == {"epochs": 1}
        assert hint.phases == main.phases == {}

    def test_products_of_earlier_ones_are_not_there_yet(self, read):
        assert read(STAGED).without_products()[1].student["weights"] is None

    def test_a_config_without_stages_is_its_only_stage(self, read):
        experiment = read(CONFIG)
        assert experiment.each_phase == [experiment]
        assert read({**CONFIG, "phases": {}}) == read({**CONFIG, "phases": None}) == experiment

    @pytest.mark.parametrize("name", ["optimzer", "by_pair", "phases", "pair"])
    def test_a_phase_has_only_names_that_take_effect(self, read, name):
        with pytest.raises(
            UserError, match=rf"phases\.main: unknown name '{name}'; did you mean|valid"
        ):
            read(STAGED, f"phases.main.{name}={{'lr': 1}}")

    def test_a_mistake_in_the_last_one_is_found_before_the_first(self, read):
        with pytest.raises(UserError, match=r"phases\.main: .*'epoch'; did you mean 'epochs'"):
            read(STAGED, "phases.main.trainer={'epoch': 1}")

    @pytest.mark.parametrize("name", ["hnt", "main"])
    def test_only_products_of_earlier_ones_can_be_named(self, read, name):
        with pytest.raises(UserError, match=f"there is no earlier phase '{name}'.*hint"):
            read(STAGED, f"phases.main.student.weights=phase:{name}/student.pth")


@pytest.mark.parametrize(
    "name", ["", "a.b", "..", "../x", "/tmp/x", "a\\b", "a\nb", " a", "x" * 101]
)
@pytest.mark.parametrize(
    ("place", "config"),
    [
        ("phases", lambda name: {**DISTILLED, "phases": {name: {}, "main": {}}}),
        ("distiller.terms", lambda name: {**DISTILLED, "distiller": {"terms": {name: KD}}}),
        ("teachers", lambda name: {**CONFIG, "teachers": {name: DISTILLED["teacher"]}}),
        ("peers", lambda name: {**CONFIG, "peers": {name: {}}}),
    ],
)
def test_a_name_that_would_leave_its_place_or_its_folder_is_refused(read, place, name, config):
    with pytest.raises(UserError, match=rf"^{place}: .* cannot be a name; wanted a short text"):
        read(config(name))


def test_a_schedule_has_the_epochs_of_the_trainer(read):
    with pytest.raises(UserError, match=r"schedule\.epochs is what trainer\.epochs says"):
        read(CONFIG, "schedule.epochs=3")
