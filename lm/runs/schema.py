"""Reads JSON and validates its structure.

A form is one of these values:

    str, int, bool          that type; an int is at least 0, and a bool is not an int
    POSITIVE, NUMBER, None  an int above 0; a finite number; null
    (form, form, ...)       a value of any of these forms
    [form]                  an array of values of this form
    {"key": form}           an object with these keys and possibly others; "key?" is optional
    {str: form}             an object in which the values of all other keys have this form
"""

import json
import typing

from lm.errors import UserError, first_line
from lm.runs.files import read_bytes

NUMBER = float  # also accepts an int
POSITIVE = range(1, 2**63)
_LARGEST = 1e308
_DEEPEST = 40  # nesting levels; recursion over a deeper value could exhaust the stack

_NAMES = {
    str: "a string",
    int: "an integer of 0 or more",
    bool: "true or false",
    NUMBER: "a finite number",
    POSITIVE: "a positive integer",
    None: "null",
}


def read_json(path, form=None):
    """The content of a JSON file, validated against `form` if given. Raises UserError naming the file and the error."""
    return _checked(read_bytes(path), form, str(path))


def read_rows(path, form=None) -> list:
    """Reads a file with one JSON value per line, without a last line that a crash has truncated. See `read_json`."""
    lines = whole_lines(read_bytes(path)).splitlines()
    return [_checked(line, form, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _checked(content: bytes, form, where: str):
    try:
        value = parse(content)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {first_line(error)}") from error
    if form is not None:
        check(value, form, where)
    return value


def whole_lines(content: bytes) -> bytes:
    """Removes a last line that has no newline."""
    return content[: content.rfind(b"\n") + 1]


def parse(content: bytes):
    """Parses strict JSON in UTF-8. Raises ValueError if it is invalid or nested too deeply."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        inner = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level, depth = [item for items in inner for item in items], depth + 1
    return value


def _refuse(name: str):
    raise ValueError(f"{name} is not a JSON number")


def check(value, form, where: str):
    """Raises UserError unless the value has the form. where: file or key, for the error"""
    if isinstance(form, tuple):  # an option of the value's type, if it is an object or an array
        form = next(
            (option for option in form if isinstance(option, dict | list) and type(option) is type(value)), form
        )
    if isinstance(form, dict) and isinstance(value, dict):
        _check_object(value, form, where)
    elif isinstance(form, list) and isinstance(value, list):
        for index, item in enumerate(value):
            check(item, form[0], f"{where}[{index}]")
    elif not any(_is(value, option) for option in (form if isinstance(form, tuple) else (form,))):
        raise UserError(f"{where} must be {_name(form)}, not {_shown(value)}")


def _check_object(value: dict, form: dict, where: str):
    named = {key.removesuffix("?"): inner for key, inner in form.items() if key is not str}
    for key in form:
        if key is not str and not key.endswith("?") and key not in value:
            raise UserError(f"{where} lacks {key}")
    for key, item in value.items():
        if key in named:
            check(item, named[key], f"{where}: {key}")
        elif str in form:
            check(item, form[str], f"{where}: {key[:40]}")


def _is(value, form) -> bool:
    if form is None:
        return value is None
    if form is bool or form is str:
        return isinstance(value, form)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if form is NUMBER:
        return -_LARGEST < value < _LARGEST
    return isinstance(value, int) and (value in POSITIVE if form is POSITIVE else form is int and value >= 0)


def _name(form) -> str:
    if isinstance(form, tuple):
        return " or ".join(map(_name, form))
    return "an object" if isinstance(form, dict) else "an array" if isinstance(form, list) else _NAMES[form]


def _shown(value) -> str:
    if isinstance(value, dict | list):
        return _name(type(value)())
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else shown[:40] + "..."


def build(kind: type[typing.NamedTuple], values, where: str):
    """Builds a named tuple from its `_asdict` read from JSON. Missing fields get their defaults. Allows infinity and
    nan. Raises UserError naming the unknown or invalid field."""
    check(values, {}, where)
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        hint = hints.get(name)
        if hint is None:
            raise UserError(f"{where} has {name[:40]}, which is unknown to this version of the project")
        is_sequence = typing.get_origin(hint) is tuple
        items = value if is_sequence and isinstance(value, list) else [value]
        element = typing.get_args(hint)[0] if is_sequence else hint
        if is_sequence != isinstance(value, list) or not all(_fits(item, element) for item in items):
            raise UserError(f"{where}: {name} has the wrong type: {_shown(value)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _fits(value, element: type) -> bool:
    return _is(value, element) or (element is float and isinstance(value, float))
