"""Export a network to ONNX and to PyTorch's own archive, for a tracker: `tools/reid_export.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.latency_options import add_latency, check_latency, latency_plan
from kd_core.experiment.parsers import ToolParser, add_general_options

from kd_reid.arguments import MODEL, add_network, check_network


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_latency(args)
    check_network(args)
    from kd_reid.deploy.deployment import run

    run(args, latency_plan(args))


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--format",
        nargs="+",
        choices=("onnx", "pt2"),
        default=("onnx", "pt2"),
        help="default: both",
    )
    parser.add_argument("--output", metavar="DIR", help="default: the folder of the weights")
    parser.add_argument(
        "--normalized-embeddings",
        action="store_true",
        help="the files give embeddings of length 1, whose product is the cosine",
    )
    parser.add_argument(
        "--with-normalization",
        action="store_true",
        help="the files take images in [0, 1] and normalise them, rather than normalised images",
    )
    add_network(parser)
    add_latency(parser)
    return add_general_options(parser)
