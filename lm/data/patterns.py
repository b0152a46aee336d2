"""Patterns for a Hopfield network: six digits, or the user's own text files and images."""

import io
import re

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from lm.data.own_files import OwnFile, read_own
from lm.data.text import plain_text
from lm.errors import UserError

MOST_UNITS = 4096  # units of a pattern; N units need 4 N^2 bytes of weights
SIDE = 64  # images are resized to SIDE x SIDE
OFF = " .0-"  # characters for -1; all others mean 1

# 1, 2, 4, 5, 7 and 9, side by side. Left out: 3, 6, 8 and 0, which resemble other digits too much for Hebb's rule.
_ROWS = """\
....###...  ########..  .....####.  ##########  ##########  ..######..
...####...  #########.  ....#####.  ##########  ##########  .########.
..#####...  ......####  ...######.  ###.......  .......###  ###....###
....###...  .......###  ..###.###.  ###.......  ......####  ###....###
....###...  ......####  .###..###.  ########..  .....####.  ###....###
....###...  .########.  ###...###.  #########.  .....###..  .#########
....###...  ########..  ##########  ......####  ....####..  ..########
....###...  ####......  ##########  .......###  ....###...  .......###
....###...  ###.......  ##########  .......###  ...####...  .......###
....###...  ####......  ......###.  ###...####  ...###....  .....####.
..#######.  ##########  ......###.  #########.  ..####....  ...#####..
..#######.  ##########  ......###.  .#######..  ..###.....  ..#####...
"""
DIGITS = "\n\n".join("\n".join(digit) for digit in zip(*map(str.split, _ROWS.splitlines()), strict=True))


def parse_patterns(text: str, where: str) -> Float[np.ndarray, "P H W"]:
    """Parses P patterns of -1 and 1, drawn with characters in H lines of W, separated by empty lines.

    Raises UserError for different sizes, and for a line of spaces, which could be a separator or units that are off.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if "," in line or "\t" in line:
            raise UserError(
                f"{where}, line {number}, has a comma or a tab: draw each unit as one character; space, dot, 0 and - "
                "are off, all others on"
            )
        if line and not line.strip():
            remedy = "leave it empty between patterns, or draw units that are off as dots"
            raise UserError(f"{where}, line {number}, has only spaces: {remedy}")
    blocks = [block.splitlines() for block in re.split("\n{2,}", text.replace("\r", "").strip("\n")) if block.strip()]
    sizes = [(len(block), max(map(len, block))) for block in blocks]
    height, width = sizes[0] if sizes else (0, 0)
    for number, found in enumerate(sizes, 1):
        if found != (height, width):
            size, first = (f"{lines} lines of {columns} characters" for lines, columns in (found, (height, width)))
            raise UserError(f"{where}: pattern {number} has {size}, the first has {first}")
    rows = [[[-1.0 if c in OFF else 1.0 for c in line.ljust(width)] for line in block] for block in blocks]
    return np.array(rows, np.float32).reshape(len(blocks), height, width)


def read_image(file: OwnFile) -> Image.Image | None:
    """Reads an image in grey; None if the file is no image. Raises UserError for a damaged or too large one."""
    try:
        return Image.open(io.BytesIO(file.content)).convert("L")
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"--patterns: {file.path} cannot be read as an image: {error}") from error


def load_patterns(path: str) -> Float[np.ndarray, "P H W"]:
    """Reads the patterns of a file, a directory or a glob pattern, sorted by path; DIGITS if `path` is empty.

    Raises UserError for files that cannot be read, for fewer than two patterns, and for patterns that are equal, of
    different sizes or too large.
    """
    if not path:
        return parse_patterns(DIGITS, "DIGITS")
    found, sizes = [], dict[str, str]()
    for file in read_own(path, "--patterns"):
        if (image := read_image(file)) is None:
            where = f"--patterns: {file.path}"
            found.append(parse_patterns(plain_text(file.content, where), where))
            size = f"{found[-1].shape[1]} lines of {found[-1].shape[2]} characters"
        else:
            grey = np.asarray(image.resize((SIDE, SIDE)), np.float32)
            found.append(np.where(grey < np.median(grey), 1.0, -1.0).astype(np.float32)[None])  # dark pixels are on
            size = f"{image.width} x {image.height} pixels"
        sizes.setdefault(size, file.path)
    if len(sizes) > 1:
        (size, first), (other, second), *_ = sizes.items()
        raise UserError(
            f"--patterns={path}: different sizes: {first} has {size}, {second} has {other}; give patterns of one size"
        )
    patterns = np.concatenate(found)
    if len(patterns) < 2 or patterns[0].size > MOST_UNITS:
        what = f"{len(patterns)} patterns" + (f" of {patterns[0].size} units" if len(patterns) else "")
        raise UserError(f"--patterns={path} has {what}; at least two are needed, of at most {MOST_UNITS} units")
    if len(np.unique(patterns.reshape(len(patterns), -1), axis=0)) < len(patterns):
        raise UserError(f"--patterns={path}: two patterns are equal")
    return patterns
