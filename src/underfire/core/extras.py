"""Libraries that not everybody needs: imported where they are used, or one sentence that says how to install them.

timm = extra("timm", "timm", "Models of timm")
"""

from importlib import import_module
from typing import Any

from underfire.core.errors import UnderfireError


def extra(module: str, name: str, whose: str) -> Any:
    """The module, from the extra of that name; UnderfireError if it is not installed."""
    try:
        return import_module(module)
    except ImportError as problem:
        raise UnderfireError(
            f"{whose} need the package {module.partition('.')[0]}, which cannot be imported ({problem}): "
            f"pip install 'underfire[{name}]'."
        ) from None
