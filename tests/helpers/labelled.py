"""Small labelled files and configs for tests."""

import random

from configs.base import base

GOOD, BAD, OTHER = ("great", "fine", "superb"), ("bad", "poor", "dull"), ("the", "film", "was", "a", "story", "and")


def sentences(count=80, seed=0):
    """[(words, class, tags)]: the class follows from one word; a tag from each word."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        kind = draw.choice(("pos", "neg"))
        words = [draw.choice(OTHER) for _ in range(draw.randint(1, 20))]
        words.insert(draw.randrange(len(words) + 1), draw.choice(GOOD if kind == "pos" else BAD))
        tags = ["B-GOOD" if word in GOOD else "B-BAD" if word in BAD else "O" for word in words]
        found.append((words, kind, tags))
    return found


def write_tsv(path, **arguments):
    path.write_text("".join(f"{' '.join(words)}\t{kind}\n" for words, kind, _ in sentences(**arguments)))
    return path


def write_columns(path, **arguments):
    blocks = ("\n".join(map(" ".join, zip(words, tags, strict=True))) for words, _, tags in sentences(**arguments))
    path.write_text("\n\n".join(blocks) + "\n")
    return path


def config(path, task="classification", **changes):
    """A small config for the file; keys with __ for dots."""
    config = base()
    config.task, config.data.corpus, config.data.path = task, "labelled", str(path)
    config.data.valid_share, config.data.batch_size, config.data.buckets = 0.25, 8, 2
    config.model.input, config.model.embedding_size, config.model.hidden = "embedding", 6, (5,)
    config.optim.name, config.optim.learning_rate = "adam", 0.02
    config.train.epochs, config.train.report_every, config.checkpoint.every_steps = 3, 4, 5
    if task == "tagging":
        config.data.format, config.data.columns, config.model.pooling = "columns", (0, -1), "none"
    for key, value in changes.items():
        *groups, name = key.split("__")
        place = config
        for group in groups:
            place = place[group]
        place[name] = value
    return config
