"""Build the documentation site: `uv run --group docs docs/site/build.py` writes `site/index.html`.

Pages are those of `docs/`, its notebooks, the READMEs, a page for each method and the reference. A
warning is an error, and so is a link that leads nowhere. The site works from the file system.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import links
import notebooks
import reference
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Build the site and return Sphinx's status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", nargs="?", default=ROOT / "site", type=Path, help="a folder")
    parser.add_argument("--jobs", default="1", help="processes that read and write pages")
    args = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "pages"
        links.copy_pages(ROOT, source)
        gallery.write_pages(ROOT, source)
        notebooks.write_pages(ROOT, source)
        reference.write_pages(ROOT, source)
        for name in ("conf.py", "index.md", "static/style.css"):
            (source / name).parent.mkdir(exist_ok=True)
            shutil.copy(Path(__file__).parent / name, source / name)
        options = ["-W", "--keep-going", "-q", "-j", args.jobs, "-d", str(Path(folder) / "trees")]
        return sphinx([*options, str(source), str(args.output)])


if __name__ == "__main__":
    sys.exit(main())
