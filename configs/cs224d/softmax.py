"""Classifies random vectors with a softmax: Stanford CS224d, assignment 2, part 1.

Source: Salvatore (2017). "Report: assignment 2", a solution of the Stanford course CS224d (Socher et al. 2015).
The data are 1,024 vectors of 100 random numbers, all of class 1 of 5. W and b start at zero. Gradient descent at rate
1e-4, on the loss summed over batches of 64, runs for 50 epochs without shuffling. The exercise asks for a mean loss per
batch below 0.5 at the end. Computed independently in float64, this loss is 59.2055, 20.3375, 2.34995 and 0.41478 in
epochs 1, 2, 10 and 50. Our losses are per vector, so the targets are these numbers divided by 64.
The course's starter code divides by the last batch's index, 15, not by 16. Its printed 0.44243 is a separate target.
Run (0.1 minutes on two CPU cores): python launch.py --config=configs/cs224d/softmax.py --workdir=runs/softmax
"""

from configs.base import base, set_targets, target

BATCH, BATCHES = 64, 16


def get_config():
    config = base()
    config.task = "vectors"
    config.name = "cs224d/softmax"
    config.source = "CS224d assignment 2 (2015), questions 1a to 1e"
    config.data.corpus = "cs224d_vectors"
    config.data.batch_size = BATCH
    config.init.output = ("zeros",)
    config.loss.weighting = "sum"
    config.optim.learning_rate = 1e-4
    config.train.epochs = 50
    config.train.report_every = 16
    config.evaluation.splits = ("train",)
    config.parameters = 505
    config.claim.minutes = 0.1
    losses = {"epoch 1": 59.2055, "epoch 2": 20.3375, "epoch 10": 2.34995, "epoch 50": 0.41478}
    set_targets(
        config,
        **{
            at.replace(" ", "_"): _loss(at, value, 5e-5 if value > 3 else 5e-6, "batches of 64, in order")
            for at, value in losses.items()
        },
        starter=_loss("epoch 50", 0.44243 * (BATCHES - 1) / BATCHES, 5e-6, "the starter's 0.44243, over 15 not 16"),
    )
    return config


def _loss(at: str, per_batch: float, rounding: float, where: str):
    value, tolerance = per_batch / BATCH, rounding / BATCH
    return target(
        split="train", protocol="train", metric="epoch_loss", value=value, tolerance=tolerance, at=at, where=where
    )
