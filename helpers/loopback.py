"""This machine's loopback addresses: told apart from all others, and excepted from the reader's proxy."""

import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

_NAMES = ("localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback")
_PROXY = re.compile(r"(?!no_)\w+_proxy", re.IGNORECASE)
_EXCEPTED = ("localhost", "127.0.0.1", "::1")


def is_loopback(url: str) -> bool:
    """Tell whether an address leads to this machine itself, in whichever spelling.

    Args:
        url: An address with a scheme, such as `http://127.0.0.1:7600/health`.

    Returns:
        True for localhost and its subdomains, 127.0.0.0/8 and ::1 (also as `127.1`, `2130706433`, `0x7f000001` or
        `::ffff:127.0.0.1`), and for the unspecified address, which connects to this machine as well. Names are not
        looked up.

    Example:
        >>> is_loopback("http://0x7f.1:8080/")
        True
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    host = normalize("NFKC", unquote(host)).replace("\u3002", ".").partition("%")[0].strip("[]").rstrip(".").lower()
    if host in _NAMES or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            address = ip_address(socket.inet_aton(host))  # short, decimal, octal and hexadecimal ones
        except (OSError, UnicodeError):
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def no_proxy(variables: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that except this machine from the proxies of an environment.

    Args:
        variables: The environment. What it excepts already stays so.

    Returns:
        `NO_PROXY` and `no_proxy`, and gRPC's own `no_grpc_proxy` where it is set, for it hides the other two. Nothing
        where no proxy is set: `no_proxy` alone would hide the proxies of macOS's own settings from Python.
    """
    if not any(value for name, value in variables.items() if _PROXY.fullmatch(name)):
        return {}
    upper, lower = variables.get("NO_PROXY", ""), variables.get("no_proxy", "")
    lists = {"NO_PROXY": upper or lower, "no_proxy": lower or upper}
    if "no_grpc_proxy" in variables:
        lists["no_grpc_proxy"] = variables["no_grpc_proxy"]
    return {name: _extended(text) for name, text in lists.items()}


def _extended(text: str) -> str:
    if text.strip() == "*":  # everything; in a list it would be one name among others
        return text
    names = [name.strip() for name in text.split(",") if name.strip()]
    return ",".join([*names, *(name for name in _EXCEPTED if name not in names)])
