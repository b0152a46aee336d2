"""The runs that claims ask for: config, name, command and identity of each."""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from experiments.ledger.claims import Claim, suits
from lm.data.corpora import checksum
from lm.runs.provenance import identity


class Run(NamedTuple):
    """One training run of a claim."""

    claim: Claim
    config: ml_collections.ConfigDict  # with seed and corpus
    identity: str  # by today's code: lm/runs/provenance.py

    @property
    def title(self) -> str:
        """text8_lstm.text8_prefix.seed0: of its record, and of its line in a ledger."""
        return title_of(self.config.name, self.config.data.corpus, self.config.seed)

    @property
    def directory(self) -> str:
        """The name of its work directory and of its log."""
        return f"{self.title}.{self.identity}"

    def arguments(self, workdir: str) -> list[str]:
        """Of the command that trains it."""
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
    """Whatever the names are, no path of its own."""
    return re.sub(r"[/:\\\0]", "_", f"{name}.{corpus}.seed{seed}")


def run_of(claim: Claim, seed: int, corpus: str = "") -> Run:
    """The run with this seed, on the claim's own corpus or another that `suits` it."""
    config = claim.config.copy_and_resolve_references()
    config.seed = seed
    config.data.corpus = corpus or config.data.corpus
    return Run(claim, config, identity(config, checksum(config.data)))


def run_titled(title: str, claims: Sequence[Claim]) -> Run | None:
    """The run of a title; None where no claim has such a run."""
    for claim in claims:
        head = title_of(claim.config.name, "", 0).removesuffix(".seed0")  # text8_lstm.
        match = re.fullmatch(re.escape(head) + r"(\w+)\.seed(0|[1-9][0-9]{0,8})", title)
        if match and suits(claim, match[1]):
            return run_of(claim, int(match[2]), match[1])
    return None


def plan(claims: Sequence[Claim], seeds: int) -> list[Run]:
    """The runs that the claims ask for, cheapest first; seeds: of each claim, 0: as many as it says."""
    runs = [run_of(claim, seed) for claim in claims for seed in range(seeds or claim.config.claim.seeds)]
    return sorted(runs, key=lambda each: each.config.claim.minutes)


def row_command(claim: Claim, corpus: str, seeds: int) -> str:
    """What makes a row of a ledger: trains so many seeds and judges them. corpus: as the row has it."""
    flags = ["--experiment=reproduce", f"--targets={claim.config.name}", f"--seeds={seeds}"]
    flags += [f"--corpus={corpus}"] if corpus != claim.config.data.corpus else []
    return "python " + shlex.join(["launch.py", *flags])
