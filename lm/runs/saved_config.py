"""The config of a run or an export, read from its directory: --config=RUN/config.json.

A config file may name it as `lm/runs/saved_config.py:RUN/config.json`; launch.py writes it so.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.base import base
from lm.errors import UserError, in_short
from lm.runs.plain import flat
from lm.runs.schema import check, read_json


def get_config(path: str) -> ConfigDict:
    """The config in a config.json. Raises UserError if it cannot be read or is no config of a run."""
    values = read_json(path, {})
    if "vocabulary" in values:  # an export
        check(values, {"config": {}}, path)
        values = values["config"]
    check(values, {"targets?": {}}, path)
    return restore(values, path)


def restore(values: dict, where: str | Path) -> ConfigDict:
    """A plain config as a ConfigDict with the types of base(). A key that `values` lacks has its default.

    Raises UserError, naming the file `where`, for unknown keys and values of another type.
    """
    if "kind" in values:
        raise UserError(f"{where} has the key kind, so it is the config of another command, not of a run")
    config = base().unlock()
    config.targets = ConfigDict(values.get("targets", {}))
    known = flat(config.to_dict())
    for key, value in flat({key: value for key, value in values.items() if key != "targets"}).items():
        if any(name.startswith(f"{key}.") for name in known):
            raise UserError(f"{where}: {key}={in_short(value)} must hold keys")
        if key not in known:
            raise UserError(f"{where} has the unknown key {key[:80]}: another version of this project wrote it")
        try:
            config.update_from_flattened_dict({key: tuple(value) if isinstance(value, list) else value})
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{where}: {key}={in_short(value)} has the wrong type") from error
    return config.lock()
