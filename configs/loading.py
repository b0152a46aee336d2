"""Finds the mistake in a command line's config or its overrides, and describes it in one line."""

import difflib
import itertools
import os
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from lm.errors import UserError, suggestions

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
SAVED = str(ROOT / "lm" / "runs" / "saved_config.py")
DEFAULT_CONFIG = CONFIGS / "synthetic" / "lstm.py"


def explain_error(argv: list[str], error: BaseException) -> str:
    """Describes the mistake in the command line `argv`, given the error that parsing it raised."""
    config = named_config(argv)
    path, _, argument = config.partition(":")
    if path == SAVED:
        config = path = argument
    path = Path(path)
    if not path.is_file():
        known = [os.path.relpath(p) for p in CONFIGS.rglob("*.py") if "\ndef get_config(" in p.read_text("utf-8")]
        return f"--config={config}: there is no such file{suggestions(str(path), sorted(known))}"
    if not os.access(path, os.R_OK):
        return f"--config={config}: the file cannot be read"
    try:
        loaded = load(named_config(argv))
    except (Exception, SystemExit) as load_error:  # a config file is Python and may raise anything
        # config_flags turns some errors into text that ends with 'ValueError: the reason'.
        reason = (str(load_error).strip() or "it fails").splitlines()[-1]
        kind = "" if isinstance(load_error, flags.Error | UserError) else f"{type(load_error).__name__}: "
        return f"--config={config}: {kind}{reason}"
    if not isinstance(loaded, ConfigDict):
        return f"--config={config}: {error}"
    values = flatten(loaded)
    for key in overridden_keys(argv):
        members = [other for other in values if other.startswith(f"{key}.")]
        if members:
            return f"--config.{key} is a group: override one of {', '.join(members[:8])}"
        if key not in values:
            return f"unknown key --config.{key}{similar_keys(key, list(values))}"
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def check_tuples(config_flag: flags.Flag, overridden: list[str]) -> None:
    """Raises UserError if a tuple is overridden twice, or with items of the wrong type.

    config_flags would join the two overrides, and accepts any items. If a tuple begins with a string, only this string
    is checked: it is a name, and the types of its arguments depend on it.
    """
    overrides = config_flags.get_override_values(config_flag)
    tuples = {key: value for key, value in overrides.items() if isinstance(value, tuple)}
    originals = flatten(load(config_flags.get_config_filename(config_flag))) if tuples else {}
    for key, value in tuples.items():
        if overridden.count(key) > 1:
            raise UserError(f"--config.{key} is given twice: name it once")
        if not originals[key]:
            continue
        kind = type(originals[key][0])
        items = value[:1] if kind is str else value
        wrong = [item for item in items if type(item) is not kind and not (kind is float and type(item) is int)]
        if wrong:
            raise UserError(f"--config.{key}: {wrong[0]!r} is not {kind.__name__}; the default is {originals[key]}")


def load(config: str) -> ConfigDict:
    """Loads the config named by `config`, a value of --config. Applies no overrides."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=[])
    values(["", f"--config={config}"])
    return values.config


def named_config(argv: list[str]) -> str:
    """The last value of --config in `argv`, or the default config."""
    return last_value(argv, "config", str(DEFAULT_CONFIG))


def last_value(argv: list[str], flag: str, default: str) -> str:
    """The last value of `flag` in `argv`, or `default`. Does not need parsed flags."""
    value = default
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, text = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            value = text if equals else following
    return value


def saved_config(argv: list[str]) -> list[str]:
    """Replaces RUN/config.json by lm/runs/saved_config.py:RUN/config.json, because flags load only Python files."""
    argv = list(argv)
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            index, value = (index, value) if equals else (index + 1, "".join(argv[index + 1 : index + 2]))
            if value.endswith(".json"):
                argv[index] = f"{name}={SAVED}:{value}" if equals else f"{SAVED}:{value}"
    return argv


def overridden_keys(argv: list[str]) -> list[str]:
    """The dotted keys that `argv` overrides: a.b for every --config.a.b or --noconfig.a.b."""
    names = [argument.partition("=")[0].lstrip("-") for argument in argv if argument[:1] == "-"]
    return [name.partition("config.")[2] for name in names if name.startswith(("config.", "noconfig."))]


def flatten(config: ConfigDict) -> dict:
    """Returns {dotted key: value}, without the groups themselves."""
    values = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            values |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            values[key] = value
    return values


def similar_keys(key: str, known: list[str]) -> str:
    """Suggests known keys whose last part is like the last part of `key`: "; did you mean --config.A?", or ""."""
    last = key.rpartition(".")[2]
    parts = {other.rpartition(".")[2] for other in known}
    lasts = [part for part in parts if is_meant(last, part)] or difflib.get_close_matches(last, parts, n=3)
    matches = [other for other in known if other.rpartition(".")[2] in lasts]
    matches.sort(key=lambda other: -difflib.SequenceMatcher(None, key, other).ratio())
    names = [f"--config.{other}" for other in matches[:3]]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def is_meant(name: str, part: str) -> bool:
    """Whether `name` is the last part of a key, `part`, or its initials: lr means learning_rate."""
    return name == part or name == "".join(word[:1] for word in part.split("_"))


def similar_flags(flag: str, known: list[str], argv: list[str]) -> str:
    """Suggests a replacement for an unknown flag: "; did you mean --A?", or "".

    A config key that the flag names or abbreviates comes first, then similar flags, then similar keys."""
    keys = list(flatten(load(named_config(argv))))
    if any(is_meant(flag, key.rpartition(".")[2]) for key in keys):
        return similar_keys(flag, keys)
    return suggestions(f"--{flag}", [f"--{name}" for name in known]) or similar_keys(flag, keys)
