"""What helpers show: tables, status, progress, plots, plans, checkpoints.

One call, three forms: live widgets where a kernel has a front end, static HTML in a headless run, plain text in a
terminal and under nbval. Plain text is the same in every run, so that it can be committed and compared; what varies
(seconds, process ids, ports) belongs into HTML or into a cell tagged `nbval-ignore-output`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from shlex import join
from typing import TYPE_CHECKING, Any, Literal, Protocol

from helpers.errors import mask
from helpers.settings import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report(Protocol):
    """How far something has come: the amount done, and a note."""

    def __call__(self, amount: float, note: str = "") -> None:
        """Set the amount that is done."""


Rows = Sequence[Mapping[str, object]]
_GOOD = {"ready", "running", "active", "passed", "ok", "yes", "success", "done", "finished", "same"}
_BAD = {"failed", "stopped", "missing", "refused", "no", "error", "dead", "failure"}


def mode() -> Literal["live", "html", "text"]:
    """Find out how to show things.

    Returns:
        `live` in a kernel with a front end, `html` in a headless notebook run, else `text`. The setting `display`
        (TUTORIAL_DISPLAY) overrides.
    """
    chosen = settings().display
    if chosen != "auto":
        return chosen
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return "live" if shell is not None and getattr(shell, "kernel", None) is not None else "text"


class _Shown:
    """A text with its HTML form; IPython takes the richer one that its front end can show."""

    def __init__(self, text: str, html: str) -> None:
        self.text, self.html = mask(text.rstrip()), mask(html)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text} if mode() == "text" else {"text/plain": self.text, "text/html": self.html}


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    return bool(ipython and getattr(ipython.get_ipython(), "kernel", None) is not None)


def show(text: str, html: str = "") -> None:
    """Show a text, and its HTML form where there is a front end for it.

    Args:
        text: Plain text, the same in every run.
        html: The HTML form; without it the text is shown as it is.
    """
    _show(text, html)


def _show(text: str, html: str = "") -> Any:
    """Show it, and give IPython's display handle, with which the same place can be updated; None in a terminal."""
    shown = _Shown(text, html or f'<pre class="t-text">{escape(text)}</pre>')
    if _in_kernel():
        from IPython.display import display as ipython_display

        return ipython_display(shown, display_id=True)
    sys.stdout.write(shown.text + "\n")
    sys.stdout.flush()
    return None


def _table_text(rows: Rows, columns: Sequence[str], title: str) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    console = Console(file=StringIO(), width=110, color_system=None, markup=False, highlight=False, force_jupyter=False)
    console.print(table, markup=False)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def _cell(value: object) -> str:
    word = str(value)
    kind = "good" if word.lower() in _GOOD else "bad" if word.lower() in _BAD else ""
    return f'<td class="t-{kind}">{escape(word)}</td>' if kind else f"<td>{escape(word)}</td>"


def _table_html(rows: Rows, columns: Sequence[str], title: str) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(_cell(row.get(c, "")) for c in columns) + "</tr>" for row in rows)
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return (
        f'<div class="t-scroll"><table class="t-table">{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def table(rows: Rows, columns: Sequence[str] = (), title: str = "") -> None:
    """Show rows as a table; words of state (ready, failed, …) are coloured.

    Args:
        rows: One mapping a row, from column name to value.
        columns: The columns and their order; by default those of the first row.
        title: A line above the table.
    """
    columns = columns or (list(rows[0]) if rows else [])
    show(_table_text(rows, columns, title), _table_html(rows, columns, title))


@contextmanager
def live_table(read: Callable[[], Rows], title: str = "", interval: float = 1.0) -> Iterator[Callable[[], None]]:
    """Show a table that is read anew, in the same place, while the block runs.

    Args:
        read: Gives the rows of now; called from this thread only, by the function that the block gets.
        title: A line above the table.
        interval: Seconds between two readings at the least; earlier calls do nothing.

    Yields:
        A function to call as often as one likes; the table is drawn anew at most every `interval` seconds. On leaving
        the block the last state is shown; a headless or text run shows only that.
    """
    handle, drawn = None, 0.0

    def draw(force: bool = False) -> None:
        nonlocal handle, drawn
        if not force and (mode() != "live" or time.monotonic() - drawn < interval):
            return
        drawn, rows = time.monotonic(), read()
        columns = list(rows[0]) if rows else []
        text, html = _table_text(rows, columns, title), _table_html(rows, columns, title)
        if handle is None:
            handle = _show(text, html)
        else:
            handle.update(_Shown(text, html))

    draw()
    try:
        yield draw
    finally:
        draw(force=True)


@contextmanager
def progress(title: str, total: float = 1.0, unit: str = "") -> Iterator[Report]:
    """Show how far something has come, for anything that takes over two seconds.

    Args:
        title: What is being done.
        total: The amount that is the whole.
        unit: The unit of the amount.

    Yields:
        A function `report(amount, note="")` that sets how much is done. Live it moves a bar (widget in a notebook,
        rich in a terminal); a headless run gets one line in the end, without the seconds in its plain text.
    """
    started = time.monotonic()
    if mode() == "live":
        with _widget_bar(title, total, unit) as report:
            yield report
    elif not _in_kernel() and sys.stdout.isatty():
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(title, total=total)

            def report(amount: float, note: str = "") -> None:
                bar.update(task, completed=amount, description=f"{title} {note}", refresh=True)

            yield report
    else:
        yield _no_report
    seconds = time.monotonic() - started
    show(f"{title}: done", f'<div class="t-done">{escape(title)}: done <small>in {seconds:.1f} s</small></div>')


def _no_report(amount: float, note: str = "") -> None:
    """Report nowhere: a headless run shows the end only."""


@contextmanager
def _widget_bar(title: str, total: float, unit: str) -> Iterator[Report]:
    from IPython.display import display as ipython_display
    from ipywidgets import HTML, FloatProgress, HBox

    bar, label = FloatProgress(max=total, description=""), HTML(escape(title))
    box = HBox([label, bar])
    ipython_display(box)

    def report(amount: float, note: str = "") -> None:
        bar.value = amount
        label.value = escape(f"{title} {note or f'{amount:g}/{total:g} {unit}'}")

    try:
        yield report
    finally:
        box.close()


def checkpoint(name: str, passed: bool, why: str = "", remedy: str = "") -> None:
    """Show a checkpoint's row, green or red; `helpers.check` is what notebooks call."""
    mark = "✔" if passed else "✘"
    lines = [f"{mark} {name}"] + [f"  {k}: {v}" for k, v in (("why", why), ("remedy", remedy)) if v]
    details = "".join(f"<div><b>{k}</b> {escape(v)}</div>" for k, v in (("why", why), ("remedy", remedy)) if v)
    state = "good" if passed else "bad"
    show("\n".join(lines), f'<div class="t-check t-check-{state}"><span>{mark}</span> {escape(name)}{details}</div>')


def plan(title: str, commands: Sequence[Sequence[str] | str], why: str) -> None:
    """Show what would be done, under the heading *Plan*: computed and validated, and not run.

    Args:
        title: What the plan is for.
        commands: Commands as lists of arguments, or text such as a file's new content.
        why: Why it is not run here, and what would make it run.
    """
    texts = [c if isinstance(c, str) else "$ " + join(c) for c in commands]
    text = "\n".join([f"Plan: {title}", *("  " + line for t in texts for line in t.splitlines()), f"  not run: {why}"])
    body = "".join(f"<pre>{escape(t)}</pre>" for t in texts)
    show(
        text,
        f'<div class="t-plan"><b>Plan</b> {escape(title)}{body}<small>Not run: {escape(why)}</small></div>',
    )


def figure(fig: "Figure", text: str) -> None:
    """Show a matplotlib figure as SVG that reads well on a light and on a dark page, with a text for who can't see it.

    Args:
        fig: The figure; it is closed afterwards.
        text: What is to be seen in it, in a sentence: the alternative text, and all that a text run shows.
    """
    import matplotlib.pyplot as plt

    buffer = StringIO()
    fig.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(fig)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(text)}"', 1)
    show(text, f'<figure class="t-figure">{svg}<figcaption>{escape(text)}</figcaption></figure>')
