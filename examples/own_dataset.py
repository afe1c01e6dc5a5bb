"""Your own data set: any `torch.utils.data.Dataset` of images and labels; see docs/own_data.md."""

from PIL import Image, ImageDraw
from torch.utils.data import Dataset


class Shapes(Dataset[tuple[Image.Image, int]]):
    """Drawn circles and boxes, which are class 0 and 1.

    Args:
        count: How many there are.
        start: Number of the first, so that two sets have other images.
    """

    classes = ("circle", "box")

    def __init__(self, count: int, start: int = 0) -> None:
        self.count, self.start = count, start

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its class."""
        number, label = self.start + index, index % 2
        image = Image.new("RGB", (40, 32), (0, 0, number * 7 % 256))
        left, top = 3 + number * 5 % 15, 3 + number * 3 % 10
        draw = ImageDraw.Draw(image)
        shape = draw.rectangle if label else draw.ellipse
        shape((left, top, left + 16, top + 16), fill=(200, 40 + number * 11 % 200, 60))
        return image, label
