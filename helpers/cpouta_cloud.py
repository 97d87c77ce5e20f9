"""The way to an OpenStack cloud: credentials from clouds.yaml alone, and what its errors mean.

Source: https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html and
https://docs.csc.fi/cloud/pouta/application-credentials/.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from helpers import http
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")
_ATTEMPTS = 4
_ANSWER_SECONDS = 60
_PAUSE_SECONDS = 1.0  # doubled after each attempt
_WHERE = "~/.config/openstack/clouds.yaml"
_MAKE = (
    "make an application credential at https://pouta.csc.fi (Identity, Application Credentials), download its "
    f"clouds.yaml to {_WHERE} and chmod 600 it"
)
_QUOTA = ("quota", "over limit", "exceeds allowed")


class Unsure(Exception):
    """The cloud had a fault of its own: the request may have had its effect or not. A step looks and is done again."""


def connect(cloud: str = "cpouta", clouds: Path | None = None) -> "Connection":
    """Connect to a cloud of clouds.yaml, with the credentials that it and secure.yaml hold, and log in.

    Args:
        cloud: The cloud's name in clouds.yaml.
        clouds: The file; by default those where OpenStack's tools look for it. secure.yaml is beside it.

    Returns:
        The connection.

    Raises:
        TutorialError: There is no such file or cloud, others may read it, or the cloud refuses the credentials.
    """
    from keystoneauth1.session import Session
    from openstack.config.loader import OpenStackConfig
    from openstack.connection import Connection
    from openstack.exceptions import ConfigException

    words = {"config_files": [str(clouds)], "secure_files": [str(clouds.with_name("secure.yaml"))]} if clouds else {}

    loader = OpenStackConfig(
        **words,  # type: ignore[arg-type]
        session_constructor=partial(Session, session=http.session()),  # type: ignore[arg-type]
        load_envvars=not clouds,
    )
    known = loader.get_cloud_names() if loader.config_filename else []
    if cloud not in known:
        there = f"it has: {', '.join(known)}" if known else ""
        raise TutorialError(
            f"There is no cloud {cloud!r} in {loader.config_filename or _WHERE}",
            there or "there is no such file",
            "set the parameter cloud_name to one of those" if there else f"{_MAKE}; name the cloud {cloud} in it",
        )
    _keep_private(loader)
    try:
        connection = Connection(config=loader.get_one(cloud, api_timeout=_ANSWER_SECONDS))
    except ConfigException as error:
        raise TutorialError(f"{loader.config_filename} can't be used", str(error), "correct it") from None
    again(f"log in to {cloud}", lambda: connection.session.get_token())
    return connection


def _keep_private(loader: object) -> None:
    """Refuse a file with a secret in it that others may read."""
    for path in (Path(str(getattr(loader, name, None))) for name in ("config_filename", "secure_config_filename")):
        if not path.is_file() or not path.stat().st_mode & 0o077:
            continue
        text = path.read_text(encoding="utf-8")
        if any(f"{secret}:" in text for secret in ("password", "application_credential_secret", "token")):
            raise TutorialError(f"Others may read {path}", "there is a secret in it", f"chmod 600 {path}")


def again(what: str, step: Callable[[], T]) -> T:
    """Do a step, and do it again when the cloud has a fault of its own (a 5xx, a broken connection).

    Args:
        what: What the step does, for the error: "attach the volume".
        step: Looks before it acts, for a request that seemed to fail may have had its effect.

    Returns:
        What the step gives.

    Raises:
        TutorialError: The cloud refuses it, or still has its fault after four attempts.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(Unsure),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(_PAUSE_SECONDS),
        reraise=True,
    )
    try:
        for attempt in retrying:
            with attempt, told(what):
                return step()
    except Unsure as fault:
        raise TutorialError(
            f"The cloud could not {what}",
            f"it has a fault of its own, {_ATTEMPTS} times in a row: {fault}",
            "look at https://status.csc.fi, and run the cell again later: it goes on where it stopped",
        ) from None
    raise AssertionError("unreachable")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what openstacksdk raises into an error that says what it means.

    Args:
        what: What was asked for.

    Raises:
        Unsure: The cloud had a fault of its own.
        TutorialError: It refused.
    """
    from keystoneauth1 import exceptions as auth
    from openstack import exceptions as sdk

    try:
        yield
    except (auth.http.Unauthorized, auth.MissingRequiredOptions) as error:
        raise _not_accepted(what, error) from None
    except (auth.ConnectFailure, auth.DiscoveryFailure) as error:
        raise Unsure(f"it can't be reached: {str(error).splitlines()[0]}") from None
    except sdk.HttpException as error:
        if error.status_code == 401:
            raise _not_accepted(what, error) from None
        raise _refused(what, error.status_code or 0, str(error.details or error)) from None
    except auth.http.HttpError as error:
        if "application credential" in error.message.lower():  # Keystone answers 404 for one that is gone
            raise _not_accepted(what, error) from None
        raise _refused(what, error.http_status, error.message) from None
    except (sdk.SDKException, auth.ClientException) as error:
        raise TutorialError(
            f"The cloud could not {what}", str(error), "read what it says; run the cell again"
        ) from None


def _not_accepted(what: str, error: Exception) -> TutorialError:
    return TutorialError(
        f"The cloud could not {what}",
        "it does not accept the credentials: they have expired, were revoked, or are mistyped",
        _MAKE,
        output=str(error),
    )


def _refused(what: str, status: int, said: str) -> Exception:
    if status >= 500:
        return Unsure(f"{status} {said}".strip().splitlines()[0])
    if any(word in said.lower() for word in _QUOTA):
        why, remedy = "the project's quota is used up", "free something, or ask CSC's service desk for more quota"
    elif "no more ip addresses" in said.lower():
        why, remedy = "the cloud has no free floating IP left", "run the cell again later, or ask CSC's service desk"
    elif status == 403:
        why, remedy = "your role in the project does not allow it", "ask the project's manager, or use another project"
    elif status == 409:
        why, remedy = (
            "it conflicts with something that is there, or that happens just now",
            "wait a moment and run the cell again; `openstack server list` shows what is there",
        )
    else:
        why, remedy = f"it answers {status}", "read what it says; run the cell again"
    return TutorialError(f"The cloud could not {what}", why, remedy, output=said)
