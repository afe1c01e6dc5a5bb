"""The shards that a config names: brace patterns, folders, lists; none of them runs a command."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from kd_core.config.trusted import trusted_names
from kd_core.errors import UserError, nearest

SCHEMES = ("http", "https", "sftp", "ftps", "scp", "gs", "htgs", "hf", "ais")
"""What the library reads by a program of its own choice, with the URL as one argument."""
COMMANDS = "webdataset.gopen.gopen_pipe"
"""The library's function for addresses that begin with `pipe`, which it runs in a shell."""
ENDINGS = (
    ".tar",
    *(f".tar.{packed}" for packed in ("gz", "bz2", "xz", "zst", "lz4")),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)
"""Of shards in a folder; those packed in a way that is not read are refused, not left out."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(\.\.-?\d+)?\}")
_MOST = 1_000_000  # shards: braces multiply


def shard_addresses(given: str | Sequence[str], option: str) -> list[str]:
    """Return paths and URLs of shards, in the order given.

    Args:
        given: A shard, a pattern with braces (`train-{0000..0146}.tar`) or wildcards, a folder of
            shards, a text file with one of them a line, several joined by `::`, or a list of these.
        option: Its name, for messages.

    Raises:
        UserError: If there are none, some are missing or there twice, or one would run a command.
    """
    require_library()
    items = [given] if isinstance(given, str) else list(given)
    found = [address for item in items for address in _of_item(item, option)]
    if not found:
        raise UserError(
            f"{option}: an empty list; name shards, such as data/train-{{000..146}}.tar"
        )
    _check_there([address for address in found if not is_url(address)], option)
    _check_once(found, option)
    return found


def is_url(address: str) -> bool:
    """Return whether an address is read by the library, and not as a file of this machine."""
    return _scheme(address) != "" and not os.path.exists(address)


def place_of(address: str) -> str:
    """Return what is the same for all names of a shard: a path without links, or the URL."""
    return address if is_url(address) else os.path.realpath(address)


def require_library() -> None:
    """Reject an installation without the library.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise UserError(
            "shards are read with the library webdataset, which is not installed: "
            "pip install 'kd-cls[webdataset]'"
        ) from error


def check_runs_nothing(url: str) -> None:
    """Reject a URL that the library would not read, or would run in a shell.

    Raises:
        UserError: If it is of an unknown kind, or runs a command that is not trusted.
    """
    from webdataset.gopen import rewrite_url

    scheme = _scheme(rewrite_url(url))  # the user's GOPEN_REWRITE may make a command of it
    if scheme == "pipe":
        if COMMANDS in trusted_names():
            return
        raise UserError(
            f"{url}: this shard is a command, which the library runs in a shell; if you wrote it "
            f"yourself, allow it: --trust {COMMANDS}"
        )
    if scheme not in ("", "file", *SCHEMES):
        hint = f"; name a command: 'pipe:aws s3 cp {url} -' with --trust {COMMANDS}"
        hint = hint if scheme == "s3" else nearest(scheme, SCHEMES)
        raise UserError(f"{url}: the library webdataset reads no {scheme}: URLs{hint}")


def _of_item(item: object, option: str) -> Iterator[str]:
    if not isinstance(item, str) or not item.strip() or "\0" in item:
        raise UserError(f"{option}: wanted the path or URL of a shard, got {item!r}")
    if os.path.isdir(item):
        yield from _in_folder(item)
    elif item.lower().endswith(".txt") and not _scheme(item):
        yield from _listed(item, option)
    elif os.path.exists(item) or _scheme(item) == "pipe":
        yield from _expanded(item, option)
    else:
        for each in item.split("::"):
            yield from _expanded(each, option)


def _expanded(item: str, option: str) -> Iterator[str]:
    """Fill in braces and wildcards; check what is a URL."""
    from braceexpand import braceexpand

    if "${" in item and _scheme(item) != "pipe":
        raise UserError(f"{option}: {item}: variables are not filled in; write the path in full")
    ranges = ((int(found[1]), int(found[2])) for found in _RANGE.finditer(item))
    too_many = any(abs(low - high) > _MOST for low, high in ranges)  # listed whole before any name
    try:
        literal = os.path.exists(item) or (_scheme(item) == "pipe" and "{" not in item)
        names = [item] if literal or too_many else list(islice(braceexpand(item), _MOST + 1))
    except ValueError as error:
        raise UserError(
            f"{option}: {item}: its braces do not match; wanted such as {{0000..0146}} or {{a,b}}"
        ) from error
    if too_many or len(names) > _MOST:
        raise UserError(f"{option}: {item}: more than {_MOST:,} shards; shorten the range")
    for name in names:
        if name.lower().startswith("file:"):
            name = re.sub(r"(?i)^file:(//(localhost)?(?=/))?", "", name)
        if os.path.exists(name) or not (_scheme(name) or glob.has_magic(name)):
            yield name
        elif _scheme(name):
            check_runs_nothing(name)
            yield name
        else:
            if not (matching := sorted(glob.glob(name))):
                raise UserError(f"{option}: {name}: no file has such a name")
            yield from matching


def _in_folder(folder: str) -> list[str]:
    names = sorted(n for n in os.listdir(folder) if n.lower().endswith(ENDINGS) and n[0] != ".")
    if not names:
        raise UserError(f"{folder}: no shard in this folder; their names end in .tar")
    return [os.path.join(folder, name) for name in names]


def _listed(file: str, option: str) -> Iterator[str]:
    """Read a list: a shard or a pattern a line; relative paths start from the list's folder."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise UserError(f"{option}: {file}: cannot be read as a list of shards ({why})") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise UserError(f"{file}: an empty list; wanted a shard a line")
    for name in names:
        yield from _expanded(name if _scheme(name) else str(Path(file).parent / name), file)


def _scheme(address: str) -> str:
    found = _SCHEME.match(address.strip())
    return found.group(1).lower() if found else ""


def _check_there(paths: Sequence[str], option: str) -> None:
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        folder, name = os.path.split(missing[0])
        there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        hint = nearest(name, [each for each in there if each.lower().endswith(ENDINGS)])
        raise UserError(
            f"{option}: {len(missing):,} of {len(paths):,} shards are missing, the first is "
            f"{missing[0]!r}{hint}"
        )


def _check_once(addresses: Sequence[str], option: str) -> None:
    seen: dict[str, str] = {}
    for address in addresses:
        place = place_of(address)
        if place in seen:
            also = f" (also as {seen[place]})" if seen[place] != address else ""
            raise UserError(f"{option}: {address} is there twice{also}; list it once")
        seen[place] = address
