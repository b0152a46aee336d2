"""Forms of JSON: what fits, what is named where it does not, and what no reader ever gets to see."""

import json
import math
from typing import NamedTuple

import pytest

from lm.errors import UserError
from lm.runs.schema import NUMBER, POSITIVE, build, check, read_json, read_rows

FORM = {"name": str, "rows": [{"x": NUMBER, "n": int, "note?": (str, None)}], "flags": {str: bool}}
SOUND = {"name": "a", "rows": [{"x": 1, "n": 0}, {"x": -2.5, "n": 3, "note": None}], "flags": {"on": True}, "more": {}}


def test_what_fits_passes():
    check(SOUND, FORM, "file")
    check({"n": 1, "a": 2.5, "b": None}, {"n": int, str: (NUMBER, None)}, "file")
    check([[1], None], [([int], None)], "file")


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        ([], FORM, "file must be an object, not an array"),
        ({"name": "a", "rows": []}, FORM, "file lacks flags"),
        (SOUND | {"name": 3}, FORM, "file: name must be a string, not 3"),
        (SOUND | {"rows": {}}, FORM, "file: rows must be an array, not an object"),
        (SOUND | {"rows": [{"x": "1", "n": 0}]}, FORM, 'file: rows[0]: x must be a finite number, not "1"'),
        (SOUND | {"rows": [{"x": True, "n": 0}]}, FORM, "rows[0]: x must be a finite number, not true"),
        (SOUND | {"rows": [{"x": 10**400, "n": 0}]}, FORM, "rows[0]: x must be a finite number, not 1000"),
        (SOUND | {"rows": [{"x": 0, "n": -1}]}, FORM, "rows[0]: n must be an integer of 0 or more, not -1"),
        (SOUND | {"rows": [{"x": 0, "n": 1.0}]}, FORM, "rows[0]: n must be an integer of 0 or more, not 1.0"),
        (SOUND | {"rows": [{"x": 0, "n": 0, "note": 3}]}, FORM, "note must be a string or null, not 3"),
        (SOUND | {"flags": {"on": 1}}, FORM, "file: flags: on must be true or false, not 1"),
        ({"n": 0}, {"n": POSITIVE}, "file: n must be a positive integer, not 0"),
        ([[1], 2], [([int], None)], "file[1] must be an array or null, not 2"),
    ],
)
def test_what_does_not_fit_is_named(value, form, said):
    with pytest.raises(UserError) as caught:
        check(value, form, "file")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting ',' delimiter"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 50 + b"]" * 50, "nested deeper than 40 levels"),
        (b"1" * 5000, "Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_json_is_named(tmp_path, content, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    for read, end in ((read_json, b""), (read_rows, b"\n")):
        if content or read is read_json:
            path.write_bytes(content + end)
            with pytest.raises(UserError, match=str(path)) as caught:
                read(path)
            assert said in str(caught.value)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        read_json(path)


def test_rows_are_numbered(tmp_path):
    path = tmp_path / "rows"
    path.write_text('{"n": 1}\n{"n": -1}\n')
    assert read_rows(path) == [{"n": 1}, {"n": -1}]
    with pytest.raises(UserError, match=r"rows, line 2: n must be an integer"):
        read_rows(path, {"n": int})
    path.write_text('{"n": 1}\n{"n"\n{"n": 2}\n')
    with pytest.raises(UserError, match=r"rows, line 2 is not valid JSON"):
        read_rows(path, {"n": int})
    path.write_text('{"n": 1}\n{"n"')  # torn by a crash
    assert read_rows(path, {"n": int}) == [{"n": 1}]


class Kept(NamedTuple):
    nats: float = math.inf
    step: int = 0
    on: bool = False
    losses: tuple[float, ...] = ()


def test_a_named_tuple_comes_back_from_json():
    for kept in (Kept(), Kept(1.5, 3, True, (2.0, math.inf))):
        assert build(Kept, json.loads(json.dumps(kept._asdict())), "file") == kept
    assert build(Kept, {"step": 2}, "file") == Kept(step=2)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"other": 1},
        {"step": -1},
        {"step": 1.0},
        {"step": True},
        {"nats": "1"},
        {"nats": [1.0]},
        {"on": 1},
        {"losses": 1.0},
        {"losses": ["1"]},
    ],
)
def test_what_does_not_fit_a_named_tuple_is_refused(values):
    with pytest.raises(UserError, match="file"):
        build(Kept, values, "file")
