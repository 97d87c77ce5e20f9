"""Makes Secrets that are not there, in its pod's namespace: `python3 run_secrets.py 'redis-secret password=?' …`."""

from __future__ import annotations

import base64
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from kubernetes import client, config

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# A value that is one of these becomes a random one.
_RANDOM = {
    "?": lambda: secrets.token_hex(24),
    "?fernet": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),  # the only form that Fernet takes
}
_CONFLICT = 409


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Read a Secret's description: `name key=value …`; the value `?` becomes a random one, `?fernet` a Fernet key.

    Raises:
        ValueError: It is not such a description; the message names its name and key, never a value.
    """
    name, *pairs = text.split()
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value:
            raise ValueError(
                f"the Secret {name}: {key or 'a key'} has no value; write key=value, or key=? for a random one"
            )
        values[key] = _RANDOM[value]() if value in _RANDOM else value
    if not values:
        raise ValueError(f"the Secret {name} has no key; write {name} password=?")
    return name, values


def main(texts: Sequence[str]) -> int:
    """Make what is missing; what is there stays as it is.

    Returns:
        0, 1 when the cluster refuses, 2 when a description can't be used.
    """
    try:
        wanted = [parse(text) for text in texts]
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    config.load_incluster_config()
    core, namespace = client.CoreV1Api(), _NAMESPACE.read_text().strip()
    for name, values in wanted:
        body = client.V1Secret(metadata=client.V1ObjectMeta(name=name), string_data=values)
        try:
            core.create_namespaced_secret(namespace, body, _request_timeout=10)
            sys.stdout.write(f"{name}: made\n")
        except client.ApiException as error:
            if error.status != _CONFLICT:
                sys.stderr.write(f"{name}: {error.status} {error.reason}\n")
                return 1
            sys.stdout.write(f"{name}: it is there, and stays\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
