"""A sigmoid RNN language model of PTB: Stanford CS224d, assignment 2, part 3.

Source: Salvatore (2017). "Report: assignment 2", a solution of the Stanford course CS224d.
Reported: validation perplexity 163.170974731, with hyperparameters from a random search over batch size, dropout,
learning rate and unroll.
Two oddities are kept. The next step reads h after dropout. Every variable, including biases, is initialised from
U(+-sqrt(3 / shape[0])), the default of TensorFlow before 1.0. With Glorot's initialiser the result is clearly worse.
Run (9 minutes on two CPU cores): python launch.py --config=configs/cs224d/rnnlm.py --workdir=runs/cs224d_rnnlm
"""

from configs.base import base, set_targets, target


def get_config():
    config = base()
    config.name = "cs224d/rnnlm"
    config.source = "CS224d assignment 2 report (F. Salvatore 2017), part 3e"
    # data
    config.data.corpus = "ptb"
    config.data.batching = "rows"
    config.data.batch_size = 104
    config.data.unroll = 14
    # model: h = sigmoid(h H + e I + b1), softmax(h U + b2)
    config.model.cell = "elman_sigmoid"
    config.model.input = "embedding"
    config.model.embedding_size = 50
    config.model.hidden = (100,)
    for role in ("embedding", "input", "recurrent", "bias", "output", "output_bias"):
        config.init[role] = ("tensorflow0_uniform",)
    # regularisation: dropout of the input and of h, which is carried after dropout
    config.keep_prob.input = 0.991323729933
    config.keep_prob.carried = 0.991323729933
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 0.00217346380124
    config.train.epochs = 16
    config.train.patience = 2
    config.train.report_every = 100
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.during = "batched"
    config.evaluation.protocols = ("batched", "exact")
    config.evaluation.splits = ("valid", "test")
    config.evaluation.batch_size = 104
    config.evaluation.unroll = 14
    config.sample.length = 100
    config.sample.stop = "<eos>"
    config.sample.prompt = "this is a great"
    # 10,000 x 50 + (50 + 100 + 1) x 100 + (100 + 1) x 10,000
    config.parameters = 1_525_100
    config.claim.minutes = 9.0
    set_targets(
        config,
        valid=target(
            split="valid",
            protocol="batched",
            metric="perplexity",
            value=163.170974731,
            where="below the code of 3e",
            at="best",
        ),
    )
    return config
