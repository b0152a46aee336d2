"""Compares the speed of training, evaluation and sampling with other libraries and bare matrix products (the floor).

Each implementation of a workload runs in its own process. The processes take turns in rounds, one at a time, so that
other load on the machine affects all of them. They start from the same parameters and read the same tokens. An
implementation whose first losses differ from ours computes a different model: it is listed as absent and not measured.

Writes benchmark.json after every workload. Run the same command again to measure the remaining workloads.
    rows    workload; revision and date of the measurement; implementation: lm (this project), floor or a peer;
            tokens_per_s: median over the rounds; spread: lowest and highest round; rounds: speed of each round;
            ratio: our speed / this row's; fraction_of_floor: this row's speed / the floor's (medians over rounds);
            peak_rss_mb: 10^6 bytes; compile_s: time of the first call minus the time of one compiled unit of work
    absent  implementations without a row: {name, or "NAME on WORKLOAD": reason}
"""

import contextlib
import importlib.util
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

from configs.rules import BENCHMARK_RULES, check_values
from experiments.peers import plots
from experiments.peers.worker import IMPLEMENTATIONS, OWN, VARIANTS, environment
from experiments.peers.workload import CORE, LABELLED_WORKLOADS, SWEEPS, WORKLOADS, Workload
from lm.errors import UserError, check_name
from lm.machine.cores import available
from lm.machine.processes import Child
from lm.machine.signals import raising
from lm.runs.files import write_json
from lm.runs.plain import plain
from lm.runs.schema import read_json
from lm.runs.workdir import prepare_workdir

# Sweeps are measured with these peers only.
SWEEP_PEERS = ("flax", "torch")
GROUPS = {"core": CORE, "labelled": LABELLED_WORKLOADS, "sweeps": tuple(SWEEPS)}

# The same parameters give the same first loss up to rounding. Later losses differ more: torch, and the GRU of Keras,
# have a second bias with the same gradient, so a step changes the sum of both twice as much. Dropout masks differ
# between libraries.
FIRST_LOSS_TOLERANCE = 1e-4
LATER_LOSS_TOLERANCE = 1e-2
DROPOUT_TOLERANCE = 5e-2


def run(config, workdir, data_dir=None):
    """Returns the content of benchmark.json. Raises UserError for unknown names and settings out of range."""
    workloads, peers, threads = check_config(config)
    prepare_workdir(workdir, config)
    path = Path(workdir, "benchmark.json")
    record: dict = read_json(path, {"rows": [{}]}) if path.is_file() else {"rows": [], "absent": {}}
    packages = {peer: IMPLEMENTATIONS[peer].package for peer in peers}
    missing = {peer: package for peer, package in packages.items() if importlib.util.find_spec(package) is None}
    for peer, package in missing.items():
        record["absent"][peer] = f"{package} is not installed: pip install -r requirements-bench.txt"
    peers = tuple(peer for peer in peers if peer not in missing)
    measured = {row["workload"] for row in record["rows"]}
    if workloads := [workload for workload in workloads if workload.name not in measured]:
        print(HEADER)
    with open(Path(workdir, "benchmark.log"), "a", encoding="utf-8") as log:
        for workload in workloads:
            rows, absent, origin = measure(workload, compared_peers(workload, peers), config, threads, log)
            record["rows"] += rows
            record["absent"] |= {f"{name} on {workload.name}": reason for name, reason in absent.items()}
            versions = record.get("versions", {}) | origin.pop("versions")
            record = origin | {"versions": versions} | {key: record[key] for key in ("rows", "absent")}
            write_json(path, record)
            print(*map(format_row, rows), sep="\n", flush=True)
    for name, reason in record["absent"].items():
        print(f"absent: {name}: {reason}")
    plots.plot_all(record, os.path.join(workdir, ""))
    return record


def compared_peers(workload: Workload, peers: tuple[str, ...]) -> tuple[str, ...]:
    """The implementations measured on a workload besides lm and the floor."""
    if workload.name in (*CORE, *LABELLED_WORKLOADS):
        return tuple(name for name in (*VARIANTS, *peers) if workload.kind in IMPLEMENTATIONS[name].kinds)
    return tuple(name for name in peers if name in SWEEP_PEERS)


def check_config(config) -> tuple[list[Workload], tuple[str, ...], int]:
    """The workloads, peers and number of threads of the config. Raises UserError."""
    check_values(config, BENCHMARK_RULES)
    wanted = [name for entry in split_names(config.workloads) for name in GROUPS.get(entry, (entry,))]
    peers = split_names(config.peers)
    known_peers = [name for name in IMPLEMENTATIONS if name not in OWN]
    for key, given, known in (("workloads", wanted, [*GROUPS, *WORKLOADS]), ("peers", peers, known_peers)):
        for name in given:
            check_name(name, known, f"config.{key}")
    if not wanted:
        raise UserError(f"config.workloads is empty: name some of {', '.join([*GROUPS, *WORKLOADS])}")
    processors = available()
    if config.threads > processors:
        raise UserError(f"config.threads must be at most {processors}, this machine's processors, not {config.threads}")
    workloads = [workload for name in dict.fromkeys(wanted) for workload in WORKLOADS[name]]
    return workloads, tuple(dict.fromkeys(peers)), config.threads or processors


def split_names(value: tuple[str, ...]) -> list[str]:
    """Splits a tuple of names or of comma-separated names: --config.peers=a,b gives a tuple of one string."""
    return [name.strip() for entry in value for name in entry.split(",") if name.strip()]


# --- One workload ---------------------------------------------------------------------------------------------------


def measure(workload: Workload, peers: tuple[str, ...], config, threads: int, log) -> tuple[list[dict], dict, dict]:
    """Measures a workload. Returns (its rows, {implementation: why it has no row}, {device, versions, git, date})."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(raising())
        variables = environment(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-benchmark-")), threads)
        workers, started, absent = {}, {}, {}
        for name in ("lm", "floor", *peers):
            worker = Child("experiments/peers/worker.py", errors=log, environment=variables)
            stack.callback(worker.close)
            request = {"implementation": name, "workload": workload._asdict(), "threads": threads}
            if name in OWN:
                request["config"] = plain(config.lm)
            elif "batches" in started["lm"]:
                request["batches"] = started["lm"]["batches"]
            answer = request_answer(worker, request)
            reason = answer.get("absent", "")
            if name not in OWN and not reason:
                reason = explain_mismatch(workload, answer["nats"], started["lm"]["nats"])
            if not reason:
                workers[name], started[name] = worker, answer
            elif name in ("lm", "floor"):
                raise RuntimeError(f"{name} on {workload.name}: {reason}; see {log.name}")
            else:
                absent[name] = reason
                worker.close()
        rates, memory = {name: [] for name in workers}, {}
        for _ in range(config.rounds):
            for name, worker in workers.items():
                answer = request_answer(worker, {"measure": config.seconds_per_measurement})
                if "absent" in answer:
                    absent[name] = answer["absent"]
                else:
                    rates[name].append(answer["tokens"] / answer["seconds"])
                    memory[name] = answer["peak_rss_mb"]
    origin = describe_origin(started, threads)
    # Workloads may be measured on other days or revisions than the rest of the record.
    when = {"revision": (origin["git"] or {}).get("revision"), "date": origin["date"]}
    finished = [name for name in workers if name not in absent]
    rows = [make_row(workload, name, rates, started[name], memory[name]) | when for name in finished]
    return rows, absent, origin


def request_answer(worker: Child, request: dict) -> dict:
    """The worker's answer; {"absent": reason} if its process ended without one, for example out of memory."""
    worker.send(request)
    return worker.receive() or {"absent": f"its process ended with status {worker.process.wait()}"}


def explain_mismatch(workload: Workload, theirs: list, ours: list) -> str:
    """Names the first loss that differs from ours, "" if all agree. None stands for NaN."""
    first, later = FIRST_LOSS_TOLERANCE, LATER_LOSS_TOLERANCE
    if workload.keep_prob < 1:
        first = later = DROPOUT_TOLERANCE
    for index, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        tolerance = later if index else first
        if their is None or our is None or not math.isclose(their, our, rel_tol=tolerance):
            return f"its loss {index} is {their}, ours is {our}: it computes a different model"
    return ""


def make_row(workload: Workload, name: str, rates: dict[str, list[float]], started: dict, memory: float) -> dict:
    """A row of the record. rates: {implementation: tokens per second in each round}"""
    own = rates[name]
    return {
        "workload": workload.name,
        "implementation": name,
        "tokens_per_s": statistics.median(own),
        "spread": [min(own), max(own)],
        "rounds": own,
        "ratio": statistics.median(ours / theirs for ours, theirs in zip(rates["lm"], own, strict=True)),
        "fraction_of_floor": statistics.median(x / floor for x, floor in zip(own, rates["floor"], strict=True)),
        "peak_rss_mb": memory,
        "compile_s": started["compile_s"],
    }


def describe_origin(started: dict[str, dict], threads: int) -> dict:
    """Device, versions, revision and date."""
    provenance = started["lm"]["provenance"]
    device = provenance["device"] | {"cores": os.cpu_count(), "threads": threads}
    versions = dict(provenance["versions"])
    for answer in started.values():
        versions |= answer["versions"]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"device": device, "versions": versions, "git": provenance["git"], "date": date}


# --- The table ------------------------------------------------------------------------------------------------------

HEADER = "workload               implementation     tokens/s    spread  ours/this    /floor    RSS MB  compile s"
ROW = (
    "{workload:<22} {implementation:<14} {tokens_per_s:>12,.0f} {half_spread:>9} {ratio:>10.2f} "
    "{fraction_of_floor:>9.2f} {peak_rss_mb:>9,.0f} {compile_s:>10.1f}"
)


def format_row(row: dict) -> str:
    """A line of the table. spread: half of (highest - lowest), in percent of the median"""
    low, high = row["spread"]
    return ROW.format(**row, half_spread=f"±{50 * (high - low) / row['tokens_per_s']:.0f}%")
