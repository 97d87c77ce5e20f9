"""What `pytest --nbval notebooks` needs, run by itself: text display, and an end to what the notebooks started."""

import os

import pytest
from nbval.plugin import IPyNbCell

from helpers.signals import let_children_hear

_OWNER = "nbval"


def pytest_configure(config: pytest.Config) -> None:
    """Have helpers show plain text, which is what git keeps and nbval compares; have what tests start hear signals."""
    let_children_hear()
    if config.getoption("--nbval"):
        os.environ.update(TUTORIAL_DISPLAY="text", TUTORIAL_CHAPTER=_OWNER, PYDEVD_DISABLE_FILE_VALIDATION="1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have nbval compare every cell: git keeps no execution counts, and nbval passes over a cell without one."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.cell.execution_count = item.cell.execution_count or 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what a notebook started, whatever became of its kernel."""
    if session.config.getoption("--nbval"):
        from helpers.processes import stop_all

        stop_all(owner=_OWNER)
