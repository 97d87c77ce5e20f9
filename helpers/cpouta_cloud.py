"""The way to an OpenStack cloud: credentials from clouds.yaml alone, and what its errors mean.

Source: https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html and
https://docs.csc.fi/cloud/pouta/application-credentials/.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from helpers import cpouta_clouds, http
from helpers.errors import TutorialError

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")
_ATTEMPTS = 4
_ANSWER_SECONDS = 60
_PAUSE_SECONDS = 1.0  # doubled after each attempt
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
    from keystoneauth1.exceptions import ClientException
    from keystoneauth1.session import Session
    from openstack.config.loader import OpenStackConfig
    from openstack.connection import Connection
    from openstack.exceptions import ConfigException

    described = cpouta_clouds.find(clouds)
    if not described:
        raise cpouta_clouds.missing(cloud)
    described.require(cloud)
    loader = OpenStackConfig(
        config_files=[str(described.main.path)],
        secure_files=[str(described.secure.path)] if described.secure else [],
        session_constructor=partial(Session, session=http.session()),  # type: ignore[arg-type]
        load_envvars=False,
    )
    try:
        connection = Connection(config=loader.get_one(cloud, api_timeout=_ANSWER_SECONDS))
    except (ConfigException, ClientException, TypeError, ValueError, OSError) as error:
        raise TutorialError(f"{described.main.path} can't be used", str(error), "correct it") from None
    again(f"log in to {cloud}", lambda: connection.session.get_token())
    _require_region(connection, described.main.path)
    return connection


def _require_region(connection: "Connection", file: Path) -> None:
    """Make sure that the cloud's region is clear: the one that is named, or the only one."""
    auth: Any = connection.session.auth
    if not hasattr(auth, "get_access"):
        return  # a log-in of a kind that has no catalog
    catalog = again("list the regions", lambda: auth.get_access(connection.session).service_catalog.catalog)
    regions = sorted(
        {e.get("region_id") or e.get("region") or "" for s in catalog for e in s.get("endpoints", [])} - {""}
    )
    named = str(connection.config.region_name or "")
    if (named and regions and named not in regions) or (not named and len(regions) > 1):
        raise TutorialError(
            f"{file} can't be used",
            f"the cloud has no region {named!r}" if named else "region_name is missing, and the cloud has several",
            f"write region_name: with one of: {', '.join(regions)}",
        )


def optional(call: Callable[[], T]) -> T | None:
    """Ask for what a cloud need not show to everybody; None where it refuses (403) or has no such thing (404)."""
    from openstack import exceptions as sdk

    try:
        return call()
    except sdk.HttpException as error:
        if error.status_code in (403, 404):
            return None
        raise


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
            "look at https://status.csc.fi and at auth_url; run the cell again, it goes on where it stopped",
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
    except auth.SSLError as error:
        raise _not_trusted(what, str(error)) from None
    except (auth.ConnectFailure, auth.DiscoveryFailure) as error:
        raise Unsure(f"it can't be reached: {str(error).splitlines()[0]}") from None
    except auth.EndpointNotFound as error:
        remedy = "see in clouds.yaml whether region_name and interface are right; without a line for them, add one"
        raise TutorialError(
            f"The cloud could not {what}", f"its catalog has no such service: {error}", remedy
        ) from None
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


def _not_trusted(what: str, said: str) -> TutorialError:
    if "WRONG_VERSION_NUMBER" in said or "wrong version number" in said:
        why, remedy = "its port does not speak HTTPS", "correct auth_url in clouds.yaml: its port, or http for https"
    else:
        why = "its certificate is not trusted on this machine"
        remedy = (
            "name the file of its authority as cacert: in clouds.yaml, and see whether this machine's clock is right"
        )
    return TutorialError(f"The cloud could not {what}", why, remedy, output=said)


def _not_accepted(what: str, error: Exception) -> TutorialError:
    return TutorialError(
        f"The cloud could not {what}",
        "it does not accept the credentials: they have expired, were revoked, or are mistyped",
        cpouta_clouds.MAKE,
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
