"""Images per second from WebDataset shards: our loader beside timm's own, on the same shards.

Both read JPEG files of ImageNet's usual size, take RandomResizedCrop and flip, and end in a float
batch, normalised, on the device. timm's other augmentations are off, its interpolation is bilinear,
and its shuffle buffers are small, so that it begins at once. All images are drawn here. The ways
alternate, an epoch each, with workers that stay. The important number is the ratio of the rates in
the same round, median over the rounds.

python benchmarks/stream.py --repeats 7 --out stream.jsonl
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data
import torch
from kd_cls.data import webdataset
from kd_cls.data.shards.writing import write_shards
from kd_core.experiment.report import environment
from timm.data import create_dataset, create_loader
from torch import Tensor

PLAIN = "timm"


def main() -> None:
    """Print a table; write JSON lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--images", type=int, default=data.REAL.files, help="in an epoch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, help="file to which a JSON line a row is added")
    args = parser.parse_args()
    device, sizes = torch.device(args.device), data.REAL
    sizes = data.SMALL if args.small else dataclasses.replace(sizes, files=args.images)
    data.PLAIN = PLAIN
    print(f"| way | images/s | times {PLAIN} |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        ways = loaders(Path(folder), sizes, args.workers, args.shards, device)
        for row in data.measure(ways, args.repeats, device):
            row = {"workers": args.workers, "shards": args.shards} | vars(sizes) | row
            print(
                f"| {row['way']} | {row['images_per_second']:,.0f} | {row['ratio']:.2f} |",
                flush=True,
            )
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"environment": environment(device)}) + "\n")


def loaders(
    folder: Path, sizes: data.Sizes, workers: int, shards: int, device: torch.device
) -> dict[str, data.Epoch]:
    """Return the epochs of both loaders."""
    data.write_files(folder / "images", sizes)
    write_shards(str(folder / "images"), folder / "shards", size=sizes.files // shards)
    names = f"train-{{000000..{shards - 1:06d}}}.tar"
    splits = webdataset(
        str(folder / "shards" / names),
        str(folder / "shards" / "test-000000.tar"),
        image_size=sizes.crop,
        batch_size=sizes.batch,
        workers=workers,
        index=str(folder / "index"),
    )
    return {
        PLAIN: of_timm(folder / "shards", f"{names}|{sizes.files}", sizes, workers, device),
        "ours": data.prepared(splits.train, device),
    }


def of_timm(
    root: Path, split: str, sizes: data.Sizes, workers: int, device: torch.device
) -> data.Epoch:
    """Return the epochs of timm's loader."""
    options: dict[str, Any] = {"sample_shuffle_size": sizes.batch, "sample_initial_size": 8}
    dataset = create_dataset(
        "wds/shards", str(root), split=split, is_training=True, batch_size=sizes.batch, **options
    )
    loader = create_loader(
        dataset,
        (3, sizes.crop, sizes.crop),
        sizes.batch,
        is_training=True,
        color_jitter=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        device=device,
    )

    def epoch() -> Iterator[Tensor]:
        for images, _ in loader:
            yield images

    return epoch


if __name__ == "__main__":
    main()
