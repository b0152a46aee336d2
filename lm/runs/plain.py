"""Converts values to plain JSON types, so that a value in memory equals its copy read from a file."""

import math
import numbers
import os
from collections.abc import Mapping


def plain(value):
    """Converts `value` to types of strict JSON: dicts, lists, strings, numbers, booleans, None.

    Tuples, sets, arrays -> lists; configs -> dicts; paths -> strings; NumPy and JAX scalars -> Python's; numbers that
    are not finite -> None. Raises TypeError for a value that JSON cannot represent.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "to_dict"):  # ml_collections.ConfigDict
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, numbers.Number):  # an array
        return plain(value.tolist())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r}")


def flat(config: dict, prefix: str = "") -> dict:
    """Flattens nested dicts to one dict with dotted keys. Keeps empty dicts as values, so that comparisons see them."""
    leaves = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves
