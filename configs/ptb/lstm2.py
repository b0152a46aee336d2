"""A two-layer LSTM (256 and 128 units) on PTB.

Source: Cognitive Class (2018). "Applying Recurrent Neural Networks/LSTM for Language Modeling", a notebook by
Aghabozorgi and de Amorim Junior, after TensorFlow's ptb_word_lm.
Reported perplexity after epoch 15: train 58.577, valid 121.474, test 117.999, at about 2,300 words/s. They follow the
notebook's protocol (`batched`: 60 rows x 20 steps, trimmed, 60 zero states); `exact` scores every target once.
Run (15 minutes on two CPU cores): python launch.py --config=configs/ptb/lstm2.py --workdir=runs/ptb_lstm2
"""

from configs.base import base, set_targets, target

# Validation perplexity after epochs 1, 2, ..., 15.
FIRST_EPOCHS = (256.441, 179.330, 152.885, 140.927, 136.334, 126.533, 124.164, 123.072)
LAST_EPOCHS = (122.462, 122.073, 121.913, 121.826, 121.706, 121.569, 121.474)
VALID_BY_EPOCH = FIRST_EPOCHS + LAST_EPOCHS


def get_config():
    config = base()
    config.name = "ptb/lstm2"
    config.source = "Cognitive Class notebook 'Applying Recurrent Neural Networks/LSTM for Language Modeling'"
    # data: 929,589 tokens in 60 rows of 15,493: (15,493 - 1) // 20 = 774 windows an epoch
    config.data.corpus = "ptb"
    config.data.batching = "rows"
    config.data.batch_size = 60
    config.data.unroll = 20
    # model: all parameters from U(-0.1, 0.1), including the softmax bias; only the LSTM biases are 0
    config.model.input = "embedding"
    config.model.embedding_size = 200
    config.model.hidden = (256, 128)
    weights = ("uniform", -0.1, 0.1)
    config.init.embedding = config.init.input = config.init.recurrent = weights
    config.init.output = config.init.output_bias = weights
    # optimiser: the loss is a mean over the batch and a sum over time; rate 1 for 5 epochs, then halved each epoch
    config.loss.weighting = "sum_over_time"
    config.optim.learning_rate = 1.0
    config.optim.schedule = "epochs"
    config.optim.decay_rate = 0.5
    config.optim.hold_epochs = 4
    config.optim.clipping = "global_norm"
    config.optim.clip = 5.0
    config.train.epochs = 15
    config.train.report_every = 77
    config.train.steps_per_dispatch = 77
    config.checkpoint.every_steps = 774
    # evaluation
    config.evaluation.during = "batched"
    config.evaluation.protocols = ("batched", "exact")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.batch_size = 60
    config.evaluation.unroll = 20
    config.sample.length = 30
    # 10,000 x 200 + (200 + 256 + 1) x 4 x 256 + (256 + 128 + 1) x 4 x 128 + (128 + 1) x 10,000
    config.parameters = 3_955_088
    config.claim.minutes = 15.0
    where = "last lines of the training log"
    # Both curves are of a single run, so points before the last epoch have a tolerance of 3%; the final ones have none.
    by_epoch = {
        f"valid_epoch_{epoch:02}": target(
            split="valid",
            protocol="batched",
            metric="perplexity",
            value=value,
            tolerance=round(0.03 * value, 3),
            where="training log",
            at=f"epoch {epoch}",
        )
        for epoch, value in enumerate(VALID_BY_EPOCH[:-1], start=1)
    }
    set_targets(
        config,
        **by_epoch,
        train=target(split="train", protocol="train", metric="perplexity", value=58.577, where=where),
        valid=target(split="valid", protocol="batched", metric="perplexity", value=121.474, where=where),
        test=target(split="test", protocol="batched", metric="perplexity", value=117.999, where=where),
    )
    return config
