"""Images per second of the data pipelines, against torchvision's and torch's own, as usually used.

Each way ends in a float batch, normalised: torchvision's does it in its workers, image by image;
ours has uint8 batches, which the classifier normalises on its device. On disk: RandomResizedCrop
and flip of JPEG files, with decoded images being stored (first epoch) and stored (later epochs).
In memory: crops of 32 pixels from images padded by 4, and flip, as for CIFAR.

All images are drawn here. Ways alternate, an epoch each. All workers are started before and stay,
also torchvision's, which by default would start new ones in each epoch. The important number is the
ratio of the rates in the same round, median over the rounds.

python benchmarks/data.py --repeats 7 --out data.jsonl
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from kd_cls.classifier import Classifier
from kd_cls.data import image_folder
from kd_cls.data.augment import CropFlip
from kd_core.data.device_loader import DeviceLoader
from kd_core.data.split_loader import SplitLoader
from kd_core.experiment.report import environment
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Epoch = Callable[[], Iterable[Tensor]]
PLAIN = "torchvision"


@dataclass(frozen=True)
class Sizes:
    """What is drawn and read."""

    files: int  # JPEG files
    height: int  # of a file, in pixels
    width: int
    crop: int  # side, in pixels
    arrays: int  # images of 32 pixels
    batch: int


REAL = Sizes(files=512, height=375, width=500, crop=224, arrays=20_000, batch=64)
SMALL = Sizes(files=12, height=30, width=40, crop=16, arrays=40, batch=4)


def main() -> None:
    """Print a table; write JSON lines if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, help="file to which a JSON line a row is added")
    args = parser.parse_args()
    device, sizes = torch.device(args.device), SMALL if args.small else REAL
    print("| images | way | images/s | times torchvision |")
    print("|---|---|---|---|")
    for place in (on_disk, in_memory):
        with tempfile.TemporaryDirectory() as folder:
            ways = place(Path(folder), sizes, args.workers, device)
            for row in measure(ways, args.repeats, device):
                row = {"images": place.__name__, "workers": args.workers} | vars(sizes) | row
                print(line(row), flush=True)
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row | {"environment": environment(device)}) + "\n")


def measure(ways: dict[str, Epoch], repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Run an epoch of each way in turns, after one that is not counted."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + repeats):
        for way, epoch in ways.items():
            rates[way].append(rate(epoch, device))
    rows = []
    for way, found in rates.items():
        ratios = [ours / plain for ours, plain in zip(found, rates[PLAIN], strict=True)][1:]
        figures = {"images_per_second": median(found[1:]), "ratio": median(ratios)}
        rows.append({"way": way, "repeats": repeats, "ratios": ratios} | figures)
    return rows


def rate(epoch: Epoch, device: torch.device) -> float:
    """Return the images per second of an epoch, when all of its batches are on the device."""
    began, count = time.perf_counter(), 0
    for images in epoch():
        if images.dtype != torch.float32 or images.shape[1] != 3 or images.device != device:
            raise TypeError(f"float32 [N, 3, H, W] on {device} is wanted, got {images.dtype}")
        count += len(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - began)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    images = row["images"].replace("_", " ")
    return f"| {images} | {row['way']} | {row['images_per_second']:,.0f} | {row['ratio']:.2f} |"


def on_disk(folder: Path, sizes: Sizes, workers: int, device: torch.device) -> dict[str, Epoch]:
    """Ways to read JPEG files."""
    write_files(folder, sizes)
    steps = [transforms.RandomResizedCrop(sizes.crop), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    plain = ImageFolder(str(folder / "train"), transforms.Compose(steps))

    def ours(**more: Any) -> Epoch:
        reading = {"image_size": sizes.crop, "workers": workers, "resident": False}
        splits = image_folder(str(folder), batch_size=sizes.batch, **reading, **more)
        return prepared(splits.train, device)

    later, first = (ours(decoded=str(folder / store)) for store in ("later", "first"))

    def filling() -> Iterator[Tensor]:
        for pixels in (folder / "first").glob("*/pixels"):
            size = pixels.stat().st_size
            os.truncate(pixels, 0)  # what was stored is gone
            os.truncate(pixels, size)
        yield from first()

    return {
        PLAIN: plainly(plain, sizes.batch, workers, device),
        "ours": ours(),
        "ours, decoded, first epoch": filling,
        "ours, decoded": later,
    }


def in_memory(folder: Path, sizes: Sizes, workers: int, device: torch.device) -> dict[str, Epoch]:
    """Ways to crop and flip images of 32 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (sizes.arrays, 32, 32, 3), dtype=np.uint8)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    plain = Arrays(pixels, transforms.Compose(steps))
    images, labels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(0)
    ours = DeviceLoader(
        images,
        labels.expand(sizes.arrays),
        batch_size=sizes.batch,
        shuffle=True,
        augment=[CropFlip()],
    )
    return {
        PLAIN: plainly(plain, sizes.batch, workers, device),
        "ours": prepared(ours, device),
    }


class Arrays(Dataset[tuple[Any, int]]):
    """Images in memory, transformed one by one, as torchvision's CIFAR10 does it."""

    def __init__(self, pixels: np.ndarray, transform: Callable[[Image.Image], Any]) -> None:
        self.pixels, self.transform = pixels, transform

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), 0

    def __len__(self) -> int:
        return len(self.pixels)


def plainly(data: Dataset[Any], batch: int, workers: int, device: torch.device) -> Epoch:
    """Return the epochs of a torch loader, as one usually writes them."""
    loader = DataLoader(
        data,
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    return lambda: (images.to(device, non_blocking=True) for images, _ in loader)


def prepared(loader: SplitLoader, device: torch.device) -> Epoch:
    """Return the epochs of a loader of ours, normalised by the classifier; each has its number."""
    classifier = Classifier(nn.Identity(), mean=MEAN, std=STD).to(device)
    loader.to(device)
    numbers = iter(range(10**9))
    return lambda: (classifier.prepare(b["image"]) for b in loader.epoch(next(numbers)))


def write_files(folder: Path, sizes: Sizes) -> None:
    """Write JPEG files, of two classes, about as large as photographs of this size are."""
    shape = sizes.height, sizes.width
    for number in range(sizes.files):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = smooth + 16 * rng.standard_normal((*shape, 3), dtype=np.float32)
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        for part in ("train", "test") if number < 2 else ("train",):
            path = folder / part / str(number % 2) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=90)


if __name__ == "__main__":
    main()
