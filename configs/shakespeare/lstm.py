"""An LSTM of 512 units on Shakespeare's characters.

Source: Trask (2019). "Grokking Deep Learning", chapter 14. Manning.
Variants, by argument:

  book     The book's model with its broken gradient (9 minutes). The book's autograd drops every gradient that reaches
           a tensor a second time. So h passes gradients through the output gate only, c passes none, and only the last
           time step's loss trains more than the output weights (cell lstm_book_gradient, loss.gradient
           last_step_features).
           Reported (running exp of the mean loss within a pass): exactly 62.00 in the first window (uniform over 62
           symbols: output weights start at 0), 10.86 after pass 5, 10.55 at best in pass 7, 9.900 around pass 91.
  correct  The same size and data with the true gradient, a mean loss, clipping and Adam (2 minutes). It gets far below
           9.900. With the book's rate (0.05 on a sum over batch and time) the true gradient diverges in the first pass.

There is no held-out text: all numbers are training perplexities. Minutes are for two CPU cores.
Run: python launch.py --config=configs/shakespeare/lstm.py:book --workdir=runs/shakespeare_lstm_book
"""

from configs.base import set_targets, target
from configs.shakespeare._book import book
from lm.errors import check_name

VARIANTS = ("book", "correct")


def get_config(variant: str = "correct"):
    check_name(variant, VARIANTS, "variant")
    config = book(f"lstm:{variant}")
    # 99,993 // 16 = 6,249 characters a row: (6,249 - 1) // 25 = 249 windows a pass
    config.data.batch_size = 16
    config.data.unroll = 25
    # model: output weights start at 0, no output bias, state starts with h[:, 0] = c[:, 0] = 1
    config.model.output = "dense_without_bias"
    config.model.initial_carry = "first_unit_one"
    config.init.output = ("zeros",)
    config.train.report_every = 249
    # 62 x 512 + (512 + 512 + 1) x 4 x 512 + 512 x 62
    config.parameters = 2_162_688
    config.claim.seeds = 3
    best = _train_target("lowest_running_perplexity", 9.900, 0.1, where="I:91")
    if variant == "correct":
        config.optim.name = "adam"
        config.optim.learning_rate = 1e-3
        config.optim.schedule = "constant"
        config.optim.clipping = "global_norm"
        config.optim.clip = 1.0
        config.train.epochs = 20
        config.claim.minutes = 2.0
        set_targets(config, best=best)
        return config
    config.model.cell = "lstm_book_gradient"
    config.loss.weighting = "sum"
    config.loss.gradient = "last_step_features"
    config.train.epochs = 92
    config.claim.minutes = 9.0
    set_targets(
        config,
        best=best,
        first_window=_train_target("perplexity", 62.0, 0.005, where="I:0, batch 1", at="step 0"),
        pass_5=_train_target("epoch_perplexity", 10.86, 0.326, where="I:5", at="epoch 6"),
        pass_7=_train_target("lowest_running_perplexity", 10.55, 0.317, where="I:7", at="epoch 8"),
    )
    return config


def _train_target(metric: str, value: float, tolerance: float, where: str, at: str = "final"):
    return target(split="train", protocol="train", metric=metric, value=value, tolerance=tolerance, where=where, at=at)
