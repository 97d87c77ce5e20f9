"""The book: rendered to HTML from the copies of the notebooks that papermill executed."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import diagrams
from helpers.chapters import content
from helpers.errors import TutorialError
from helpers.runner import executed_folder
from helpers.settings import ROOT, settings

_PARTS = ("_config.yml", "_toc.yml", "book")


def html_folder() -> Path:
    """Give the folder of the rendered book; its first page is `index.html`."""
    return settings().build / "html"


def render(executed: Path | None = None, output: Path | None = None, *, fresh: bool = False) -> Path:
    """Render the book; nothing is executed. Warnings are errors.

    Args:
        executed: The folder with the executed notebooks; by default those of the target `local`.
        output: The folder for the HTML; replaced as a whole when the rendering has succeeded.
        fresh: Render even when nothing has changed since the last time.

    Returns:
        The folder of the HTML.

    Raises:
        TutorialError: A chapter in `_toc.yml` has no executed copy, or the book has warnings; they are in the message.
    """
    executed, output = executed or executed_folder("local"), output or html_folder()
    missing = [name for name in _notebooks_in_toc() if not (executed / f"{name}.ipynb").exists()]
    if missing:
        raise TutorialError(
            f"The book lacks {', '.join(missing)}", "these chapters have not been executed", "run `make book`"
        )
    stamp, fingerprint = output / ".fingerprint", _fingerprint(executed)
    if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return output
    stage = output.with_name(f"{output.name}-stage")
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for part in _PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, stage / part)
    for name in _notebooks_in_toc():
        shutil.copy2(executed / f"{name}.ipynb", stage / "notebooks")
    diagrams.build(stage / "book" / "diagrams")
    _jupyter_book(stage)
    (stage / "_build" / "html" / ".fingerprint").write_text(fingerprint, encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    (stage / "_build" / "html").rename(output)
    shutil.rmtree(stage)
    return output


def _notebooks_in_toc() -> list[str]:
    lines = (ROOT / "_toc.yml").read_text(encoding="utf-8").splitlines()
    return [line.split("notebooks/")[1].strip().removesuffix(".ipynb") for line in lines if "notebooks/" in line]


def _fingerprint(executed: Path) -> str:
    digest = hashlib.sha256()
    sources = [*(ROOT / p for p in _PARTS), ROOT / "helpers" / "diagrams.py", ROOT / "requirements.lock"]
    for path in content([*sources, *(executed / f"{name}.ipynb" for name in _notebooks_in_toc())]):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _jupyter_book(stage: Path) -> None:
    program = Path(sys.executable).with_name("jupyter-book")
    argv = [str(program), "build", "--all", "-W", "-n", "--keep-going", str(stage)]
    log = stage / "build.log"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    text = log.read_text(encoding="utf-8", errors="replace")
    warnings = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
    if done.returncode != 0 or warnings:
        raise TutorialError(
            "The book could not be rendered",
            f"jupyter-book ended with exit code {done.returncode} and {len(warnings)} warnings",
            f"correct the pages named above; the whole log is {log}",
            command=argv,
            output="\n".join(warnings) or text,
        )
