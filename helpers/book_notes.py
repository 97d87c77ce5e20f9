"""What the book says of a chapter whose newest run has failed: on the chapter's page, and on the first page."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helpers.chapters import chapters
from helpers.executed import Failure, Shelf

_LONGEST = 600  # characters of a reason on the chapter's page, which is no log
_LINE = 160  # characters of a reason in a list
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


@dataclass(frozen=True, order=True)
class OldPage:
    """A page whose chapter did not pass its newest run.

    Attributes:
        name: The chapter's name.
        title: The chapter's title.
        ran: Whether there is an executed copy of a good run; without one the page has no results.
        date: When that run was, in ISO format; empty where the copy does not say it.
        failed: When the newest run failed, in ISO format.
        red: The checkpoint that failed; empty where something else did.
        why: The reason.
    """

    name: str
    title: str
    ran: bool
    date: str
    failed: str
    red: str
    why: str

    @property
    def results(self) -> str:
        """What the page shows, as the end of a sentence."""
        return f"results of {_day(self.date) or 'an earlier run'}" if self.ran else "no results"

    @property
    def shows(self) -> str:
        """What the page shows and why, in Markdown, to follow the chapter's title."""
        when = f" on {_day(self.failed)}" if self.failed else ""
        return f"shows {self.results}. The newest run{when} failed: {_inline(self.reason)}"

    @property
    def reason(self) -> str:
        """Why it is old, as the end of a sentence."""
        first = next(iter(_clean(self.why).splitlines()), "a cell failed")
        first = first if len(first) <= _LINE else f"{first[:_LINE]}…"
        return f"the checkpoint “{self.red}” is red: {first}" if self.red else first


def old_pages(executed: Path, names: Sequence[str]) -> dict[str, OldPage]:
    """Find the chapters whose newest run has failed.

    Args:
        executed: The folder of the executed copies.
        names: The chapters of the book.

    Returns:
        Their pages, by name, in the order of the book.
    """
    found, titles = {}, {c.name: f"{c.name[:2]} · {c.title}" for c in chapters()}
    for name in names:
        shelf = Shelf(executed, name)
        failure = shelf.failure()
        if not failure and shelf.copy.exists() and not shelf.has_good_copy():
            failure = Failure("", "", "The kept copy of this chapter is damaged, or comes from a run that failed.")
        if failure:
            ran = shelf.has_good_copy()
            date = shelf.date() if ran else ""
            found[name] = OldPage(name, titles.get(name, name), ran, date, failure.when, failure.red, failure.why)
    return found


def mark_page(notebook: str, page: OldPage) -> str:
    """Say below the title of a chapter's page that it is old, and why.

    Args:
        notebook: The notebook, as JSON.
        page: What is known of it.

    Returns:
        The marked notebook, as JSON.
    """
    content = json.loads(notebook)
    when = f" on {_day(page.failed)}" if page.failed else ""
    what = f": the checkpoint “{_inline(page.red)}” is red" if page.red else ""
    newest = f"The newest run of this chapter{when} failed{what}."
    if page.ran:
        title = f"This page is old: it shows {page.results}"
        first, last = "", "Until a run succeeds, this page keeps the text and the results of the last good run."
    else:
        title = "This chapter has no results yet"
        first, last = "No run of this chapter has succeeded on this machine. ", "The page shows text and code only."
    remedy = "Correct the cause, then run `make book` again."
    note = _note(title, f"{first}{newest}\n\n{_literal(page.why)}\n\n{last} {remedy}")
    for cell in content["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and re.search(r"^# ", text, re.MULTILINE):
            cell["source"] = _below_title(text, note)
            break
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def mark_first_page(path: Path, pages: Sequence[OldPage]) -> None:
    """Say on the book's first page which chapters are old, and why; nothing where none is.

    Args:
        path: The first page; it is changed.
        pages: The old pages.
    """
    if not pages:
        return
    rows = [f"- [{_inline(p.title)}](../notebooks/{p.name}.ipynb) {p.shows}" for p in pages]
    title = "One chapter is not up to date" if len(pages) == 1 else f"{len(pages)} chapters are not up to date"
    path.write_text(_below_title(path.read_text(encoding="utf-8"), _note(title, "\n".join(rows))), encoding="utf-8")


def without_results(notebook: str) -> str:
    """Return a notebook without the outputs that git keeps: they come from another machine."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _below_title(text: str, note: str) -> str:
    return re.sub(r"^# .*$", lambda title: title.group() + note, text, count=1, flags=re.MULTILINE)


def _note(title: str, text: str) -> str:
    fence = _fence(":", text)
    return f"\n\n{fence}{{admonition}} {title}\n:class: warning\n\n{text}\n{fence}\n\n"


def _fence(character: str, text: str) -> str:
    """Return a fence that nothing in the text can end."""
    return character * max([3, *(len(run) + 1 for run in re.findall(re.escape(character) + "+", text))])


def _clean(text: str) -> str:
    """Leave out what a terminal, and no page, knows: colours and control characters."""
    return _CONTROL.sub("", text).strip()


def _literal(text: str) -> str:
    """Put any text into a block in which nothing has a meaning."""
    text = _clean(text) or "No reason is known."
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    fence = _fence("`", text)
    return f"{fence}text\n{text}\n{fence}"


def _inline(text: str) -> str:
    """Have any text stand for itself within a sentence: punctuation has no meaning to Markdown then."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(_clean(text).split()))


def _day(iso: str) -> str:
    """Write a time as people do; as it is where it can't be read."""
    try:
        moment = datetime.fromisoformat(iso).astimezone(UTC)
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
