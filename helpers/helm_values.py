"""Helm's values: how a values file changes a chart's defaults, shown as a diff."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers.errors import TutorialError

NOT_THERE = "(not in the chart)"
Setting = str | int | bool
_DOT = re.compile(r"(?<!\\)\.")  # `nvshare\.com/gpu` is one name, as in Helm's --set


def read(path: Path) -> dict[str, Any]:
    """Read a values file.

    Args:
        path: The file.

    Returns:
        Its content; an empty file is an empty mapping.

    Raises:
        TutorialError: It can't be read, is not YAML, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise TutorialError(f"{path} can't be read", str(error), "correct the file, or the path to it") from None
    if not isinstance(content, dict):
        raise TutorialError(f"{path} is no values file", "it is not a mapping from names to values", "correct the file")
    return content


def merged(layers: Sequence[Mapping[str, Any]], settings: Mapping[str, Setting] | None = None) -> dict[str, Any]:
    """Merge values as Helm does: mappings name by name, lists as a whole, `null` takes a value away.

    Args:
        layers: The defaults first; each later one comes over those before it.
        settings: Single values by their path, `{"worker.replicas": 2}`; they come over all layers.

    Returns:
        The values that the chart gets.
    """
    made: dict[str, Any] = {}
    for layer in (*layers, *(_nested(path, value) for path, value in (settings or {}).items())):
        made = _over(made, layer)
    return made


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for name, value in above.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict) and isinstance(made.get(name), dict):
            made[name] = _over(made[name], value)
        else:
            made[name] = value
    return made


def _nested(path: str, value: Setting) -> dict[str, Any]:
    made: Any = value
    for name in reversed(_DOT.split(path)):
        made = {name.replace("\\.", "."): made}
    return dict(made)


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
        path = f"{above}{str(name).replace('.', chr(92) + '.')}"
        if isinstance(value, dict):
            found |= _flat(value, f"{path}.")
        else:
            found[path] = _shown(value)
    return found


def _shown(value: object) -> object:
    return yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, list | dict) else value
