"""Scores a text of your own under a trained run: nats, perplexity, bits per symbol and per byte.

    python launch.py --experiment=score --workdir=RUN --text=FILE
    echo "the cat" | python launch.py --experiment=score --workdir=RUN --per=token
    printf "the ca" | python launch.py --experiment=score --workdir=RUN --next=5

The text is read as one stream, as under the protocol `exact`. Its first token (for a bigram model, its first two) has
no context and is not scored. Tables are tab-separated.
"""

import collections
import math
import sys
from collections.abc import Iterable

import numpy as np

from lm.data.own_files import read_bytes
from lm.data.text import plain_text
from lm.errors import UserError, lookup
from lm.run import Run, open_run
from lm.runs.workdir import differences
from lm.scoring.inspection import score_texts
from lm.scoring.protocols import exact_nats
from lm.scoring.score import perplexity
from lm.tasks import TASKS

BITS = 1 / math.log(2)  # per nat


def run(config, workdir, data_dir=None, text="-", per="text", next=0, checkpoint="last"):
    """Prints the rows that --per asks for and returns them.

    text: a file, or "-" for standard input; next: number of likeliest next symbols to print as well
    """
    rows_of = lookup(PER, per, "--per")
    if next < 0:
        raise UserError(f"--next must be at least 0, not {next}")
    opened = open_run(workdir, checkpoint)
    opened.check_config(config)
    for key, change in differences(opened.config, config, ()).items():
        if key.startswith("evaluation."):
            raise UserError(
                f"config.{key} ({change}) is not read by score, which always uses the exact protocol; "
                "--experiment=evaluate scores the corpus under other protocols"
            )
    task = opened.config.task
    opened.check_task("--experiment=score", *(name for name, each in TASKS.items() if each.command == "score"))
    if task != "language_modelling" and (per != "text" or next):
        flag = f"--per={per}" if per != "text" else f"--next={next}"
        raise UserError(f"{flag} needs a run of config.task=language_modelling, and this one has {task}: leave it out")
    content = read(text, opened.vocabulary.level)
    if task != "language_modelling":
        rows = labelled_rows(opened, content)
        print_rows(rows)
        return rows
    if not reads_line_ends(opened):
        content = content.removesuffix("\n")
    report_unknown(opened, [content])
    if per == "line" and "\n" in content and not reads_line_ends(opened):
        message = "the vocabulary has no newline: each line continues the one before it, without a space"
        print(f"warning: {message}", file=sys.stderr)
    joined = "".join(split_lines(opened, content)) if per.startswith("line") else content
    if len(opened.encode(joined)) <= opened.model.context:
        raise UserError(f"--text={text}: the text is too short to score: {opened.model.context + 1} tokens are needed")
    rows = rows_of(opened, content)
    print_rows(rows)
    if next:
        print_rows(likeliest(opened, content, next))
    return rows


def read(path: str, level: str = "", flag: str = "--text") -> str:
    """The text of a file, or of standard input for "-", as training reads it: at level byte, bytes that are not UTF-8
    become surrogates and nothing else changes. Raises UserError if it cannot be read. flag: gives the path"""
    name = "standard input" if path == "-" else f"{flag}={path}"
    try:
        content = sys.stdin.buffer.read() if path == "-" else read_bytes(path)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from error
    return content.decode("utf-8", "surrogateescape") if level == "byte" else plain_text(content, name)


def reads_line_ends(run: Run) -> bool:
    """Whether the vocabulary can encode a newline. text8's cannot: its runs read lines without newlines."""
    known = run.vocabulary
    return known.level != "char" or known.unknown is not None or "\n" in known.symbols


def split_lines(run: Run, text: str) -> list[str]:
    """The lines of a text, with their newlines if the vocabulary can encode them."""
    lines = text.split("\n")
    if not reads_line_ends(run):
        return lines
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def report_unknown(run: Run, texts: Iterable[str]):
    """Lists on stderr the tokens that are not in the vocabulary."""
    unknown = collections.Counter(token for text in texts for token in run.tokens(text))
    for symbol in run.vocabulary.symbols:
        unknown.pop(symbol, None)
    if unknown and run.vocabulary.unknown is not None:
        kinds = ", ".join(f"{symbol!r} {count}" for symbol, count in unknown.most_common(5))
        more = f" and {len(unknown) - 5} more kinds" if len(unknown) > 5 else ""
        read_as = f"{unknown.total()} unknown tokens are read as {run.vocabulary.unknown!r}"
        print(f"{read_as}: {kinds}{more}", file=sys.stderr)


def labelled_rows(run: Run, text: str) -> list[dict]:
    """A row per line, with its label and probability; for a tagger, a row per token."""
    rows, names = [], run.vocabulary.labels
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    report_unknown(run, [line for _, line in lines])
    for number, line in lines:
        try:
            tokens, labels, probabilities = run.predicted_labels(line)
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error
        shown = tokens if len(probabilities) == len(tokens) and run.config.task != "classification" else [line[:60]]
        for piece, label, each in zip(shown, labels, probabilities, strict=True):
            probability = float(each[names.index(label)])
            rows.append({"line": number, "label": label, "probability": probability, "text": piece})
    return rows


def score_row(nats: np.ndarray, size: int) -> dict:
    """Total nats and averages of some targets. size: bytes of their text in UTF-8"""
    total, targets = float(nats.sum(dtype=np.float64)), len(nats)
    mean = total / targets if targets else math.nan
    return {
        "nats": total,
        "targets": targets,
        "perplexity": perplexity(mean) if targets else math.nan,
        "bits_per_symbol": mean * BITS,
        "bits_per_byte": total * BITS / size if size and targets else math.nan,
    }


def size_of(text: str) -> int:
    """Number of bytes of a text in UTF-8; a surrogate counts as the one byte that it encodes."""
    return len(text.encode("utf-8", "surrogateescape"))


def size_of_targets(run: Run, text: str) -> int:
    """Number of bytes in UTF-8 of the targets of a text: all its tokens except the first ones."""
    return size_of(text) - run.vocabulary.bytes_of(text, run.model.context)


def per_text(run: Run, text: str) -> list[dict]:
    """A single row for the complete text."""
    nats = exact_nats(run.model, run.parameters, run.encode(text))
    return [score_row(nats, size_of_targets(run, text))]


def per_line(run: Run, text: str) -> list[dict]:
    """A row per line, its newline included. The state is carried from line to line."""
    lines, rows, end = split_lines(run, text), [], -run.model.context
    ids = [run.vocabulary.encode(line) for line in lines]  # line by line: a byte pair may not cross a line end
    nats = exact_nats(run.model, run.parameters, np.concatenate(ids))
    for number, (line, own) in enumerate(zip(lines, ids, strict=True), 1):
        start, end = end, end + len(own)
        unscored = min(max(-start, 0), len(own))  # the text's unscored tokens may fill its first line and more
        size = size_of(line) - run.vocabulary.bytes_of(line, unscored)
        rows.append({"line": number} | score_row(nats[max(start, 0) : max(end, 0)], size))
    return rows


def per_line_reset(run: Run, text: str) -> list[dict]:
    """A row per line, its newline included. The state is reset before each line, whose first tokens are not scored."""
    lines = split_lines(run, text)
    scores = score_texts(run.model, run.parameters, [run.vocabulary.encode(line) for line in lines])
    return [
        {"line": number} | score_row(nats, size_of_targets(run, line))
        for number, (line, nats) in enumerate(zip(lines, scores, strict=True), 1)
    ]


def per_token(run: Run, text: str) -> list[dict]:
    """A row per target. rank: 1 if no symbol was likelier; entropy: of the prediction, in bits"""
    scores = run.token_scores(text)
    tokens = run.vocabulary.tokens(text)[run.model.context :]
    return [
        {"token": token, "nats": nats, "bits": nats * BITS, "rank": rank, "entropy": entropy * BITS}
        for token, nats, rank, entropy in zip(tokens, *(x.tolist() for x in scores), strict=True)
    ]


PER = {"text": per_text, "line": per_line, "line_reset": per_line_reset, "token": per_token}


def likeliest(run: Run, text: str, number: int) -> list[dict]:
    """The `number` likeliest symbols after the text."""
    log_p = run.log_probs(text)[-1]
    order = np.argsort(-log_p, kind="stable")[:number]
    symbols = run.vocabulary.symbols
    return [{"next": symbols[i], "probability": math.exp(log_p[i]), "bits": -float(log_p[i]) * BITS} for i in order]


def print_rows(rows: list[dict]):
    """Prints a table with a header, tab-separated. Control characters are escaped, such as \\n."""
    print(*rows[0], sep="\t")
    for row in rows:
        print(*(show(value) for value in row.values()), sep="\t")


def show(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if value < 1e6 else f"{value:.3f}"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
