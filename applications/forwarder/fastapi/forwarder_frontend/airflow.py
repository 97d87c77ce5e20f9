"""Airflow's REST API v2, as far as the Forwarder needs it: a token, and calls with a deadline.

https://airflow.apache.org/docs/apache-airflow/3.0.6/stable-rest-api-ref.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from .environment import Environment, SettingsError

PLACEHOLDER = "admin"


@dataclass(frozen=True)
class Login:
    """Where Airflow is, and who asks it.

    Attributes:
        host: Where its API server is, `http://…`; empty where there is none.
        username: The name to log in with.
        password: Its password.
    """

    host: str
    username: str
    password: str = field(repr=False)

    @classmethod
    def load(cls, env: Environment) -> Login:
        """Read `AIRFLOW_HOST` (`none`, as when it is not set: there is none) and name and password.

        Raises:
            SettingsError: The address is none; in production also: the password is the tutorial's placeholder.
        """
        host = env.text("AIRFLOW_HOST", "none")
        if host == "none":
            return cls("", "", "")
        if not host.startswith(("http://", "https://")):
            raise SettingsError(f"AIRFLOW_HOST={host!r} begins with neither http:// nor https://: correct or unset it.")
        password = env.text("AIRFLOW_PASSWORD", PLACEHOLDER)
        if password == PLACEHOLDER and env.text("FORWARDER_ENV", "development").lower() == "production":
            raise SettingsError(
                "AIRFLOW_PASSWORD is the tutorial's placeholder: in production set a password of your own."
            )
        return cls(host.rstrip("/"), env.text("AIRFLOW_USERNAME", "admin"), password)


class AirflowAway(Exception):
    """Airflow cannot be asked at present; the text says why and holds no secret."""


class NoAnswer(AirflowAway):
    """Nothing answers: it would be so with any other question, too."""


class Airflow:
    """Airflow, asked from one event loop.

    Args:
        login: Where it is, and who asks; the password appears in no text of this class.
        seconds: How long it may take to connect, and to answer.
    """

    def __init__(self, login: Login, seconds: float) -> None:
        """Prepare connections; none is opened yet."""
        self.place, self._login = login.host, {"username": login.username, "password": login.password}
        self._token = ""
        # Airflow is near: neither a proxy nor a .netrc shall come between.
        self._client = httpx.AsyncClient(base_url=self.place, timeout=seconds, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Call a route of the API.

        Args:
            method: `GET`, `POST` or `PATCH`.
            path: The path after `/api/v2`.
            body: What is sent as JSON.

        Returns:
            The status, below 500 and not 401, and the answer.

        Raises:
            AirflowAway: Nothing answers, or it says that it can't now, or it does not take name and password.
        """
        try:
            if not self._token:
                await self._log_in()
            answer = await self._ask(method, path, body)
            if answer.status_code in (401, 403):  # the token is over, or Airflow signs with another key now
                await self._log_in()
                answer = await self._ask(method, path, body)
            if answer.status_code >= 500 or answer.status_code in (401, 429):
                raise AirflowAway(f"Airflow at {self.place} answers {answer.status_code}")
            return answer.status_code, _content(self.place, answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(f"Airflow at {self.place} does not answer ({type(error).__name__})") from None
        except (ValueError, TypeError):
            raise AirflowAway(f"Airflow at {self.place} can't be asked in these words") from None

    async def _ask(self, method: str, path: str, body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)  # ASCII: httpx's own can't write every text that JSON has
        return await self._client.request(method, f"/api/v2{path}", content=content, headers=headers)

    async def _log_in(self) -> None:
        self._token = ""
        answer = await self._client.post("/auth/token", json=self._login)
        if answer.status_code in (400, 401, 403, 422):
            raise AirflowAway(f"Airflow at {self.place} does not take AIRFLOW_USERNAME and AIRFLOW_PASSWORD")
        if answer.status_code in (404, 405) and await self._is_airflow_2():
            raise AirflowAway(f"Airflow at {self.place} is version 2, without the REST API v2: version 3 is needed")
        if answer.is_error and not _is_page(answer):
            raise AirflowAway(f"Airflow at {self.place} answers {answer.status_code}")
        token = _content(self.place, answer).get("access_token")
        if not isinstance(token, str):
            raise AirflowAway(_stranger(self.place, answer))
        self._token = token

    async def _is_airflow_2(self) -> bool:
        try:
            return "metadatabase" in (await self._client.get("/api/v1/health")).json()
        except (httpx.HTTPError, ValueError, TypeError):
            return False


def _is_page(answer: httpx.Response) -> bool:
    return "html" in answer.headers.get("Content-Type", "") or answer.content.lstrip()[:1] == b"<"


def _content(place: str, answer: httpx.Response) -> dict[str, Any]:
    """Give the JSON object of an answer; an empty answer is an empty object."""
    try:
        content = answer.json() if answer.content else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise AirflowAway(_stranger(place, answer))
    return content


def _stranger(place: str, answer: httpx.Response) -> str:
    """Say what answered in Airflow's place."""
    if _is_page(answer):
        return f"What answers at {place} is not Airflow: a web page ({answer.status_code}), as a proxy or a login gives"
    return f"What answers at {place} is not Airflow: its answer ({answer.status_code}) is not JSON of the REST API v2"


def run_path(dag: str, run: str = "") -> str:
    """Return the path of a run, or of all runs of a DAG."""
    path = f"/dags/{quote(dag, safe='')}/dagRuns"
    return f"{path}/{quote(run, safe='')}" if run else path


def reason(answer: Any) -> str:
    """Return Airflow's words for a refusal."""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        detail = detail[0].get("msg")
    if isinstance(detail, dict):
        detail = detail.get("reason")
    return str(detail or "Airflow refused it")[:500]
