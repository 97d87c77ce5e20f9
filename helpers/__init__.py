"""The helpers that the notebooks call: they provision, deploy and drive the real thing, and check that it worked.

Names are loaded on first use (PEP 562), so that `import helpers` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helpers.checkpoint import check as check
    from helpers.errors import TutorialError as TutorialError
    from helpers.settings import settings as settings
    from helpers.target import Target as Target

_HOME = {
    "Target": "helpers.target",
    "TutorialError": "helpers.errors",
    "check": "helpers.checkpoint",
    "settings": "helpers.settings",
}
__all__ = ["Target", "TutorialError", "check", "settings"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'helpers' has no attribute {name!r}")
