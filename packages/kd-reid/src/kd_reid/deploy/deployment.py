"""What the export tool does: files, their sizes, and how long a batch of crops takes."""

import re
from argparse import Namespace
from pathlib import Path

from kd_core.errors import UserError
from kd_core.experiment.deploy.figures import require_formats, write_files
from kd_core.files.weight_files import main_file, split_choice
from kd_core.networks.latency import Plan
from kd_core.runtime.console import err

from kd_reid.deploy.exporting import PACKAGE, ExportedEmbedder, description_of, exportable
from kd_reid.measuring.models import measured_model

_ENDING = re.compile(
    r"\.(pth\.tar(?=-\d+$)|(pth\.tar|tar|pth|pt|bin|ckpt|safetensors(\.index\.json)?)$)"
)


def run(args: Namespace, plan: Plan | None) -> None:
    """Export a network as the arguments say; see `kd_reid.export`."""
    require_formats(args.format, PACKAGE)
    if Path(args.model).suffix == ".npy":
        raise UserError(f"{args.model}: features have no network; name what they were made with")
    measured = measured_model(args)
    if measured.evaluation.get("flip") and not args.flip:
        err.print(
            f"{args.model}: its own evaluation takes the mean of mirror images, and the file does "
            "not; --flip writes one that does"
        )
    said = {
        name: getattr(args, name)
        for name in ("with_normalization", "normalized_embeddings", "flip")
    }
    network = ExportedEmbedder(measured.embedder, **said).eval()
    what = exportable(network, measured.image_size)
    folder, name = _place(args.model)
    if args.output:
        folder = Path(args.output)
    description = description_of(what.facts)
    write_files(what, args.format, folder, plan=plan, said=said, name=name, description=description)


def _place(model: str) -> tuple[Path, str]:
    """Return the folder and the name of the files: those of the weights."""
    file = main_file(split_choice(model)[0])
    return file.parent, _ENDING.sub("", file.name)
