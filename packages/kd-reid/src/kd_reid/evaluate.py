"""Measure a network or saved features on any set, without training: `tools/reid_evaluate.py`."""

from collections.abc import Sequence

from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_reid.arguments import MODEL, add_network, add_passes, add_reading, check_network


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_network(args)
    require_paths("set", [source for source in args.data if ":" not in source])
    from kd_reid.measuring.run import run

    run(args)


def _parser() -> ToolParser:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"{MODEL}; or features: FILE.npy with FILE.csv beside it",
    )
    parser.add_argument(
        "--data",
        metavar="SET",
        nargs="+",
        action="extend",
        default=[],
        help="what is searched: a folder, a CSV file, NAME:ROOT of a public set (market1501:data), "
        "or a config whose data is meant",
    )
    add_network(parser)
    add_passes(parser)
    _add_search(parser)
    parser.add_argument("--out", metavar="FILE.json", help="write the results to this file too")
    return add_general_options(parser)


def _add_search(parser: ToolParser) -> None:
    add_reading(parser)
    parser.add_argument(
        "--distance",
        choices=("euclidean", "cosine"),
        help="default: a run's own, else euclidean",
    )
    parser.add_argument(
        "--rerank", dest="reranking", action="store_true", help="k-reciprocal re-ranking too"
    )
    parser.add_argument(
        "--squared-twice", action="store_true", help="re-rank as torchreid's published numbers do"
    )
    parser.add_argument(
        "--fpr",
        metavar="RATE",
        nargs="+",
        type=float,
        help="false positive rates, such as 0.001: TPR and threshold there",
    )
