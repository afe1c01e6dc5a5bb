"""Convert torchvision's ImageNet weights to backbones of Detectron2: `tools/det_convert.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_det.networks.architectures import ARCHITECTURES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    require_paths("file of weights", [args.weights])
    from kd_det.networks.conversion import write

    write(args.arch, args.weights, args.out)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("--arch", required=True, choices=ARCHITECTURES, help="what to convert")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="its state dict; by default torchvision's own IMAGENET1K_V1 is downloaded",
    )
    parser.add_argument("--out", metavar="FILE.pth", required=True, help="for MODEL.WEIGHTS")
    return add_general_options(parser)
