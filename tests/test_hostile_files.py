"""No file runs anything: every kind of `hostile_files.py` is refused in one line."""

import pickle
import runpy
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import kd_cls.analyse
import kd_cls.export
import kd_cls.predict
import kd_cls.train
import kd_det.train
import kd_reid.train
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from kd_cls.adapter import ADAPTER
from kd_core.config.trusted import trusting
from kd_core.errors import UserError
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.teachers import teacher_folder
from kd_core.files import checkpoint
from kd_core.files.pickles import unpickle
from kd_core.files.weights import read_state_dict
from kd_det.trainer import DistillationTrainer
from kd_det.weights import SafeCheckpointer, read_weights
from kd_reid.student import load_student as load_embedder
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from hostile_files import BASES, CALLS, KINDS, NODES, RESULTS, TAGS, Trap, student_file

ROOT = Path(__file__).parents[1]
STUDENT = """
data = dict(type="kd_cls.data.synthetic", image_size=8, num_classes=2, num_train=8, num_test=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.1)
schedule = dict(type="kd_core.training.schedule.constant")
trainer = dict(epochs=1, loggers=[])
"""

PYTHON_S_OWN = {
    "os.system": "os.system",
    "posix.system": "posix.system",
    "torch.os.system": "torch.os.system",
    "a known package's os": "torchvision.datasets.utils.os.system",
    "open": "builtins.open",
}


def traps(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("trap", [pytest.param(t, id=t.name) for t in KINDS[kind]])


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def file(trap: Trap, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the trap, in the working folder; what Python imports from there is forgotten after."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.delitem(sys.modules, "lying_here", raising=False)
    path = trap.make(folder, canary)
    assert not canary.exists()
    return path


def refused(act: Callable[[], object], canary: Path) -> None:
    with pytest.raises(UserError) as caught:
        act()
    assert not canary.exists()
    assert len(str(caught.value)) < 1000


def told(capsys: pytest.CaptureFixture[str], status: int, canary: Path) -> str:
    """Check that a tool said no, in one line; return the line."""
    assert not canary.exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert (status, len(lines)) == (2, 1)
    return lines[0]


class TestTheTrapsBite:
    """A test that nothing happens says nothing if nothing could have happened."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_there_are_at_least_fifteen_of_a_kind_with_names_of_their_own(self, kind):
        names = [trap.name for trap in KINDS[kind]]
        assert len(names) >= 15
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("trap", [t for t in KINDS["weights"] if t.name.endswith(".pkl")])
    def test_a_pickle_runs_where_it_is_trusted(self, file, canary):
        if "exec" not in str(file):
            pickle.loads(file.read_bytes())
        for _ in range(50):
            if canary.exists():
                return
            time.sleep(0.02)
        raise AssertionError

    @pytest.mark.parametrize("trap", [t for t in BASES if t.name == f"YAML: {TAGS[1]}"])
    def test_a_yaml_file_runs_where_it_is_trusted(self, file, canary):
        yaml.unsafe_load((file.parent / "trap.yaml").read_text())
        assert canary.exists()


class TestWeights:
    @traps("weights")
    def test_no_reader_of_weights_runs_them(self, file, canary):
        network = torch.nn.Linear(1, 1)
        refused(lambda: read_state_dict(file), canary)
        refused(lambda: read_weights(file), canary)
        refused(lambda: checkpoint.load(file), canary)
        refused(lambda: SafeCheckpointer(network, str(file.parent))._load_file(str(file)), canary)


class TestMetadata:
    @traps("metadata")
    def test_prediction_and_export_refuse_the_network_of_a_file(self, file, canary, capsys):
        status = kd_cls.predict.main([str(file), str(file)])
        told(capsys, status, canary)
        status = kd_cls.export.main([str(file), "--format", "pt2"])
        told(capsys, status, canary)

    @traps("metadata")
    def test_an_embedder_s_file_is_refused_too(self, file, canary):
        refused(lambda: load_embedder(file), canary)

    @pytest.mark.parametrize("trap", [t for t in KINDS["metadata"] if t.name in NODES[:3]])
    def test_an_analysis_refuses_it(self, file, canary, capsys):
        data = file.parent / "data.py"
        data.write_text(STUDENT)
        status = kd_cls.analyse.main(["evaluate", str(data), str(file)])
        told(capsys, status, canary)

    @pytest.mark.parametrize("trap", [t for t in KINDS["metadata"] if t.name in PYTHON_S_OWN])
    def test_what_is_python_s_own_is_never_a_network(self, trap, file, canary, capsys):
        status = kd_cls.predict.main([str(file), str(file), "--trust", PYTHON_S_OWN[trap.name]])
        assert "Python's own" in told(capsys, status, canary)

    def test_a_user_s_network_is_rebuilt_when_it_is_trusted(self, tmp_path, monkeypatch, capsys):
        source = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n"
        (tmp_path / "own_nets_here.py").write_text(source + "        super().__init__(1, 1)\n")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        file = student_file(tmp_path, {"type": "own_nets_here.Net"})
        command = [str(file), str(file)]
        line = told(capsys, kd_cls.predict.main(command), tmp_path / "canary")
        assert line.endswith("add --trust own_nets_here.Net")
        assert "own_nets_here" not in sys.modules
        trusted = kd_cls.predict.main([*command, "--trust", "own_nets_here.Net"])
        assert "does not fit Net" in told(capsys, trusted, tmp_path / "canary")
        again = told(capsys, kd_cls.predict.main(command), tmp_path / "canary")
        assert "--trust" in again  # trusted by one command, not by the next

    @pytest.mark.parametrize(
        "facts",
        [
            {"classes": "ab"},
            {"classes": [1, 2]},
            {"classes": []},
            {"mean": ["0.5"] * 3},
            {"mean": [0.5] * 2},
            {"mean": [float("nan")] * 3},
            {"mean": [True] * 3},
            {"std": [0, 1, 1]},
            {"std": [float("inf")] * 3},
            {"std": None},
            {"image_size": -5},
            {"image_size": "x"},
            {"image_size": 10**9},
            {"image_size": [8, 8, 8]},
            {"image_size": True},
            {"network": "os.system"},
            {"network": {"type": ["os.system"]}},
            {"network": []},
        ],
    )
    def test_facts_of_another_type_are_refused(self, tmp_path, capsys, facts):
        network = facts.pop("network", {"type": "torch.nn.Linear"})
        file = student_file(tmp_path, network, **facts)
        line = told(capsys, kd_cls.predict.main([str(file), str(file)]), tmp_path / "canary")
        assert "wanted" in line

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, '{"type": NaN}', "\x00"])
    def test_what_is_not_json_is_refused(self, tmp_path, capsys, text):
        file = tmp_path / "student.safetensors"
        names = ("network", "classes", "mean", "std", "image_size")
        save_file({"weight": torch.zeros(1)}, file, dict.fromkeys(names, text))
        line = told(capsys, kd_cls.predict.main([str(file), str(file)]), tmp_path / "canary")
        assert "network: wanted JSON" in line

    def test_a_node_nested_as_deep_as_json_goes_is_refused(self, tmp_path, capsys):
        node: object = 1
        for _ in range(300):
            node = {"type": "kd_cls.models.build_model", "name": [node]}
        file = student_file(tmp_path, node)
        told(capsys, kd_cls.predict.main([str(file), str(file)]), tmp_path / "canary")

    @pytest.mark.parametrize(
        "node",
        [
            {"type": "torch.nn.Linear", "in_features": 10**12, "out_features": 1},
            {"type": "torch.nn.Linear", "in_features": 4096, "out_features": 4096},
            {"type": "kd_cls.models.build_model", "name": "resnet8", "num_classes": 10**12},
            {"type": "torchvision.models.resnet18", "width_per_group": 10**9},
            {"type": "torchvision.models.resnet50", "width_per_group": 4000},
            {"type": "timm.create_model", "model_name": "vit_tiny_patch16_224", "depth": 10**9},
        ],
    )
    def test_a_network_larger_than_its_file_is_not_built(self, tmp_path, capsys, node):
        file = student_file(tmp_path, node)
        line = told(capsys, kd_cls.predict.main([str(file), str(file)]), tmp_path / "canary")
        assert "larger than all tensors" in line or "does not fit" in line

    @pytest.mark.parametrize(
        "node",
        [
            {"type": "torchvision.models.resnet18", "weights": "DEFAULT"},
            {"type": "torchvision.models.get_model", "name": "resnet18", "weights": "DEFAULT"},
            {"type": "timm.create_model", "model_name": "resnet18", "pretrained": True},
            {"type": "torchvision.models.get_model", "name": "fcn_resnet50"},
            {"type": "torchvision.models.segmentation.fcn_resnet50"},
            {"type": "timm.create_model", "model_name": "hf-hub:timm/resnet18.a1_in1k"},
            {"type": "timm.create_model", "model_name": "resnet18", "pretrained_cfg": {"url": "x"}},
            {"type": "torchreid.models.build_model", "name": "resnet18"},
            {"type": "torchreid.models.resnet18"},
            {"type": "torchreid.models.resnet18", "pretrained": True},
        ],
    )
    def test_nothing_is_downloaded_for_a_file(self, tmp_path, monkeypatch, node):
        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a download was tried")

        monkeypatch.setattr("socket.socket.connect", refuse)
        monkeypatch.setattr("socket.getaddrinfo", refuse)
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
        file = student_file(tmp_path, node)
        for load in (kd_cls.student.load_student, load_embedder):
            refused(lambda load=load: load(file), tmp_path / "canary")  # the weights do not fit


class TestYaml:
    @traps("yaml_nodes")
    def test_a_criterion_of_a_yaml_file_is_not_run(self, file, canary, capsys):
        status = kd_det.train.main(["--config-file", str(file), "--dry-run", "MODEL.DEVICE", "cpu"])
        told(capsys, status, canary)
        status = kd_det.train.main(["--config-file", str(file), "MODEL.DEVICE", "cpu"])
        told(capsys, status, canary)

    @traps("yaml_bases")
    def test_no_base_of_it_is_either(self, file, canary, capsys):
        told(capsys, kd_det.train.main(["--config-file", str(file), "--dry-run"]), canary)

    @pytest.mark.parametrize(
        "trap",
        [t for t in KINDS["yaml_nodes"] if t.name.startswith("a module that lies")][:1],
    )
    def test_the_refusal_says_what_to_do(self, file, canary, capsys):
        status = kd_det.train.main(["--config-file", str(file), "--dry-run"])
        assert told(capsys, status, canary).endswith("add --trust lying_here.Net")

    @pytest.mark.parametrize("trap", KINDS["yaml_nodes"][:1])
    def test_what_is_trusted_must_still_be_a_criterion(self, file, canary, capsys):
        options = ["--trust", "os.system", "--dry-run"]
        status = kd_det.train.main(["--config-file", str(file), *options])
        assert "Python's own" in told(capsys, status, canary)


class TestBases:
    @traps("bases")
    def test_a_python_config_has_no_base_of_another_kind(self, file, canary, capsys):
        for main in (kd_cls.train.main, kd_reid.train.main):
            line = told(capsys, main([str(file), "--dry-run"]), canary)
            assert "python file" in line


class TestProposals:
    @pytest.fixture
    def records(self):
        name = "proposals_of_a_test"
        records = [{"image_id": 1, "annotations": [], "file_name": "x.png"}]
        DatasetCatalog.register(name, lambda: records)
        yield name
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)

    @traps("proposals")
    def test_training_and_evaluation_refuse_a_hostile_file(self, file, canary, records):
        cfg = get_cfg()
        cfg.MODEL.LOAD_PROPOSALS = True
        cfg.MODEL.DEVICE = "cpu"
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (records,)
        cfg.DATASETS.PROPOSAL_FILES_TRAIN = cfg.DATASETS.PROPOSAL_FILES_TEST = (str(file),)
        refused(lambda: DistillationTrainer.build_train_loader(cfg), canary)
        refused(lambda: DistillationTrainer.build_test_loader(cfg, records), canary)
        cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
        refused(lambda: DistillationTrainer.build_train_loader(cfg), canary)


class TestRuns:
    @traps("results")
    def test_resuming_runs_nothing_of_a_run_s_folder(self, trap, file, canary, capsys):
        config = file.parent / "student.py"
        config.write_text(STUDENT)
        status = kd_cls.train.main([str(config), "--resume", "--work-dir", str(file)])
        assert not canary.exists()
        if trap.name.endswith("last.pth"):
            line = told(capsys, status, canary)  # what made the run is asked first
            assert "last.pth" in line or "config.json" in line
        else:
            assert status in (0, 2)

    @traps("teachers")
    def test_the_product_of_a_recipe_is_judged_like_any_file(self, file, canary, capsys):
        folder = file.parent
        (folder / "recipe.py").write_text(STUDENT)
        (folder / "run.py").write_text(STUDENT + "teacher = dict(config='recipe.py')\n")
        product = teacher_folder(
            read_experiment(ADAPTER, "recipe.py"), folder / "runs" / "teachers"
        )
        product.parent.mkdir(parents=True)
        file.rename(product)
        told(capsys, kd_cls.train.main(["run.py", "--work-dir", "runs/student"]), canary)

    @pytest.mark.parametrize("trap", RESULTS[:1])
    def test_a_recipe_s_own_network_needs_no_trust(self, trap, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        module = types.ModuleType("nets_of_a_recipe")
        monkeypatch.setitem(sys.modules, "nets_of_a_recipe", module)
        module.Net = Net  # type: ignore[attr-defined]
        recipe = STUDENT.replace(
            'kd_cls.models.build_model", name="resnet8"', 'nets_of_a_recipe.Net"'
        )
        Path("recipe.py").write_text(recipe)
        Path("run.py").write_text(STUDENT + "teacher = dict(config='recipe.py')\n")
        assert kd_cls.train.main(["run.py", "--work-dir", "runs/student"]) == 0
        folder = teacher_folder(read_experiment(ADAPTER, "recipe.py"), Path("runs/teachers"))
        refused(lambda: ADAPTER.load_finished(folder, {}), tmp_path / "canary")
        with trusting("nets_of_a_recipe.Net"):
            ADAPTER.load_finished(folder, {})


@pytest.mark.parametrize("tool", sorted((ROOT / "tools").glob("*.py")), ids=lambda tool: tool.stem)
def test_every_tool_has_the_option(tool, monkeypatch, capsys):
    command = ["evaluate"] if tool.stem == "cls_analyse" else []
    monkeypatch.setattr(sys, "argv", [str(tool), *command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    assert ended.value.code == 0
    assert "--trust NAME" in capsys.readouterr().out


class Net(torch.nn.Sequential):
    """A user's own network."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))


@pytest.mark.parametrize("call", CALLS)
def test_the_reader_of_arrays_names_what_it_refuses(tmp_path, call):
    trap = next(t for t in KINDS["proposals"] if t.name == call)
    file = trap.make(tmp_path, tmp_path / "canary")
    with pytest.raises(UserError, match=r"proposals\.pkl: holds a \S+, which cannot be read"):
        unpickle(file)
