"""Runs tiny experiments on 1, 2 and 4 of four virtual devices and prints what came of it as JSON.

A program of its own, started by test_devices.py: the number of virtual devices is fixed when JAX starts.
"""

import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lm.runs.workdir import prepare_workdir
from lm.training import devices
from lm.training.loop import Trainer
from lm.training.optim import hyper_of
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.step import train_steps
from tests.helpers import tiny

BATCH = {"data__batch_size": 8, "train__steps_per_dispatch": 4}
# All noise, all terms of the objective, moments, carries that go back to zero.
EVERYTHING = {
    "model__input": "embedding",
    "model__embedding_size": 5,
    "model__hidden": (4, 3),
    "data__batching": "rows",
    "keep_prob__input": 0.7,
    "keep_prob__between": 0.7,
    "keep_prob__output": 0.7,
    "keep_prob__recurrent": 0.8,
    "keep_prob__carried": 0.9,
    "keep_prob__hidden": 0.8,
    "keep_prob__embedding": 0.8,
    "keep_prob__weight_drop": 0.8,
    "zoneout__memory": 0.1,
    "zoneout__output": 0.1,
    "penalty__activation": 2.0,
    "penalty__temporal_activation": 1.0,
    "loss__label_smoothing": 0.1,
    "optim__name": "adam",
    "optim__learning_rate": 0.01,
}
AVERAGED = {
    "optim__name": "nt_asgd",
    "optim__nonmonotone_checks": 1,
    "optim__learning_rate": 3.0,
    "train__evaluate_every": 1,
    "train__report_every": 1,
    "checkpoint__every_steps": 3,
    "checkpoint__keep": 9,
}


def trained(count, steps, **changes):
    """What `steps` steps on `count` devices measured and made: losses, gradient norms, parameters, carry."""
    config, corpus = tiny.config(train__devices=count, **(BATCH | changes)), tiny.corpus()
    setup, hyper = make_setup(config, corpus), hyper_of(config)
    state = devices.place(count, tiny.state(setup))
    tokens, hyper = devices.replicate(count, (jnp.asarray(corpus.splits["train"]), hyper))
    losses, norms, dispatch = [], [], config.train.steps_per_dispatch
    with tiny.compilations() as compiled:
        for _ in range(steps // dispatch):
            state, measured = train_steps(setup, state, tokens, hyper, dispatch)
            losses += np.asarray(measured.loss).tolist()
            norms += np.asarray(measured.gradient_norm).tolist()
    rows = jax.tree.leaves(state.carry)[0].addressable_shards
    return {
        "losses": losses,
        "norms": norms,
        "parameters": flat(state.parameters),
        "carry": flat(devices.gather(count, state).carry),
        "compilations": sum("dispatch" in name for name in compiled),
        "carry_rows": [shard.data.shape[0] for shard in rows],
        "copies": len(jax.tree.leaves(state.parameters)[0].addressable_shards),
    }


def flat(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)]).tolist()


def run(workdir, count):
    """A run through the loop, or the rest of one: its rows, results and whether averaging has begun."""
    changes = BATCH | EVERYTHING | AVERAGED
    config = tiny.config(train__devices=count, **changes)
    prepare_workdir(workdir, config)
    trainer = Trainer(Recorder(make_setup(config, tiny.corpus()), workdir))
    began = trainer.recorder.done
    with tiny.compilations() as compiled:
        summary = trainer.run()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [{name: value for name, value in row.items() if name != "tokens_per_s"} for row in rows]
    results = [[row["nats"], row["targets"]] for row in summary["results"]]
    return {
        "began": began,
        "rows": rows,
        "results": results,
        "averaging": trainer.recorder.checks.averaging,
        "compilations": sum("dispatch" in name for name in compiled),
    }


def continued(workdir, source, count):
    """A copy of the run in `source`, set back to its checkpoint of step 6, goes on with `count` devices."""
    shutil.copytree(source, workdir)
    for step in (9, 12):
        shutil.rmtree(workdir / "checkpoints" / "last" / str(step))
    return run(workdir, count)


def main(directory):
    found = {
        "plain, a long dispatch": {count: trained(count, 1000, train__steps_per_dispatch=1000) for count in (1, 2, 4)},
        "everything": {count: trained(count, 12, **EVERYTHING) for count in (1, 2, 4)},
        "run": {count: run(directory / str(count), count) for count in (1, 2, 4)},
        "continued": {
            "4 to 1": continued(directory / "4 to 1", directory / "4", 1),
            "1 to 4": continued(directory / "1 to 4", directory / "1", 4),
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
