"""The reference: a page for each sub-package, from the docstrings of its modules."""

import re
from pathlib import Path
from typing import Any

from kd_core.files.checkpoint import save_text

FOLDER = "reference"
MARK = re.compile(r"\*(?! )|[|\\]|(?<=\w)_(?=\W|$)")
ANNOTATED = "Annotated["
MARKED = r"\\\g<0>"
PACKAGES = {"kd-core": "kd_core", "kd-cls": "kd_cls", "kd-det": "kd_det", "kd-reid": "kd_reid"}


def write_pages(root: Path, source: Path) -> None:
    """Write all pages of the reference, and their list."""
    names = []
    for folder, package in PACKAGES.items():
        code = root / "packages" / folder / "src"
        for part in parts(code / package):
            name = ".".join(part.relative_to(code).parts)
            names.append(name)
            save_text(page(name, modules(part, code)), source / FOLDER / f"{name}.md")
    listed = "\n".join(names)
    text = f"# Reference\n\nEvery public name.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    save_text(text, source / FOLDER / "index.md")


def parts(package: Path) -> list[Path]:
    """Return a package and its sub-packages, without those that have nothing but files of data."""
    found = [path.parent for path in sorted(package.rglob("__init__.py"))]
    return [path for path in found if "configs" not in path.parts]


def modules(part: Path, source: Path) -> list[str]:
    """Return the public modules of a sub-package."""
    files = [path for path in sorted(part.glob("[a-z]*.py"))]
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in files]


def page(package: str, names: list[str]) -> str:
    """Return a page: the package's docstring, then every module's public names."""
    blocks = [f".. automodule:: {package}\n   :no-members:"]
    for name in names:
        blocks.append(f"{name}\n{'-' * len(name)}\n\n.. automodule:: {name}\n   :members:")
    return f"# {package}\n\n```{{eval-rst}}\n" + "\n\n".join(blocks) + "\n```\n"


def as_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep characters of docstrings that reStructuredText would read as marks."""
    text, formula, rest = "\n".join(lines).partition(".. math::")
    letters = rest.find("\n\n", rest.find("   "))
    kept, rest = (rest[:letters], rest[letters:]) if formula else ("", "")
    lines[:] = (escaped(text) + formula + kept + escaped(rest)).split("\n")


def without_ranges(
    app: Any,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write types without what pydantic checks: `float`, not `Annotated[float, FieldInfo(...)]`."""
    return plain(signature), plain(returns)


def plain(signature: str | None) -> str | None:
    """Return a signature whose `Annotated[type, ...]` are the type alone, also inside others."""
    start = (signature or "").rfind(ANNOTATED)
    if signature is None or start < 0:
        return signature
    depth, ends = 0, list[int]()  # behind the type, and behind the whole
    for place, letter in enumerate(signature[start:], start):
        depth += (letter in "[(") - (letter in "])")
        if (depth, letter) in ((1, ","), (0, "]")):
            ends.append(place)
        if (depth, letter) == (0, "]"):
            break
    kept = signature[start + len(ANNOTATED) : ends[0]]
    return plain(signature[:start] + kept + signature[ends[-1] + 1 :])


def escaped(text: str) -> str:
    """Return a text whose marks outside of back-ticks are plain characters."""
    code, *rest = re.split(r"(`+[^`]*`+)", text)
    parts = [MARK.sub(MARKED, code)]
    for code, plain in zip(rest[::2], rest[1::2], strict=True):
        parts += [code, "\\ " if plain[:1].isalnum() else "", MARK.sub(MARKED, plain)]
    return "".join(parts)
