"""Numbers that must lie within bounds: each check returns the number or raises one sentence that names it.

eps = check_number("eps", eps, above=0.0, most=1.0)
steps = check_count("steps", steps)
"""

import math
from numbers import Integral, Real
from typing import Any

from underfire.core.errors import UnderfireError


def check_number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf, hint: str = ""
) -> float:
    """A finite number from `least`, or above `above`, up to `most`; the hint ends the sentence."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UnderfireError(f"{name} must be a number, not {value!r}.")
    number = float(value)
    if not (math.isfinite(number) and above < number and least <= number <= most):
        raise UnderfireError(f"{name} is {number:g}; it must be {_bounds(least, above, most)}{hint or '.'}")
    return number


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UnderfireError(f"{name} must be a whole number, not {value!r}.")
    if value < least:
        raise UnderfireError(f"{name} is {value}; it must be a whole number from {least} on.")
    return int(value)


def check_seed(value: Any) -> int:
    """Any whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UnderfireError(f"The seed must be a whole number, not {value!r}.")
    return int(value)


def check_budget(eps: Any) -> float:
    """An L-infinity budget for images in [0, 1]."""
    in_levels = not isinstance(eps, bool) and isinstance(eps, Real) and 1 < float(eps) <= 255
    return check_number("eps", eps, least=0.0, most=1.0, hint=f"; did you mean eps={eps:g}/255?" if in_levels else "")


def _bounds(least: float, above: float, most: float) -> str:
    bounds = [f"above {above:g}"] if math.isfinite(above) else []
    bounds += [f"at least {least:g}"] if math.isfinite(least) else []
    bounds += [f"at most {most:g}"] if math.isfinite(most) else []
    return " and ".join(bounds) or "a finite number"
