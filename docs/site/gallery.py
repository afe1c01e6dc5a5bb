"""The method gallery: a page for each row of the table of methods in configs/cls/README.md.

A page repeats nothing by hand: the idea, the formula and the differences stand in the docstrings of
the method's own source file, the values in its config, costs and results in the measured tables.
"""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

from drawing import taps_picture
from kd_core.config.reading import load_config
from kd_core.files.checkpoint import save_text
from links import with_links

FOLDER = "methods_gallery"
TABLE = "configs/cls/README.md"
NONE = "\N{EN DASH}"
ROW = re.compile(r"^\| (?P<cells>.+) \|$", re.MULTILINE)
FILE = re.compile(r"`methods/(\w+)\.py`")
COMMAND = (
    "uv run tools/cls_train.py configs/cls/data/cifar100.py "
    "configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/{name}.py"
)


class Method(NamedTuple):
    """A row of the table of methods."""

    title: str
    paper: str
    files: tuple[str, ...]
    needs: str
    parameters: str
    cost: str
    published: str

    @property
    def slug(self) -> str:
        """The name of the page."""
        return self.files[0]


def methods(root: Path) -> list[Method]:
    """Return all rows of the table in configs/cls/README.md."""
    text = (root / TABLE).read_text(encoding="utf-8")
    table = text.partition("| method | paper | file |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split(" | ")] for row in ROW.findall(table)]
    found = []
    for title, paper, files, *rest in (row for row in rows if not row[0].startswith("-")):
        found.append(Method(title, paper, tuple(FILE.findall(files)), *rest))
    return found


def write_pages(root: Path, source: Path) -> None:
    """Write a page for each method, and their list."""
    folder = source / FOLDER
    entries = []
    for method in methods(root):
        place = folder / f"{method.slug}.md"
        save_text(with_links(page(method, root), root / TABLE, place, root, source), place)
        entries.append(f"| [{method.title}]({method.slug}.md) | {idea(method, root)} |")
    listed = "\n".join(["| method | idea |", "|---|---|", *entries])
    tree = "```{toctree}\n:hidden:\n:glob:\n\n*\n```"
    head = "# The methods\n\nOne page each. How to choose: [the configs](../configs_cls.md)."
    save_text(f"{head}\n\n{listed}\n\n{tree}\n", folder / "index.md")


def page(method: Method, root: Path) -> str:
    """Return the text of a method's page."""
    terms = terms_of(root / f"configs/cls/methods/{method.slug}.py")
    parts = [f"# {method.title}", idea(method, root), f"Paper: {method.paper}."]
    parts += [f"## Formula\n\n{text}" for text in formulas(terms)]
    if terms:
        parts.append(f"## What is tapped\n\n{taps_picture(terms)}")
    parts += [configs(method, root), costs(method, root), results(method, root)]
    parts += [arguments(terms)]
    return "\n\n".join(part for part in parts if part) + "\n"


def terms_of(config: Path) -> dict[str, dict[str, Any]]:
    """Return the terms of a config whose criterion is named by an import path."""
    loaded = load_config([config])
    terms = loaded.get("distiller", {}).get("terms", {})
    return {name: term for name, term in terms.items() if "type" in term.get("criterion", {})}


def sources(terms: dict[str, dict[str, Any]]) -> list[Any]:
    """Return the modules of the terms' criteria, each once."""
    paths = [term["criterion"]["type"].rpartition(".")[0] for term in terms.values()]
    return [importlib.import_module(path) for path in dict.fromkeys(paths)]


def idea(method: Method, root: Path) -> str:
    """Return the idea in one sentence: of the criterion's file, or of the config without one."""
    config = root / f"configs/cls/methods/{method.slug}.py"
    modules = sources(terms_of(config))
    if modules:
        lines = [inspect.getdoc(module).splitlines()[0] for module in modules]
        texts = [line.partition(": ")[2] or line for line in lines]
        return " ".join(text[0].upper() + text[1:] for text in texts)
    text = config.read_text(encoding="utf-8").split('"""')[1].split("\n\n")[0]
    return " ".join(text.split()).replace("Compose with data and pair:", "").strip()


def formulas(terms: dict[str, dict[str, Any]]) -> list[str]:
    """Return the formulas in the docstrings of the criteria's modules, and their letters."""
    found = []
    for module in sources(terms):
        text = inspect.getdoc(module).partition(".. math::\n\n")[2]
        formula, _, letters = text.partition("\n\n")
        if formula:
            found.append(f"```{{math}}\n{inspect.cleandoc(formula)}\n```\n\n{letters.strip()}")
    return found


def configs(method: Method, root: Path) -> str:
    """Return the section with the config and the command."""
    text = (root / f"configs/cls/methods/{method.slug}.py").read_text(encoding="utf-8")
    code = text.split('"""', 2)[2].strip()
    others = ", ".join(f"`configs/cls/methods/{name}.py`" for name in method.files[1:])
    more = f"Also: {others}.\n\n" if others else ""
    command = COMMAND.format(name=method.slug)
    return f"## Use it\n\n```bash\n{command}\n```\n\n{more}```python\n{code}\n```"


def costs(method: Method, root: Path) -> str:
    """Return the section with what the method needs and costs."""
    rows = [
        f"| needs | {method.needs} |",
        f"| extra parameters (resnet32x4 → resnet8x4) | {method.parameters} |",
        f"| cost | {method.cost} |",
    ]
    text = "\n".join(["## Needs and costs", "", "| | |", "|---|---|", *rows])
    times = table_rows(root / "docs/criteria.md", method.slug)
    measured = "The criterion alone ([how it is measured](../../docs/criteria.md)):"
    return f"{text}\n\n{measured}\n\n{times}" if times else text


def results(method: Method, root: Path) -> str:
    """Return the section with published and measured numbers."""
    published = "none for that pair" if method.published == NONE else method.published
    text = f"## Results\n\nPublished, CIFAR-100, resnet32x4 → resnet8x4, top-1 %: {published}."
    rows = table_rows(root / "docs/methods.md", *method.files)
    return f"{text}\n\nMeasured here ([how](../../docs/methods.md)):\n\n{rows}" if rows else text


def table_rows(page: Path, *names: str) -> str:
    """Return the rows of a page's first table that has any whose first cell begins with a name."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        head, line, *rows = table.splitlines()
        kept = [row for row in rows if re.split(r"[ ,|]", row[2:])[0] in names]
        if kept:
            return "\n".join([head, line, *kept])
    return ""


def arguments(terms: dict[str, dict[str, Any]]) -> str:
    """Return the reference of the criteria, with what they refuse and where they differ."""
    parts = []
    for name in dict.fromkeys(term["criterion"]["type"] for term in terms.values()):
        module, _, class_name = name.rpartition(".")
        functions = [
            f".. autofunction:: {module}.{key}\n   :no-index:"
            for key, value in vars(importlib.import_module(module)).items()
            if key == module.rpartition(".")[2] and inspect.isfunction(inspect.unwrap(value))
        ]
        one = f".. autoclass:: {module}.{class_name}\n   :no-index:"
        parts.append("\n\n".join([one, *functions]))
    rst = "\n\n".join(parts)
    return f"## Arguments, errors, differences\n\n```{{eval-rst}}\n{rst}\n```" if parts else ""
