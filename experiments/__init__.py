"""The commands of launch.py and their flags. Each command is a row of COMMANDS and has a file of its own."""

from collections.abc import Callable
from typing import NamedTuple

from absl import flags


class Flag(NamedTuple):
    """A flag, and the function of absl.flags that defines it."""

    define: Callable[..., object]
    name: str
    default: object
    help: str


CELLS = Flag(flags.DEFINE_string, "cells", "", "Cells to compare, separated by commas. Default: all.")
CHECK = Flag(flags.DEFINE_boolean, "check", False, "Train nothing; derive the ledger in --workdir again and compare.")
CHECKPOINT = Flag(flags.DEFINE_string, "checkpoint", "last", "Checkpoint of a run: last or best.")
CORPUS = Flag(flags.DEFINE_string, "corpus", "", "Corpus to use if a config allows it, such as text8_prefix.")
BUDGET = Flag(flags.DEFINE_string, "budget", "", "Time to train, such as 30m; runs that do not fit are left out.")
DRY_RUN = Flag(flags.DEFINE_boolean, "dry_run", False, "Print the time and memory that the command needs, and stop.")
ETA = Flag(flags.DEFINE_boolean, "eta", True, "Print no time estimate before a long run.")  # describes --noeta
JOBS = Flag(flags.DEFINE_integer, "jobs", 1, "Number of processes that train trials on this machine.")
LANES = Flag(flags.DEFINE_string, "lanes", None, "Keys and values of the runs: 'seed=0:4 optim.clip=1.0,5.0'.")
FLIP = Flag(flags.DEFINE_float, "flip", 0.2, "Probability of flipping each unit at the start, at most 0.5.")
NEXT = Flag(flags.DEFINE_integer, "next", 0, "Number of likeliest next symbols to print as well.")
PATTERNS = Flag(flags.DEFINE_string, "patterns", "", "Text files or images with patterns. Default: six digits.")
PER = Flag(flags.DEFINE_string, "per", "text", "Print a row per text, line, line_reset (resets the state) or token.")
PROMPT_FILE = Flag(flags.DEFINE_string, "prompt_file", "", "File with the prompt, in place of config.sample.prompt.")
SEEDS = Flag(flags.DEFINE_integer, "seeds", 0, "Runs of each config; 0: the number that the config requires.")
SPLIT = Flag(flags.DEFINE_string, "split", "valid", "Text to compare the runs on: train, valid or test.")
STORAGE = Flag(flags.DEFINE_string, "storage", "", "URL of the Optuna database that several machines share.")
TARGETS = Flag(flags.DEFINE_string, "targets", "*", "Patterns of configs or their targets: 'text8/*,ptb/lstm2'.")
TEXT = Flag(flags.DEFINE_string, "text", "-", "File to read; - reads standard input.")
TO = Flag(flags.DEFINE_string, "to", "", "Directory of the export. Default: export/ in --workdir.")
VOCABULARY = Flag(flags.DEFINE_string, "vocabulary", None, "Vocabulary of the weights: a file with one token per line.")
NEAREST = Flag(flags.DEFINE_integer, "nearest", 10, "Number of words to list.")
VECTORS = Flag(flags.DEFINE_string, "vectors", "", "File of word vectors. Default: GloVe's, in --data_dir.")
WORD = Flag(flags.DEFINE_string, "word", "", "Word, or a sum such as 'king - man + woman'.")
WEIGHTS = Flag(flags.DEFINE_string, "weights", None, "Safetensors file to import.")


class Command(NamedTuple):
    """A value of --experiment. `module` has run(config, workdir, data_dir, **{flag.name: its value for flag in flags}).

    arguments: keyword of run() for the positional arguments, a tuple of strings; "": none are allowed
    config: value of config.kind that the command accepts, any, or none
        saved: the config of the run in --workdir; --config may name that config but no other
    distributed: several processes can run the command together
    workdir: default of --workdir; "": runs/ and the config's path
    resumes: running the command again resumes from its checkpoints
    """

    module: str
    flags: tuple[Flag, ...] = ()
    arguments: str = ""
    config: str = "run"
    distributed: bool = False
    workdir: str = ""
    resumes: bool = False


COMMANDS = {
    "train": Command("experiments.train", (DRY_RUN, ETA), distributed=True, resumes=True),
    "evaluate": Command("experiments.evaluate", config="saved"),
    "tune_evaluation": Command("experiments.tune_evaluation", (CHECKPOINT,), config="saved"),
    "lanes": Command("experiments.lanes", (LANES,), resumes=True),
    "sample": Command("experiments.sample", (CHECKPOINT, PROMPT_FILE), config="saved"),
    "score": Command("experiments.score", (TEXT, PER, NEXT, CHECKPOINT), config="saved"),
    "translate": Command("experiments.translate", (TEXT, CHECKPOINT), config="saved"),
    "benchmark_lanes": Command("experiments.benchmark_lanes"),
    "gradients": Command("experiments.gradients"),
    "record": Command("experiments.record", config="any"),
    "benchmark": Command("experiments.benchmark", config="benchmark"),
    "reproduce": Command(
        "experiments.reproduce",
        (TARGETS, SEEDS, BUDGET, CORPUS, CHECK, DRY_RUN),
        config="none",
        workdir="runs/ledger",
        resumes=True,
    ),
    "sweep": Command("experiments.sweep", (STORAGE, JOBS, DRY_RUN), config="sweep", resumes=True),
    "compare": Command("experiments.compare", (SPLIT, CHECKPOINT), "runs", config="none", workdir="runs/compare"),
    "neighbours": Command("experiments.neighbours", (WORD, VECTORS, NEAREST), config="none", workdir="runs/neighbours"),
    "derivations": Command("experiments.derivations", config="none", workdir="runs/derivations"),
    "hopfield": Command("experiments.hopfield", (PATTERNS, FLIP), config="none", workdir="runs/hopfield"),
    "state_tracking": Command(
        "experiments.state_tracking", (CELLS,), config="none", workdir="runs/state_tracking", resumes=True
    ),
    "export": Command("experiments.export", (CHECKPOINT, TO), config="saved"),
    "import": Command("experiments.import_weights", (WEIGHTS, VOCABULARY)),
}

# Flags of every command, except --config, which parse_flags defines.
COMMON_FLAGS = (
    Flag(flags.DEFINE_string, "experiment", "train", f"Command to run: {', '.join(COMMANDS)}."),
    Flag(flags.DEFINE_string, "workdir", None, "Directory of the run. Default: runs/ and the config's path."),
    Flag(flags.DEFINE_string, "data_dir", None, "Directory of corpora. Default: LM_DATA_DIR in the environment."),
    Flag(flags.DEFINE_boolean, "debug", False, "Show the traceback of an error."),
)

# Flags of distributed commands. Each of several processes that train together needs all three.
DISTRIBUTED_FLAGS = (
    Flag(flags.DEFINE_string, "coordinator_address", None, "HOST:PORT of process 0, the same for all processes."),
    Flag(flags.DEFINE_integer, "num_processes", None, "Number of processes that train together."),
    Flag(flags.DEFINE_integer, "process_id", None, "Index of this process, from 0."),
)


def flags_of(command: Command) -> tuple[Flag, ...]:
    """The flags of a command without COMMON_FLAGS."""
    return (*command.flags, *(DISTRIBUTED_FLAGS if command.distributed else ()))
