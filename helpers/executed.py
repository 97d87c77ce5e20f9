"""The executed copies that the book is rendered from: each chapter's last good one, and why a newer one is missing.

A folder holds, for each chapter, `NAME.ipynb` (the copy of its last green run), `NAME.json` (what that run depended on)
and, where a later run has failed, `NAME.failed.json`. A failed run changes nothing but the last of these.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers.errors import mask
from helpers.processes import write_atomically
from helpers.settings import settings


@dataclass(frozen=True)
class Failure:
    """Why a chapter has no newer copy.

    Attributes:
        when: When the run failed, in ISO format with the time zone.
        red: The name of the checkpoint that failed; empty where something else did.
        why: The reason, secrets masked.
    """

    when: str
    red: str
    why: str


@dataclass(frozen=True)
class Shelf:
    """The copies of one chapter.

    Attributes:
        folder: The folder of the copies.
        name: The chapter's name.
    """

    folder: Path
    name: str

    @property
    def copy(self) -> Path:
        """The executed notebook of the last green run; the file may not exist."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def _failed(self) -> Path:
        return self.folder / f"{self.name}.failed.json"

    def unchanged(self, fingerprint: str) -> dict[str, Any] | None:
        """Return the outcome of the last run, if it was green and nothing that it depended on has changed.

        Args:
            fingerprint: The hash of all that the chapter depends on now.

        Returns:
            The attributes of that outcome; None where the chapter must run.
        """
        saved = _read(self._record)
        if self._failed.exists() or not self.has_good_copy() or saved.get("fingerprint") != fingerprint:
            return None
        outcome = saved.get("outcome")
        return outcome if isinstance(outcome, dict) else None

    def keep(self, executed: Path, fingerprint: str, outcome: dict[str, Any]) -> None:
        """Keep the copy of a green run; at every moment either the older or the newer one is complete."""
        self._record.unlink(missing_ok=True)
        write_atomically(self.copy, executed.read_text(encoding="utf-8"))
        self._failed.unlink(missing_ok=True)
        saved = {"fingerprint": fingerprint, "outcome": outcome}
        write_atomically(self._record, json.dumps(saved, indent=2) + "\n")

    def fail(self, red: str, why: str) -> None:
        """Note that a run has failed; the last good copy stays as it is."""
        failure = Failure(datetime.now(UTC).isoformat(timespec="seconds"), red, mask(why))
        write_atomically(self._failed, json.dumps(asdict(failure), indent=2) + "\n")

    def failure(self) -> Failure | None:
        """Return why the newest run has failed; None where it has not."""
        if not self._failed.exists():
            return None
        saved = _read(self._failed)
        return Failure(*(str(saved.get(name, "")) for name in ("when", "red", "why")))

    def has_good_copy(self) -> bool:
        """Tell whether the copy exists, can be read, and is not that of a failed run."""
        notebook = _read(self.copy)
        return bool(notebook.get("cells")) and not _papermill(notebook).get("exception")

    def date(self) -> str:
        """Return when the good copy was run, in ISO format; empty where the copy does not say it."""
        return str(_papermill(_read(self.copy)).get("end_time") or "")


def executed_folder(target: str) -> Path:
    """Return the folder of the executed copies of a target's runs."""
    return settings().build / "executed" / target


def _papermill(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return what papermill noted about the whole run."""
    noted = notebook.get("metadata", {}).get("papermill", {})
    return noted if isinstance(noted, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing or damaged, such as by a full disk."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
