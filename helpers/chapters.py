"""The chapters: what the notebooks say of themselves, and how a reader names them."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.errors import TutorialError
from helpers.settings import ROOT, settings

_NOT_CONTENT = {"__pycache__", "logs", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class Chapter:
    """A notebook and what its metadata say (`metadata.tutorial`).

    Attributes:
        path: The notebook.
        title: Its title.
        minutes: About how long a reader takes.
        reads: Paths, relative to the repository, whose content the chapter depends on besides `helpers/`.
        after: Names of chapters without which this one can't do its work, on every target but `local`.
        waits: Names of other chapters whose run must have ended before, well or not: both change the same machine, or
            use the same ports.
    """

    path: Path
    title: str
    minutes: int
    reads: tuple[str, ...]
    after: tuple[str, ...]
    waits: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The chapter's name, the same in every folder: `01_ssh_config`."""
        return self.path.stem

    def fingerprint(self, target: str, parameters: Mapping[str, Any]) -> str:
        """Hash all that a run's outcome depends on.

        Args:
            target: The target's name.
            parameters: The parameters of the run.

        Returns:
            A SHA-256 over the notebook, the helpers, what the chapter reads, the locked environment and the parameters.
        """
        digest = hashlib.sha256()
        run = [target, dict(parameters), platform.python_version(), platform.machine()]
        digest.update(json.dumps(run, sort_keys=True, default=str).encode())
        roots = [self.path, ROOT / "helpers", ROOT / "requirements.lock", *(ROOT / r for r in self.reads)]
        for path in content(roots):
            digest.update(os.fspath(path).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()


def content(roots: Sequence[Path]) -> list[Path]:
    """List the files below some paths, sorted, without what running them leaves behind (caches, logs, environments)."""
    files: set[Path] = set()
    for root in roots:
        candidates = [root] if root.is_file() else root.rglob("*")
        for path in candidates:
            below = path.relative_to(root).parts
            if path.is_file() and not any(p in _NOT_CONTENT or p.endswith("_venv") for p in below):
                files.add(path)
    return sorted(files)


def chapters() -> list[Chapter]:
    """List the chapters in their order.

    Returns:
        The chapters.

    Raises:
        TutorialError: A notebook is not valid JSON or lacks its metadata.
    """
    return [_read(path) for path in sorted(settings().notebooks.glob("[0-9][0-9]_*.ipynb"))]


def _read(path: Path) -> Chapter:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))["metadata"]["tutorial"]
        names = {key: tuple(meta.get(key, ()) if key == "waits" else meta[key]) for key in ("reads", "after", "waits")}
        return Chapter(path, meta["title"], meta["minutes"], **names)
    except (ValueError, KeyError, TypeError) as error:
        raise TutorialError(
            f"{path.name} is not a chapter",
            f"{type(error).__name__}: {error}",
            'give it metadata {"tutorial": {"title", "minutes", "reads", "after"}} as the other notebooks have',
        ) from None


def select(words: Sequence[str] = (), first: str = "") -> list[Chapter]:
    """Choose chapters as a reader names them.

    Args:
        words: Numbers (`01`, `1`), names (`01_ssh_config`) or parts of them (`ssh`); none means all.
        first: Leave out the chapters before this one.

    Returns:
        The chapters in their order.

    Raises:
        TutorialError: A word fits no chapter, or more than one.
    """
    every = chapters()
    chosen = {_one(every, word).name for word in words} if words else {c.name for c in every}
    start = every.index(_one(every, first)) if first else 0
    return [c for c in every[start:] if c.name in chosen]


def earlier(chosen: Sequence[Chapter]) -> dict[str, set[str]]:
    """Find the chosen chapters that must have ended before each, also by way of chapters that were not chosen.

    Args:
        chosen: The chapters that will run.

    Returns:
        For each chosen chapter the names of the others that it waits for.
    """
    known = {c.name: c for c in [*chapters(), *chosen]}
    names = {c.name for c in chosen}

    def before(name: str, seen: set[str]) -> set[str]:
        for other in {*known[name].after, *known[name].waits} & set(known) - seen:
            seen = before(other, seen | {other})
        return seen

    return {c.name: (before(c.name, {c.name}) - {c.name}) & names for c in chosen}


def _one(every: Sequence[Chapter], word: str) -> Chapter:
    number = f"{int(word):02d}_" if word.isdigit() else None
    fits = [c for c in every if (c.name.startswith(number) if number else word.removesuffix(".ipynb") in c.name)]
    if len(fits) == 1:
        return fits[0]
    names = ", ".join(c.name for c in every) or f"none in {settings().notebooks}"
    raise TutorialError(f"{word!r} fits {len(fits)} chapters", "", f"name one of: {names}")
