"""Read weights of detectors, also Detectron2's `.pkl` files, without running code in them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from kd_core.errors import UserError
from kd_core.files.mismatch import Mismatch
from kd_core.files.pickles import unpickle
from kd_core.files.weight_files import split_choice
from kd_core.files.weights import check_values, read_state_dict
from torch import Tensor, nn

from kd_det.loading import foreign
from kd_det.loading.fit import Fit, print_summary, require, without_statistics
from kd_det.loading.places import read_places, state_of
from kd_det.resume.last_checkpoint import read_last

# In old files; Detectron2 does not save or read them any more.
_PASSED_OVER = re.compile(
    r"^pixel_(mean|std)$|\banchor_generator\.cell_anchors\b|\.num_batches_tracked$"
)


def read_pickle(path: str | Path) -> dict[str, Any]:
    """Read a `.pkl` file of Detectron2 or Caffe2 with arrays and plain containers.

    Returns:
        The fields that Detectron2's checkpointer uses: the weights as `model`; for Caffe2
        also `__author__` and `matching_heuristics`, since its names have to be translated.

    Raises:
        UserError: If it contains anything else, or is damaged.
    """
    contents = unpickle(path)
    weights = contents
    for field in ("model", "blobs"):  # of Detectron2, of Caffe2's detectors
        weights = weights.get(field, weights) if isinstance(weights, dict) else None
    if not isinstance(weights, dict):
        raise UserError(
            f"{path}: wanted a dict of weights, or one as 'model' or 'blobs', "
            f"got {type(contents).__name__} {contents!r:.80}"
        )
    if odd := next((name for name in weights if not isinstance(name, str)), None):
        raise UserError(f"{path}: wanted weights by name, but one is called {odd!r:.80}")
    if "model" in contents:
        return contents
    weights = {name: v for name, v in weights.items() if not str(name).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def local_file(path: str | Path) -> Path:
    """Return a local path; download `https://` and `detectron2://` names into a cache.

    Raises:
        UserError: If it cannot be downloaded.
    """
    advice = "download it elsewhere and give the file's path"
    try:
        file = Path(PathManager.get_local_path(str(path))).expanduser()
    except OSError as error:
        raise UserError(f"{path} cannot be downloaded ({error}); {advice}") from error
    if "://" in str(path) and not file.is_file():  # of a kind that nobody registered
        raise UserError(
            f"{path} is not an address that is read here (https://, detectron2:// and those of "
            f"your own path handlers are); {advice}"
        )
    return file


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file to the CPU, by their names in the file.

    Args:
        path: A file, or a name that Detectron2 downloads. A `.pkl` is read as `read_pickle` does,
            all other files as `kd_core.files.weights.read_state_dict` does.

    Raises:
        UserError: If the file cannot be read, is not safe, or has the names of Caffe2, which
            Detectron2 can only guess.
    """
    file = local_file(path)
    if file.suffix != ".pkl" or not file.is_file():  # read_state_dict, for its hint of files nearby
        return read_state_dict(file)
    contents = read_pickle(file)
    if contents.get("__author__") == "Caffe2":
        raise UserError(
            f"{path}: holds names of Caffe2, as an ImageNet backbone of MSRA or a model of "
            f"Detectron 1 does. A student's MODEL.WEIGHTS may be such a file; elsewhere, load it "
            f"with Detectron2 into its own detector and save that"
        )
    try:
        return {name: torch.from_numpy(array) for name, array in contents["model"].items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: wanted arrays by name, but found others ({error})") from error


def load_teacher(model: nn.Module, path: str | Path) -> None:
    """Load a whole trained detector; nothing is loaded unless everything fits.

    Entries of old files that Detectron2 does not read any more are ignored: `pixel_mean`,
    `pixel_std`, cell anchors and batch counters.

    Args:
        model: Detector as Detectron2 builds it from the config of the weights.
        path: See `read_weights`; also what a distiller or DDP saved, and `FILE#PLACE`.

    Raises:
        UserError: If the file cannot be read, has only a backbone, or is of another detector.
    """
    own = model.state_dict()
    file, choice = split_choice(local_file(path))
    found: Mapping[str, Any]
    if file.suffix == ".pkl":
        found = read_weights(file)
    else:
        found = state_of(read_places(file), own, str(file), choice)
    state = _needed(found)
    wrong = str(Mismatch.between(state, _needed(own)))
    if wrong:
        advice = foreign.advice(state)
        parts = {name.partition(".")[0] for name in state}
        only = parts <= {"backbone"} or parts.isdisjoint(name for name, _ in model.named_children())
        if only and not advice:
            advice = (
                "this is only a backbone, or not a detector; a teacher is a whole trained "
                "detector, such as those of Detectron2's model zoo"
            )
        whole = "give the teacher the config (depth, heads, classes) that these weights are of"
        raise UserError(f"{path}: does not fit {type(model).__name__}: {wrong}; {advice or whole}")
    check_values(path, state, own)
    model.load_state_dict(state, strict=False)


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which runs no code in files, and checks what they gave.

    Formats, matching of names and messages are Detectron2's. It also reads what a distiller or DDP
    saved, and `FILE#PLACE`, one of several weights in a file.

    Args:
        model: The plain detector.
        save_dir: Folder of a run.
        whole: Whether a file must have all weights of the detector, as to evaluate it; otherwise
            it may be a backbone, see `Fit.why_not_started`.
        checkpointables: See Detectron2.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, whole: bool = False, **checkpointables: Any
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.whole = whole
        self._file = self._choice = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file, or `FILE#PLACE`; see Detectron2.

        Raises:
            UserError: If it cannot be read, or does not fit.
        """
        if self.whole and not path:
            raise UserError(
                f"no weights to evaluate: {self.save_dir!r} has no checkpoint, and MODEL.WEIGHTS "
                "is empty"
            )
        file, self._choice = split_choice(path) if path and "://" not in path else (path, "")
        file = local_file(path) if "://" in (path or "") else file
        contents: dict[str, Any] = super().load(str(file), checkpointables)
        return contents

    def _load_file(self, filename: str) -> dict[str, Any]:
        self._file = filename
        if filename.endswith(".pkl"):
            return read_pickle(filename)
        contents = read_places(Path(filename))
        if filename.endswith(".pyth") and isinstance(contents.get("model_state"), Mapping):
            named = _needed(contents["model_state"])
            return {"model": named, "__author__": "pycls", "matching_heuristics": True}
        if contents.get("matching_heuristics"):  # names of a backbone alone, as a tool wrote them
            return contents
        state = state_of(contents, self.model.state_dict(), filename, self._choice)
        return {**contents, "model": dict(state)}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Load weights, and reject what leaves the detector random where it must not be."""
        names = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        plain = (
            self.model.module
            if isinstance(self.model, nn.parallel.DistributedDataParallel)
            else self.model
        )
        fit = Fit.of(plain.state_dict(), incompatible, _PASSED_OVER)
        if checkpoint.get("__author__") == "Caffe2":
            fit = without_statistics(fit, names)
        where = f"{self._file}: does not fit {type(plain).__name__}"
        require(fit, where, whole=self.whole, advice=foreign.advice(names))
        print_summary(fit, self._file)
        return incompatible

    def get_checkpoint_file(self) -> str:
        """Return the newest checkpoint of the folder, if its name is not damaged."""
        return str(read_last(Path(self.save_dir)))

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, Any]) -> None:
        """Check values; done here, because names are those of the model only after matching."""
        try:
            super()._convert_ndarray_to_tensor(state_dict)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self._file}: wanted arrays by name ({error})") from error
        named = {name.removeprefix("module."): value for name, value in state_dict.items()}
        check_values(self._file, named, self.model.state_dict())


def _needed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not _PASSED_OVER.search(name)}
