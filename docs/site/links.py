"""Pages of the repository as pages of the site: copied, with links that lead to the copies."""

import os
import re
import shutil
from pathlib import Path

from kd_core.files.checkpoint import save_text

PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "configs/cls/README.md": "configs_cls.md",
    "configs/det/README.md": "configs_det.md",
    "configs/reid/README.md": "configs_reid.md",
    "packages/kd-core/README.md": "packages_core.md",
    "packages/kd-cls/README.md": "packages_cls.md",
    "packages/kd-det/README.md": "packages_det.md",
    "packages/kd-reid/README.md": "packages_reid.md",
}
"""Files beside `docs/`, and what their pages are called."""

LINK = re.compile(r"(?P<start>\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def copy_pages(root: Path, source: Path) -> None:
    """Copy every page of `docs/`, and those beside it, into the folder that the site is built from.

    Raises:
        FileNotFoundError: If a link leads nowhere.
    """
    docs = root / "docs"
    pages = [path for path in docs.rglob("*.md") if "site" not in path.relative_to(docs).parts]
    files = {path: path.relative_to(docs) for path in pages}
    files |= {root / name: Path(page) for name, page in PAGES.items() if (root / name).is_file()}
    for file, page in files.items():
        text = file.read_text(encoding="utf-8")
        save_text(with_links(text, file, source / page, root, source), source / page)


def with_links(text: str, file: Path, page: Path, root: Path, source: Path) -> str:
    """Return a page's text with its links, but not its code, led to the site's own files."""

    def link(found: re.Match[str]) -> str:
        target = (file.parent / found["path"]).resolve()
        place = os.path.relpath(placed(target, root, source), page.parent)
        return f"{found['start']}{place}{found['anchor'] or ''}"

    codes = CODE.findall(text)
    parts = [LINK.sub(link, part) for part in CODE.split(text)]
    return "".join(part + code for part, code in zip(parts, [*codes, ""], strict=True))


def placed(target: Path, root: Path, source: Path) -> Path:
    """Return where the site has a file or folder of the repository; copy it there if need be."""
    name = target.relative_to(root).as_posix()
    if target.is_dir():
        name = f"{name}/README.md"
        name = name if (root / name).is_file() else f"{Path(name).parents[1].as_posix()}/README.md"
    if name in PAGES:
        return source / PAGES[name]
    if name.startswith("docs/"):
        copy = source / name.removeprefix("docs/")
    else:
        copy = source / "files" / name
    if copy.suffix != ".md":
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, copy)
    return copy
