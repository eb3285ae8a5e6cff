"""A walk over a configuration: every object of it, with its path.

The rules that look at many kinds of objects (`check`, `dangers`, `availability`) are tables and
loops over this walk.
"""

from __future__ import annotations

from collections.abc import Iterator

from tng.config.strict import StrictModel, json_names

Path = tuple[str | int, ...]
"""JSON names and positions, from the top."""


def walk(model: StrictModel, path: Path = ()) -> Iterator[tuple[Path, StrictModel]]:
    """The object and all below it, each with its path; parents first, in the order of the model.

    Args:
        model: where to begin.
        path: the path of `model`.
    """
    yield path, model
    for name, field in type(model).model_fields.items():
        value: object = getattr(model, name)
        below = (*path, json_names(name, field)[0])
        if isinstance(value, StrictModel):
            yield from walk(value, below)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, StrictModel):
                    yield from walk(item, (*below, position))
