"""Runs an experiment on a config.

    python launch.py                                        # train the default config
    python launch.py --config=configs/text8/lstm_fused.py --workdir=runs/a
    python launch.py --config=... --config.optim.learning_rate=5.0 --config.model.hidden='(32,32)'
    python launch.py --experiment=sample --config=configs/text8/lstm_fused.py --workdir=runs/a
    python launch.py --experiment=compare runs/a runs/b

Exit status: 0, also where SIGTERM ended it; 2 and one line that starts with 'error: ' where a flag,
config, file or input is at fault; 130 where Ctrl-C ended it; 141 where standard output was closed.
Configs are Python and run as such: launch only those you trust.
"""

import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.loading import CONFIGS, DEFAULT_CONFIG, check_tuples, explain
from lm.errors import UserError, check_name, first_line, suggestions
from lm.machine import signals
from lm.machine.compilation_cache import use_compilation_cache

# No jax here: a mistake on the command line is answered in a fraction of a second.


class ExtraFlag(NamedTuple):
    """A flag of some experiments only; its value reaches run() under its name."""

    define: Callable  # flags.DEFINE_string, DEFINE_integer, ...
    name: str
    default: object
    help: str


class Experiment(NamedTuple):
    """`module` has run(config, workdir, data_dir, **{flag.name: value for flag in extra}).

    distributed: whether several processes can run it together
    arguments: the name under which run() gets what is not a flag, a tuple of strings; "": there may be none
    workdir: the default of --workdir; "": runs/ and the config's path
    reads: the kind of config that it is for: run, which trains one; another, which config.kind names; any; none
    """

    module: str
    extra: tuple[ExtraFlag, ...] = ()
    distributed: bool = False
    arguments: str = ""
    workdir: str = ""
    reads: str = "run"


DRY_RUN = ExtraFlag(
    flags.DEFINE_boolean, "dry_run", False, "Prints how long it will take and what memory it needs, and stops there."
)

ETA = ExtraFlag(flags.DEFINE_boolean, "eta", True, "Says before a long run how long it will take.")

CHECKPOINT = ExtraFlag(flags.DEFINE_string, "checkpoint", "last", "Which checkpoint of a run: last or best.")

EXPERIMENTS = {
    "train": Experiment("experiments.train", (DRY_RUN, ETA), distributed=True),
    "evaluate": Experiment("experiments.evaluate"),
    "lanes": Experiment(
        "experiments.lanes",
        (ExtraFlag(flags.DEFINE_string, "lanes", None, "Keys and values of the runs: 'seed=0:4 optim.clip=1.0,5.0'."),),
    ),
    "sample": Experiment("experiments.sample"),
    "benchmark_lanes": Experiment("experiments.benchmark_lanes"),
    "gradients": Experiment("experiments.gradients"),
    "record": Experiment("experiments.record", reads="any"),
    "benchmark": Experiment("experiments.benchmark", reads="benchmark"),
    "reproduce": Experiment(
        "experiments.reproduce",
        (
            ExtraFlag(
                flags.DEFINE_string, "targets", "*", "Patterns of configs or their targets: 'text8/*,ptb/lstm2'."
            ),
            ExtraFlag(flags.DEFINE_integer, "seeds", 0, "Runs of each config; 0: as many as the config asks for."),
            ExtraFlag(flags.DEFINE_string, "budget", "", "Time to train, as in 30m; what is beyond it is not run."),
            ExtraFlag(flags.DEFINE_string, "corpus", "", "The corpus where a config can do with it: text8_prefix."),
            ExtraFlag(flags.DEFINE_boolean, "check", False, "Trains nothing; derives what is in --workdir again."),
            DRY_RUN,
        ),
        workdir="runs/ledger",
        reads="none",
    ),
    "sweep": Experiment(
        "experiments.sweep",
        (
            ExtraFlag(flags.DEFINE_string, "storage", "", "Optuna's URL of a study that machines share."),
            ExtraFlag(flags.DEFINE_integer, "jobs", 1, "Processes that train trials here."),
            DRY_RUN,
        ),
        reads="sweep",
    ),
    "compare": Experiment(
        "experiments.compare",
        (ExtraFlag(flags.DEFINE_string, "split", "valid", "The text that the runs are compared on."), CHECKPOINT),
        arguments="runs",
        workdir="runs/compare",
        reads="none",
    ),
    "export": Experiment("experiments.export", (CHECKPOINT,)),
    "import": Experiment(
        "experiments.import_weights",
        (
            ExtraFlag(flags.DEFINE_string, "weights", None, "The safetensors file to import."),
            ExtraFlag(flags.DEFINE_string, "vocabulary", None, "The file's vocabulary, one token per line."),
        ),
    ),
}


# Given together to each of several processes that train together: see README, "Many runs, many devices".
DISTRIBUTED = ("coordinator_address", "num_processes", "process_id")


def main(argv: list[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    try:
        with signals.ending():
            launch(argv)
    except BaseException as error:
        return report(argv, error)
    return 0


def report(argv: list[str], error: BaseException) -> int:
    """Says what ended the command line `argv` and returns the exit status. Raises errors that are bugs."""
    if isinstance(error, KeyboardInterrupt):
        print(signals.how_to_go_on(str(error) or "interrupted"), file=sys.stderr)
        return signals.status_of(getattr(error, "signal", None))
    if isinstance(error, BrokenPipeError):  # `launch.py | head`: as every other program, end without a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell shows for the signal PIPE
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        error = UserError(f"out of memory ({first_line(error)}): lower config.data.batch_size, config.data.unroll or "
                          "config.model.hidden; --dry_run tells what a run needs")  # fmt: skip
    if isinstance(error, UserError):
        if "--debug" in argv:  # looked for by hand: the flags may be what is wrong
            traceback.print_exception(error)
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    raise error


def launch(argv: list[str]) -> None:
    """Parses, checks and runs.

    Raises:
        UserError: any mistake on the command line, in the config, or that the experiment finds.
    """
    values, arguments = parse_all(argv)
    if values["help"].value:
        print(f"{__doc__}\nflags:\n{values.get_help(include_special_flags=False)}")
        return
    experiment = EXPERIMENTS[values["experiment"].value]
    workdir = values["workdir"].value or experiment.workdir or default_workdir(values["config"].config_filename)
    extra = {flag.name: values[flag.name].value for flag in experiment.extra}
    if experiment.arguments:
        extra[experiment.arguments] = tuple(arguments)
    use_compilation_cache()
    use_threads(values["config"].value)
    several = values["num_processes"].present
    if several:
        # What they wait for is no Python, where an exception would have to wait, too.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        join_processes(*(values[name].value for name in DISTRIBUTED))
    with ending_at_once(argv) if several else contextlib.nullcontext():
        module = importlib.import_module(experiment.module)
        module.run(values["config"].value, workdir, values["data_dir"].value, **extra)


# ------------------------------------------------------------------------------------------ flags


def parse(argv: list[str]) -> flags.FlagValues:
    """The checked flags. Raises UserError."""
    return parse_all(argv)[0]


def parse_all(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """The checked flags, and what is not a flag. Raises UserError."""
    values = flags.FlagValues()  # our own: libraries add theirs to the global one
    values.set_gnu_getopt()  # flags may follow what is not a flag
    define_flags(values)
    try:
        # This loads the default config at once, unless `argv` names another.
        config_flags.DEFINE_config_file(
            "config",
            str(DEFAULT_CONFIG),
            "Config file, with an argument after a colon where it takes one. "
            "--config.KEY=VALUE overrides one of its keys.",
            flag_values=values,
            sys_argv=argv,
        )
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        name = f"--{error.flagname}"
        raise UserError(f"unknown flag {name}{suggestions(name, [f'--{f}' for f in values])}") from error
    except Exception as error:  # whatever the config file raises; KeyError for an unknown key
        raise UserError(explain(argv, error)) from error
    if not isinstance(values["config"].value, ConfigDict):
        # config_flags keeps quiet about a file it cannot read until the config is first used.
        raise UserError(explain(argv, TypeError("get_config() must return a ConfigDict")))
    check(values, rest)
    check_tuples(argv, values["config"].value, values["config"].config_filename)
    return values, rest


def define_flags(values: flags.FlagValues) -> None:
    """All flags but --config."""
    flags.DEFINE_string("experiment", "train", f"One of {', '.join(EXPERIMENTS)}.", flag_values=values)
    flags.DEFINE_string(
        "workdir", None, "Directory of the run. Default: runs/ and the config's path.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", os.environ.get("LM_DATA_DIR") or None,
        "Directory of corpora that are already here. Default: the environment's LM_DATA_DIR.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean("debug", False, "Shows the traceback of an error.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Shows this help.", short_name="h", flag_values=values)
    flags.DEFINE_string(
        "coordinator_address", None, "HOST:PORT where process 0 of several listens, the same for all of them.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("num_processes", None, "How many processes train together.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", flag_values=values)
    for extra in all_extra_flags():
        extra.define(extra.name, extra.default, extra.help, flag_values=values)


def all_extra_flags() -> list[ExtraFlag]:
    """Each flag once: two experiments that share one list the same ExtraFlag."""
    return list(dict.fromkeys(flag for e in EXPERIMENTS.values() for flag in e.extra))


def check(values: flags.FlagValues, rest: list[str]) -> None:
    """Raises UserError for what absl lets through. `rest`: arguments that are not flags."""
    name = values["experiment"].value
    if rest and not (name in EXPERIMENTS and EXPERIMENTS[name].arguments):
        raise UserError(f"unexpected argument {rest[0]!r}: flags are written --name=value")
    check_name(name, EXPERIMENTS, "--experiment")
    for flag in all_extra_flags():
        if values[flag.name].present and flag not in EXPERIMENTS[name].extra:
            owners = [owner for owner, e in EXPERIMENTS.items() if flag in e.extra]
            raise UserError(f"--{flag.name} is a flag of --experiment={' and '.join(owners)} only")
    check_distributed(values)
    check_kind(values)
    if values["workdir"].value == "":
        raise UserError("--workdir= is empty: name a directory")
    data_dir = values["data_dir"].value
    if data_dir is not None and not Path(data_dir).is_dir():
        flag = "--data_dir" if values["data_dir"].present else "LM_DATA_DIR"
        raise UserError(f"{flag}={data_dir} is not a directory")


def check_kind(values: flags.FlagValues) -> None:
    """Raises UserError where --config is of a kind that the experiment cannot use."""
    name, config = values["experiment"].value, values["config"]
    kind, wanted = config.value.get("kind", "run"), EXPERIMENTS[name].reads
    if wanted == "none" and config.present:
        raise UserError(f"--experiment={name} reads no config: leave --config out")
    if wanted not in ("any", "none", kind):
        able = [other for other, experiment in EXPERIMENTS.items() if experiment.reads == kind]
        raise UserError(f"--config={config.config_filename} is for --experiment={' or '.join(able)}, not for {name}")


def check_distributed(values: flags.FlagValues) -> None:
    """Raises UserError unless the flags of DISTRIBUTED are all absent, or all there and sound."""
    given = [name for name in DISTRIBUTED if values[name].present]
    if not given:
        return
    able = [name for name, e in EXPERIMENTS.items() if e.distributed]
    if values["experiment"].value not in able:
        raise UserError(f"--{given[0]} is a flag of --experiment={' and '.join(able)} only")
    missing = [f"--{name}" for name in DISTRIBUTED if name not in given]
    if missing:
        raise UserError(f"--{given[0]} needs {' and '.join(missing)} too")
    address, number, index = (values[name].value for name in DISTRIBUTED)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator_address={address} must be HOST:PORT, as in 10.0.0.1:1234")
    if number < 1:
        raise UserError(f"--num_processes={number} must be at least 1")
    if not 0 <= index < number:
        raise UserError(f"--process_id={index} must be between 0 and {number - 1}: --num_processes={number}")


def default_workdir(config: str) -> str:
    """configs/ptb/zaremba.py:medium -> runs/ptb/zaremba_medium"""
    path, _, argument = config.partition(":")
    path = Path(path).resolve()
    name = path.relative_to(CONFIGS) if path.is_relative_to(CONFIGS) else Path(path.name)
    suffix = "_" + argument.replace("/", "_") if argument else ""
    return str(Path("runs") / (str(name.with_suffix("")) + suffix))


# ------------------------------------------------------------------------------------------- jax


def join_processes(address: str, number: int, index: int) -> None:
    """Makes this process one of several that run one program on all their devices, before jax is first used.

    Waits until all have come. Raises UserError where they do not.
    """
    import jax

    print(f"process {index} of {number}: meeting the others at {address}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(address, number, index, cluster_detection_method="deactivate")
    except Exception as error:  # RuntimeError of several kinds
        raise UserError(
            f"--process_id={index} cannot join {number} processes at {address}: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def ending_at_once(argv: list[str]):
    """Ends a failing process, one of several, here and now.

    The way out of Python leads through jax.distributed, which waits minutes there for the other processes, while
    these wait for this one's part of a sum. When it is gone, they fail within seconds.
    """
    try:
        yield
    except BaseException as error:
        try:
            if "Gloo" in str(error):  # what carries sums between CPUs: its one error is a lost connection
                error = UserError("another process has ended, and this one with it: see what that one says. The same "
                                  "commands go on from the last checkpoint")  # fmt: skip
            status = report(argv, error)
        except BaseException:
            traceback.print_exc()
            status = 1
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def use_threads(config: ConfigDict) -> None:
    """As many threads of a CPU as config.train.threads says, before anything starts JAX."""
    threads = config.train.threads if "train" in config else 0
    if threads < 0:
        raise UserError(f"config.train.threads must be 0 (all cores) or positive, not {threads}")
    if threads:
        from lm.machine.cores import limit_threads

        limit_threads(threads)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
