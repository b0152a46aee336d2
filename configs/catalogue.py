"""Finds every config of this folder.

A config is a file with a function get_config(). If the function takes a variant, the file lists all variants in
VARIANTS. Files whose name begins with an underscore hold shared settings.
"""

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from lm.errors import UserError

CONFIGS = Path(__file__).resolve().parent


class Entry(NamedTuple):
    """A config. path: the value of --config, such as configs/ptb/zaremba.py:small."""

    path: str
    config: ConfigDict
    module: ModuleType


def all_configs() -> list[Entry]:
    """Returns every config and variant, in order of path. Raises UserError if a file does not list its variants."""
    entries = []
    for file in sorted(CONFIGS.rglob("*.py")):
        if file.name.startswith("_"):
            continue
        path = file.relative_to(CONFIGS.parent)
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        if not hasattr(module, "get_config"):
            continue
        if not inspect.signature(module.get_config).parameters:
            entries.append(Entry(path.as_posix(), module.get_config(), module))
        elif hasattr(module, "VARIANTS"):
            entries += [Entry(f"{path.as_posix()}:{each}", module.get_config(each), module) for each in module.VARIANTS]
        else:
            raise UserError(f"{path}: get_config() takes a variant, so the file must list them all in VARIANTS")
    return entries
