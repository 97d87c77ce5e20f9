"""The Forwarder's relay: `python3 run_relay.py`, beside the backend, where no cluster makes connections."""

from __future__ import annotations

import asyncio
import sys

from forwarder_backend.environment import SettingsError
from forwarder_backend.relay import AnotherRelay, Relay
from forwarder_backend.settings import Settings


def main() -> int:
    """Relay until SIGTERM.

    Returns:
        0 after an orderly end, 1 when another relay serves this Redis, 2 when a setting can't be used.
    """
    try:
        settings = Settings.load()
        asyncio.run(Relay(settings).run())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except AnotherRelay:
        sys.stderr.write("Another relay serves this Redis: end that one first, or wait 5 s when it has just ended.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
