"""Every key of a training config, with its type and default. Variants state only what differs.

`base()` is locked: a mistyped key fails. Sequences are tuples, because flags cannot override lists. Options are names
rather than booleans where that reads better.
"""

import ml_collections


def base() -> ml_collections.ConfigDict:
    """The default experiment: a small LSTM on the built-in synthetic corpus."""
    config = ml_collections.ConfigDict()
    config.name = ""  # set by each config: its path under configs/, such as text8/lstm_fused
    config.source = ""  # where the reported numbers come from: document, table, row
    config.task = "language_modelling"  # a name that --help=tasks lists
    config.seed = 0  # seed of the parameters, the order of examples and the noise of training
    config.init_from = ""  # a run or an export; a new run starts with its parameters and vocabulary
    config.on_nan = "stop"  # stop; rollback: restore the last checkpoint and halve the learning rate, at most ten times
    config.data = _data()
    config.model = _model()
    config.init = _init()
    config.keep_prob = _keep_prob()
    config.dropout = _dropout()
    config.zoneout = _zoneout()
    config.penalty = _penalty()
    config.loss = _loss()
    config.optim = _optim()
    config.train = _train()
    config.evaluation = _evaluation()
    config.sample = _sample()
    config.checkpoint = _checkpoint()
    config.claim = _claim()
    config.parameters = 0  # number of parameters; 0: not stated
    config.targets = ml_collections.ConfigDict()  # what the source reports: see set_targets
    config.lock()
    return config


def _data() -> ml_collections.ConfigDict:
    """Text, and how it is cut into windows.

    "labels:" and "pairs:" mean every corpus of that kind; "labelled" and "own pairs" only your own files.
    """
    data = ml_collections.ConfigDict()
    data.corpus = "synthetic"  # a name that --help=corpora lists
    data.path = ""  # your own text (textfile, labelled, own pairs): a file, directory or pattern such as "texts/*.txt"
    data.valid_path = ""  # your own validation text; if set (textfile: or test_path), none is held out of data.path
    data.test_path = ""  # your own test text
    data.level = "char"  # textfile: char, word, byte or bpe
    data.fractions = (0.9, 0.05, 0.05)  # textfile, tiny_shakespeare: train, valid, test, in file order
    data.max_vocabulary = 0  # textfile, labels, pairs: keep the N most frequent symbols; 0: all; bpe: number of tokens
    data.reset = ""  # reset the state before this symbol, such as <eos>; empty: never
    data.valid_chars = 1000  # text8: the first N characters are the validation text
    data.train_tokens = 0  # use only the first N tokens of the training text; 0: all
    data.size = 1_000_000  # synthetic: characters of training text; addition, state tracking: training examples
    data.seed = 0  # generated corpora: seed of the text; labels, pairs: seed that picks held-out examples
    data.format = "tsv"  # labelled: tsv, csv, folders or columns (lm/data/labelled.py); own pairs: tsv or csv
    data.columns = (0, 1)  # labelled: columns of the text (or token) and the label; own pairs: of source and target
    data.header = "none"  # labelled, own pairs: none, or first_line, which is skipped
    data.tokenizer = "spaces"  # labelled, own pairs: spaces, lower, keras or characters
    data.digits = "kept"  # labels: kept, or DIGIT, which writes each digit as DIGIT: 747 becomes DIGITDIGITDIGIT
    data.min_count = 1  # labels, pairs: words with fewer occurrences in the training file become <unk>
    data.valid_share = 0.1  # labels, pairs: fraction of training examples held out if there is no validation file
    data.words = "train"  # labels: which splits' words enter the vocabulary: train or all_splits (lm/data/labelled.py)
    data.max_tokens = 0  # labels: cut longer sequences to N tokens; 0: never
    data.keep = "first"  # labels: which tokens max_tokens keeps, first or last
    data.padding = "end"  # labels: end (masked) or front_unmasked: lm/data/examples.py
    data.examples = "sequences"  # tagging: sequences, or words: a word and up to data.unroll - 1 words before it
    data.window = 1  # labels, windows: words read side by side, the labelled one in the middle
    data.buckets = 1  # labels, pairs: number of length buckets; a bucket's sequences are padded to one length
    data.batching = "heads"  # how a text is cut into streams: heads, rows or windows (lm/data/batches.py)
    data.batch_size = 64  # B, rows of a batch
    data.unroll = 10  # T, tokens a stream advances per step
    return data


def _model() -> ml_collections.ConfigDict:
    """Shape of the model."""
    model = ml_collections.ConfigDict()
    model.cell = "lstm"  # a name that --help=cells lists
    model.input = "one_hot"  # input encoding: one_hot, embedding or bigram
    model.embedding_size = 0  # dimension of the embedding of a symbol or bigram
    model.embedding_from = ""  # pretrained vectors of an embedding: a text file, a zip of one, or glove.6B.50d
    model.embedding_case = "exact"  # exact; lower: a word without a vector takes that of its lower-case form
    model.shape_size = 0  # labels: dimension of the word-shape embedding (lm/data/word_shapes.py); 0: none
    model.hidden = (64,)  # units of each layer
    model.projection = 0  # lstm_projection, jordan_softmax: size of each layer's output
    model.mogrifier_rounds = 5  # mogrifier: rounds in which input and state gate each other
    model.direction = "forward"  # labels: forward or both
    model.pooling = "last"  # labels: last, mean, max or attention; none: one label per token
    model.convolution = ()  # labels: (filters, width, pool) before the recurrent layers; (): none
    model.context = "start"  # how a decoder reads the source: start, every_step, additive, multiplicative or fed
    model.output = "dense"  # dense, dense_without_bias, sigmoid, dropped_logits, identity, crf or tied
    model.initial_carry = "zeros"  # initial state: zeros or first_unit_one; labels: also learned
    return model


def _init() -> ml_collections.ConfigDict:
    """Initialisers by role: (name, *numbers). --help=initialisers lists the names."""
    init = ml_collections.ConfigDict()
    init.embedding = ("uniform", -0.1, 0.1)  # embedding table
    init.input = ("glorot_uniform",)  # input weights W_x
    init.recurrent = ("glorot_uniform",)  # recurrent weights W_h
    init.bias = ("zeros",)  # biases of cells
    init.vector = ("zeros",)  # peepholes; second biases of normalised cells
    init.gain = ("constant", 1.0)  # gains of normalised cells
    init.ring = ("lru_ring", 0.9, 0.999)  # lru: magnitude of the eigenvalues
    init.phase = ("lru_phase", 6.283185307179586)  # lru: angle of the eigenvalues
    init.output = ("glorot_uniform",)  # weights of the softmax
    init.output_bias = ("zeros",)  # bias of the softmax
    return init


def _keep_prob() -> ml_collections.ConfigDict:
    """Probability of keeping a unit; 1: no dropout at this site. Sites: lm/model/dropout.py."""
    keep_prob = ml_collections.ConfigDict()
    keep_prob.input = 1.0  # units between embedding and first layer
    keep_prob.between = 1.0  # units between layers
    keep_prob.output = 1.0  # units between last layer and softmax
    keep_prob.recurrent = 1.0  # the update g that an LSTM adds to its memory (Semeniuta et al. 2016)
    keep_prob.carried = 1.0  # a layer's h, both as its output and as what the next step reads (CS224d)
    keep_prob.hidden = 1.0  # h[t-1] where W_h reads it; one mask per window (Gal & Ghahramani 2016)
    keep_prob.embedding = 1.0  # whole rows of the embedding table; one mask per window (Gal & Ghahramani 2016)
    keep_prob.weight_drop = 1.0  # single recurrent weights; one mask per window (Merity et al. 2017)
    return keep_prob


def _dropout() -> ml_collections.ConfigDict:
    """How dropout draws its masks."""
    dropout = ml_collections.ConfigDict()
    dropout.mask = "elementwise"  # elementwise; variational: one mask per window for each site with a time axis
    return dropout


def _zoneout() -> ml_collections.ConfigDict:
    """Probability that a unit keeps its previous value; 0: none (zoneout, Krueger et al. 2017)."""
    zoneout = ml_collections.ConfigDict()
    zoneout.memory = 0.0  # the memory c of LSTMs
    zoneout.output = 0.0  # the state h
    return zoneout


def _penalty() -> ml_collections.ConfigDict:
    """Terms added to the objective; 0: none. Both activation terms: Merity et al. 2017."""
    penalty = ml_collections.ConfigDict()
    penalty.activation = 0.0  # coefficient of mean(h^2) of the last layer, after dropout
    penalty.temporal_activation = 0.0  # coefficient of the last layer's mean((h[t] - h[t-1])^2), before dropout
    penalty.l2 = 0.0  # windows: coefficient of half the sum of the squared weights of both matrices
    return penalty


def _loss() -> ml_collections.ConfigDict:
    """Training objective."""
    loss = ml_collections.ConfigDict()
    loss.weighting = "mean"  # how targets' losses combine: mean, sum_over_time, sum, last_step_sum (lm/model/losses.py)
    loss.gradient = "full"  # full or last_step_features (lm/model/losses.py)
    loss.teacher_forcing = 1.0  # translation: probability that a step reads the true symbol rather than its prediction
    loss.forcing_schedule = "constant"  # how teacher_forcing falls: constant, linear, exponential, inverse_sigmoid
    loss.forcing_steps = 0  # time scale of that schedule in training steps; constant: 0
    loss.label_smoothing = 0.0  # probability spread evenly over all symbols; reported losses stay true nats
    return loss


def _optim() -> ml_collections.ConfigDict:
    """Optimiser, schedule and clipping."""
    optim = ml_collections.ConfigDict()
    optim.name = "sgd"  # a name that --help=optimisers lists
    optim.learning_rate = 1.0  # before the schedule
    optim.schedule = "constant"  # constant, staircase, epochs, cosine, plateau
    optim.decay_rate = 1.0  # staircase, epochs, plateau: factor of each decay
    optim.decay_steps = 1  # staircase: steps between decays
    optim.hold_epochs = 0  # epochs: epochs before the first decay
    optim.patience = 1  # plateau: validation checks without improvement before the rate decays
    optim.final_fraction = 0.0  # cosine: fraction of the learning rate left at the end
    optim.warmup_steps = 0  # steps over which the learning rate grows from 0
    optim.clipping = "none"  # of gradients: none, global_norm or value; of the change of the parameters: step_norm
    optim.clip = 1.0  # threshold: of the norm (global_norm, step_norm) or of each entry (value)
    optim.momentum = 0.9  # momentum, nesterov: fraction of the last update that is kept
    optim.beta1 = 0.9  # adam, adamw: decay of the mean gradient
    optim.beta2 = 0.999  # adam, adamw, rmsprop: decay of the mean squared gradient
    optim.epsilon = 1e-8  # adam, adamw, rmsprop: added to the root of the mean square
    optim.weight_decay = 0.0  # coefficient of the L2 term added to the clipped gradient; adamw: of the decoupled decay
    optim.frozen = ()  # parameters that are not trained, such as ("embedding",)
    optim.unit_rows = ()  # parameters whose rows are rescaled to length 1 after each step, such as ("embedding",)
    optim.average_from = 0  # asgd: the first step whose parameters enter the average
    optim.nonmonotone_checks = 5  # nt_asgd: n; averages once a loss exceeds the lowest of more than n checks earlier
    return optim


def _train() -> ml_collections.ConfigDict:
    """Length of training, and how often it reports, validates and samples."""
    train = ml_collections.ConfigDict()
    train.steps = 0  # exactly one of steps and epochs is positive
    train.epochs = 0  # exactly one of steps and epochs is positive
    train.report_every = 100  # steps between rows of metrics.jsonl, from step 0 on
    train.evaluate_every = 0  # steps; 0: at the end of every epoch
    train.sample_every = 0  # steps; 0: after the first step and at the end
    train.patience = 0  # validation checks without improvement before training stops; 0: never
    train.threads = 0  # CPU threads; 0: one per core
    train.steps_per_dispatch = 100  # most training steps in one dispatch to the device
    train.devices = 1  # devices that share the rows of a batch, over all processes; must divide data.batch_size
    return train


def _evaluation() -> ml_collections.ConfigDict:
    """Scoring."""
    evaluation = ml_collections.ConfigDict()
    evaluation.during = "exact"  # protocol of validation during training, which also chooses the best checkpoint
    evaluation.protocols = ("exact",)  # protocols of the final scores
    evaluation.splits = ("valid",)  # splits of the final scores
    evaluation.best_by = "loss"  # best means: lowest loss, or highest measure, such as f1 (lm/scoring/measures.py)
    evaluation.predictions = 1000  # notebook protocols: number of predictions
    evaluation.batch_size = 20  # batched, windows protocols: B
    evaluation.unroll = 20  # batched, windows protocols: T
    evaluation.temperature = 1.0  # temperature protocol: divides the logits
    evaluation.cache_window = 500  # cache protocols: number of tokens in the cache
    evaluation.cache_theta = 0.3  # cache protocols: sharpness of the match of states
    evaluation.cache_lambda = 0.1  # cache protocols: weight of the cache's distribution
    evaluation.dynamic_segment = 20  # dynamic protocols: tokens per gradient step
    evaluation.dynamic_rate = 0.01  # dynamic protocols: learning rate; the loss is the sum of a segment's nats
    evaluation.dynamic_decay = 0.001  # dynamic protocols: decay to the trained parameters, a fraction per step
    evaluation.target_length = 50  # translation: most symbols written
    evaluation.beams = 5  # beam protocol: beam width
    evaluation.length_penalty = 1.0  # beam protocol: ln p is divided by length to this power
    return evaluation


def _sample() -> ml_collections.ConfigDict:
    """Generated texts."""
    sample = ml_collections.ConfigDict()
    sample.number = 5  # texts to generate
    sample.length = 80  # tokens generated after the start or prompt
    sample.prompt = ""  # beginning of each text; empty: see start
    sample.start = "line"  # line: as if a line had just ended; random: tokens from a random distribution
    sample.stop = ""  # a symbol that ends a text early, such as <eos>
    sample.suppress = ()  # symbols that are never drawn, such as ("<unk>",)
    sample.strategy = "temperature"  # temperature, greedy or first_exceeding: lm/scoring/sampling.py
    sample.temperature = 1.0  # temperature: divides the logits
    sample.top_k = 0  # draws from the k likeliest symbols; 0: from all
    sample.top_p = 1.0  # nucleus sampling: the smallest set of likeliest symbols with this total probability; 1: all
    sample.seed = 0  # seed of the sampled texts
    sample.beams = 1  # translate: beam width; 1: greedy
    sample.length_penalty = 1.0  # translate: ln p is divided by length to this power
    return sample


def _checkpoint() -> ml_collections.ConfigDict:
    """What is saved."""
    checkpoint = ml_collections.ConfigDict()
    checkpoint.every_steps = 1000  # steps between checkpoints
    checkpoint.keep = 2  # number of newest checkpoints kept
    checkpoint.best = "none"  # none; keep: also save the best checkpoint by validation, and score it at the end
    return checkpoint


def _claim() -> ml_collections.ConfigDict:
    """Cost of checking a config with targets."""
    claim = ml_collections.ConfigDict()
    claim.minutes = 0.0  # duration of a run on two CPU cores, in minutes
    claim.seeds = 1  # number of seeds that `reproduce` trains: 3 if a run takes less than five minutes
    return claim


def target(
    *, split: str, protocol: str, metric: str, value: float, where: str, tolerance: float = 0.0, at: str = "final"
) -> ml_collections.ConfigDict:
    """One reported number.

    split, protocol: names of the split and the scoring protocol (protocol "train": read off the training log)
    metric: such as perplexity or loss; value: the reported number; where: table, row or line of the source
    tolerance: how much worse than value still counts as reproduced (lower for accuracy, F1 and BLEU)
    at: when the source reports it: "final", or a place on the training curve such as "epoch 5"
    """
    numbers = dict(split=split, protocol=protocol, metric=metric, value=value, where=where, tolerance=tolerance, at=at)
    return ml_collections.ConfigDict(numbers | {"kind": "reported"})


def aim(**number) -> ml_collections.ConfigDict:
    """A number that this project aims at. Takes the arguments of `target`."""
    made = target(**number)
    made.kind = "aim"
    return made


def set_targets(config: ml_collections.ConfigDict, **targets: ml_collections.ConfigDict):
    """Writes reported numbers or aims into config.targets, as {name: number}."""
    with config.unlocked():
        config.targets = ml_collections.ConfigDict(targets)
