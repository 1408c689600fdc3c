"""The type checker of the jaxtyping hook: beartype, an int being as good as a float."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., object]) -> Callable[..., object]:
    """The function, its arguments and result checked at each call."""
    checked: Callable[..., object] = _check(function)
    return checked
