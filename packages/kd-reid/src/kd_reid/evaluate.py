"""Measure a network or saved features on any set, without training: `tools/reid_evaluate.py`."""

from collections.abc import Sequence
from pathlib import Path

from kd_core.errors import UserError
from kd_core.experiment.cli import run_main
from kd_core.experiment.parsers import ToolParser, add_general_options
from kd_core.runtime.paths import require_paths

from kd_reid.arguments import (
    MODEL,
    add_distance,
    add_network,
    add_passes,
    add_reading,
    check_network,
    count_to,
)

_PUBLIC = ("market1501", "msmt17", "cuhk03")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run_main(_main, argv)


def _main(arguments: list[str]) -> None:
    args = _parser().parse_args(arguments)
    check_network(args)
    _require_sets([source for source in args.data if ":" not in source])
    from kd_reid.measuring.run import run

    run(args)


def _require_sets(sources: Sequence[str]) -> None:
    for source in sources:
        if source in _PUBLIC and not Path(source).exists():
            raise UserError(
                f"there is no set {source}: a public set is named with its folder, {source}:FOLDER"
            )
    require_paths("set", sources, suffix=(".csv", ".tsv", ".txt", ".py"))


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
    _add_pictures(parser)
    parser.add_argument("--out", metavar="FILE.json", help="write the results to this file too")
    return add_general_options(parser)


def _add_search(parser: ToolParser) -> None:
    add_reading(parser)
    add_distance(parser)
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


def _add_pictures(parser: ToolParser) -> None:
    parser.add_argument(
        "--galleries",
        metavar="FILE.png",
        help="draw queries and what is ranked first for them: right images in green, wrong ones "
        "in red, those that the metrics leave out not at all",
    )
    parser.add_argument(
        "--queries",
        metavar="N",
        type=count_to(100),
        help="of --galleries, each of another person (default: 8)",
    )
    parser.add_argument(
        "--top-k", metavar="N", type=count_to(50), help="ranks of --galleries (default: 10)"
    )
    parser.add_argument(
        "--tsne",
        metavar="FILE.png",
        help="draw the embeddings of some people in the plane, and write their places into a .csv "
        "file beside it",
    )
    parser.add_argument(
        "--people", metavar="N", type=count_to(1000), help="of --tsne (default: 20)"
    )
    parser.add_argument(
        "--perplexity", type=float, help="of --tsne, neighbours that it uses (default: 30)"
    )
