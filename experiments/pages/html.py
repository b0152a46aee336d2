"""Self-contained HTML pages: no file beside them, no request to anywhere, all text escaped.

Arguments named text, title, caption, alt, columns and cells are plain text; what the functions return is HTML, fit for
`page`. A page is a function of its arguments alone: the same ones give the same bytes. Its policy (CSP) lets nothing be
loaded, and no script run but the one below, so that even text which escaped escaping would do nothing.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fffefb; --line: #c9c5bb; --dim: #68645a; --mark: #1b5e94; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e2dc; --paper: #1b1c1e; --line: #47484b; --dim: #a09d95; --mark: #7db7e8; }
  img { background: #fff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 Georgia, "Times New Roman", serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
p { max-width: 44rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font: .82rem/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
caption { text-align: left; color: var(--dim); padding-bottom: .4rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.number { text-align: right; white-space: nowrap; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: var(--dim); font-size: .9rem; }
pre { font-size: .78rem; line-height: 1.4; padding: .6rem .8rem; border: 1px solid var(--line); white-space: pre-wrap; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--mark); }
""".strip()

# Sorts a table by the column whose head is pressed: numbers as numbers, empty cells last; pressed again, in reverse.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const key = row => {
      const cell = row.cells[column], number = cell.dataset.number;
      return number === undefined ? cell.textContent : Number(number);
    };
    const before = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return turn * (typeof a === "number" ? a - b : a.localeCompare(b));
    };
    const keyed = [...body.rows].map(row => [key(row), row]);
    keyed.sort((a, b) => before(a[0], b[0])).forEach(pair => body.append(pair[1]));
  }));
}
""".strip()

Cell = str | int | float | None


def page(title: str, sections: Sequence[str]) -> str:
    """A whole document: a heading and the sections, HTML each."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>\n{STYLE}\n</style></head><body>",
        heading(title, level=1),
        *sections,
        f"<script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def details(summary: str, inner: str) -> str:
    """A part that opens when its summary is pressed. summary: text; inner: HTML."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """A table that sorts by any column, in a box of its own that scrolls sideways where it is too wide."""
    heads = "".join(f'<th scope="col"><button type="button">{escape(column)}</button></th>' for column in columns)
    body = "\n".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(cell: Cell) -> str:
    """Text that begins with a number, such as 4.05 ± 0.02 or 1,000, sorts by it."""
    text = "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    value = number_at_start(text)
    if value is None:
        return f"<td>{escape(text)}</td>"
    return f'<td class="number" data-number="{value!r}">{escape(text)}</td>'


def number_at_start(text: str) -> float | None:
    """4.05 of "4.05 ± 0.02", 1000 of "1,000"; None where the first word is no number."""
    first = text.split(" ", 1)[0].replace(",", "")
    try:
        value = float(first)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def figure(image: bytes, kind: str, caption: str, alt: str) -> str:
    """An image within the page. kind: svg or png."""
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    data = base64.b64encode(image).decode()
    caption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:{media};base64,{data}">{caption}</figure>'


def svg_of(figure) -> bytes:
    """A matplotlib figure as SVG: the same figure gives the same bytes."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "recurrent-lm", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
