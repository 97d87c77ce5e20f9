"""Changes to a machine, by pyinfra: a dry run says what would change, then the real one; a second changes nothing.

pyinfra runs in a process of its own: it is made with gevent, and a notebook's kernel with asyncio.
Source: https://docs.pyinfra.com/en/3.x/deploy-process.html.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import display
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target_local import run_here

if TYPE_CHECKING:
    from helpers.target import Target

FOLDER = ROOT / "deployments" / "host"
FRESH_MACHINE = FOLDER / "fresh_machine.py"  # an inventory: what a plan is computed for where there is no machine
_NO_DEPLOYS = {"fresh_machine", "daemon_json", "apt_source", "cuda_profile", "rights"}  # what deploys share
_SECONDS = 1800.0
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYINFRA_FAKE_DELAY": "0", "PYINFRA_FAKE_DELAY_JITTER": "0"}
_RESULT = '{"plan":'  # pyinfra's result is one line of JSON, the rest is its log
_STARTING = re.compile(r"--> Starting operation: (.*?)\s*$")
_ERROR = re.compile(r"--> pyinfra error(?: in .* line \d+)?: (.*)")
_HOST = re.compile(r"^\s*\[@[^\]]*\] ?")
_NOISE = re.compile(r"^(-->|Loading|Loaded|Connected|Ready|Success|No changes|Failed to load host keys|\s*$)")


@dataclass(frozen=True)
class Changes:
    """What a deploy would change, or has changed.

    Attributes:
        deploy: The deploy's name, that of its file in `deployments/host/`.
        dry: Whether nothing was changed: it was a dry run.
        rows: An operation each, in their order, with the columns operation and state: `same`, and `would change` or
            `may change` (it depends on what an earlier one does) in a dry run, `changed` in a real one.
        details: What pyinfra says of the files: which, and the lines that go and come.
        plan: Whether there is no machine: it was computed for a fresh one.
    """

    deploy: str
    dry: bool
    rows: Sequence[Mapping[str, object]]
    details: str
    plan: bool = False

    @property
    def changed(self) -> list[str]:
        """The operations that have changed something, or would; not those that only follow another one's change."""
        return [str(row["operation"]) for row in self.rows if row["state"] in ("changed", "would change")]

    def show(self) -> None:
        """Show the operations as a table, and the lines of the files that change; a plan as such."""
        if self.plan:
            steps = "\n".join(f"{number:2} {row['operation']}" for number, row in enumerate(self.rows, 1))
            command = ["pyinfra", "@openssh/HOST", f"deployments/host/{self.deploy}.py"]
            why = "there is no machine to change. It runs on the target vm, host, or a machine of your own."
            display.plan(f"{self.deploy}, on a fresh machine", [command, steps, self.details], why)
            return
        name = f"{self.deploy}: what would change" if self.dry else f"{self.deploy}: what has changed"
        display.table(self.rows or [{"operation": "none", "state": "same"}], title=name)
        if self.details:
            display.show(self.details)
        if not self.changed:
            display.show("no changes")


def apply(
    target: "Target",
    inventory: Sequence[str],
    deploy: str,
    data: Mapping[str, Any],
    dry: bool,
    watch: Callable[[str], None] | None,
) -> Changes:
    """Run a deploy by pyinfra; what targets have as `Target.apply`, where the parameters are told.

    Args:
        target: The target, for the errors.
        inventory: pyinfra's words for the machine: a connector's name, with options.
        deploy: The file's name in `deployments/host/`, without `.py`.
        data: Values for `host.data` of the deploy.
        dry: Change nothing.
        watch: Called with each line that commands on the machine print; the caller shows the progress then.

    Returns:
        What would change, or has changed.

    Raises:
        TutorialError: There is no such deploy, or it failed; it names the operation.
    """
    path = FOLDER / f"{deploy}.py"
    if not path.is_file():
        there = ", ".join(sorted({p.stem for p in FOLDER.glob("*.py")} - _NO_DEPLOYS))
        raise TutorialError(f"There is no deploy {deploy}", "", f"deployments/host has {there}")
    words = [word for k, v in data.items() for word in ("--data", f"{k}={v}")]
    program = [str(Path(sys.executable).with_name("pyinfra"))]
    argv = [*program, "--json", *(["--dry", "--diff"] if dry else ["-y"]), *(["-vvv"] if watch else [])]
    title = f"{deploy}: {'dry run' if dry else 'apply'}"
    with nullcontext(_silent) if watch else display.progress(title) as report:
        seen = _Log(report, watch)
        done = run_here(
            [*argv, *inventory, *words, str(path)],
            check=False, timeout=_SECONDS, env=_ENVIRONMENT, stream=seen.line, target=target.name, cwd=ROOT,
        )  # fmt: skip
        if done.returncode != 0 or not seen.result:
            raise seen.error(deploy, target.name, ["pyinfra", inventory[0], f"deployments/host/{path.name}"])
    return Changes(deploy, dry, _rows(seen.result, dry), seen.details(), inventory[0] == str(FRESH_MACHINE))


def _silent(amount: float, note: str = "") -> None:
    """Report nowhere: the caller does."""


def _rows(said: Mapping[str, Any], dry: bool) -> list[Mapping[str, object]]:
    if not dry:
        done = said["results"]["operations"]
        return [{"operation": op["name"], "state": "changed" if op["success"] else "same"} for op in done]
    return [
        {
            "operation": op["name"],
            "state": "would change"
            if op["hosts_with_change"]
            else "may change"
            if op["hosts_with_conditional_change"]
            else "same",
        }
        for op in said["plan"]
    ]


class _Log:
    """What pyinfra writes while it runs."""

    def __init__(self, report: display.Report, watch: Callable[[str], None] | None) -> None:
        self._report, self._watch = report, watch
        self._lines: list[str] = []
        self._operation, self._started = "", 0
        self.result: dict[str, Any] = {}

    def line(self, line: str) -> None:
        """Take a line: note the operation, and hand on what commands print."""
        if line.startswith(_RESULT):
            self.result = json.loads(line)
            return
        self._lines.append(line)
        if starting := _STARTING.match(line):
            self._operation, self._started = starting[1], self._started + 1
            self._report(1 - 1 / (1 + self._started), self._operation)
        elif self._watch and line.startswith("[@") and ">>>" not in line:
            self._watch(_HOST.sub("", line))

    def details(self) -> str:
        """Give what it says of files that change; nothing of the connection and its phases."""
        if self._watch:
            return ""
        plain = [_HOST.sub("", line) if _HOST.match(line) else line.removeprefix("    ") for line in self._lines]
        return "\n".join(line.rstrip() for line in plain if not _NOISE.match(line))

    def error(self, deploy: str, target: str, command: Sequence[str]) -> TutorialError:
        """Make the error of a deploy that failed: at which operation, and what was printed there."""
        own = [found[1] for x in self._lines if (found := _ERROR.match(x))]
        why = next((x for x in own if x and "No hosts remaining" not in x), "")
        plain = [_HOST.sub("", x).strip() for x in self._lines if ">>>" not in x]
        last = [x for x in plain if not _NOISE.match(x)]
        at = f"at: {self._operation}" if self._operation else "before its first operation"
        return TutorialError(
            f"The deploy {deploy} failed",
            why or at,
            "correct what it names and run it again: it goes on where it stopped",
            target=target,
            command=command,
            output="\n".join(last),
        )
