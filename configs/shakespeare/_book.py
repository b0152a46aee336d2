"""Settings shared by two models of Shakespeare's characters.

Source: Trask (2019). "Grokking Deep Learning", chapter 14. Manning.
"""

from configs.base import base


def book(name: str):
    """The base config with the book's text, embedding, learning rate and sampling rule."""
    config = base()
    config.name = f"shakespeare/{name}"
    config.source = "Trask, Grokking Deep Learning, chapter 14"
    # data: 99,993 characters, all of them training text
    config.data.corpus = "shakespeare_book"
    config.data.batching = "rows"
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 512
    config.model.hidden = (512,)
    config.init.embedding = ("uniform", -0.5 / 512, 0.5 / 512)
    config.init.input = config.init.recurrent = config.init.output = ("he_normal",)
    # optimiser: 0.05, x 0.99 after each pass, no clipping
    config.optim.learning_rate = 0.05
    config.optim.schedule = "epochs"
    config.optim.decay_rate = 0.99
    config.checkpoint.every_steps = 1000
    config.evaluation.splits = ("train",)
    config.sample.length = 70
    config.sample.prompt = "\n"
    # The book multiplies logits by 10 and takes the first symbol whose probability exceeds a uniform draw.
    config.sample.strategy = "first_exceeding"
    config.sample.temperature = 0.1
    return config
