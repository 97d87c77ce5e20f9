"""The rendered book: complete, without a broken link, quiet in a browser, offline, and readable on a phone."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from helpers import book, diagrams
from helpers.errors import TutorialError
from helpers.executed import Shelf
from helpers.settings import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def _toc() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def _pages(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.html")) if "_static" not in p.parts]  # the theme keeps templates there


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, rendered with warnings as errors from the notebooks with their committed outputs."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "notebooks", folder / "executed")
    return book.render(folder / "executed", folder / "html")


@pytest.fixture(scope="session")
def pages(rendered: Path) -> dict[Path, BeautifulSoup]:
    return {path: BeautifulSoup(path.read_bytes(), "html.parser") for path in _pages(rendered)}


HOSTILE = (
    "memory *is* 3 GiB; ```7``` <b>x</b> \x1b[31mred {term}`x` [x](y.md) | $a$\n::::::\n# no title\n" + "word_" * 60
)


@pytest.fixture(scope="session")
def with_old_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book whose chapter 05 has failed since its last good run, and whose chapter 04 has never succeeded."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(ROOT / "notebooks", folder / "executed")
    old, never = (Shelf(folder / "executed", name) for name in ("05_oss_platform", "04_gpu_setup"))
    notebook = json.loads(old.copy.read_text())
    notebook["metadata"]["papermill"] = {"end_time": "2026-11-20T10:11:12.5+00:00", "exception": None}
    notebook["cells"][0]["source"] = (
        "# 05 · OSS platform\n\nAn older text, [with a link](06_kind.ipynb#no-such-anchor).\n"
    )
    old.copy.write_text(json.dumps(notebook))
    never.copy.unlink()
    old.fail("There is *enough*", HOSTILE)
    never.fail("", "ValueError: dictionary update sequence element #4 has length 1; 2 is required")
    return book.render(folder / "executed", folder / "html")


def _text(page: Path, selector: str = "article") -> str:
    found = BeautifulSoup(page.read_bytes(), "html.parser").select_one(selector)
    return " ".join(found.get_text().split()) if found else ""


def test_an_old_page_keeps_its_results_and_says_when_they_were_made_and_why(with_old_pages: Path) -> None:
    page = with_old_pages / "notebooks" / "05_oss_platform.html"
    note = _text(page, "article .admonition.warning")

    assert "it shows results of 20 November 2026, 10:11 UTC" in note
    assert "the checkpoint “There is *enough*” is red" in note and "memory *is* 3 GiB; ```7``` <b>x</b> red" in note
    assert _text(page).index("This page is old") < _text(page).index("An older text")
    assert "✔ Every question of the script has an answer" in _text(page)
    assert len(BeautifulSoup(page.read_bytes(), "html.parser").select("article h1")) == 1, "a reason is no markup"


def test_a_chapter_that_never_succeeded_says_so_and_shows_no_results(with_old_pages: Path) -> None:
    text = _text(with_old_pages / "notebooks" / "04_gpu_setup.html")

    assert "This chapter has no results yet No run of this chapter has succeeded on this machine." in text
    assert "ValueError: dictionary update sequence" in text
    assert "✔" not in text and "gpu.look(machine)" in text


def test_the_first_page_names_the_old_chapters(with_old_pages: Path, rendered: Path) -> None:
    note = _text(with_old_pages / "book" / "intro.html", "article .admonition.warning")

    assert "2 chapters are not up to date" in note
    assert "04 · GPU setup shows no results. The newest run on" in note and "ValueError: dictionary" in note
    assert "05 · OSS platform shows results of 20 November 2026, 10:11 UTC." in note and "<b>x</b>" in note
    assert _text(rendered / "book" / "intro.html", "article .admonition.warning") == ""


def test_the_next_good_run_replaces_the_note(with_old_pages: Path, rendered: Path) -> None:
    executed = with_old_pages.parent / "executed"
    assert list(book.outdated(executed)) == ["04_gpu_setup", "05_oss_platform"]
    other = with_old_pages.parent / "again"
    shutil.copytree(executed, other)
    for name in ("04_gpu_setup", "05_oss_platform"):
        Shelf(other, name).keep(ROOT / "notebooks" / f"{name}.ipynb", "f", {})

    assert book.outdated(other) == {}


def test_every_page_of_the_table_of_contents_is_there_and_no_other(rendered: Path, pages: dict[Path, object]) -> None:
    extra = {"index", "genindex", "search"}
    assert {str(p.relative_to(rendered).with_suffix("")) for p in pages} == extra | set(_toc())


def test_every_internal_link_anchor_and_image_resolves(rendered: Path, pages: dict[Path, BeautifulSoup]) -> None:
    broken, seen = [], 0
    anchors = {p: {e.get("id") or e.get("name") for e in t.select("[id], a[name]")} for p, t in pages.items()}
    for page, tree in pages.items():
        for link in [e.get("href") or e.get("src") for e in tree.select("[href], [src]")]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            seen += 1
            place = Path(urljoin(str(page), unquote(parts.path))) if parts.path else page
            if not place.is_file():
                broken.append(f"{page.relative_to(rendered)}: {link}")
            elif parts.fragment and place in pages and unquote(parts.fragment) not in anchors[place]:
                broken.append(f"{page.relative_to(rendered)}: no anchor {link}")
    assert not broken
    assert seen > 100


def test_images_have_a_text_for_who_can_not_see_them(pages: dict[Path, BeautifulSoup]) -> None:
    for page, tree in pages.items():
        for image in tree.select("img"):
            assert image.get("alt"), f"{page.name}: {image.get('src')}"
        for drawing in tree.select("svg.t-drawing"):
            assert drawing.find("title").text and drawing.find("desc").text


def test_a_chapter_shows_its_results(pages: dict[Path, BeautifulSoup]) -> None:
    chapter = next(tree for page, tree in pages.items() if page.stem == "01_ssh_config")
    assert "✔ ssh cpouta runs a command" in chapter.get_text()


@pytest.fixture(scope="module")
def browser(require: Callable[[str], str]) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    program = require("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_are_quiet_offline_and_readable(  # type: ignore[no-untyped-def]
    browser, rendered: Path, with_old_pages: Path, size: dict[str, int], mode: str
) -> None:
    context = browser.new_context(viewport=size, color_scheme=mode)
    page, problems = context.new_page(), []
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda r: problems.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    marked = [with_old_pages / "book" / "intro.html", *sorted((with_old_pages / "notebooks").glob("0[45]_*.html"))]
    for path in [*_pages(rendered), *marked]:
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        assert problems == [], path.name
        if path.name == "index.html":
            continue  # leads on to the first page
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"] + 1, f"{path.name} is {wide} px wide"
        body = page.evaluate(
            "parseFloat(getComputedStyle(document.querySelector('article, .bd-article, body')).fontSize)"
        )
        assert body >= 14
    context.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_names_in_drawings_stand_out_from_their_boxes(browser, tmp_path: Path, mode: str) -> None:  # type: ignore[no-untyped-def]
    context = browser.new_context(color_scheme=mode)
    page = context.new_page()
    for path in diagrams.build(tmp_path):
        if path.suffix == ".html":
            page.goto(path.as_uri())
            for kind, box in (("text", ".box"), ("text.soft", ".box"), ("text.soft", ".lane")):
                ratio = page.evaluate(_CONTRAST, [kind, box])
                assert ratio is None or ratio >= 4.5, f"{path.name}: {kind} on {box} has {ratio:.1f}"
    context.close()


# WCAG 2.1, success criterion 1.4.3: relative luminance and contrast ratio; the worst pair on the page.
_CONTRAST = """([text, box]) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const fills = (kind) => [...document.querySelectorAll(kind)].map((e) => light(getComputedStyle(e).fill));
  const pairs = fills(text).flatMap((a) => fills(box).map((b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)));
  return pairs.length ? Math.min(...pairs) : null;
}"""


def test_drawings_are_the_same_in_every_build_and_the_readme_has_the_current_map(tmp_path: Path) -> None:
    first, second = diagrams.build(tmp_path / "a"), diagrams.build(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert (tmp_path / "a" / "system_map.svg").read_bytes() == (
        ROOT / "book" / "images" / "system_map.svg"
    ).read_bytes(), "copy the new system_map.svg to book/images/"


def test_a_chapter_that_was_not_executed_is_named(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="01_ssh_config.* have not been executed|The book lacks 01_ssh_config"):
        book.render(tmp_path, tmp_path / "html")


def test_a_page_with_a_warning_is_an_error_and_keeps_the_old_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for part in ("_config.yml", "_toc.yml"):
        shutil.copy2(ROOT / part, source)
    shutil.copytree(ROOT / "book", source / "book")
    (source / "helpers").mkdir()
    (source / "helpers" / "diagrams.py").write_text("")
    (source / "requirements.lock").write_text("")
    with (source / "book" / "glossary.md").open("a") as page:
        page.write("\n[gone](no_such_page.md)\n")
    monkeypatch.setattr(book, "ROOT", source)
    old = tmp_path / "html"
    old.mkdir()
    (old / "index.html").write_text("the old book")
    with pytest.raises(TutorialError, match="no_such_page"):
        book.render(ROOT / "notebooks", old)
    assert (old / "index.html").read_text() == "the old book"


def test_a_crash_between_the_old_book_and_the_new_one_costs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, new = tmp_path / "html", tmp_path / "new"
    for folder, text in ((output, "old"), (new, "new")):
        folder.mkdir()
        (folder / "index.html").write_text(text)
    rename = Path.rename

    def crash(path: Path, destination: Path) -> Path:
        if path == new:
            raise KeyboardInterrupt
        return rename(path, destination)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", crash)
        book._replace(output, new)
    book._recover(output)
    assert (output / "index.html").read_text() == "old"

    book._replace(output, new)
    assert (output / "index.html").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["html"]
