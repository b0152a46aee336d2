"""Before a run that begins in this very process: its memory is checked, and a long one says how long it will take.

What is compiled here the run finds compiled, so that only a few seconds of timing come on top, and those only where a
guess says that the run is long. (`estimates.estimate` foresees a run of another process, which compiles again.)
"""

import jax

from lm.data.corpora import Corpus
from lm.machine.clock import h_mm_ss
from lm.machine.cores import available
from lm.model.language_model import count_parameters
from lm.training import estimates, memory
from lm.training.step import Experiment, make_experiment

LONG_SECONDS = 300.0  # timing takes some seconds: a few hundredths of this
# What training reached, in operations of floating point a second: of a CPU's core, and the least of an accelerator.
CORE_SPEED, ACCELERATOR_SPEED = 5e10, 1e13


def guess_seconds(experiment: Experiment) -> float:
    """Of the training steps, from the number of weights alone; may be wrong by a factor of three."""
    streams, parameters = experiment.streams, memory.shapes(experiment)[0].parameters
    looked_up = {} if experiment.config.model.output == "tied" else parameters.get("embedding", {})
    weights = count_parameters(parameters) - count_parameters(looked_up)
    operations = 6 * weights * streams.batch_size * streams.unroll  # a product forward and two backward
    on_cpu = jax.default_backend() == "cpu"
    speed = CORE_SPEED * available() if on_cpu else ACCELERATOR_SPEED * experiment.config.train.devices
    return experiment.total_steps * operations / speed


def announce(config, corpus: Corpus, long_seconds: float = LONG_SECONDS) -> estimates.Estimate | None:
    """Prints, of a run that is guessed to be longer, how long, and returns the estimate; of a short one None.

    Raises UserError for a config that cannot be run, and where its compiled programs need more memory than there is.
    """
    experiment = make_experiment(config, corpus)
    is_long = guess_seconds(experiment) > long_seconds
    if config.train.devices > 1 and not is_long:  # what memory.peak compiles is the program of a single device
        return None
    needed = memory.peak(experiment, corpus)
    if not is_long:
        return None
    print(f"timing {config.name or 'the config'} for some seconds; --noeta leaves that out", flush=True)
    found = estimates.estimate_from(experiment, corpus, needed, estimates.measure(experiment, corpus), startup=0.0)
    print(brief(found), flush=True)
    return found


def brief(found: estimates.Estimate) -> str:
    """An estimate as one line."""
    free = "" if found.free is None else f" of {memory.megabytes(found.free)} that are free"
    early = f", unless config.train.patience={found.patience} ends it sooner" if found.patience else ""
    return (
        f"{found.steps:,} steps of {1e3 * found.step_seconds:.3f} ms, in all {h_mm_ss(found.seconds)} "
        f"(h:mm:ss){early}; memory at the peak about {memory.megabytes(found.memory)}{free}"
    )
