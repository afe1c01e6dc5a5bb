"""Find the photos of a folder that are most like one photo, by the features of a student.

    python examples/similar_photos.py RUN PHOTO FOLDER

RUN is the folder of a finished run without labels; see docs/unlabelled.md.
"""

import argparse
from pathlib import Path

import torch
from kd_cls.prediction import load_image
from kd_cls.student import load_student


def main() -> None:
    """Print the five photos whose features have the largest cosine with those of the photo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("photo")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    student = load_student(args.run)

    @torch.inference_mode()
    def features(photo: str | Path) -> torch.Tensor:
        image = load_image(str(photo), student.size)
        return torch.nn.functional.normalize(student({"image": image[None]}), dim=1)[0]

    wanted = features(args.photo)
    cosines = {path: float(wanted @ features(path)) for path in args.folder.rglob("*.jpg")}
    for path in sorted(cosines, key=cosines.__getitem__, reverse=True)[:5]:
        print(f"{cosines[path]:.3f}  {path}")


if __name__ == "__main__":
    main()
