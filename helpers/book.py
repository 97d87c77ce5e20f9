"""The book: rendered to HTML from the copies of the notebooks that papermill executed."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from helpers import diagrams
from helpers.book_notes import OldPage, mark_first_page, mark_page, old_pages, without_results
from helpers.chapters import content
from helpers.errors import TutorialError
from helpers.executed import executed_folder
from helpers.settings import ROOT, settings
from helpers.shell import environment

_PARTS = ("_config.yml", "_toc.yml", "book")


def html_folder() -> Path:
    """Give the folder of the rendered book; its first page is `index.html`."""
    return settings().build / "html"


def render(executed: Path | None = None, output: Path | None = None, *, fresh: bool = False) -> Path:
    """Render the book; nothing is executed. Warnings are errors, except where the book has old pages.

    Args:
        executed: The folder with the executed notebooks; by default those of the target `local`.
        output: The folder for the HTML; replaced as a whole when the rendering has succeeded.
        fresh: Render even when nothing has changed since the last time.

    Returns:
        The folder of the HTML. A chapter whose newest run has failed has the page of its last good run, which says so.

    Raises:
        TutorialError: A chapter in `_toc.yml` was never run, or the book has warnings; they are in the message.
    """
    executed, output = executed or executed_folder("local"), output or html_folder()
    old = outdated(executed)
    missing = [n for n in _notebooks_in_toc() if not (executed / f"{n}.ipynb").exists() and n not in old]
    if missing:
        raise TutorialError(
            f"The book lacks {', '.join(missing)}", "these chapters have not been executed", "run `make book`"
        )
    _recover(output)
    stamp, fingerprint = output / ".fingerprint", _fingerprint(executed, old)
    if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return output
    stage = output.with_name(f"{output.name}-stage")
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for part in _PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, stage / part)
    for name in _notebooks_in_toc():
        _put_chapter(name, old.get(name), executed, stage / "notebooks")
    mark_first_page(stage / "book" / "intro.md", list(old.values()))
    diagrams.build(stage / "book" / "diagrams")
    _jupyter_book(stage, strict=not old)
    _check_replaceable(output)
    (stage / "_build" / "html" / ".fingerprint").write_text(fingerprint, encoding="utf-8")
    _replace(output, stage / "_build" / "html")
    shutil.rmtree(stage)
    return output


def _check_replaceable(output: Path) -> None:
    """Make sure that the folder is a book of ours, or empty: all of it is replaced."""
    if output.is_symlink() or (output.exists() and not (output / ".fingerprint").exists() and any(output.iterdir())):
        raise TutorialError(
            f"{output} is not a book of the tutorial",
            "rendering replaces the whole folder, and what is in it would be lost",
            "empty the folder, or choose another one: the setting build (TUTORIAL_BUILD)",
        )


def outdated(executed: Path | None = None) -> dict[str, OldPage]:
    """Return the chapters of the book whose newest run has failed, by name.

    Args:
        executed: The folder with the executed notebooks; by default those of the target `local`.
    """
    return old_pages(executed or executed_folder("local"), _notebooks_in_toc())


def _put_chapter(name: str, old: OldPage | None, executed: Path, folder: Path) -> None:
    """Put a chapter's page into the stage, marked where it is old."""
    path = folder / f"{name}.ipynb"
    if old is None:
        shutil.copy2(executed / path.name, path)
        return
    source = executed / path.name if old.ran else settings().notebooks / path.name
    text = source.read_text(encoding="utf-8")
    path.write_text(mark_page(text if old.ran else without_results(text), old), encoding="utf-8")


def _replace(output: Path, new: Path) -> None:
    """Put the new book in the place of the older one, of which no moment is without a whole copy on the disk."""
    before = _before(output)
    shutil.rmtree(before, ignore_errors=True)
    if output.exists():
        output.rename(before)
    new.rename(output)
    shutil.rmtree(before, ignore_errors=True)


def _recover(output: Path) -> None:
    """Put the older book back where a crash came between the two renames of `_replace`."""
    if _before(output).exists() and not output.exists():
        _before(output).rename(output)


def _before(output: Path) -> Path:
    return output.with_name(f"{output.name}-before")


def _notebooks_in_toc() -> list[str]:
    lines = (ROOT / "_toc.yml").read_text(encoding="utf-8").splitlines()
    return [line.split("notebooks/")[1].strip().removesuffix(".ipynb") for line in lines if "notebooks/" in line]


def _fingerprint(executed: Path, old: Mapping[str, OldPage]) -> str:
    digest = hashlib.sha256(repr(sorted(old.items())).encode())
    code = [ROOT / "helpers" / name for name in ("book.py", "book_notes.py", "diagrams.py")]
    sources = [*(ROOT / p for p in _PARTS), *(p for p in code if p.exists()), ROOT / "requirements.lock"]
    copies = [executed / f"{name}.ipynb" for name in _notebooks_in_toc()]
    unrun = [settings().notebooks / f"{name}.ipynb" for name, page in old.items() if not page.ran]
    for path in content([*sources, *(p for p in copies if p.exists()), *unrun]):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _jupyter_book(stage: Path, *, strict: bool) -> None:
    """Render the stage. An old page may lack what a newer page links to, so warnings count only where none is old."""
    program = Path(sys.executable).with_name("jupyter-book")
    argv = [sys.executable, str(program), "build", "--all", "-n", "--keep-going", str(stage)]
    argv += ["-W"] if strict else []
    log = stage / "build.log"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment(argv[0])
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    warnings = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
    if done.returncode != 0 or (strict and warnings):
        raise TutorialError(
            "The book could not be rendered",
            f"jupyter-book ended with exit code {done.returncode} and {len(warnings)} warnings",
            f"correct the pages named above; the whole log is {log}",
            command=argv,
            output="\n".join(warnings) or text,
        )
