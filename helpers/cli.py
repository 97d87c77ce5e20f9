"""The command `tutorial`: doctor, run, book, serve, clean, vm, airgap."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helpers.errors import TutorialError
from helpers.signals import let_children_hear

if TYPE_CHECKING:
    from rich.table import Table

    from helpers.chapters import Chapter
    from helpers.runner import Outcome, Run

app = typer.Typer(
    help="Provision, run, render and undo what the book's chapters do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _target(name: str) -> str:
    from helpers.target import valid_name

    return valid_name(name)


TargetOption = Annotated[
    str,
    typer.Option("--target", "-t", callback=_target, help="local, vm, host, or a Host of your SSH configuration"),
]


@app.command()
def doctor(target: TargetOption = "local") -> None:
    """Look for what a target needs: what is found, what is needed, and the remedy where it is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from helpers.doctor import examine

    colours = {"ok": "green", "missing": "bold red", "optional": "yellow", "unknown": "yellow"}
    table = Table("prerequisite", "found", "needed", "state", title=f"target {target}", title_justify="left")
    with Console(stderr=True).status("Looking …"):
        findings = examine(target)
    for f in findings:
        needed = f"{f.need}: {f.purpose}" if f.need else f.purpose
        table.add_row(f.name, escape(f.found) or "—", escape(needed), f"[{colours[f.state]}]{f.state}[/]")
    console = Console()
    console.print(table)
    for f in findings:  # below the table, where a command stays in one piece and can be copied
        if f.state in ("missing", "optional") and f.remedy:
            console.print(f"{f.name} ({f.state}), remedy: {f.remedy}", soft_wrap=True, highlight=False, markup=False)
    missing = [f.name for f in findings if f.state == "missing"]
    if missing:
        raise TutorialError(f"Missing for the target {target}: {', '.join(missing)}", "", "see the remedies above")


@app.command()
def run(
    chapter: Annotated[list[str] | None, typer.Argument(help="numbers or names, e.g. 01 ssh; none means all")] = None,
    target: TargetOption = "local",
    first: Annotated[str, typer.Option("--from", help="leave out the chapters before this one")] = "",
    param: Annotated[list[str] | None, typer.Option(help="a notebook's parameter, NAME=VALUE; repeatable")] = None,
    reuse: Annotated[bool, typer.Option("--reuse", help="skip chapters unchanged since their last green run")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="write the text outputs of this run into the notebooks")
    ] = False,
) -> None:
    """Run chapters headless; keep the executed notebooks and a report."""
    from helpers import chapters
    from helpers.notebook_outputs import refresh as write_outputs

    chosen = chapters.select(chapter or [], first)
    if refresh and (target != "local" or param):
        raise TutorialError("Git keeps the outputs of a plain local run", "", "leave --target and --param out")
    if target == "vm":
        from helpers import cpouta_lab, vm

        vm.prepare([c.name for c in chosen])
        if any(c.name == "02_cpouta" for c in chosen):
            cpouta_lab.prepare()  # three minutes the first time: longer than a cell should take
    result = _watched(chosen, target, _parameters(param or []), reuse, "text" if refresh else "html")
    _summary(result)
    if refresh and result.good:
        for c in chosen:
            changed = write_outputs(c.path, result.folder / c.path.name)
            typer.echo(f"{c.name}: {'refreshed' if changed else 'unchanged'}")
    raise typer.Exit(0 if result.good else 1)


@app.command()
def book(
    fresh: Annotated[bool, typer.Option("--fresh", help="run every chapter again, changed or not")] = False,
) -> None:
    """Run every chapter that has changed on the target local, and render the book from the executed copies."""
    from rich.console import Console

    from helpers import chapters
    from helpers.book import outdated, render

    result = _watched(chapters.select(), "local", {}, not fresh, "html")
    _summary(result)
    with Console(stderr=True).status("Rendering the book …"):
        page = render(fresh=fresh) / "index.html"
    typer.echo("")
    for old in outdated().values():
        typer.echo(f"{old.name}: the book shows {old.results}, because {old.reason}")
    typer.echo(f"The book: {page}\nRead it in the browser:  make serve")
    raise typer.Exit(0 if result.good else 1)


@app.command()
def serve(port: Annotated[int, typer.Option(help="port on this machine", min=1, max=65535)] = 8000) -> None:
    """Serve the rendered book on this machine, until Ctrl-C."""
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from helpers.book import html_folder
    from helpers.processes import require_free

    if not (html_folder() / "index.html").exists():
        raise TutorialError("There is no book yet", "", "make book")
    require_free(port, "serving the book")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(html_folder()))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        typer.echo(f"The book: http://localhost:{port}  (Ctrl-C ends this)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("")


@app.command()
def clean(
    target: TargetOption = "local",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="don't ask")] = False,
) -> None:
    """Undo what the tutorial made on a target, and only that; the list comes first."""
    from rich.console import Console
    from rich.table import Table

    from helpers.undo import leftovers

    found = leftovers(target)
    if not found:
        typer.echo(f"Nothing of the tutorial is left on {target}.")
        return
    table = Table("what", "where", "", title=f"made by the tutorial on {target}", title_justify="left")
    for item in found:
        table.add_row(item.what, item.where, "goes" if item.remove else f"stays: {item.stays}")
    Console().print(table)
    going = [item for item in found if item.remove]
    if not going:
        return
    if not yes and not typer.confirm("Remove what goes?"):
        raise typer.Exit(1)
    for item in going:
        if item.remove:
            item.remove()
            typer.echo(f"removed: {item.what}")


vm_app = typer.Typer(help="The VM stand-in: a throw-away machine for the target vm.", no_args_is_help=True)
app.add_typer(vm_app, name="vm")


@vm_app.command("up")
def vm_up() -> None:
    """Make the VM, or start it; `ssh tutorial-vm` leads into it then."""
    from rich.console import Console

    from helpers import vm

    with Console(stderr=True).status("Starting the VM …"):
        now = vm.up()
    typer.echo(f"The VM {now.name} runs. Look into it:  ssh {now.name}\nRemove it:  tutorial clean --target vm")


@vm_app.command("stop")
def vm_stop() -> None:
    """Shut the VM down; its disks stay."""
    from helpers import vm

    vm.stop()
    typer.echo("The VM is off. Start it again:  tutorial vm up")


@vm_app.command("status")
def vm_status() -> None:
    """Tell whether the VM is there and runs."""
    from helpers import vm

    now = vm.status()
    typer.echo(f"{now.name}: {now.state}" + (f", sshd on 127.0.0.1:{now.port}" if now.port else ""))


airgap_app = typer.Typer(
    help="Images and tools from package registries, where no container registry answers.", no_args_is_help=True
)
app.add_typer(airgap_app, name="airgap")


@airgap_app.command("build")
def airgap_build(
    group: Annotated[list[str] | None, typer.Argument(help="bases, tools, checks, cluster, vm; none means all")] = None,
) -> None:
    """Make what is missing; what is there already costs a second."""
    from helpers import airgap

    airgap.build(*(group or []))
    typer.echo("The lab has all of it.  See:  tutorial airgap status")


@airgap_app.command("status")
def airgap_status() -> None:
    """Show every product of the lab, and its size."""
    from helpers import airgap

    airgap.show("status")


@airgap_app.command("clean")
def airgap_clean(yes: Annotated[bool, typer.Option("--yes", "-y", help="don't ask")] = False) -> None:
    """Remove the lab's images and programs after a question; images that a registry gave stay."""
    from helpers import airgap

    airgap.show("status")
    if not yes and not typer.confirm("Remove all of this? Making it again takes a quarter of an hour."):
        raise typer.Exit(1)
    airgap.show("clean")


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    import yaml

    parsed = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise TutorialError(f"{word!r} is not NAME=VALUE", "", "write, for example, --param user=ubuntu")
        parsed[name] = yaml.safe_load(value)
    return parsed


def _watched(chosen: "Sequence[Chapter]", target: str, parameters: dict[str, Any], reuse: bool, display: str) -> "Run":
    """Run chapters with a table that moves in a terminal, and a line a change elsewhere."""
    from rich.console import Console
    from rich.live import Live

    from helpers import runner

    console, said = Console(), dict[str, str]()

    def lines(outcomes: "Sequence[Outcome]") -> None:
        for o in outcomes:
            if said.get(o.chapter) != o.state and o.state != "waiting":
                said[o.chapter] = o.state
                console.print(f"{o.chapter}: {o.state}" + (f" in {o.seconds:.1f} s" if o.state == "passed" else ""))

    with _interruptible():
        if not console.is_terminal:
            return runner.run(chosen, target, parameters, reuse=reuse, display=display, watch=lines)
        with Live(console=console, transient=True, refresh_per_second=4) as live:

            def draw(outcomes: "Sequence[Outcome]") -> None:
                live.update(_table(outcomes))

            return runner.run(chosen, target, parameters, reuse=reuse, display=display, watch=draw)


def _table(outcomes: "Sequence[Outcome]") -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    colours = {"passed": "green", "same": "green", "failed": "bold red", "skipped": "yellow", "running": "cyan"}
    table = Table("chapter", "state", "cells", "", "checkpoints", "seconds")
    for o in outcomes:
        state = f"[{colours.get(o.state, 'dim')}]{o.state}[/]"
        bar = ProgressBar(total=o.cells or 1, completed=o.cell, width=20)
        table.add_row(o.chapter, state, f"{o.cell}/{o.cells}", bar, str(len(o.green)), f"{o.seconds:.1f}")
    return table


def _summary(result: "Run") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(_table(result.outcomes))
    for o in result.outcomes:
        if o.state == "failed":
            what = f"checkpoint “{o.red}” is red" if o.red else "a cell failed"
            console.print(f"[bold red]{o.chapter}[/]: {escape(what)}: {escape(o.why)}", soft_wrap=True)
            console.print(f"  everything about it: {o.bundle}", soft_wrap=True, highlight=False)
        elif o.state == "skipped":
            console.print(f"[yellow]{o.chapter}[/]: skipped, {o.why}")
    if again := [o.chapter.partition("_")[0] for o in result.outcomes if not o.good]:
        words = f"{Path(sys.executable).with_name('tutorial')} run {' '.join(again)} --target {result.target}"
        console.print(f"when it is mended, go on with: {words}", soft_wrap=True, highlight=False)
    console.print(f"report: {result.folder / 'report.json'}", soft_wrap=True, highlight=False)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: in order, with nothing left running."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _use_utf8() -> None:
    """Begin again in UTF-8 mode where the locale has another encoding: names of folders and ✔ must be readable."""
    import locale

    if not sys.flags.utf8_mode and locale.getencoding().lower().replace("-", "") != "utf8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell takes part


def main() -> None:
    """Run the command; a `TutorialError` is shown as a message and gives exit code 1."""
    let_children_hear()
    _use_utf8()
    try:
        app()
    except TutorialError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; nothing was left running.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
