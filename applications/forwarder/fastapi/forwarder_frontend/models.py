"""What the routes take and give, as pydantic models; their text is what a reader of /docs learns from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"  # RFC 1123 label: what Kubernetes takes as a name
DAG_ID = r"^[\w-][\w.-]*$"  # what Airflow takes, but for a dot in front
_RUN_ID = r"^[A-Za-z0-9_~:+-][A-Za-z0-9_.~:+-]*$"
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?", re.ASCII)
MASK = "********"


class Mode(StrEnum):
    """What to do with the configuration."""

    init = "init"
    update = "update"
    show = "show"
    reset = "reset"


class TaskType(StrEnum):
    """What to tell of a task."""

    status = "status"
    result = "result"


class OrchType(StrEnum):
    """What to do with a workflow."""

    submit = "submit"
    run = "run"
    status = "status"
    cancel = "cancel"


class ForwType(StrEnum):
    """What to do with forwards. The enum name is part of the wire contract."""

    import_ = "import"
    export = "export"
    status = "status"
    cancel = "cancel"


class ArtiType(StrEnum):
    """Which artifact to fetch."""

    logs = "logs"
    metrics = "metrics"
    forwards = "forwards"
    dags = "dags"


def _hyphenated(name: str) -> str:
    return name.replace("_", "-")


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _setting(description: str, example: str = "none") -> Any:
    return Field(
        default="", max_length=4096, description=description, examples=[example], json_schema_extra=_drop_default
    )


class Configuration(BaseModel):
    """The ten keys of the configuration: all of them for `init`, at least one for `update`, none otherwise."""

    model_config = ConfigDict(alias_generator=_hyphenated, extra="forbid", strict=True)

    bucket_prefix: str = _setting("Begins the name of every bucket that the Forwarder makes", "tutorial")
    ice_id: str = _setting("Names the integrated cloud environment", "ice-1")
    user: str = _setting("Who owns the buckets", "reader")
    used_client: str = _setting("Which object store client to use", "swift")
    pre_auth_url: str = _setting("Address of the object store; `show` masks what may be secret in it")
    pre_auth_token: str = _setting("Token of the object store; `show` masks it")
    user_domain_name: str = _setting("OpenStack domain of the user", "Default")
    project_domain_name: str = _setting("OpenStack domain of the project", "Default")
    project_name: str = _setting("OpenStack project", "project_2000000")
    auth_version: str = _setting("Version of OpenStack's Identity API", "3")

    @classmethod
    def wire_names(cls) -> list[str]:
        """Return the ten keys as they are written on the wire."""
        return [_hyphenated(name) for name in cls.model_fields]

    def given(self) -> dict[str, str]:
        """Return the keys that the client has sent."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def masked(configuration: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the configuration that is safe to show: no token, no password or signature in the address."""
    shown = {key: configuration.get(key, "") for key in Configuration.wire_names()}
    shown["pre-auth-token"] = MASK
    try:
        parts = urlsplit(shown["pre-auth-url"])
        place = parts.netloc.rpartition("@")
        netloc = f"{MASK}@{place[2]}" if place[1] else parts.netloc
        shown["pre-auth-url"] = urlunsplit(
            (parts.scheme, netloc, parts.path, MASK if parts.query else "", MASK if parts.fragment else "")
        )
    except ValueError:
        shown["pre-auth-url"] = MASK
    return shown


def _address(value: str) -> str:
    try:
        if "%" not in value:
            return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    labels = value.removesuffix(".").split(".")
    if len(value) > 253 or labels[-1].isdigit() or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError("It is neither a host name nor an IPv4 or IPv6 address")
    return value


class Connection(BaseModel):
    """One address to connect."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=LABEL)] = Field(
        description="Its name, unique within the request: small letters, digits and hyphens, at most 63",
        examples=["ray-dashboard"],
    )
    address: Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(_address)] = Field(
        description="Host name, IPv4 or IPv6 address", examples=["127.0.0.1"]
    )
    port: int = Field(ge=1, le=65535, description="TCP port", examples=[8265])


class ForwardRequest(BaseModel):
    """The connections to import, export, show or cancel."""

    model_config = ConfigDict(extra="forbid", strict=True)

    connections: list[Connection] = Field(
        default=[],
        max_length=64,
        description="1 to 64 for `import` and `export`. For `status` and `cancel`: these names only, or none for all.",
        json_schema_extra=_drop_default,
    )

    @model_validator(mode="after")
    def _unique(self) -> ForwardRequest:
        names = [connection.name for connection in self.connections]
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"connections: the names must differ, these do not: {', '.join(twice)}")
        return self


class OrchRequest(BaseModel):
    """The run of a workflow to submit, show or cancel."""

    model_config = ConfigDict(alias_generator=_hyphenated, extra="forbid", strict=True)

    run_id: Annotated[str, StringConstraints(pattern=_RUN_ID, max_length=250)] = Field(
        default="",
        description="The run's name. `status` and `cancel` want one; `submit` and `run` make one where there is none.",
        examples=["my-run-1"],
        json_schema_extra=_drop_default,
    )
    conf: dict[str, JsonValue] = Field(
        default={},
        description="For `submit` and `run`: what the run is given (Airflow's `dag_run.conf`)",
        examples=[{}],
        json_schema_extra=_drop_default,
    )
