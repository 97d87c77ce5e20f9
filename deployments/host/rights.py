"""The part that the deploys share: who acts on the machine. Root has its rights already, and need not have sudo."""

from pyinfra import host
from pyinfra.facts.server import Command


def user() -> str:
    """Give the name of the user; of a machine that is only planned for, the one that Ubuntu's images have."""
    return str(host.get_fact(Command, "id -un") or "ubuntu").strip()  # $USER need not be set


def needed() -> bool:
    """Tell whether what changes the machine needs sudo; pyinfra asks once for each machine."""
    return user() != "root"
