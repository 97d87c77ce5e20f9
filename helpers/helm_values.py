"""Helm's values: how a values file changes a chart's defaults, shown as a diff."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers import go_yaml
from helpers.errors import TutorialError

NOT_THERE = "(not in the chart)"
Setting = str | int | float | bool | None
_NAME = r"(?:\\.|[^\\.\[=,])+"  # `nvshare\.com/gpu` is one name, as in Helm's --set
_PATH = re.compile(rf"{_NAME}(?:\[[0-9]+\])*(?:\.{_NAME}(?:\[[0-9]+\])*)*")
_MOST = 65536  # entries of a list, to Helm


def read(path: Path) -> dict[str, Any]:
    """Read a values file as Helm does.

    Args:
        path: The file.

    Returns:
        Its content; an empty file is an empty mapping. `22:22` is a text, `1e3` is 1000, `0o777` is 511, `on` is True.

    Raises:
        TutorialError: It can't be read, is no mapping, or has what Helm would pass over without a word: a second
            document, or a name that occurs twice. The message names the line.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TutorialError(f"{path} can't be read", str(error), "correct the path to it") from None
    content = go_yaml.values(text, str(path), strict=True)
    if content is not None and not isinstance(content, dict):
        raise TutorialError(f"{path} is no values file", "it is not a mapping from names to values", "correct the file")
    return content or {}


def merged(layers: Sequence[Mapping[str, Any]], settings: Mapping[str, Setting] | None = None) -> dict[str, Any]:
    """Merge values as Helm does: mappings name by name, lists as a whole, `null` takes a default away.

    Args:
        layers: The chart's defaults first, then the values files; each later one comes over those before it.
        settings: Single values by their path, `{"worker.replicas": 2, "args[0]": "-v"}`; they come over all layers. An
            entry of a list is set in the list of a values file. Where only the defaults have that list, it is a new
            list: Helm does not know the chart's defaults at that moment.

    Returns:
        The values that the chart gets.

    Raises:
        TutorialError: A path is not one that Helm takes, or does not fit the values files.
    """
    defaults, *files = layers or [{}]
    own: dict[str, Any] = {}
    for layer in files:
        own = _over(own, layer)
    for path, value in (settings or {}).items():
        own = _set(own, _parts(path), go_yaml.number(value), path)
    return _with_defaults(own, defaults)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: value for name, value in above.items() if isinstance(value, dict)}
    both = {name: _over(below[name], value) for name, value in both.items() if isinstance(below.get(name), dict)}
    return {**below, **above, **both}


def _with_defaults(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in own.items() if value is not None or name not in defaults}
    for name, value in defaults.items():
        if name not in own:
            made[name] = value
        elif isinstance(value, dict) and isinstance(own[name], dict):
            made[name] = _with_defaults(own[name], value)
    return made


def _parts(path: str) -> list[str | int]:
    r"""Take a path apart: `a.b\.c[0]` is `a`, `b.c` and the entry 0.

    Raises:
        TutorialError: Helm would not take it.
    """
    if not _PATH.fullmatch(path):
        raise TutorialError(
            f"{path!r} is not the path of a value",
            "Helm takes names with dots between them, and [number] behind a name for an entry of a list",
            r"correct the path; put \ before a . [ = or , that belongs to a name",
        )
    found = re.finditer(rf"\[([0-9]+)\]|({_NAME})", path)
    return [int(part[1]) if part[1] else re.sub(r"\\(.)", r"\1", part[2]) for part in found]


def _set(holder: Any, parts: Sequence[str | int], value: Any, path: str) -> Any:
    """Give a mapping or list with one value changed, as Helm's --set-json does."""
    if not parts:
        return value
    first, rest = parts[0], parts[1:]
    empty: Any = [] if rest and isinstance(rest[0], int) else {}
    if isinstance(first, int) and isinstance(holder, list):
        if first > _MOST:
            raise TutorialError(f"{path!r} names entry {first} of a list", f"Helm knows {_MOST} at most", "correct it")
        entries = [*holder, *[None] * (first + 1 - len(holder))]
        below = entries[first]
        if below is None or (isinstance(below, dict) < isinstance(empty, dict)):
            below = empty
        entries[first] = _set(below, rest, value, path)
        return entries
    if isinstance(first, str) and isinstance(holder, dict):
        return {**holder, first: _set(holder.get(first, empty), rest, value, path)}
    raise TutorialError(
        f"{path!r} does not fit the values files",
        f"what they have above {first!r} is not a {'list' if isinstance(first, int) else 'mapping'}",
        "correct the path, or that value in the file",
    )


def differences(defaults: Mapping[str, Any], here: Mapping[str, Any]) -> list[Mapping[str, object]]:
    """List what differs from a chart's defaults.

    Args:
        defaults: The chart's own values.
        here: The values that it gets.

    Returns:
        A row for each value, by its path: value, default, here. A name that the chart's defaults don't have has
        `NOT_THERE` for a default: it may be misspelt, and no chart without a schema says so.
    """
    before, after = _flat(defaults), _flat(here)
    filled = {path for path in before if any(name.startswith(f"{path}.") for name in after)}  # it was {}
    return [
        {"value": path, "default": before.get(path, NOT_THERE), "here": after.get(path, "(taken away)")}
        for path in sorted((before.keys() | after.keys()) - filled)
        if before.get(path) != after.get(path)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        path = above + re.sub(r"([\\.\[=,])", r"\\\1", str(name))
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{path}.")
        else:
            found[path] = _shown(value)
    return found


def _shown(value: object) -> object:
    return yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, list | dict) else value
