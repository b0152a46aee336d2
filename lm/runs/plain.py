"""Values as JSON holds them, so that what is read from a file equals what is in memory."""

import math
import numbers
import os
from collections.abc import Mapping

import numpy as np


def plain(value):
    """`value` as strict JSON holds it: dicts, lists, strings, numbers, None.

    Tuples and arrays become lists, configs become dicts, scalars of NumPy and JAX become Python's, numbers that are
    not finite become None. So plain(x) == json.loads(json.dumps(plain(x))): two configs are equal exactly when their
    plain forms are, whether read from a file or built.

    Raises TypeError for a value that JSON cannot hold.
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
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r}")


def flat(config: dict, prefix: str = "") -> dict:
    """Nested dicts as one with dotted keys. An empty dict stays a value, so that it is compared."""
    leaves = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves
