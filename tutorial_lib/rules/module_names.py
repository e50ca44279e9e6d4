"""Modules of a model by their dotted names, for methods that take a rule for each."""

import difflib

from torch import nn


def find_module(argument: str, model: nn.Module, key: str | nn.Module) -> nn.Module:
    """Return the module with a dotted name, or the module itself, if it is one of the model's.

    Args:
        argument: Name of the argument that holds the key, for the message.
        model: The model; its own name is "".
        key: Dotted name or module.

    Raises:
        ValueError: The model has no such module; the message names those that are near.
    """
    modules = dict(model.named_modules())
    module = modules.get(key) if isinstance(key, str) else key
    if not any(module is m for m in modules.values()):
        close = difflib.get_close_matches(str(key), modules, n=5, cutoff=0) or [*modules][:5]
        raise ValueError(f"{argument}: {key!r} is no module of the model; some are {close}")
    return module
