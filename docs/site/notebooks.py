"""Notebooks of `docs/notebooks` as pages: text as it is, code as blocks."""

import json
from pathlib import Path

from kd_core.files.checkpoint import save_text
from links import with_links

FOLDER = "notebooks"


def write_pages(root: Path, source: Path) -> None:
    """Write a page for each notebook."""
    for file in sorted((root / "docs" / FOLDER).glob("*.ipynb")):
        place = source / FOLDER / f"{file.stem}.md"
        text = page(json.loads(file.read_text(encoding="utf-8")), file.name)
        save_text(with_links(text, file, place, root, source), place)


def page(notebook: dict, name: str) -> str:
    """Return the text of a page, with the notebook itself behind the first paragraphs."""
    parts = [block(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    parts.insert(1, f"The notebook: [{name}]({name}).")
    return "\n\n".join(parts) + "\n"


def block(kind: str, text: str) -> str:
    """Return a cell in Markdown."""
    return f"```python\n{text}\n```" if kind == "code" else text
