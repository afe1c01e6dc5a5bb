"""The documentation site: every page is reached, every link leads somewhere, methods are whole."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs/site"
PARTS = ("links", "gallery", "notebooks", "reference")
INDEX = (SITE / "index.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site():
    sys.path.insert(0, str(SITE))
    yield {name: importlib.import_module(name) for name in PARTS}
    sys.path.remove(str(SITE))


@pytest.fixture(scope="module")
def source(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    site["links"].copy_pages(ROOT, folder)
    site["gallery"].write_pages(ROOT, folder)
    site["notebooks"].write_pages(ROOT, folder)
    site["reference"].write_pages(ROOT, folder)
    return folder


def test_every_page_is_in_the_index_once(source):
    listed = [line for line in INDEX.splitlines() if re.fullmatch(r"[\w/.]+", line)]
    pages = {page.stem for page in source.glob("*.md")}
    assert pages == {name for name in listed if "/" not in name}
    notebooks = {f"notebooks/{page.stem}" for page in source.glob("notebooks/*.md")}
    assert notebooks == {name for name in listed if name.startswith("notebooks/")} != set()
    assert sorted(listed) == sorted(set(listed))


def test_every_link_of_a_page_leads_to_a_file(source, site):
    for page in source.rglob("*.md"):
        if "files" in page.relative_to(source).parts:
            continue
        for found in site["links"].LINK.finditer(site["links"].CODE.sub("", page.read_text())):
            assert (page.parent / found["path"]).exists(), (page.name, found["path"])


def test_a_link_that_leads_nowhere_is_found(site, tmp_path):
    page = tmp_path / "docs/page.md"
    page.parent.mkdir()
    with pytest.raises(FileNotFoundError):
        site["links"].with_links("[x](none.py)", page, page, tmp_path, tmp_path / "out")


def test_every_method_has_a_page_with_idea_formula_taps_config_cost_and_results(source, site):
    methods = site["gallery"].methods(ROOT)
    assert len(methods) > 50
    for method in methods:
        text = (source / "methods_gallery" / f"{method.slug}.md").read_text(encoding="utf-8")
        terms = site["gallery"].terms_of(ROOT / f"configs/cls/methods/{method.slug}.py")
        wanted = {"## Use it", "## Needs and costs", "## Results"}
        if terms:
            wanted |= {"## Formula", "## What is tapped", "## Arguments"}
        assert {part for part in wanted if part not in text} == set(), method.title


def test_docstrings_keep_what_restructured_text_would_read_as_marks(site):
    text = "of `x`s, *args and a_ | b"
    assert site["reference"].escaped(text) == r"of `x`\ s, \*args and a\_ \| b"


def test_signatures_have_types_without_what_is_checked_of_them(site):
    number = "Annotated[float, FieldInfo(required=True, metadata=[Ge(ge=0), Le(le=1)])]"
    text = f"(a: {number} = 1.0, *, b: list[{number}] | None = None, c: tuple[int, ...] = (1, 2))"
    wanted = "(a: float = 1.0, *, b: list[float] | None = None, c: tuple[int, ...] = (1, 2))"
    assert site["reference"].plain(text) == wanted
    nested = "(a: Annotated[list[Annotated[int, Ge(ge=0)]], Len(1)])"
    assert site["reference"].plain(nested) == "(a: list[int])"
    assert site["reference"].plain(None) is None


def test_every_formula_can_be_drawn_without_a_script(source):
    pytest.importorskip("latex2mathml")
    pytest.importorskip("docutils")
    mathml = importlib.import_module("formulas").mathml
    texts = [page.read_text(encoding="utf-8") for page in source.glob("methods_gallery/*.md")]
    formulas = re.findall(r"^```\{math\}\n(.*?)^```$", "\n".join(texts), re.MULTILINE | re.DOTALL)
    assert len(formulas) > 40
    assert [text for text in formulas if "\\" in mathml(text, "block")] == []


def test_a_page_of_a_notebook_has_all_its_cells(source):
    for file in (ROOT / "docs/notebooks").glob("*.ipynb"):
        page = (source / "notebooks" / f"{file.stem}.md").read_text(encoding="utf-8")
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert re.findall(r"^```python\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL) == code
        assert page.startswith("".join(cells[0]["source"]).partition("\n")[0])
        assert (source / "notebooks" / file.name).is_file()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(SITE))
    build = importlib.import_module("build")
    assert build.main([str(tmp_path / "site")]) == 0
    assert (tmp_path / "site/index.html").is_file()
