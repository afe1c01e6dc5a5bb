"""Embed the pictures of a folder, and write the embeddings: `tools/reid_embed.py`."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.errors import UserError
from kd_core.files.new_files import require_new, require_suffix
from kd_core.runtime import distributed
from kd_core.runtime.console import out
from torch import Tensor

from kd_reid.arguments import passes_of
from kd_reid.data.options import Options
from kd_reid.evaluation import embeddings
from kd_reid.lookup.devices import chosen_device
from kd_reid.lookup.identity import Maker, maker
from kd_reid.lookup.pictures_in import names_in, pictures_in
from kd_reid.lookup.progress import watched
from kd_reid.lookup.stored import SUFFIX, Stored, files_of, write_stored
from kd_reid.measuring.models import Measured, measured_model
from kd_reid.measuring.targets import files_loader

_FEW = 256  # pictures: read before a worker process has started


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_reid.embed`."""
    path = Path(args.out).expanduser()
    require_suffix(path, SUFFIX)
    path = path.with_suffix(SUFFIX)  # not .NPY, which other files of ours would not find
    require_new(files_of(path))
    options = Options(**passes_of(args))
    with distributed.joined() as usual:
        device = chosen_device(args.device, usual)
        measured, made_by = opened_model(args, normalised=args.normalise)
        files = pictures_in(args.folder, skip_broken=args.skip_broken)
        names = names_in(args.folder, files)
        measured.embedder.to(device)
        rows = embed_files(measured, made_by, files, options, device)
        if distributed.rank() == 0:
            write_stored(path, Stored(rows, files, made_by), names, args.folder)
            count, width = rows.shape
            out.print(f"wrote {path} ({count:,} x {width}), with .csv and .json")


def opened_model(
    args: Namespace, *, normalised: bool, flip: bool | None = None
) -> tuple[Measured, Maker]:
    """Return the network of the arguments, on the CPU, and what it makes embeddings by.

    Args:
        args: Of the tool.
        normalised: Whether embeddings have length 1.
        flip: Whether mirror images count; None takes what the user or the run says.

    Raises:
        UserError: If it cannot be built; see `measured_model`.
    """
    if Path(args.model).suffix == SUFFIX:
        raise UserError(f"{args.model}: has embeddings; MODEL is what makes them")
    measured = measured_model(args)
    if flip is None:
        flip = bool(args.flip or measured.evaluation.get("flip"))
    return measured, maker(measured, flip=flip, normalised=normalised)


def embed_files(
    measured: Measured,
    made_by: Maker,
    files: Sequence[str],
    options: Options,
    device: torch.device,
) -> Tensor:
    """Return the embeddings of pictures, float32 [N, D] on the CPU.

    Args:
        measured: The network, on the device.
        made_by: Whether mirror images count, and lengths are 1.
        files: Paths of the pictures.
        options: Batch size and workers.
        device: Where it runs.

    Raises:
        UserError: If a picture cannot be decoded, or an embedding is not finite.
    """
    if len(files) <= _FEW:
        options = replace(options, workers=0)
    loader = files_loader(files, made_by.image_size, options, resident=False).to(device)
    rows = embeddings(measured.embedder, loader, flip=made_by.flip, watch=watched).cpu()
    lost = (~rows.isfinite().all(1)).nonzero().flatten().tolist()
    if lost:
        raise UserError(
            f"{files[lost[0]]}: its embedding is not finite, as those of {len(lost):,} of "
            f"{len(files):,} pictures; look at the network's weights"
        )
    return F.normalize(rows) if made_by.normalised else rows
