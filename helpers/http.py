"""HTTP: the one place that makes sessions. What is on this machine is asked directly, never through a proxy.

The reader's proxy and certificate settings hold for all other addresses. A `.netrc` never counts: it would replace the
credentials that a helper gives. Source: https://requests.readthedocs.io/en/latest/user/advanced/#proxies.
"""

from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from helpers.loopback import is_loopback


class _Adapter(HTTPAdapter):
    """Sends each request, also one that a redirect led to."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request, to this machine without a proxy; see requests' adapter."""
        if is_loopback(request.url or ""):
            proxies = None
            request.headers.pop("Proxy-Authorization", None)
        return super().send(request, stream, timeout, verify, cert, proxies)


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.auth = _of_address
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Leave credentials behind where a redirect leads to another machine; see requests' session."""
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)


def _of_address(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Take the credentials that the address itself has; requests looks into `.netrc` unless it is given any."""
    name, password = get_auth_from_url(str(request.url))
    return HTTPBasicAuth(name, password)(request) if name or password else request


def session() -> requests.Session:
    """Make a session for several requests, whose connections are kept.

    Returns:
        A session; close it, or use it as a context manager.

    Example:
        >>> with session() as web:
        ...     web.get("http://127.0.0.1:7600/health", timeout=5).status_code
        200
    """
    return _Session()


def get(url: str, **how: Any) -> requests.Response:
    """Ask for one page, as `requests.get` does.

    Args:
        url: The page's address.
        how: Further words of `requests.get`, such as `timeout` (seconds) and `auth`.

    Returns:
        The answer, whatever its status.

    Raises:
        requests.RequestException: Nothing answers.
    """
    with session() as web:
        return web.get(url, **how)
