"""Runs a command, named by --experiment, on a config.

    python launch.py                                        # train the default config
    python launch.py --config=configs/text8/lstm_fused.py --workdir=runs/a
    python launch.py --config=... --config.optim.learning_rate=5.0 --config.model.hidden='(32,32)'
    python launch.py --experiment=sample --workdir=runs/a   # the run's own config
    python launch.py --experiment=compare runs/a runs/b

Exit status: 0 on success and after SIGTERM; 130 after Ctrl-C; 141 if standard output was closed; 2 for an invalid flag,
config, file or input, which is reported in one line that starts with 'error: '.
A config is a Python file that is executed: launch only configs that you trust.
"""

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.loading import (
    CONFIGS,
    DEFAULT_CONFIG,
    SAVED,
    check_tuples,
    explain_error,
    flatten,
    last_value,
    overridden_keys,
    saved_config,
    similar_flags,
    similar_keys,
)
from configs.rules import RULES
from experiments import COMMANDS, COMMON_FLAGS, DISTRIBUTED_FLAGS, Command, Flag, flags_of
from lm.errors import UserError, check_name, first_line, in_short
from lm.machine import signals
from lm.machine.compilation_cache import use_compilation_cache
from lm.machine.numerics import fix_numerics

# jax is not imported here, so that a mistake on the command line is reported in a fraction of a second.

KINDS = ("run", "sweep", "benchmark")  # values of config.kind

# --- The command line -----------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (None if stdout was closed)
    for stream in (sys.stdout, sys.stderr):  # a symbol that a terminal cannot show is printed as an escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with signals.ending(resumes(argv)):
            launch(argv)
    except BaseException as error:
        return explain_failure(argv, error)
    return 0


def resumes(argv: list[str]) -> bool:
    """Whether the command resumes from checkpoints if it is run again after an interruption."""
    command = COMMANDS.get(last_value(argv, "experiment", "train"))
    return command is None or command.resumes


def explain_failure(argv: list[str], error: BaseException) -> int:
    """Prints why the command failed and returns the exit status. Raises `error` if it is a bug."""
    if isinstance(error, KeyboardInterrupt):
        print(signals.how_to_resume(str(error) or "interrupted", resumes(argv)), file=sys.stderr)
        return signals.status_of(getattr(error, "signal", None))
    if isinstance(error, BrokenPipeError):  # `launch.py | head`: end without a traceback, as other programs do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # the status that a shell shows for the signal PIPE
    if isinstance(error, MemoryError) or (not isinstance(error, UserError) and "RESOURCE_EXHAUSTED" in str(error)):
        remedy = "lower config.data.batch_size, config.data.unroll or config.model.hidden; --dry_run estimates memory"
        error = UserError(f"out of memory ({first_line(error)}): {remedy}")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        error = UserError(f"{in_short(str(error.filename))[1:-1]}: the name is too long for a file")
    if not isinstance(error, UserError):
        error = missing_device() or error
    if not isinstance(error, UserError):
        raise error
    if "--debug" in argv:  # read from argv, because parsing the flags may have failed
        traceback.print_exception(error)
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 2


def launch(argv: list[str]) -> None:
    """Parses and checks the command line, then runs the command. Raises UserError for a mistake."""
    if (topic := help_topic(argv)) is not None:
        from experiments.pages.help import help_text

        print(help_text(topic, last_value(argv, "experiment", ""), __doc__))
        return
    values, arguments = parse_flags(argv)
    command, config = COMMANDS[values.experiment], values.config
    workdir, data_dir = work_directory(values, command), data_directory(values)
    keywords = {flag.name: values[flag.name].value for flag in command.flags}
    if command.arguments:
        keywords[command.arguments] = tuple(arguments)
    import_jax()
    use_compilation_cache()
    fix_numerics()
    use_threads(config)
    several = values["num_processes"].present
    with one_of_several_processes(argv, values) if several else contextlib.nullcontext():
        importlib.import_module(command.module).run(config, workdir, data_dir, **keywords)


def help_topic(argv: list[str]) -> str | None:
    """The topic of --help=TOPIC; "" for --help alone; None without --help."""
    for argument in argv[1:]:
        name, _, topic = argument.partition("=")
        if name in ("--help", "-help", "-h"):
            return topic
    return None


def owners() -> dict[Flag, list[str]]:
    """Each flag of commands, with the names of the commands that have it."""
    own = (flag for command in COMMANDS.values() for flag in flags_of(command))
    return {flag: [name for name, command in COMMANDS.items() if flag in flags_of(command)] for flag in own}


def parse_flags(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the checked flags and the positional arguments. Raises UserError."""
    argv = with_saved_config(argv)
    values = flags.FlagValues()  # not the global FlagValues, to which libraries add flags
    values.set_gnu_getopt()  # flags may follow other arguments
    for flag in (*COMMON_FLAGS, *owners()):
        flag.define(flag.name, flag.default, flag.help, flag_values=values)
    try:
        # Loads the default config immediately unless `argv` names another one.
        config_flags.DEFINE_config_file(
            "config",
            str(DEFAULT_CONFIG),
            "Config file, followed by a colon and an argument if it accepts one. --config.KEY=VALUE overrides a key.",
            flag_values=values,
            sys_argv=argv,
        )
        arguments = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"unknown flag --{error.flagname}{similar_flags(error.flagname, list(values), argv)}"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the config file raises; KeyError for an unknown key
        raise UserError(explain_error(argv, error)) from error
    if not isinstance(values["config"].value, ConfigDict):
        # If config_flags cannot read a file, it says so only when the config is first used.
        raise UserError(explain_error(argv, TypeError("get_config() must return a ConfigDict")))
    check_flags(values, arguments)
    name, keys = values.experiment, list(overridden_keys(argv))
    if keys and COMMANDS[name].config == "none":
        raise UserError(f"--experiment={name} reads no config: remove --config.{keys[0]}")
    check_tuples(values["config"], keys)
    return values, arguments


def with_saved_config(argv: list[str]) -> list[str]:
    """Replaces --config=RUN/config.json in `argv` by a config file that loads it. A command that uses a run and gets no
    --config uses the saved config in --workdir. Raises UserError if that directory holds no run."""
    command, workdir = COMMANDS.get(last_value(argv, "experiment", "train")), last_value(argv, "workdir", "")
    if last_value(argv, "config", "") == "" and workdir and command and command.config == "saved":
        if not (Path(workdir) / "config.json").is_file():
            raise UserError(f"--workdir={workdir} holds no run: it has no config.json")
        argv = [*argv[:1], f"--config={workdir}/config.json", *argv[1:]]
    return saved_config(argv)


def check_flags(values: flags.FlagValues, arguments: list[str]) -> None:
    """Raises UserError for mistakes that absl accepts. arguments: the positional arguments."""
    name = values.experiment
    if arguments and not (name in COMMANDS and COMMANDS[name].arguments):
        rest = f" --workdir={arguments[1]}" if len(arguments) > 1 else ""
        hint = f"; did you mean --experiment={arguments[0]}{rest}?" if arguments[0] in COMMANDS else ""
        raise UserError(f"unexpected argument {arguments[0]!r}: flags are written --name=value{hint}")
    check_name(name, COMMANDS, "--experiment")
    keys = list(flatten(values.config))
    for flag in (*COMMON_FLAGS, *owners()):
        if values[flag.name].present and values[flag.name].value == "":
            raise UserError(f"--{flag.name}= is empty: give a value, or leave it out")
    for flag, names in owners().items():
        if values[flag.name].present and name not in names:
            hint = similar_keys(flag.name, keys) if any(key.endswith(f".{flag.name}") for key in keys) else ""
            typed = f"no{flag.name}" if values[flag.name].value is False else flag.name
            raise UserError(f"--{typed} works only with --experiment={' or '.join(names)}{hint}")
    check_distributed(values)
    check_kind(values)


def check_kind(values: flags.FlagValues) -> None:
    """Raises UserError if the command does not accept the config's kind."""
    name, config = values.experiment, values.config
    config_filename = config_flags.get_config_filename(values["config"])
    kind, wanted = config.get("kind", "run"), COMMANDS[name].config
    check_name(kind, KINDS, f"--config={config_filename}: config.kind")
    if wanted == "none" and values["config"].present:
        raise UserError(f"--experiment={name} reads no config: remove --config")
    fitting = ("run", "saved") if kind == "run" else (kind,)
    if wanted not in ("any", "none", *fitting):
        able = [other for other, command in COMMANDS.items() if command.config in fitting]
        raise UserError(f"--config={config_filename} is for --experiment={' or '.join(able)}, not for {name}")


def check_distributed(values: flags.FlagValues) -> None:
    """Raises UserError unless DISTRIBUTED_FLAGS are all absent, or all present and valid."""
    missing = [f"--{flag.name}" for flag in DISTRIBUTED_FLAGS if not values[flag.name].present]
    if len(missing) == len(DISTRIBUTED_FLAGS):
        return
    if missing:
        raise UserError(f"processes that train together also need {' and '.join(missing)}")
    address, number, index = values.coordinator_address, values.num_processes, values.process_id
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator_address={address} must be HOST:PORT, such as 10.0.0.1:1234")
    if number < 1:
        raise UserError(f"--num_processes={number} must be at least 1")
    if not 0 <= index < number:
        raise UserError(f"--process_id={index} must be between 0 and {number - 1}: --num_processes={number}")


def data_directory(values: flags.FlagValues) -> str | None:
    """--data_dir, or LM_DATA_DIR in the environment. Raises UserError unless it is a directory."""
    given = values["data_dir"].present
    path = values["data_dir"].value if given else os.environ.get("LM_DATA_DIR") or None
    if path is not None and not Path(path).is_dir():
        raise UserError(f"{'--data_dir' if given else 'LM_DATA_DIR'}={path} is not a directory")
    return path


def work_directory(values: flags.FlagValues, command: Command) -> str:
    """--workdir, or its default for the command. Raises UserError for a new run of a saved config without --workdir."""
    if given := values["workdir"].value or command.workdir:
        return given
    config = config_flags.get_config_filename(values["config"])
    saved = config.partition(f"{SAVED}:")[2]
    if saved and command.config != "saved":
        raise UserError(f"--config={saved} belongs to another run: name a --workdir for the new one")
    return str(Path(saved).parent) if saved else default_workdir(config)


def default_workdir(config: str) -> str:
    """The path of a config in runs/: runs/ptb/zaremba_medium for configs/ptb/zaremba.py:medium."""
    file, _, argument = config.partition(":")
    path = Path(file).resolve()
    name = path.relative_to(CONFIGS) if path.is_relative_to(CONFIGS) else Path(path.name)
    suffix = "_" + argument.replace("/", "_") if argument else ""
    return str(Path("runs") / (str(name.with_suffix("")) + suffix))


# --- Processes and threads ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_of_several_processes(argv: list[str], values: flags.FlagValues):
    """Connects this process to the others of a distributed run and waits for all of them, before jax is first used.

    A failure inside the with block ends this process immediately. If it exited normally after a failure,
    jax.distributed would wait minutes for the other processes, which wait for this one in a collective sum. Once this
    process has ended, they fail within seconds. Raises UserError if the processes cannot connect.
    """
    import jax

    # jax.distributed waits in native code, where a Python handler cannot run: SIGTERM gets its default action.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    address, number, index = values.coordinator_address, values.num_processes, values.process_id
    print(f"process {index} of {number}: connecting to the others at {address}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(address, number, index, cluster_detection_method="deactivate")
    except Exception as error:  # RuntimeError of several kinds
        reason = f"cannot join {number} processes at {address}: {first_line(error)}"
        raise UserError(f"--process_id={index} {reason}") from error
    try:
        yield
    except BaseException as error:
        if "Gloo" in str(error):  # Gloo sums across CPUs; its only error is a lost connection
            remedy = "see its message, then run the same commands again to resume from the last checkpoint"
            error = UserError(f"another process has ended, so this one stops too: {remedy}")
        try:
            status = explain_failure(argv, error)
        except BaseException:
            traceback.print_exc()
            status = 1
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def missing_device() -> UserError | None:
    """The error for a device that JAX_PLATFORMS requests and JAX lacks, or None. Checked only after a failure, because
    the check initialises JAX, and some commands must choose devices before that."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        return UserError(f"JAX_PLATFORMS={platforms}: JAX finds no such device ({first_line(error)})")
    return None


def import_jax() -> None:
    """Imports jax. Raises UserError if jax rejects an environment variable."""
    try:
        import jax  # noqa: F401
    except ValueError as error:  # its message names the variable
        hint = "set it to true or false, or unset it" if "truth value" in str(error) else "correct it, or unset it"
        raise UserError(f"JAX does not start: {first_line(error)}: {hint}") from error


def use_threads(config: ConfigDict) -> None:
    """Limits the CPU to config.train.threads threads, before JAX's first computation."""
    threads = config.train.threads if "train" in config else 0
    RULES["train.threads"].check("config.train.threads", threads)
    if threads:
        from lm.machine.cores import limit_threads

        limit_threads(threads)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
