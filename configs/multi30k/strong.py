"""Translates German captions into English: attention with input feeding, strong dropout and beam search.

Source: no source reports this model. This project's aim is a BLEU of 33 with at most 25 million parameters.
Luong et al. (2015) describe the model, Inan et al. (2017) tied vectors.
Run (60 minutes on two CPU cores): python launch.py --config=configs/multi30k/strong.py --workdir=runs/multi30k
"""

from configs.base import aim, base, set_targets


def get_config():
    config = base()
    config.task = "translation"
    config.name = "multi30k/strong"
    config.source = "this project's aim"
    # data
    config.data.corpus = "multi30k"
    config.data.min_count = 2
    config.data.batch_size = 128
    config.data.buckets = 4
    # model
    config.model.input = "embedding"
    config.model.embedding_size = 512
    config.model.hidden = (512,)
    config.model.context = "fed"
    config.model.direction = "both"
    config.model.output = "tied"
    config.init.embedding = ("normal", 0.0, 0.05)
    config.init.recurrent = ("orthogonal",)
    config.init.bias = ("lstm_bias", 1.0)
    # regularisation
    config.keep_prob.input = 0.6
    config.keep_prob.output = 0.6
    config.loss.label_smoothing = 0.1
    # optimiser
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 200
    config.optim.clipping = "global_norm"
    config.optim.clip = 1.0
    config.train.epochs = 25
    config.train.report_every = 50
    config.train.steps_per_dispatch = 50
    config.checkpoint.best = "keep"
    # evaluation
    config.evaluation.best_by = "bleu"
    config.evaluation.protocols = ("exact", "beam")
    config.evaluation.splits = ("valid", "test")
    config.sample.length = 50
    config.sample.beams = 5
    config.parameters = 16_764_703
    config.claim.minutes = 60.0
    set_targets(
        config, bleu=aim(split="test", protocol="beam", metric="bleu", value=33.0, at="best", where="this project")
    )
    return config
