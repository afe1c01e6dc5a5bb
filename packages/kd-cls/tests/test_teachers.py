"""Teachers come from a file, from a recipe that is trained once, or at random when asked for."""

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.networks import class_count
from kd_core.config.reading import save_config
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.experiment.builder import build_experiment
from kd_core.experiment.parsing import parse_experiment, read_experiment
from kd_core.experiment.teachers import build_teachers, teacher_folder, unfinished
from kd_core.files import checkpoint

NETWORK = {"type": "kd_cls.models.build_model", "name": "resnet8"}
RECIPE = {
    "data": {"type": "kd_cls.data.synthetic"},
    "student": {"network": NETWORK, "size": 16},
    "optimizer": {"type": "torch.optim.SGD"},
    "schedule": {"type": "kd_core.training.schedule.cosine"},
    "trainer": {"epochs": 1},
}
KD = {"criterion": {"type": "kd_core.criteria.kd.KD"}}
FITNET = {"criterion": {"type": "kd_core.criteria.fitnet.FitNet"}, "student": "layer2"}
CPU = torch.device("cpu")


@pytest.fixture
def data():
    return synthetic(image_size=8, num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def recipe(tmp_path):
    save_config(RECIPE, tmp_path / "recipe.py")
    return str(tmp_path / "recipe.py")


@pytest.fixture
def weights(tmp_path):
    torch.save(build_model("resnet8", num_classes=3).state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


class Train:
    """Stands for training: leaves what a run leaves, of a network with statistics of its own."""

    def __init__(self):
        self.configs = []

    def __call__(self, config, folder):
        self.configs.append(config)
        data = synthetic(image_size=8, num_classes=3)
        student = Classifier(build_model("resnet8", num_classes=3), mean=[0.7] * 3, std=[0.8] * 3)
        student.size = config.student["size"]
        checkpoint.export(
            student.network.state_dict(),
            folder / "student",
            ADAPTER.metadata(config.student["network"], data, student),
        )
        scores = {"top1": 50.0}
        result = {"metric": "top1", "last": scores, "best": {**scores, "chosen_on": "test data"}}
        result |= {"student_parameters": 1, "train_seconds": 1.0}
        result |= {"epochs": config.trainer["epochs"], "made_by": identity.digest_of(folder)}
        checkpoint.save_json(result, folder / "result.json")


def specs(**config):
    """Return the checked teachers of a config."""
    whole = {"data": RECIPE["data"], "student": {"network": NETWORK}, **config}
    return parse_experiment(ADAPTER, whole, training=False).teachers


def one(node, data, folder, train=None, **options):
    teachers = specs(teacher=node)
    return build_teachers(ADAPTER, teachers, 0, data, folder, train or Train(), **options)[
        "teacher"
    ]


def image():
    return {"image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}


class TestWeights:
    def test_are_loaded_from_a_file(self, data, tmp_path, weights):
        teacher = one({"network": NETWORK, "weights": weights}, data, tmp_path)
        state = torch.load(weights, weights_only=True)
        assert torch.equal(teacher.network.conv1.weight, state["conv1.weight"])
        assert teacher.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])

    def test_may_be_random_when_asked_for(self, data, tmp_path):
        teacher = one({"network": NETWORK, "weights": "random"}, data, tmp_path)
        assert class_count(teacher, image()) == 3

    def test_that_are_random_follow_from_the_seed(self, data, tmp_path, recipe):
        nodes = {"trained": {"config": recipe}, "random": {"network": NETWORK, "weights": "random"}}
        first, again, other = (
            build_teachers(ADAPTER, specs(teachers=nodes), seed, data, tmp_path, Train())
            for seed in (0, 0, 1)
        )
        weights = [built["random"].network.conv1.weight for built in (first, again, other)]
        assert torch.equal(weights[0], weights[1])  # though the other was trained meanwhile
        assert not torch.equal(weights[0], weights[2])

    def test_are_not_forgotten(self, data, tmp_path):
        with pytest.raises(UserError, match=r'teacher: no weights; name a file.*weights="random"'):
            one({"network": NETWORK}, data, tmp_path)

    def test_of_several_teachers_are_missed_by_name(self, data, tmp_path):
        teachers = {"big": {"network": NETWORK, "weights": "random"}, "old": {"network": NETWORK}}
        with pytest.raises(UserError, match=r"teachers\.old: no weights"):
            build_teachers(ADAPTER, specs(teachers=teachers), 0, data, tmp_path, Train())

    def test_that_do_not_fit_are_refused(self, data, tmp_path, weights):
        node = {"network": {**NETWORK, "name": "resnet14"}, "weights": weights}
        with pytest.raises(UserError, match=r"teacher: .*weights\.pth: does not fit"):
            one(node, data, tmp_path)

    def test_need_no_file_in_a_dry_run(self, data, tmp_path):
        one({"network": NETWORK, "weights": "not/there.pth"}, data, tmp_path, untrained=True)


class TestRecipe:
    def test_is_trained_once_and_reused(self, data, tmp_path, recipe):
        train = Train()
        assert unfinished(specs(teacher={"config": recipe}), tmp_path)
        first = one({"config": recipe}, data, tmp_path, train)
        again = one({"config": recipe}, data, tmp_path, train)
        assert [run.plain() for run in train.configs] == [{**RECIPE, "seed": 0}]
        assert not unfinished(specs(teacher={"config": recipe}), tmp_path)
        for name, value in first.network.state_dict().items():
            assert torch.equal(again.network.state_dict()[name], value)

    def test_an_interrupted_run_is_resumed(self, data, tmp_path, recipe):
        train, folder = Train(), teacher_folder(read_experiment(ADAPTER, recipe), tmp_path)
        checkpoint.save({}, folder / "student.pth")  # the last files were not written
        one({"config": recipe}, data, tmp_path, train)
        assert len(train.configs) == 1

    def test_another_recipe_has_another_folder(self, tmp_path, recipe):
        folder = teacher_folder(read_experiment(ADAPTER, recipe), tmp_path)
        save_config({**RECIPE, "trainer": {"epochs": 2}}, recipe)
        assert teacher_folder(read_experiment(ADAPTER, recipe), tmp_path) != folder

    def test_teacher_sees_images_as_it_was_trained(self, data, tmp_path, recipe):
        teacher = one({"config": recipe}, data, tmp_path)
        assert teacher.size == 16
        assert teacher.mean.flatten().tolist() == pytest.approx([0.7] * 3)

    def test_a_node_wins_over_its_recipe(self, data, tmp_path, recipe):
        own = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 8}
        teacher = one({"config": recipe, **own}, data, tmp_path)
        assert teacher.size == 8
        assert teacher.mean.flatten().tolist() == [0.5] * 3

    def test_weights_of_its_network_take_its_place(self, data, tmp_path, recipe, weights):
        train = Train()
        teacher = one({"config": recipe, "weights": weights}, data, tmp_path, train)
        state = torch.load(weights, weights_only=True)
        assert torch.equal(teacher.network.conv1.weight, state["conv1.weight"])
        assert teacher.size == 16
        assert train.configs == []

    def test_is_not_trained_for_a_dry_run(self, data, tmp_path, recipe):
        train = Train()
        teacher = one({"config": recipe}, data, tmp_path, train, untrained=True)
        assert class_count(teacher, image()) == 3
        assert train.configs == []


class TestOtherClasses:
    """A teacher that knows 5 classes, for a student of 3."""

    @pytest.fixture
    def teachers(self, data, tmp_path):
        node = {"network": {**NETWORK, "num_classes": 5}, "weights": "random"}
        return build_teachers(ADAPTER, specs(teacher=node), 0, data, tmp_path, Train())

    @pytest.fixture
    def put_together(self, data, teachers):
        def with_terms(**terms):
            config = {"student": {"network": NETWORK}, "distiller": {"terms": terms}}
            whole = {"data": RECIPE["data"], **config}
            experiment = parse_experiment(ADAPTER, whole, training=False)
            return build_experiment(ADAPTER, experiment, 0, CPU, data, teachers)

        return with_terms

    def test_it_teaches_features(self, put_together):
        built = put_together(fitnet={**FITNET, "teacher": "layer2"})
        losses = built.distiller.train()(built.sample)
        assert losses.keys() == {"ce", "fitnet"}
        assert losses["fitnet"] > 0

    def test_logit_terms_refuse_it(self, put_together):
        with pytest.raises(UserError, match=r"term 'kd': KD: student has 3 classes, teacher 5"):
            put_together(kd=KD)
