"""Settings shared by the text8 models.

Source: Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6: the notebook 6_lstm.ipynb, with a student's answers.
"""

from configs.base import base

SOURCE = "Udacity deep learning, assignment 6 (6_lstm.ipynb with a student's answers)"


def assignment6(name: str):
    """The notebook's character LSTM. Each config then sets its cell or its input."""
    config = base()
    config.name = f"text8/{name}"
    config.source = SOURCE
    # data: the first 1,000 characters are the validation text; 64 read heads, each reading 10 characters per step
    config.data.corpus = "text8"
    config.data.valid_chars = 1000
    config.data.batching = "heads"
    config.data.batch_size = 64
    config.data.unroll = 10
    # model: mean -0.1, deviation 0.1: the notebook passes (-0.1, 0.1) where TensorFlow expects (mean, deviation)
    config.model.hidden = (64,)
    weights = ("truncated_normal", -0.1, 0.1)
    config.init.input = config.init.recurrent = config.init.output = weights
    # optimiser: learning rate 10 for 5,000 steps, then 1
    config.optim.name = "sgd"
    config.optim.learning_rate = 10.0
    config.optim.schedule = "staircase"
    config.optim.decay_rate = 0.1
    config.optim.decay_steps = 5000
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.25
    config.train.steps = 7001
    config.train.threads = 1  # a step is so small that a second thread costs more than it gains
    config.train.report_every = 100
    config.train.evaluate_every = 100
    config.train.sample_every = 1000
    config.sample.start = "random"
    # evaluation: 1,000 predictions on the 1,000 validation characters
    config.evaluation.during = "notebook"
    config.evaluation.protocols = ("notebook", "exact")
    config.evaluation.predictions = 1000
    return config
