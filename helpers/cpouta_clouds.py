"""The reader's clouds.yaml and secure.yaml: found, read, and checked before a cloud is asked. No value is ever shown.

Sources: https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html and
https://docs.openstack.org/keystoneauth/latest/authentication-plugins.html.
"""

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import yaml

from helpers.errors import TutorialError

WHERE = "~/.config/openstack/clouds.yaml"
MAKE = (
    "make an application credential at https://pouta.csc.fi (Identity, Application Credentials), download its "
    f"clouds.yaml to {WHERE} and chmod 600 it"
)
_APPLICATION = "v3applicationcredential"
_SECRETS = re.compile(r"(password|secret|token)[\"']?\s*:", re.IGNORECASE)
# What each kind of log-in needs: one of each group.
_NEEDS: Mapping[str, Sequence[Sequence[str]]] = {
    _APPLICATION: (
        ("application_credential_id", "application_credential_name"),
        ("application_credential_secret",),
    ),
    "password": (("username", "user_id"), ("password",), ("project_name", "project_id", "system_scope", "domain_name")),
    "token": (("token",),),
}


@dataclass(frozen=True)
class Source:
    """A file with clouds, as it was read.

    Attributes:
        path: The file.
        text: Its text.
        content: What it holds.
    """

    path: Path
    text: str
    content: Mapping[str, Any]

    def line(self, *keys: str) -> int:
        """Give the line of a nested key, or of the deepest of the keys that the file has."""
        try:
            node, line = yaml.compose(self.text, Loader=yaml.SafeLoader), 1
        except yaml.YAMLError:  # JSON may have tabs
            return 1
        for key in keys:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            found = next(((k, v) for k, v in pairs if k.value == key), None)
            if not found:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def refuse(self, line: int, why: str, remedy: str) -> NoReturn:
        """Raise the error of a file that can't be used."""
        raise _unusable(self.path, f"line {line}: {why}", remedy)


@dataclass(frozen=True)
class Clouds:
    """The clouds that the reader's files describe.

    Attributes:
        main: clouds.yaml.
        secure: secure.yaml, whose values count before those of clouds.yaml; None without one.
    """

    main: Source
    secure: Source | None

    @property
    def names(self) -> list[str]:
        """The names of the clouds."""
        return [str(name) for name in self.main.content["clouds"]]

    def require(self, cloud: str) -> None:
        """Make sure that a cloud is described, and so that one can log in to it.

        Args:
            cloud: Its name.

        Raises:
            TutorialError: It isn't; the file, the line and what to write are named.
        """
        if cloud not in self.names:
            raise _no_cloud(cloud, str(self.main.path), "it describes no cloud", self.names)
        for source in filter(None, (self.main, self.secure)):
            _keep_private(source)
        entry = {str(name): value for name, value in self.main.content["clouds"].items()}[cloud]
        if not isinstance(entry, dict):
            self._refuse(cloud, why=f"{cloud} has no settings below it", remedy=f"indent its lines below it, or {MAKE}")
        hidden = self.secure.content["clouds"].get(cloud) or {} if self.secure else {}
        if self.secure and not (isinstance(hidden, dict) and isinstance(hidden.get("auth") or {}, dict)):
            why = f"{cloud} has no settings below it"
            self.secure.refuse(
                self.secure.line("clouds", cloud), why, "indent auth: below it, and the secret below that"
            )
        auth = entry.get("auth", {})
        if not isinstance(auth, dict):
            self._refuse(cloud, "auth", why="auth has no settings below it", remedy="indent auth_url and the others")
        self._check(cloud, entry, {**entry, **auth, **hidden, **(hidden.get("auth") or {})})

    def _refuse(self, *keys: str, why: str, remedy: str) -> NoReturn:
        self.main.refuse(self.main.line("clouds", *keys), why, remedy)

    def _check(self, cloud: str, entry: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name in _words() and not isinstance(value, str) and value is not None:
                self._refuse(cloud, "auth", name, why=f"the value of {name} is no text", remedy="put it in quotes")
        if "auth" not in entry and not any(values.get(word) for word in ("auth_url", "profile")):
            self._refuse(cloud, why="auth is missing", remedy=f"write auth: with auth_url and the credentials; {MAKE}")
        if "profile" not in entry:
            self._check_address(cloud, values)
        kind = self._kind(cloud, values)
        for group in _NEEDS.get(kind, ()):
            if not any(values.get(word) for word in group):
                self._refuse(cloud, "auth", why=f"{group[0]} is missing", remedy=_write(group[0], values))
        named = values.get("application_credential_name") and not values.get("application_credential_id")
        if named and not (values.get("username") or values.get("user_id")):
            why = "application_credential_name needs a user"
            self._refuse(cloud, "auth", why=why, remedy="write application_credential_id, or add user_id")
        if (certificate := values.get("cacert")) and not Path(str(certificate)).expanduser().is_file():
            self._refuse(cloud, "cacert", why="the file of cacert does not exist", remedy="correct its path")

    def _check_address(self, cloud: str, values: Mapping[str, Any]) -> None:
        address = str(values.get("auth_url") or "").strip()
        example = "write it as in https://pouta.csc.fi:5001/v3"
        keys = (cloud, "auth", "auth_url")
        if not address:
            self._refuse(*keys, why="auth_url is missing", remedy=_write("auth_url", values, example))
        try:
            parts = urlsplit(address)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            self._refuse(*keys, why="auth_url is not the address of a cloud", remedy=example)
        if parts.username or parts.password:
            why = "auth_url has a user or a password in it"
            self._refuse(*keys, why=why, remedy="write these as username and password, below auth")
        if re.search(r"/v2(\.0)?/?$", parts.path):
            why = "auth_url ends in /v2.0, an interface that OpenStack no longer has"
            self._refuse(*keys, why=why, remedy="let it end in /v3")
        if parts.scheme == "http" and not _inside(str(parts.hostname)):
            why = "auth_url begins with http://, so others could read the credentials on their way"
            self._refuse(*keys, why=why, remedy="let it begin with https://")

    def _kind(self, cloud: str, values: Mapping[str, Any]) -> str:
        """Give the kind of log-in, which must be that of the credentials that are there."""
        kind = str(values.get("auth_type") or "password")
        applied = any(values.get(f"application_credential_{word}") for word in ("id", "name", "secret"))
        if applied and kind != _APPLICATION:
            why = f"it has an application credential, and auth_type is {values.get('auth_type') or 'missing'}"
            self._refuse(cloud, "auth_type", why=why, remedy=f"write auth_type: {_APPLICATION} at the height of auth")
        if kind not in entry_points(group="keystoneauth1.plugin").names:
            like = ", ".join(difflib.get_close_matches(kind, [*_NEEDS, "v3password", "v3token"]) or list(_NEEDS))
            self._refuse(cloud, "auth_type", why="auth_type is not a known one", remedy=f"write one of: {like}")
        return kind.removeprefix("v3") if kind in ("v3password", "v3token") else kind


def find(clouds: Path | None = None) -> Clouds | None:
    """Read the files that describe the reader's clouds.

    Args:
        clouds: The file; by default the first of those where OpenStack's tools look for it. secure.yaml is beside it,
            or where OpenStack's tools look for that.

    Returns:
        What they hold; None where there is no clouds.yaml.

    Raises:
        TutorialError: A file is not what OpenStack's tools can read.
    """
    from openstack.config import loader

    if clouds:
        places, secret_places = [clouds], [clouds.with_name("secure.yaml")]
    else:
        places = _places("OS_CLIENT_CONFIG_FILE", loader.CONFIG_FILES)
        secret_places = _places("OS_CLIENT_SECURE_FILE", loader.SECURE_FILES)
    main, secure = (next(filter(_is_there, paths), None) for paths in (places, secret_places))
    if not main:
        return None
    return Clouds(_read(main), _read(secure) if secure and not _is_empty(secure) else None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that the reader may not enter
        return True


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _places(variable: str, usual: Sequence[str]) -> list[Path]:
    return [Path(path).expanduser() for path in (os.environ.get(variable), *usual) if path]


def missing(cloud: str) -> TutorialError:
    """Make the error of a reader who has no clouds.yaml."""
    return _no_cloud(cloud, os.environ.get("OS_CLIENT_CONFIG_FILE") or WHERE, "there is no such file")


def _no_cloud(cloud: str, where: str, why: str, names: Sequence[str] = ()) -> TutorialError:
    remedy = f"{MAKE}; name the cloud {cloud} in it"
    if names:
        why, remedy = f"it has: {', '.join(names)}", "set the parameter cloud_name to one of those"
    if (default := os.environ.get("OS_CLOUD")) in names:
        remedy = f"set the parameter cloud_name to {default!r}, as your variable OS_CLOUD says"
    return TutorialError(f"There is no cloud {cloud!r} in {where}", why, remedy)


def _read(path: Path) -> Source:
    text = _text(path)
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _unusable(path, *_meaning(text, error)) from None
    source = Source(path, text, content if isinstance(content, dict) else {})
    if content is None:
        source.refuse(1, "the file is empty", MAKE)
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        source.refuse(1, f"the file holds {kind}", "begin it with the line clouds: and the clouds' names below it")
    if "clouds" not in content:
        source.refuse(1, "the line clouds: is missing", "begin the file with it, and indent the other lines below it")
    if not isinstance(content["clouds"], dict):
        source.refuse(source.line("clouds"), "there is no cloud below clouds:", f"indent the cloud's name, or {MAKE}")
    return source


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise _unusable(path, "it is a folder", f"move it away, and put the file there; {MAKE}") from None
    except OSError as error:
        raise _unusable(path, str(error.strerror), f"chmod 600 {path}, and see who owns it") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unusable(path, "line 1: it is written in UTF-16", "save it again as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _unusable(path, f"line {line}: it is not written in UTF-8", "save it again as UTF-8") from None


def _meaning(text: str, error: Exception) -> tuple[str, str]:
    """Say what is wrong with a file's syntax, without a word of it: it may be part of a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}: it is not valid JSON: {error.msg}", "correct that line"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return "it has a character that YAML does not allow", "remove it, or download the file again"
    line = mark.line + 1
    if re.match(r"[ ]*\t", text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""):
        return f"line {line}: it is indented by a tab", "indent with spaces only: two for each level"
    problem = re.sub(r"'[^']{2,}'", "…", str(getattr(error, "problem", None) or "it is not valid YAML"))
    return f"line {line}: {problem}", "correct that line; a value with special characters must be in quotes"


def _keep_private(source: Source) -> None:
    """Refuse a file with a secret in it that others may read."""
    if source.path.stat().st_mode & 0o077 and _SECRETS.search(source.text):
        raise TutorialError(
            f"Others may read {source.path}", "there is a secret in it", f"chmod 600 {source.path}"
        )  # fmt: skip


def _inside(host: str) -> bool:
    """Tell whether a host is this machine, or in a network of the reader's own."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _words() -> set[str]:
    return {"auth_url", "auth_type", *(word for groups in _NEEDS.values() for group in groups for word in group)}


def _write(word: str, values: Mapping[str, Any], example: str = "") -> str:
    """Say what to write for a missing word, and which word of the file may be meant for it."""
    like = [name for name in difflib.get_close_matches(word, map(str, values), cutoff=0.85) if name not in _words()]
    if like:
        return f"write {word} in place of {like[0]}"
    beside = ", or into secure.yaml beside it" if re.search("password|secret|token", word) else ""
    return example or f"add {word}: below auth{beside}"


def _unusable(path: Path, why: str, remedy: str) -> TutorialError:
    return TutorialError(f"{path} can't be used", why, remedy)
