"""The inside of one headless run: `python -m helpers.papermill_job JOB`, JOB being JSON.

It prints a line `[executed, all]` a code cell, for the runner's progress display, and exits with 1 when a cell failed.
"""

import json
import sys
from typing import Any

from papermill import execute_notebook
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from helpers.settings import settings


class ReportingEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine that says on standard output how many cells have been executed."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        """Run the notebook; papermill's hook of that name."""
        total, done, complete = sum(c.cell_type == "code" for c in nb_man.nb.cells), 0, nb_man.cell_complete

        def report(cell: Any, *args: Any, **kwargs: Any) -> None:
            nonlocal done
            complete(cell, *args, **kwargs)
            done += cell.cell_type == "code"
            _say(done, total)

        nb_man.cell_complete = report
        _say(0, total)
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


def _say(done: int, total: int) -> None:
    sys.stdout.write(f"{json.dumps([done, total])}\n")
    sys.stdout.flush()


def main(job: str) -> int:
    """Run one notebook.

    Args:
        job: JSON with `source`, `output` and `parameters`.

    Returns:
        0 when every cell passed, else 1; the executed notebook is written in both cases.
    """
    task = json.loads(job)
    papermill_engines.register("reporting", ReportingEngine)
    try:
        execute_notebook(
            task["source"],
            task["output"],
            parameters=task["parameters"],
            engine_name="reporting",
            cwd=str(settings().notebooks),
            progress_bar=False,
            execution_timeout=settings().cell_timeout,
            start_timeout=120,
        )
    except PapermillExecutionError as error:
        sys.stderr.write(f"{error.ename}: {error.evalue}\n")
        return 1
    except Exception as error:  # a cell's time-out, a dead kernel and a broken notebook have no common ancestor
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
