"""Checkpoints: what must be true now. The guided lab and the integration test are the same line."""

import json
from collections.abc import Callable

from tenacity import RetryError, Retrying, retry_if_not_exception_type, retry_if_result, stop_after_delay, wait_fixed

from helpers import display
from helpers.errors import TutorialError, mask
from helpers.settings import settings


class CheckpointFailed(TutorialError):
    """A checkpoint is red; `what` names it."""


def check(
    name: str, test: bool | Callable[[], object], *, remedy: str, timeout: float = 0, interval: float = 0.25
) -> None:
    """Show a green row when something is true; else a red one with the remedy, and stop here.

    Args:
        name: What must be true, as a statement: "Docker answers". The same on every machine and in every run.
        test: The answer, or a function that gives it. A function that raises counts as false, and its message is shown.
        remedy: What the reader can do when it isn't true.
        timeout: Seconds to go on asking a function until it says yes; 0 asks once.
        interval: Seconds between two questions.

    Raises:
        CheckpointFailed: It isn't true.
    """
    why = ""
    if callable(test):
        try:
            passed = bool(_ask(test, timeout, interval))
            why = f"still not so after {timeout:g} s" if timeout else ""
        except Exception as error:
            passed, why = False, mask(f"{error}" if isinstance(error, TutorialError) else f"{error!r}")
    else:
        passed = bool(test)
    _record(name, passed, why)
    display.checkpoint(name, passed, why if not passed else "", remedy if not passed else "")
    if not passed:
        raise CheckpointFailed(f"Checkpoint: {name}", why, remedy)


def _ask(test: Callable[[], object], timeout: float, interval: float) -> object:
    retrying = Retrying(
        retry=retry_if_result(lambda value: not value) | retry_if_not_exception_type((KeyboardInterrupt, SystemExit)),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(interval),
    )
    try:
        return retrying(test)
    except RetryError as error:
        return error.last_attempt.result()  # raises what the last attempt raised


def _record(name: str, passed: bool, why: str) -> None:
    """Append a line to the file that the runner reads; the executed notebook alone can't tell red from broken."""
    path = settings().checkpoints
    if path:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "passed": passed, "why": why}) + "\n")
