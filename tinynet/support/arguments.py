"""An object's constructor arguments, read from its attributes of the same names."""

import inspect
from typing import Any


def arguments_of(owner: object) -> dict[str, Any]:
    """The constructor's arguments by name: what is needed to recreate the object.

    ``*layers`` is one argument, a tuple; ``**options`` is left out.
    Raises: ValueError: naming an argument that the object does not keep as an attribute.
    """
    kind = type(owner).__name__
    try:
        return {name: getattr(owner, name) for name in _parameters(owner)}
    except AttributeError as error:
        missing = next((name for name in _parameters(owner) if name not in dir(owner)), error.name)
        raise ValueError(
            f"{kind} does not keep its argument {missing!r} under that name; set self.{missing} in its __init__, "
            "or define config()"
        ) from error


def defaults_of(owner: object) -> dict[str, Any]:
    """The default of each of the constructor's arguments, by name; ``inspect.Parameter.empty`` where there is none."""
    return {name: parameter.default for name, parameter in _parameters(owner).items()}


def shown(owner: object) -> str:
    """The code that creates the object, with the arguments that differ from their defaults: ``Dense(units=300)``."""
    return f"{type(owner).__name__}({shown_arguments(owner)})"


def shown_arguments(owner: object) -> str:
    """The part of `shown` between the parentheses."""
    parts: list[str] = []
    for name, parameter in _parameters(owner).items():
        value = getattr(owner, name, parameter.default)
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts += map(repr, () if value is parameter.default else value)
        elif repr(value) != repr(parameter.default):
            parts.append(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value!r}")
    return ", ".join(parts)


def _parameters(owner: object) -> dict[str, inspect.Parameter]:
    if type(owner).__init__ is object.__init__:
        return {}
    found = list(inspect.signature(type(owner).__init__).parameters.values())[1:]
    return {item.name: item for item in found if item.kind is not item.VAR_KEYWORD}
