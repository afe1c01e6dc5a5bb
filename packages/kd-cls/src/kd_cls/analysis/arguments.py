"""The arguments of `kd-cls-analyse`: those of all analyses, and those of each."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from kd_core.errors import UserError
from kd_core.experiment.parsers import CommandParser, ToolParser, add_options, add_version

from kd_cls.analysis.choices import LAYERS, MATRICES, METHODS, POOLS, TARGETS

TABLES = {
    "evaluate": "accuracy, cross-entropy, calibration error; agreement with --teacher",
    "noise": "how uneven the probabilities besides the largest are; 0 is even",
}
"""Analyses that print a table, with their help texts."""

PICTURES = {
    "tsne": "t-SNE of the features before the classifier",
    "correlation": "by how much the logits' correlations differ from those of --teacher",
    "cka": "how similar layers are to those of --teacher, by linear CKA",
    "cam": "where in images each model finds a class",
    "reliability": "accuracy by confidence",
}
"""Analyses that draw a picture, with their help texts."""

_NEED_TEACHER = ("correlation", "cka")
_LIMITS = {"tsne": 2000, "cam": 6}


def parser(description: str) -> ToolParser:
    """Return the parser of the tool; `own` names the keywords of the chosen analysis's function."""
    whole = add_version(ToolParser(description=description))
    commands = whole.add_subparsers(
        dest="what", metavar="WHAT", required=True, parser_class=CommandParser
    )
    for name, shows in (TABLES | PICTURES).items():
        command = commands.add_parser(name, help=shows, description=shows)
        _add_models(command, name)
        _add_output(command, name)
        own = _OWN[name](command) if name in _OWN else ()
        command.set_defaults(own=own)
    return whole


def _add_models(command: ArgumentParser, name: str) -> None:
    command.add_argument("data", metavar="DATA_CONFIG", help="a file, or the name of data")
    command.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a finished run's folder or its student.safetensors; or NAME=FILE, NAME=pretrained or "
        "NAME=random, NAME being a network of the zoo, a file of networks/ beside the data "
        "config's folder, or an import path such as torchvision.models.resnet18",
    )
    command.add_argument("--labels", metavar="TEXT", nargs="+", help="names for the MODELs")
    command.add_argument(
        "--teacher", metavar="MODEL", required=name in _NEED_TEACHER, help="another such model"
    )
    command.add_argument(
        "--limit",
        metavar="N",
        type=int,
        help=f"test images, spread evenly over the set (default: {_LIMITS.get(name, 'all')})",
    )
    add_options(command, "data.root=DIR")


def with_limit(args: Namespace) -> Namespace:
    """Return the arguments with the usual limit, where none is given.

    Raises:
        UserError: If one is given that has no effect.
    """
    if args.limit is None:
        args.limit = _LIMITS.get(args.what)
    elif getattr(args, "files", ()):
        raise UserError("--limit has no effect beside --images; leave one of them out")
    return args


def _add_output(command: ArgumentParser, name: str) -> None:
    if name in PICTURES:
        where = f"default: analysis/{name}.png in the folder of the first MODEL that is a run"
        command.add_argument("--out", metavar="FILE.png", help=where)
    command.add_argument("--json", metavar="FILE", help="write the numbers to this file too")


def _tsne(command: ArgumentParser) -> tuple[str, ...]:
    command.add_argument(
        "--perplexity", type=float, default=30, help="neighbours that t-SNE uses (default: 30)"
    )
    return ("perplexity",)


def _correlation(command: ArgumentParser) -> tuple[str, ...]:
    command.add_argument(
        "--matrix",
        choices=MATRICES,
        default="correlation",
        help="of the logits, or their means for each true class, as mdistiller's code has it",
    )
    return ("matrix",)


def _cka(command: ArgumentParser) -> tuple[str, ...]:
    command.add_argument(
        "--pool",
        choices=POOLS,
        default="mean",
        help="average maps over their positions (default), or flatten them",
    )
    for option, whose in (("--layers", "MODELs"), ("--teacher-layers", "teacher")):
        command.add_argument(
            option,
            metavar="TAP",
            nargs="+",
            default=LAYERS,
            help=f"layers of the {whose} (default: {' '.join(LAYERS)})",
        )
    return ("pool", "layers", "teacher_layers")


def _cam(command: ArgumentParser) -> tuple[str, ...]:
    command.add_argument(
        "--images", metavar="FILE", dest="files", nargs="+", default=(), help="not test images"
    )
    command.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="class-activation maps, Grad-CAM, or the first where a network is made for it",
    )
    command.add_argument(
        "--target", choices=TARGETS, default="predicted", help="which class to look for"
    )
    command.add_argument("--layer", metavar="TAP", help="whose map Grad-CAM uses")
    return ("files", "method", "target", "layer")


def _reliability(command: ArgumentParser) -> tuple[str, ...]:
    command.add_argument("--bins", type=int, default=15, help="bins of confidence (default: 15)")
    return ("bins",)


_OWN: dict[str, Callable[[ArgumentParser], tuple[str, ...]]] = {
    "tsne": _tsne,
    "correlation": _correlation,
    "cka": _cka,
    "cam": _cam,
    "reliability": _reliability,
}
