"""Libraries that only some forms need."""

from __future__ import annotations

import importlib
from typing import Any

from panoptube.errors import UserError


def load(name: str, what: str, package: str = "panoptube[results]") -> Any:
    """The module `name`.

    Args:
        name: as Python imports it.
        what: what needs it, for the message.
        package: what pip installs it with.

    Raises:
        UserError: it isn't installed, or doesn't load.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{what} needs {name} ({error}); pip install '{package}'") from error
