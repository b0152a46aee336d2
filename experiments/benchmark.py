"""Speed of training, evaluation and sampling beside other libraries, and beside the floor of the matrix products.

Every implementation of a workload runs in a process of its own. One of them computes at a time: round 1 of each in
turn, then round 2, ..., so that whatever else the machine does falls on all alike. All begin from the same parameters
and read the same tokens, and their first losses are compared: an implementation that computes something else is
listed as absent, not measured.

Writes benchmark.json after every workload; the same command in the same workdir goes on with those that are missing.
    rows    workload; revision and date of its measurement; implementation: lm (ours), floor or a peer;
            tokens_per_s: median over the rounds; spread: lowest and highest; rounds: all; ratio: our speed over this
            one's, and fraction_of_floor: this speed over the floor's, medians over the rounds; peak_rss_mb: 10^6
            bytes; compile_s: first call less one unit of work
    absent  what is not in rows, and why
"""

import contextlib
import importlib.util
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

from experiments.peers import plots
from experiments.peers.worker import IMPLEMENTATIONS, environment
from experiments.peers.workload import CORE, SWEEPS, WORKLOADS, Workload
from lm.errors import UserError, check_name
from lm.machine.cores import available
from lm.machine.processes import Child
from lm.machine.signals import raising
from lm.runs.files import write_json
from lm.runs.plain import plain
from lm.runs.schema import read_json
from lm.runs.workdir import prepare_workdir

# What sweeps are measured against, of the peers that are asked for.
SWEEP_PEERS = ("flax", "torch")
GROUPS = {"core": CORE, "sweeps": tuple(SWEEPS)}

# The same parameters give the same first loss but for rounding. Later steps may differ a little more: torch, and keras
# in a GRU, have a second bias, which doubles the gradient of their sum. Dropout draws other masks in each library.
FIRST_LOSS_TOLERANCE = 1e-4
LATER_LOSS_TOLERANCE = 1e-2
DROPOUT_TOLERANCE = 5e-2


def run(config, workdir, data_dir=None):
    """Returns what benchmark.json holds. Raises UserError for unknown names and settings out of range."""
    del data_dir
    workloads, peers, threads = check(config)
    prepare_workdir(workdir, config)
    path = Path(workdir, "benchmark.json")
    record = read(path) if path.is_file() else {"rows": [], "absent": {}}
    missing = {peer: reason for peer in peers if (reason := why_missing(peer))}
    record["absent"] |= missing
    peers = tuple(peer for peer in peers if peer not in missing)
    with open(Path(workdir, "benchmark.log"), "a", encoding="utf-8") as log:
        for workload in workloads:
            if workload.name in {row["workload"] for row in record["rows"]}:
                continue
            compared = peers if workload.name in CORE else tuple(p for p in peers if p in SWEEP_PEERS)
            rows, absent, about = measure(workload, compared, config, threads, log)
            record["rows"] += rows
            record["absent"] |= {f"{name} on {workload.name}": reason for name, reason in absent.items()}
            versions = record.get("versions", {}) | about.pop("versions")
            record = about | {"versions": versions} | {key: record[key] for key in ("rows", "absent")}
            write_json(path, record)
            print(table(rows, header=workload is workloads[0]), flush=True)
    for name, reason in record["absent"].items():
        print(f"absent: {name}: {reason}")
    plots.plot_all(record, os.path.join(workdir, ""))
    return record


def check(config) -> tuple[list[Workload], tuple[str, ...], int]:
    """(workloads, peers, threads) that the config asks for. Raises UserError."""
    if "workloads" not in config:
        raise UserError("--experiment=benchmark needs --config=configs/benchmark.py")
    wanted = [name for entry in names(config.workloads) for name in GROUPS.get(entry, (entry,))]
    peers = names(config.peers)
    own = ("lm", "floor")  # always measured
    known_peers = [name for name in IMPLEMENTATIONS if name not in own]
    for key, given, known in (("workloads", wanted, [*GROUPS, *WORKLOADS]), ("peers", peers, known_peers)):
        for name in given:
            check_name(name, known, f"config.{key}")
    if not wanted:
        raise UserError(f"config.workloads is empty: name some of {', '.join([*GROUPS, *WORKLOADS])}")
    if config.rounds < 1:
        raise UserError(f"config.rounds must be at least 1, not {config.rounds}")
    if not 0 < config.seconds_per_measurement < math.inf:
        raise UserError(f"config.seconds_per_measurement must be positive, not {config.seconds_per_measurement}")
    processors = available()
    if not 0 <= config.threads <= processors:
        raise UserError(f"config.threads must be between 0 (all) and {processors}, not {config.threads}")
    workloads = [workload for name in dict.fromkeys(wanted) for workload in WORKLOADS[name]]
    return workloads, tuple(dict.fromkeys(peers)), config.threads or processors


def names(value: tuple[str, ...]) -> list[str]:
    """The names in a tuple; --config.peers=a,b is a tuple of one string."""
    return [name.strip() for entry in value for name in entry.split(",") if name.strip()]


def read(path: Path) -> dict:
    """Raises UserError."""
    try:
        return read_json(path, {"rows": [{}]})
    except UserError as error:
        raise UserError(f"{error}; remove it to measure anew") from error


def why_missing(peer: str) -> str:
    """Why no workload can be measured with a peer; empty where it is installed."""
    package = IMPLEMENTATIONS[peer].package
    installed = importlib.util.find_spec(package) is not None
    return "" if installed else f"{package} is not installed: pip install -r requirements-bench.txt"


# --- One workload ---------------------------------------------------------------------------------------------------


def measure(workload: Workload, peers: tuple[str, ...], config, threads: int, log) -> tuple[list[dict], dict, dict]:
    """(rows, {implementation: why it has none}, what there is to say of device and versions)."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(raising())
        variables = environment(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-benchmark-")), threads)
        workers, started, absent = {}, {}, {}
        for name in ("lm", "floor", *peers):
            worker = Child("experiments/peers/worker.py", errors=log, environment=variables)
            stack.callback(worker.close)
            request = {"implementation": name, "workload": workload._asdict(), "threads": threads}
            if name == "lm":
                request["config"] = plain(config.lm)
            answer = ask(worker, request)
            reason = answer.get("absent", "")
            if name in peers and not reason:
                reason = why_another_model(workload, answer["nats"], started["lm"]["nats"])
            if not reason:
                workers[name], started[name] = worker, answer
            elif name in ("lm", "floor"):
                raise RuntimeError(f"{name} on {workload.name}: {reason}; see {log.name}")
            else:
                absent[name] = reason
                worker.close()
        rates = {name: [] for name in workers}
        for _ in range(config.rounds):
            for name, worker in workers.items():
                answer = ask(worker, {"measure": config.seconds_per_measurement})
                if "absent" in answer:
                    absent[name] = answer["absent"]
                else:
                    rates[name].append(workload.tokens * answer["units"] / answer["seconds"])
        memory = {name: ask(worker, {"finish": True}) for name, worker in workers.items() if name not in absent}
    about = describe(started, threads)
    measured = {name: rates[name] for name in memory}
    rows = [row(workload, name, measured, started[name], memory[name]) for name in measured]
    # A record may grow over days and revisions; the implementations of one workload were measured in turn.
    return (
        [each | {"revision": (about["git"] or {}).get("revision"), "date": about["date"]} for each in rows],
        absent,
        about,
    )


def ask(worker: Child, request: dict) -> dict:
    """The worker's answer; {"absent": reason} if its process ended without one, for example out of memory."""
    worker.send(request)
    return worker.receive() or {"absent": f"its process ended with status {worker.process.wait()}"}


def why_another_model(workload: Workload, theirs: list, ours: list) -> str:
    """How an implementation's first losses (None: not finite) differ from ours; empty where they agree."""
    first, later = FIRST_LOSS_TOLERANCE, LATER_LOSS_TOLERANCE
    if workload.keep_prob < 1:
        first = later = DROPOUT_TOLERANCE
    for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        tolerance = later if index else first
        if their is None or our is None or abs(their - our) > tolerance * abs(our):
            return f"its loss {index} is {their}, ours {our}: another model"
    return ""


def row(workload: Workload, name: str, rates: dict[str, list[float]], started: dict, memory: dict) -> dict:
    """rates: tokens per second of each implementation, round by round."""
    own = rates[name]
    return {
        "workload": workload.name,
        "implementation": name,
        "tokens_per_s": statistics.median(own),
        "spread": [min(own), max(own)],
        "rounds": own,
        "ratio": statistics.median(ours / theirs for ours, theirs in zip(rates["lm"], own, strict=True)),
        "fraction_of_floor": statistics.median(x / floor for x, floor in zip(own, rates["floor"], strict=True)),
        "peak_rss_mb": memory["peak_rss_mb"],
        "compile_s": started["compile_s"],
    }


def describe(started: dict[str, dict], threads: int) -> dict:
    """Device, versions, revision and date."""
    provenance = started["lm"]["provenance"]
    versions = provenance["versions"]
    for answer in started.values():
        versions = versions | answer["versions"]
    return {
        "device": provenance["device"] | {"cores": os.cpu_count(), "threads": threads},
        "versions": versions,
        "git": provenance["git"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


# --- The table ------------------------------------------------------------------------------------------------------

COLUMNS = "{:<22} {:<14} {:>12} {:>9} {:>10} {:>9} {:>9} {:>10}"


def table(rows: list[dict], header: bool = True) -> str:
    """One line per row; spread as half of (highest - lowest) over the median."""
    lines = []
    if header:
        titles = ("workload", "implementation", "tokens/s", "spread", "ours/this", "of floor", "RSS MB", "compile s")
        lines.append(COLUMNS.format(*titles))
    for r in rows:
        low, high = r["spread"]
        lines.append(
            COLUMNS.format(
                r["workload"],
                r["implementation"],
                f"{r['tokens_per_s']:,.0f}",
                f"±{50 * (high - low) / r['tokens_per_s']:.0f}%",
                f"{r['ratio']:.2f}",
                f"{r['fraction_of_floor']:.2f}",
                f"{r['peak_rss_mb']:,.0f}",
                f"{r['compile_s']:.1f}",
            )
        )
    return "\n".join(lines)
