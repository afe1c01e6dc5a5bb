"""Every name in a config is checked when it is read, those of later phases and recipes too."""

import pytest
from kd_cls.adapter import ADAPTER
from kd_core.config.options import parse_options
from kd_core.config.reading import save_config
from kd_core.errors import UserError
from kd_core.experiment.spec import phase_configs, read_config, teacher_nodes

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


@pytest.fixture
def read(tmp_path):
    """Write a config and read it back, as a tool does."""

    def write_and_read(config, *options, training=True):
        save_config(config, tmp_path / "config.py")
        return read_config(
            ADAPTER, tmp_path / "config.py", parse_options(options), training=training
        )

    return write_and_read


@pytest.mark.parametrize("config", [CONFIG, DISTILLED, STAGED], ids=["alone", "kd", "staged"])
def test_a_good_config_is_returned_as_it_is(read, config):
    assert read(config) == config


def test_a_recipe_takes_the_place_of_a_network(read, tmp_path):
    save_config(CONFIG, tmp_path / "teacher.py")
    config = {**DISTILLED, "teacher": {"config": str(tmp_path / "teacher.py"), "size": 64}}
    assert read(config) == config


def test_what_only_training_needs_may_be_absent_otherwise(read):
    config = {"data": CONFIG["data"], "student": CONFIG["student"]}
    assert read(config, training=False) == config
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
        ("seed=-1", "seed: wanted a whole number, got -1"),
        ("data_seed=true", "data_seed: wanted a whole number, got True"),
        ("phases=3", "phases: wanted a dict, got 3"),
    ],
)
def test_a_mistake_is_one_message_with_place_and_nearest_name(read, option, message):
    with pytest.raises(UserError, match=message):
        read(DISTILLED, option)


@pytest.mark.parametrize("name", ["data", "optimizer", "schedule"])
def test_a_node_without_type_is_refused(read, name):
    arguments = {key: value for key, value in CONFIG[name].items() if key != "type"}
    with pytest.raises(UserError, match=f"{name}: wanted a dict with `type`"):
        read({**CONFIG, name: arguments})


class TestTeachers:
    def test_are_known_by_name_and_place(self):
        one, two = {"network": NETWORK}, {"network": NETWORK, "size": 8}
        assert teacher_nodes({"teacher": one}) == {"teacher": ("teacher", one)}
        assert teacher_nodes({"teachers": {"a": one, "b": two}}) == {
            "a": ("teachers.a", one),
            "b": ("teachers.b", two),
        }
        assert teacher_nodes(CONFIG) == {}

    def test_one_and_several_at_once_are_refused(self, read):
        with pytest.raises(UserError, match=r"not both.*`teacher = None` leaves"):
            read({**DISTILLED, "teachers": {}})

    def test_none_is_no_teacher(self, read):
        several = {"a": {"network": NETWORK, "weights": "random"}}
        config = {**DISTILLED, "teacher": None, "teachers": several}
        assert read(config) == config
        assert [*teacher_nodes(config)] == ["a"]
        assert teacher_nodes({**CONFIG, "teacher": None}) == {}

    def test_none_in_a_later_file_leaves_the_teacher_of_a_pair_out(self, tmp_path):
        several = {"a": {"network": NETWORK, "weights": "random"}}
        save_config(DISTILLED, tmp_path / "pair.py")
        save_config({"teacher": None, "teachers": several}, tmp_path / "method.py")
        config = read_config(ADAPTER, [tmp_path / "pair.py", tmp_path / "method.py"])
        assert teacher_nodes(config) == {"a": ("teachers.a", several["a"])}

    def test_none_goes_with_peers_and_one_does_not(self, read):
        config = {**CONFIG, "peers": {"peer": {}}}
        assert read({**config, "teacher": None})["peers"] == {"peer": {}}
        with pytest.raises(UserError, match="`peers` learn from one another, without a teacher"):
            read({**config, "teacher": DISTILLED["teacher"]})

    def test_a_misspelt_recipe_names_its_neighbour(self, read, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        with pytest.raises(UserError, match=r"teacher\.config: .*taecher\.py.*'teacher\.py'"):
            read({**CONFIG, "teacher": {"config": str(tmp_path / "taecher.py")}})

    def test_a_mistake_inside_a_recipe_is_found(self, read, tmp_path):
        save_config({**CONFIG, "trainer": {"epoch": 1}}, tmp_path / "teacher.py")
        with pytest.raises(UserError, match=r"teacher\.config: trainer: .*'epoch'"):
            read({**CONFIG, "teacher": {"config": str(tmp_path / "teacher.py")}})

    def test_a_network_beside_a_recipe_is_refused(self, read, tmp_path):
        save_config(CONFIG, tmp_path / "teacher.py")
        teacher = {"config": str(tmp_path / "teacher.py"), "network": NETWORK}
        with pytest.raises(UserError, match="teacher: 'network' is what its recipe says"):
            read({**CONFIG, "teacher": teacher})


class TestStages:
    def test_each_is_the_rest_with_its_overrides(self):
        hint, main = phase_configs(STAGED)
        assert hint["trainer"] == {"epochs": 2}
        assert hint["distiller"] == {"task_weight": 0, "terms": {"kd": KD}}
        assert main["trainer"] == {"epochs": 1}
        assert "phases" not in hint

    def test_products_of_earlier_ones_are_not_there_yet(self):
        assert phase_configs(STAGED)[1]["student"]["weights"] is None

    def test_a_config_without_stages_is_its_only_stage(self):
        assert phase_configs(CONFIG) == [CONFIG]

    def test_a_mistake_in_the_last_one_is_found_before_the_first(self, read):
        with pytest.raises(UserError, match=r"'epoch'; did you mean 'epochs'"):
            read(STAGED, "phases.main.trainer={'epoch': 1}")

    @pytest.mark.parametrize("name", ["hnt", "main"])
    def test_only_products_of_earlier_ones_can_be_named(self, read, name):
        with pytest.raises(UserError, match=f"there is no earlier phase '{name}'.*hint"):
            read(STAGED, f"phases.main.student.weights=phase:{name}/student.pth")
