"""Reading typed values from environment variables, with one clear sentence for a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(Exception):
    """An environment variable that cannot be used; the text names it and says what to do."""


@dataclass(frozen=True)
class Environment:
    """Typed access to a mapping of environment variables; an empty value counts as not set."""

    values: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        """Return the variable `name`, or `default` when it is not set."""
        return self.values.get(name, "").strip() or default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return the variable `name` as a whole number from `low` to `high`.

        Raises:
            SettingsError: When the value is something else.
        """
        value = self.text(name, str(default))
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise SettingsError(f"{name}={value!r} is not a whole number from {low} to {high}: correct or unset it.")
        return int(value)

    def port(self, name: str, default: int) -> int:
        """Return the variable `name` as a TCP port."""
        return self.integer(name, default, 1, 65535)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """Return the variable `name`, one of `allowed`.

        Raises:
            SettingsError: When the value is something else.
        """
        value = self.text(name, default).lower()
        if value not in allowed:
            raise SettingsError(f"{name}={value!r} is not one of {', '.join(allowed)}: correct or unset it.")
        return value
