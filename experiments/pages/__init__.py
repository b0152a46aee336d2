"""Self-contained HTML pages, rendered from the Jinja2 templates in templates/.

A page needs no other file and sends no request. Jinja2 escapes every value that a template prints, so values are plain
text. A content security policy allows only the page's style, embedded images and the script that sorts tables, so that
text that is left unescaped by mistake cannot run. The same values give the same bytes.
"""

import base64
import functools
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values) -> str:
    """Renders a template that extends templates/base.html.

    template: its file name, such as ledger.html; values: its variables, including `title`
    """
    # The policy allows the script of base.html by its hash.
    digest = _base64(hashlib.sha256((_TEMPLATES / "sort.js").read_bytes()).digest())
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return environment().get_template(template).render(policy=policy, **values)


def environment() -> jinja2.Environment:
    """Jinja2 with autoescape, our filters, and an error for a missing value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pretty = functools.partial(json.dumps, indent=2, ensure_ascii=False)
    environment.filters |= {"cell_text": cell_text, "number_at_start": number_at_start}
    environment.filters |= {"base64": _base64, "pretty": pretty}
    return environment


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def cell_text(value: object) -> str:
    """A table cell as text: floats with six significant digits, None as nothing."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def number_at_start(text: str) -> float | None:
    """The number by which a cell is sorted: 4.05 of "4.05 ± 0.02", 1000 of "1,000"; None for other text."""
    first = text.split(" ", 1)[0].replace(",", "")
    try:
        value = float(first)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- Figures --------------------------------------------------------------------------------------------------------


def new_figure(width: float, height: float) -> "Figure":
    """An empty matplotlib figure. width, height: in inches"""
    from matplotlib.figure import Figure  # takes long to import

    return Figure(figsize=(width, height), layout="constrained")


def use_log_axis(panel: "Axes"):
    """Makes the y axis logarithmic, labelled with plain numbers, and draws a grid."""
    from matplotlib.ticker import LogFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(LogFormatter())
    panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    panel.grid(alpha=0.3, which="both")


LARGEST = 1e100  # the greatest value that is drawn


def points(x: Sequence, y: Sequence) -> tuple[list, list]:
    """(x, y) of a line, without its missing values and those that matplotlib cannot draw, of a run that diverged."""
    found = [(a, b) for a, b in zip(x, y, strict=False) if b is not None and b < LARGEST]
    return [a for a, _ in found], [b for _, b in found]


def svg_of(figure: "Figure") -> bytes:
    """Renders a matplotlib figure as SVG. The same figure gives the same bytes."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "recurrent-lm", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def png_of(figure: "Figure") -> bytes:
    """Renders a matplotlib figure as PNG. The same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
