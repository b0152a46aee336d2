"""Trains what the reported numbers ask for, scores it, and says of each number: reported, ours, verdict.

    python launch.py --experiment=reproduce --targets='text8/*' --corpus=text8_prefix --workdir=runs/ledger
    python launch.py --experiment=reproduce --check --workdir=experiments/results

    WORKDIR/runs/NAME/             an ordinary run for each config and seed, trained by the command of the report
    WORKDIR/logs/NAME.log          what its last process printed
    WORKDIR/records/NAME.json      what is kept of each finished run
    WORKDIR/ledger.json            a row for every reported number, and the SHA-256 of every record
    WORKDIR/report.md, report.html

Run again, it trains what is missing, goes on with what is half done and skips what is done, which it knows by the
identity of a run (lm/provenance.py). One that fails, or that the budget leaves no time for, is "not run", with the
reason; the rest go on.
"""

import concurrent.futures
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import ml_collections

from experiments import report
from experiments.claims import Claim, all_claims, matching, on_corpus
from experiments.ledger import RECORDS, digests, identity_of, load_records, make_record, run_name, write_record
from lm.corpora import checksum
from lm.errors import UserError
from lm.metrics import write_json
from lm.provenance import identity

ROOT = Path(__file__).resolve().parent.parent
SECONDS = {"s": 1, "m": 60, "h": 3600}


class Run(NamedTuple):
    """One training run of a claim."""

    name: str  # of its directory and its log
    claim: Claim
    config: ml_collections.ConfigDict  # with seed and corpus
    flags: tuple[str, ...]  # --config=... and its overrides

    def arguments(self, workdir: str) -> list[str]:
        return ["launch.py", *self.flags, f"--workdir={workdir}"]

    @property
    def command(self) -> str:
        return "python " + shlex.join(self.arguments(f"runs/{run_name(self.config)}"))


def run(config, workdir, data_dir=None, targets="*", seeds=0, budget="", corpus="", check=False, dry_run=False):
    """Returns what ledger.json holds; of a dry run the estimates of the runs that are not done.

    targets: patterns of claims.matching; seeds: runs of each config, 0: as many as it asks for; budget: such as 30m,
    after which no run begins and those under way stop where they can go on; corpus: of claims.on_corpus; check: derives
    everything in workdir again from the records there, trains nothing, and raises UserError where anything differs
    """
    del config
    workdir = Path(workdir)
    if check:
        return report.check(workdir, all_claims())
    claims = matching(targets)
    if corpus:
        claims = on_corpus(claims, corpus)
    if seeds < 0:
        raise UserError(f"--seeds={seeds} must be at least 1, or 0 for as many as each config asks for")
    runs = plan(claims, seeds)
    if dry_run:
        from experiments.train import estimate_all

        return estimate_all([each.config for each in runs if not is_done(directory_of(workdir, each), each)], data_dir)
    deadline = time.monotonic() + duration(budget) if budget else None
    (workdir / "runs").mkdir(parents=True, exist_ok=True)
    reasons = train_all(runs, workdir, data_dir, deadline)
    for each in runs:
        if each.name not in reasons:
            write_record(make_record(directory_of(workdir, each)), workdir / RECORDS)
    return write_ledger(workdir, runs, reasons)


def write_ledger(workdir: Path, runs: list[Run], reasons: dict[str, str]) -> dict:
    """Writes ledger.json and the reports of all records in workdir, and prints the table."""
    records = load_records(workdir / RECORDS)
    claims = {each.claim.config.name: each.claim for each in runs}
    named = {record["name"] for record in records} | set(claims)
    claims = [claims.get(claim.config.name, claim) for claim in all_claims() if claim.config.name in named]
    commands = {run_name(each.config): each.command for each in runs}
    not_run = {run_name(each.config): reasons[each.name] for each in runs if each.name in reasons}
    content = report.content(records, claims, digests(workdir / RECORDS), commands, not_run)
    write_json(workdir / "ledger.json", content)
    report.write(workdir, content, records)
    print(report.markdown_table(content["rows"]))
    for name, reason in not_run.items():
        print(f"{name} is not run: {reason}")
    print(f"wrote {workdir / 'report.md'} and {workdir / 'report.html'}")
    return content


# ------------------------------------------------------------------------------------------- plan


def plan(claims: list[Claim], seeds: int) -> list[Run]:
    """The runs that the claims ask for, cheapest first."""
    runs = []
    for claim in claims:
        for seed in range(seeds or claim.config.claim.seeds):
            config = claim.config.copy_and_resolve_references()
            config.seed = seed
            flags = [f"--config={claim.path}", f"--config.seed={seed}", f"--config.data.corpus={config.data.corpus}"]
            name = f"{run_name(config)}.{identity(config, checksum(config.data))}"
            runs.append(Run(name, claim, config, tuple(flags)))
    return sorted(runs, key=lambda each: each.config.claim.minutes)


def duration(text: str) -> float:
    """Seconds of 90s, 30m or 2h. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise UserError(f"--budget={text} must be a number and s, m or h, as in 30m")
    return float(match[1]) * SECONDS[match[2]]


# ------------------------------------------------------------------------------------------ train


def train_all(runs: list[Run], workdir: Path, data_dir, deadline: float | None) -> dict[str, str]:
    """Trains what is not done; {name: why it has no result} of the others.

    Runs that use one thread are made side by side, one for each core; the others one after another.
    """
    reasons = {}
    narrow = [each for each in runs if each.config.train.threads == 1]
    wide = [each for each in runs if each.config.train.threads != 1]
    for group, workers in ((narrow, os.cpu_count() or 1), (wide, 1)):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            waiting = {pool.submit(train_one, each, workdir, data_dir, deadline): each for each in group}
            try:
                for future in concurrent.futures.as_completed(waiting):
                    if reason := future.result():
                        reasons[waiting[future].name] = reason
            except BaseException:  # interrupted: what runs has got the same signal; what waits must not begin
                for future in waiting:
                    future.cancel()
                raise
    return reasons


def train_one(each: Run, workdir: Path, data_dir, deadline: float | None) -> str | None:
    """Trains one run in a process of its own; None, or in one line why it has no result."""
    directory = directory_of(workdir, each)
    if is_done(directory, each):
        print(f"{each.name}  done before", flush=True)
        return None
    left = None if deadline is None else deadline - time.monotonic()
    minutes = each.config.claim.minutes
    if left is not None and left < 60 * minutes and not directory.exists():
        return f"the budget has {max(0.0, left) / 60:.1f} minutes left, and it takes about {minutes:g}"
    if left is not None and left <= 0:
        return "the budget is used up; the same command with a new one goes on"
    print(f"{each.name}  begins, about {minutes:g} minutes", flush=True)
    began = time.monotonic()
    status, last = run_command(each, directory, data_dir, left)
    if status is None:
        return "stopped half done at the end of the budget; the same command with a new one goes on"
    if status or not is_done(directory, each):
        return f"{last or 'no output'} (exit status {status}; {log_of(directory)})"
    print(f"{each.name}  done after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return None


def directory_of(workdir: Path, each: Run) -> Path:
    """Where the run is done already, though keys that came later give it another name today; else its place."""
    earlier = sorted((workdir / "runs").glob(f"{run_name(each.config)}.*"))
    return next((path for path in earlier if is_done(path, each)), workdir / "runs" / each.name)


def run_command(each: Run, directory: Path, data_dir, left: float | None) -> tuple[int | None, str]:
    """(exit status, or None where it was stopped after `left` seconds; the last line of its output)."""
    command = [sys.executable, *each.arguments(str(directory.absolute()))]
    if data_dir:
        command.append(f"--data_dir={Path(data_dir).absolute()}")
    log = log_of(directory)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            status = process.wait(left)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            status = None
        except BaseException:
            process.kill()
            process.wait()
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return status, lines[-1] if lines else ""


def log_of(directory: Path) -> Path:
    """What the process that trains in WORKDIR/runs/NAME prints: WORKDIR/logs/NAME.log."""
    return directory.parent.parent / "logs" / f"{directory.name}.log"


def is_done(directory: Path, each: Run) -> bool:
    """Whether directory holds the finished run: a summary of the same identity, whoever trained it and where."""
    if not (directory / "summary.json").is_file():
        return False
    found = identity_of(make_record(directory))
    return found == identity(each.config, checksum(each.config.data))
