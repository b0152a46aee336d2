"""Tags slots in flight queries (ATIS) with a bidirectional LSTM.

Source: Mesnil, He, Deng and Bengio (2013). "Investigation of Recurrent-Neural-Network Architectures and Learning
Methods for Spoken Language Understanding". A log of their code has a test F1 of 93.9 for an Elman network. Papers
report 95.06 to 95.87 for bidirectional LSTMs. The aim is 95.0.
A random fifth of the training sentences is held out for validation. F1 counts slots as conlleval does.
Run (3 minutes on two CPU cores): python launch.py --config=configs/atis/bilstm.py --workdir=runs/atis
"""

from configs.base import aim, base, set_targets


def get_config():
    config = base()
    config.task = "tagging"
    config.name = "atis/bilstm"
    config.source = "this project's aim; protocol of Mesnil et al. 2013"
    # data
    config.data.corpus = "atis"
    config.data.valid_share = 0.2
    config.data.buckets = 4
    config.data.batch_size = 16
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 100
    config.model.hidden = (100,)
    config.model.direction = "both"
    config.model.pooling = "none"
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.embedding = 0.95
    config.keep_prob.input = 0.5
    config.keep_prob.output = 0.5
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.clipping = "global_norm"
    config.optim.clip = 5.0
    config.train.epochs = 40
    config.train.report_every = 200
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.splits = ("valid", "test")
    config.parameters = 269_029
    config.claim.minutes = 3.0
    config.claim.seeds = 3
    set_targets(config, test=aim(split="test", protocol="exact", metric="f1", value=0.95, where="this project"))
    return config
