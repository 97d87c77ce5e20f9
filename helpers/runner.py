"""Headless runs: papermill executes the notebooks, each in a process of its own with an outer time limit.

papermill has no outer limit, passes no signal on to its kernel and takes an unknown parameter for a warning; so the
limit, the ending of processes and the check of parameters are here, outside of it.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from helpers import bundle, processes
from helpers.chapters import Chapter, earlier
from helpers.errors import TutorialError, mask
from helpers.executed import Shelf
from helpers.executed import executed_folder as executed_folder
from helpers.masking import mask_notebook
from helpers.settings import settings
from helpers.shell import environment
from helpers.signals import let_children_hear

KEPT_RUNS = 10
_RUN = re.compile(r"\d{8}T\d{6}\.\d{6}-.+")  # the folder of a run: when it began, and its target
_live: set["subprocess.Popen[str]"] = set()  # ended when the run is interrupted


@dataclass
class Outcome:
    """How a chapter's run went, and while it runs, how it goes.

    Attributes:
        chapter: The chapter's name.
        state: `waiting`, `running`, `passed`, `failed`, `same` (unchanged since a green run) or `skipped`.
        cell: How many code cells have been executed.
        cells: How many there are.
        seconds: How long it took.
        green: The names of the checkpoints that passed.
        red: The name of the checkpoint that failed; empty where something else did.
        why: Why it failed or was skipped.
        bundle: The folder of the failure bundle.
        notebook: The executed copy.
    """

    chapter: str
    state: str = "waiting"
    cell: int = 0
    cells: int = 0
    seconds: float = 0.0
    green: list[str] = field(default_factory=list)
    red: str = ""
    why: str = ""
    bundle: str = ""
    notebook: str = ""

    @property
    def good(self) -> bool:
        """Whether the chapter is green, now or by an unchanged earlier run."""
        return self.state in ("passed", "same")

    @property
    def finished(self) -> bool:
        """Whether the chapter's run has ended, well or not."""
        return self.state not in ("waiting", "running")


@dataclass
class Run:
    """A headless run of some chapters.

    Attributes:
        target: The target's name.
        folder: Where the executed notebooks, logs, bundles and `report.json` are.
        outcomes: One a chapter, in their order.
    """

    target: str
    folder: Path
    outcomes: list[Outcome]

    @property
    def good(self) -> bool:
        """Whether every chapter is green."""
        return all(o.good for o in self.outcomes)


def run(
    chosen: Sequence[Chapter],
    target: str = "local",
    parameters: Mapping[str, Any] | None = None,
    *,
    reuse: bool = False,
    display: str = "html",
    watch: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> Run:
    """Execute chapters headless; those that don't depend on each other, some at the same time.

    Args:
        chosen: The chapters, in their order.
        target: The target's name.
        parameters: Values for the notebooks' parameters; each goes to the chapters that have it.
        reuse: Take a chapter as it is when nothing that it depends on has changed since its last green run.
        display: How helpers show things: `html`, or `text` for the outputs that git keeps.
        watch: Called a few times a second with the state of all.

    Returns:
        The run; its report is written. A chapter that fails costs no other chapter its run on the target `local`.
        On other targets it costs those that need it.

    Raises:
        TutorialError: A parameter is one that none of the chapters has; nothing has run then.
    """
    let_children_hear()
    wanted = _parameters(chosen, target, dict(parameters or {}))
    started = datetime.now(UTC)
    folder = settings().build / "runs" / f"{started:%Y%m%dT%H%M%S.%f}-{target}"
    folder.mkdir(parents=True)
    outcomes = {c.name: Outcome(c.name) for c in chosen}
    result = Run(target, folder, list(outcomes.values()))
    try:
        _schedule(
            chosen,
            target,
            outcomes,
            lambda c: _chapter(c, target, wanted[c.name], folder, outcomes[c.name], reuse, display),
            watch,
        )
    finally:
        report = {"target": target, "started": started.isoformat(), "chapters": [asdict(o) for o in result.outcomes]}
        processes.write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
        _forget_old_runs(folder.parent)
    return result


def _forget_old_runs(folder: Path) -> None:
    import shutil

    ours = sorted(p for p in folder.iterdir() if _RUN.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    for old in ours[:-KEPT_RUNS]:
        shutil.rmtree(old)


def _parameters(chosen: Sequence[Chapter], target: str, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each chapter the parameters that it has; without any, papermill adds no cell."""
    from papermill.inspection import _infer_parameters
    from papermill.iorw import load_notebook_node

    known: dict[str, dict[str, str]] = {}
    for chapter in chosen:
        parameters = _infer_parameters(load_notebook_node(str(chapter.path)))
        known[chapter.name] = {p.name: p.default for p in parameters}
    unknown = sorted(set(given) - set().union(*known.values()))
    if unknown:
        names = ", ".join(f"{c}: {', '.join(sorted(p)) or 'none'}" for c, p in known.items())
        raise TutorialError(
            f"No chosen chapter has the parameter {', '.join(unknown)}", "", f"these have — {names}", target=target
        )
    ports = {name: value for names in known.values() for name, value in names.items() if name.endswith("_port")}
    free = _other_ports(ports) if target == "local" else {}
    every = {**free, **given, **({"target": target} if target != "local" else {})}
    return {name: {k: v for k, v in every.items() if k in names} for name, names in known.items()}


def _other_ports(defaults: Mapping[str, str]) -> dict[str, int]:
    """Choose another port for each that another program has, such as the Forwarder of another user of this machine.

    Args:
        defaults: The ports that the notebooks name, by parameter.

    Returns:
        The parameters whose port is taken, each with the next port in steps of 100 that is free: mostly the same one in
        every run, so that chapters that have not changed need not run again.
    """
    ours = {port for process in processes.running() for port in process.ports.values()}
    chosen: dict[str, int] = {}
    for name, default in defaults.items():
        port = int(default) if default.isdigit() else 0
        while port and port not in ours and (port in chosen.values() or not processes.is_free(port)) and port < 65000:
            port += 100
        if str(port) != default and port:
            chosen[name] = port
    return chosen


def _schedule(
    chosen: Sequence[Chapter],
    target: str,
    outcomes: Mapping[str, Outcome],
    execute: Callable[[Chapter], None],
    watch: Callable[[Sequence[Outcome]], None],
) -> None:
    waiting, going, order = list(chosen), dict[Future[None], str](), earlier(chosen)
    with ThreadPoolExecutor(settings().parallel) as pool, _ending_all_on_interrupt():
        while waiting or going:
            for chapter in list(waiting):
                red = None if target == "local" else _red(chapter, outcomes)
                if red:
                    outcomes[chapter.name].state, outcomes[chapter.name].why = "skipped", f"it needs {red}"
                elif len(going) == settings().parallel or not all(outcomes[n].finished for n in order[chapter.name]):
                    continue
                else:
                    outcomes[chapter.name].state = "running"
                    going[pool.submit(execute, chapter)] = chapter.name
                waiting.remove(chapter)
            done, _ = wait(going, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in done:
                _note_error(future, outcomes[going.pop(future)])
            watch(list(outcomes.values()))


def _red(chapter: Chapter, outcomes: Mapping[str, Outcome]) -> str:
    """Return the name of a chapter that this one needs and that is not green; empty where there is none."""
    states = {name: outcomes[name].state for name in chapter.after if name in outcomes}
    return next((name for name, state in states.items() if state in ("failed", "skipped")), "")


def _note_error(future: "Future[None]", outcome: Outcome) -> None:
    """Count an error of the run itself, such as a full disk, as this chapter's failure: the others go on."""
    try:
        future.result()
    except Exception as error:  # whatever it is, it must not end the run of the other chapters
        outcome.state, outcome.why = "failed", mask(f"{type(error).__name__}: {error}")


@contextmanager
def _ending_all_on_interrupt() -> Iterator[None]:
    try:
        yield
    except BaseException:
        for child in list(_live):
            _end(child)
        raise


def _chapter(
    chapter: Chapter,
    target: str,
    parameters: Mapping[str, Any],
    folder: Path,
    outcome: Outcome,
    reuse: bool,
    display: str,
) -> None:
    shelf = Shelf(executed_folder(target), chapter.name)
    fingerprint = chapter.fingerprint(target, {**parameters, "display": display})
    saved = shelf.unchanged(fingerprint) if reuse else None
    if saved:
        outcome.__dict__.update({**saved, "state": "same"})
        return
    outcome.notebook = str(folder / chapter.path.name)
    try:
        _execute(chapter, target, parameters, folder, outcome, display)
        if outcome.good and display == "html":
            shelf.keep(Path(outcome.notebook), fingerprint, asdict(outcome))
    except Exception as error:
        outcome.state, outcome.why = "failed", mask(f"{type(error).__name__}: {error}")
    if not outcome.good and display == "html":
        shelf.fail(outcome.red, outcome.why)


def _execute(
    chapter: Chapter, target: str, parameters: Mapping[str, Any], folder: Path, outcome: Outcome, display: str
) -> None:
    started = time.monotonic()
    log, checkpoints = folder / f"{chapter.name}.log", folder / f"{chapter.name}.checkpoints.jsonl"
    job = {"source": str(chapter.path), "output": outcome.notebook, "parameters": parameters}
    variables = {
        "TUTORIAL_DISPLAY": display,
        "TUTORIAL_CHAPTER": chapter.name,
        "TUTORIAL_CHECKPOINTS": str(checkpoints),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w", encoding="utf-8") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "helpers.papermill_job", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**environment(sys.executable), **variables},
            start_new_session=True,
            preexec_fn=let_children_hear(),
        )
        limit = threading.Timer(settings().notebook_timeout, _end, (child, outcome))
        limit.start()
        _live.add(child)
        try:
            assert child.stdout is not None  # noqa: S101 - a pipe was asked for
            for line in child.stdout:
                _read_progress(line, outcome)
            child.wait()
        finally:
            limit.cancel()
            _live.discard(child)
            state = processes.running(target, chapter.name)
            _end(child)
    _read_checkpoints(checkpoints, outcome)
    _mask_outputs(Path(outcome.notebook))
    if child.returncode != 0:
        outcome.why = mask(outcome.why or _last_error(log))
        outcome.bundle = str(bundle.make(folder / f"{chapter.name}-failure", target, outcome.notebook, log, state))
    processes.stop_all(target, chapter.name)
    outcome.seconds = round(time.monotonic() - started, 1)
    # Last: a chapter that waits for this one starts then, and wants its ports.
    outcome.state = "passed" if child.returncode == 0 else "failed"


def _mask_outputs(notebook: Path) -> None:
    """Mask what cells printed, before the copy goes into the book or beside the source."""
    if notebook.exists():
        text = notebook.read_text(encoding="utf-8")
        processes.write_atomically(notebook, mask_notebook(text, sources=False))


def _end(child: "subprocess.Popen[str]", outcome: Outcome | None = None) -> None:
    """End papermill and its kernel, which leads a session of its own; recorded processes are ended later."""
    if outcome is not None:
        outcome.why = f"it took longer than {settings().notebook_timeout} s (setting notebook_timeout)"
    try:
        parent = psutil.Process(child.pid)
        kernels = [p for p in parent.children(recursive=True) if "ipykernel_launcher" in " ".join(p.cmdline())]
    except psutil.NoSuchProcess:
        return
    for process in [parent, *kernels]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    child.wait()


def _read_progress(line: str, outcome: Outcome) -> None:
    """Read a line `[executed, all]`; a program that a notebook started may write others among them."""
    with suppress(ValueError, TypeError):
        done, total = json.loads(line)
        outcome.cell, outcome.cells = int(done), int(total)


def _read_checkpoints(path: Path, outcome: Outcome) -> None:
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        if row["passed"]:
            outcome.green.append(row["name"])
        else:
            outcome.red, outcome.why = row["name"], outcome.why or row["why"]


def _last_error(log: Path) -> str:
    """Return the last error of a log with the lines that belong to it; they are indented."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if not line[0].isspace()]
    return "\n".join(lines[begins[-1] if begins else -1 :]) or "it ended without a message"
