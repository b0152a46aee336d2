"""Reads the config of a run or an export: --config=RUN/config.json.

launch.py turns this flag into `lm/runs/saved_config.py:RUN/config.json`; a config file may use this form too.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import base
from lm.errors import UserError, in_short
from lm.runs.plain import flat
from lm.runs.schema import check, read_json


def get_config(path: str) -> ConfigDict:
    """The config in a config.json. Raises UserError if it cannot be read or is not a run's config."""
    values = read_json(path, {})
    if "vocabulary" in values:  # an export
        check(values, {"config": {}}, path)
        values = values["config"]
    check(values, {"targets?": {}}, path)
    return restore(values, path)


def restore(values: dict, where: str | Path) -> ConfigDict:
    """Converts a plain config to a ConfigDict with the types of base(). Missing keys get their defaults. Raises
    UserError, naming the file `where`, for unknown keys and values of a wrong type."""
    if "kind" in values:
        raise UserError(f"{where} is a config for another command: it has the key kind")
    config = base().unlock()
    config.targets = ConfigDict(values.get("targets", {}))
    known = flat(config.to_dict())
    for key, value in flat({key: value for key, value in values.items() if key != "targets"}).items():
        if any(name.startswith(f"{key}.") for name in known):
            raise UserError(f"{where}: {key} must be a group of keys, not {in_short(value)}")
        if key not in known:
            raise UserError(f"{where} has the unknown key {key[:80]}: another version of this project wrote it")
        try:
            config.update_from_flattened_dict({key: tuple(value) if isinstance(value, list) else value})
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{where}: {key}={in_short(value)} has the wrong type") from error
    return config.lock()
