"""Find the photos of a folder that are most like one photo, by the features of a student.

    python examples/similar_photos.py RUN PHOTO FOLDER

RUN is the folder of a finished run without labels; see docs/unlabelled.md.
"""

import argparse

import torch
from kd_cls.prediction import load_image
from kd_cls.student import find_student, load_student, read_facts, sides_of
from kd_core.data.image_listing import list_images


def main() -> None:
    """Print the five photos whose features have the largest cosine with those of the photo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("photo")
    parser.add_argument("folder")
    args = parser.parse_args()
    file = find_student(args.run)
    student, sides = load_student(file), sides_of(read_facts(file), file)

    @torch.inference_mode()
    def features(photo: str) -> torch.Tensor:
        image = load_image(photo, *sides)
        return torch.nn.functional.normalize(student({"image": image[None]}), dim=1)[0]

    wanted = features(args.photo)
    cosines = {path: float(wanted @ features(path)) for path in list_images(args.folder)}
    for path in sorted(cosines, key=cosines.__getitem__, reverse=True)[:5]:
        print(f"{cosines[path]:.3f}  {path}")


if __name__ == "__main__":
    main()
