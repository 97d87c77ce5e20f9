"""Signals that this process was told to ignore: the programs that it starts must hear them all the same.

A shell that starts a command in the background has it ignore SIGINT and SIGQUIT, and `nohup` has it ignore SIGHUP.
Children inherit that. But a script cleans up on Ctrl-C, ssh ends its connection over a jump host by SIGHUP, and a
Python that ignores SIGINT at its start never raises KeyboardInterrupt.
"""

import signal
import threading
from collections.abc import Callable

_HEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def let_children_hear() -> Callable[[], None] | None:
    """Have each child of this process begin with the default for the signals that this process ignores.

    This process ignores them as before: a handler that does nothing takes the place of "ignore", and a program does not
    inherit handlers. Python allows that in the main thread only.

    Returns:
        What to give as `preexec_fn` to `subprocess.Popen` or `pexpect.spawn`: in other threads a function that restores
        the defaults in the child; None where nothing is left to do.
    """
    ignored = [number for number in _HEARD if signal.getsignal(number) is signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        return _restore_defaults if ignored else None
    for number in ignored:
        signal.signal(number, lambda *_: None)
    return None


def _restore_defaults() -> None:
    for number in _HEARD:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
