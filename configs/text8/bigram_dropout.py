"""A text8 bigram LSTM with dropout, trained for 21,001 steps.

Source: Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6, problem 2c.
Variants, by argument:

  printed  The run that the notebook prints. It has no dropout: the keep probability is 1.0, and the dropped logits
           never reach the loss. Only the schedule is longer (decay every 15,000 steps).
  real     Dropout on the non-recurrent connections (LSTM input and output), as the exercise asks (Zaremba et al. 2014).

Reported: validation perplexity 6.96 (protocol notebook_stride2), the last line of a log whose middle is missing. The
line follows the loss and minibatch perplexity of step 100, but cannot belong to that step: no model gets so low that
early, and problem 1's line at the same place reads 4.42. So it is taken as the last line of the run.
Run (1.5 minutes on two CPU cores):
     python launch.py --config=configs/text8/bigram_dropout.py:real --workdir=runs/text8_bigram_dropout
"""

from configs.base import set_targets, target
from configs.text8.bigram import bigram
from lm.errors import check_name

# Keep probability by variant.
VARIANTS = {"printed": 1.0, "real": 0.9}


def get_config(variant: str = "printed"):
    check_name(variant, VARIANTS, "variant")
    config = bigram(f"bigram_dropout:{variant}")
    config.keep_prob.input = config.keep_prob.output = VARIANTS[variant]
    config.train.steps = 21_001
    config.claim.minutes, config.claim.seeds = 1.5, 3
    config.optim.decay_steps = 15_000
    if variant == "printed":
        where = "problem 2, dropout, the last printed line"
        set_targets(
            config,
            perplexity=target(split="valid", protocol="notebook_stride2", metric="perplexity", value=6.96, where=where),
        )
    return config
