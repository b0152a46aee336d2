"""Trains a bidirectional LSTM on your own labelled text: a class per text, or a tag per word.

Variants, by argument: classes reads a TSV file, a CSV file or folders; tags reads CoNLL columns.

    python launch.py --config=configs/labelled.py:classes --config.data.path=reviews.tsv --workdir=runs/reviews
    python launch.py --config=configs/labelled.py:classes --config.data.path=mail.csv --config.data.format=csv \\
        --config.data.columns='(2, 0)' --config.data.header=first_line --workdir=runs/mail
    python launch.py --config=configs/labelled.py:classes --config.data.path=texts/ --config.data.format=folders
    python launch.py --config=configs/labelled.py:tags --config.data.path=train.conll --workdir=runs/tags

A tenth of the examples is held out for validation unless config.data.valid_path names a file. The best
checkpoint by validation is kept. File formats: see lm/data/labelled.py.
"""

from configs.base import base
from lm.errors import lookup

# Variant -> (task, file format, columns of the text and the label, pooling)
VARIANTS = {
    "classes": ("classification", "tsv", (0, 1), "max"),
    "tags": ("tagging", "columns", (0, -1), "none"),
}


def get_config(variant: str = "classes"):
    task, form, columns, pooling = lookup(VARIANTS, variant, "variant")
    config = base()
    config.task = task
    config.name = f"labelled:{variant}"
    config.source = "your own text"
    # data
    config.data.corpus = "labelled"
    config.data.format = form
    config.data.columns = columns
    config.data.buckets = 4
    config.data.batch_size = 32
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 64
    config.model.hidden = (64,)
    config.model.direction = "both"
    config.model.pooling = pooling
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.embedding = 0.9
    config.keep_prob.input = 0.7
    config.keep_prob.output = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-3
    config.optim.clipping = "global_norm"
    config.optim.clip = 5.0
    config.train.epochs = 20
    config.train.patience = 3
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    return config
