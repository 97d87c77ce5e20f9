"""`python -m helpers.again COMMAND …`: starts a command again whenever it ends, as a tunnel whose pod is replaced does.

It ends with whoever started it, and when it is told to.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from helpers.shell import environment

_PAUSE_SECONDS = 0.5


def keep_running(argv: Sequence[str]) -> None:
    """Run a command, again and again, until the process that started this one ends, or SIGTERM.

    Args:
        argv: The command; its output goes where this process's goes.
    """
    parent, child = os.getppid(), subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, env=environment(argv[0]))

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        while os.getppid() == parent:
            if child.poll() is not None:
                child = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, env=environment(argv[0]))
            time.sleep(_PAUSE_SECONDS)
    finally:
        child.terminate()
        child.wait()


if __name__ == "__main__":
    keep_running(sys.argv[1:])
