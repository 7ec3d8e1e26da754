"""Transfer learning: copy weights by name from one model into part of another."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from tinynet.engines.devices import device_of, to_host
from tinynet.files import storage
from tinynet.model.sequential import Sequential
from tinynet.support.types import Array

Source = Sequential | Mapping[str, Any] | str | os.PathLike[str]
Name = str | int


def transfer_weights(
    source: Source, target: Sequential, names: Iterable[Name] | Mapping[Name, Name] | None = None
) -> list[str]:
    """Copy weights by name: ``transfer_weights(old, new, names=range(8))`` copies those of the first 8 layers.

    Batch-norm's running statistics are weights too. Copied weights train on if the target's layers do: to keep
    features fixed, set ``layer.trainable = False``.

    Args:
        source: a model, the path of a model file, or arrays by name, as returned by `Sequential.named_weights`.
        target: the model to copy into.
        names: which weights to copy. A layer's path, ``5`` or ``"5.1"``, means all its weights, including those of
            layers inside it; ``"5.1.W"`` means one array. A mapping goes from source to target names: ``{"0": "2"}``.
            None means every name that both have.
    Returns: the names copied, as in the target.
    Raises: ValueError: with every name that is missing on one side or differs in shape, or if nothing would be copied;
        the target is then unchanged. ModelFileError: if the file is damaged or not a model.
    Source: Yosinski, Clune, Bengio & Lipson 2014 (how transferable features are).
    """
    arrays = _arrays(source)
    targets = target.named_weights()
    layers = {path for path, _ in target.walk()}
    if names is None:
        names = [name for name in targets if name in arrays]
        hint = "; pass names=, the layers to copy"
    else:
        hint = ""
    pairs, wrong = _pairs(names, arrays, targets, layers)
    for name, place in pairs:
        if arrays[name].shape != targets[place].shape or arrays[name].dtype.kind not in "biuf":
            wrong.append(
                f"{_arrow(name, place)}: expected shape {targets[place].shape}, got {arrays[name].shape} "
                f"{arrays[name].dtype}"
            )
    places = [place for _, place in pairs]
    wrong += [
        f"{place} would be written twice" for place in sorted({p for p in places if places.count(p) > 1})
    ]
    if wrong:
        raise ValueError(f"the weights don't match, and nothing was copied: {'; '.join(wrong)}{hint}")
    if not pairs:
        raise ValueError(
            f"there is nothing to copy: the source has {_some(arrays)}, the target {_some(targets)}"
            f"{'' if hint else f'; names: {names!r}'}"
        )
    for name, place in pairs:
        targets[place][...] = device_of(targets[place]).asarray(arrays[name])
    return places


def _arrays(source: Source) -> dict[str, Array]:
    if isinstance(source, Sequential):
        return {name: to_host(array) for name, array in source.named_weights().items()}
    if isinstance(source, Mapping):
        return {name: to_host(array) for name, array in source.items()}
    if isinstance(source, (str, os.PathLike)):
        return storage.load(source)[1]  # no layers are created, so files with custom layers work too
    raise TypeError(f"source: expected a model, a model file's path or arrays by name, got {source!r}")


def _pairs(
    names: Iterable[Name] | Mapping[Name, Name],
    arrays: Mapping[str, Array],
    targets: Mapping[str, Array],
    layers: set[str],
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the (source name, target name) pairs that the names stand for, and what is wrong with the names."""
    if isinstance(names, (str, int)):
        raise TypeError(f"names: expected several, such as [{names!r}], or a mapping, got {names!r}")
    chosen = names.items() if isinstance(names, Mapping) else ((name, name) for name in names)
    pairs: dict[tuple[str, str], None] = {}  # ordered, without duplicates
    wrong = []
    for name, place in ((str(name), str(place)) for name, place in chosen):
        given, wanted = _below(name, arrays), _below(place, targets)
        if not given and not wanted and place not in layers:
            wrong.append(f"{_arrow(name, place)}: the target has no such layer or weight")
        for rest in dict.fromkeys([*wanted, *given]):
            if rest not in given:
                wrong.append(f"{name + rest} is missing from the source")
            elif rest not in wanted:
                wrong.append(f"{place + rest} is missing from the target")
            else:
                pairs[name + rest, place + rest] = None
    return list(pairs), wrong


def _below(name: str, arrays: Iterable[str]) -> list[str]:
    """Return what follows the name in the names it stands for: "5" gives [".0.W", ".0.b"], "5.0.W" gives [""]."""
    return [key[len(name) :] for key in arrays if key == name or key.startswith(f"{name}.")]


def _arrow(name: str, place: str) -> str:
    return name if name == place else f"{name} -> {place}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{', '.join(listed[:6])}{', ...' if len(listed) > 6 else ''}" if listed else "no weights"
