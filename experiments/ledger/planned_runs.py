"""The training runs that the claims require: config, title, command and identity of each."""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ml_collections

from experiments.ledger.claims import Claim, suits
from lm.data.corpora import checksum
from lm.runs.provenance import identity

MOST_SEEDS = 1000  # seeds of a claim beyond which a ledger may have gaps


class PlannedRun(NamedTuple):
    """One training run of a claim."""

    claim: Claim
    config: ml_collections.ConfigDict  # with seed and corpus
    identity: str  # by today's code: lm/runs/provenance.py

    @property
    def title(self) -> str:
        """Names its record and its line in a ledger: text8_lstm.text8_prefix.seed0."""
        return title_of(self.config.name, self.config.data.corpus, self.config.seed)

    @property
    def directory(self) -> str:
        """The name of its work directory and of its log."""
        return f"{self.title}.{self.identity}"

    def arguments(self, workdir: str) -> list[str]:
        """Arguments of the command that trains it."""
        return [
            "launch.py",
            f"--config={self.claim.path}",
            f"--config.seed={self.config.seed}",
            f"--config.data.corpus={self.config.data.corpus}",
            f"--workdir={workdir}",
        ]

    @property
    def command(self) -> str:
        return "python " + shlex.join(self.arguments(f"runs/{self.title}"))


def title_of(name: str, corpus: str, seed: int) -> str:
    """A title that is a single path component, whatever the names contain."""
    return re.sub(r"[/:\\\0]", "_", f"{name}.{corpus}.seed{seed}")


def planned_run(claim: Claim, seed: int, corpus: str = "") -> PlannedRun:
    """The claim's run with this seed, on the claim's own corpus or on another one that `suits` it."""
    config = claim.config.copy_and_resolve_references()
    config.seed = seed
    config.data.corpus = corpus or config.data.corpus
    return PlannedRun(claim, config, identity(config, checksum(config.data)))


def run_titled(title: str, claims: Sequence[Claim]) -> PlannedRun | None:
    """The run with this title, or None if no claim has one."""
    for claim in claims:
        head = title_of(claim.config.name, "", 0).removesuffix(".seed0")  # text8_lstm.
        match = re.fullmatch(re.escape(head) + r"(\w+)\.seed(0|[1-9][0-9]{0,8})", title)
        if match and suits(claim, match[1]):
            return planned_run(claim, int(match[2]), match[1])
    return None


def plan(claims: Sequence[Claim], seeds: int) -> list[PlannedRun]:
    """The runs to make, cheapest first. seeds: runs per claim; 0: as many as each claim asks for."""
    runs = [planned_run(claim, seed) for claim in claims for seed in range(seeds or claim.config.claim.seeds)]
    return sorted(runs, key=lambda each: each.config.claim.minutes)


def missing_titles(titles: Iterable[str], claims: Sequence[Claim]) -> list[str]:
    """Seeds that a claim requires and the titles lack.

    For each claim and corpus among the titles: all seeds that the claim asks for, and all below the highest seed given
    (up to MOST_SEEDS).
    """
    required = {claim.config.name: claim.config.claim.seeds for claim in claims}
    seeds: dict[tuple[str, str], set[int]] = {}
    for title in titles:
        if run := run_titled(title, claims):
            seeds.setdefault((run.config.name, run.config.data.corpus), set()).add(run.config.seed)
    return [
        title_of(name, corpus, seed)
        for (name, corpus), found in sorted(seeds.items())
        for seed in range(max(required[name], min(max(found) + 1, MOST_SEEDS)))
        if seed not in found
    ]


def row_command(claim: Claim, corpus: str, seeds: int) -> str:
    """The command that trains the seeds behind a row of the ledger and judges them."""
    flags = ["--experiment=reproduce", f"--targets={claim.config.name}", f"--seeds={seeds}"]
    flags += [f"--corpus={corpus}"] if corpus != claim.config.data.corpus else []
    return "python " + shlex.join(["launch.py", *flags])
