"""The command `hopfield`: patterns of the user, and what it measures."""

import json

import numpy as np
import pytest
from PIL import Image

import launch
from lm.data.patterns import load_patterns, parse_patterns
from lm.errors import UserError


@pytest.mark.slow
def test_errors_and_capacity_are_those_of_the_theory(tmp_path):
    assert launch.main(["launch.py", "--experiment=hopfield", f"--workdir={tmp_path}"]) == 0
    content = json.loads((tmp_path / "hopfield.json").read_text())
    for row in content["errors"]:
        assert row["mean"] == pytest.approx(row["theory"], rel=0.1)
        assert row["mean"] == pytest.approx(row["textbook"], rel=0.1)
    overlap = {row["load"]: row["mean"] for row in content["capacity"]}
    assert min(value for load, value in overlap.items() if load <= 0.13) > 0.95
    assert max(value for load, value in overlap.items() if load >= 0.17) < 0.7
    for row in content["recall"]:
        assert row["start"] > 10
        assert row["sign, in turn"] == row["satlins, in turn"] == row["softmax"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"hopfield.json", "recall.png", "capacity.png"}


def test_patterns_drawn_with_characters():
    patterns = parse_patterns("#.#\n.#.\n\n\n00-\n 1\n", "here")
    np.testing.assert_array_equal(patterns, [[[1, -1, 1], [-1, 1, -1]], [[-1, -1, -1], [-1, 1, -1]]])


def test_an_image_is_dark_below_its_median(tmp_path):
    for number, dark in enumerate((slice(0, 100), slice(100, 200))):
        grey = np.full((200, 200), 220, np.uint8)
        grey[dark] = 30
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    patterns = load_patterns(str(tmp_path))
    assert patterns.shape == (2, 64, 64)
    np.testing.assert_array_equal(patterns[0, :30], 1)
    np.testing.assert_array_equal(patterns[0, 34:], -1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "##\n##\n\n#\n#\n"}, "pattern 2 has 2 lines of 1 characters, the first has 2 lines of 2"),
        ({"a": "##\n##\n"}, "has 1 patterns of 4 units; at least two are needed"),
        ({"a": "##\n\n##\n"}, "two patterns are equal"),
        (
            {"a": "##\n", "b": "###\n"},
            "different sizes: .*a has 1 lines of 2 characters, .*b has 1 lines of 3 characters; give",
        ),
        (
            {"a": "#.\n.#\n  \n##\n..\n"},
            "line 3, has only spaces: leave it empty between patterns, or draw .* as dots",
        ),
        ({"a": "1,0\n\n0,1\n"}, "line 1, has a comma or a tab: draw each unit as one character"),
        ({"a": ""}, "the file has no text"),
        ({"a": "\n".join("#" * 100 for _ in range(100)) + "\n\n" + "\n".join("." * 100 for _ in range(100))}, "4096"),
        ({"a": b"\x89PNG\r\n\x1a\nbroken"}, "not"),
    ],
)
def test_patterns_that_cannot_be_used(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_patterns(str(tmp_path))


def test_images_of_different_sizes_are_refused(tmp_path):
    """Both would be reduced to one size, each distorted in its own way."""
    for name, size in (("a", (20, 30)), ("b", (30, 20))):
        Image.fromarray(np.eye(*size, dtype=np.uint8) * 200).save(tmp_path / f"{name}.png")
    with pytest.raises(
        UserError, match=r"a\.png has 30 x 20 pixels, .*b\.png has 20 x 30 pixels; give patterns of one"
    ):
        load_patterns(str(tmp_path))


@pytest.mark.parametrize("what", ["too large", "damaged"])
def test_an_image_that_cannot_be_read_is_refused(tmp_path, monkeypatch, what):
    Image.fromarray(np.eye(90, dtype=np.uint8) * 200).save(tmp_path / "a.png")
    if what == "too large":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 90 // 3)  # Pillow refuses more than twice as many
    else:
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-60])
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image: "):
        load_patterns(str(tmp_path / "a.png"))


def test_flags_out_of_range(capsys):
    assert launch.main(["launch.py", "--experiment=hopfield", "--flip=0.7"]) == 2
    assert "--flip=0.7 must be between 0 and 0.5" in capsys.readouterr().err
    assert launch.main(["launch.py", "--experiment=hopfield", "--patterns=/not/here"]) == 2
    assert "--patterns=/not/here" in capsys.readouterr().err
