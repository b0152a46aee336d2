"""The claims, which are the configs with reported numbers, and the training runs that they require."""

import fnmatch
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from configs.catalogue import all_configs
from lm.data.corpora import CORPORA, checksum
from lm.errors import UserError, check_name, suggestions
from lm.runs.provenance import identity


class Claim(NamedTuple):
    """A config with targets. path: the value of --config, such as configs/ptb/zaremba.py:small."""

    path: str
    config: ConfigDict
    docstring: str = ""  # of the config file


class PlannedRun(NamedTuple):
    """One training run of a claim."""

    path: str  # of the claim
    config: ConfigDict  # with seed and corpus
    identity: str  # computed by today's code: lm/runs/provenance.py

    @property
    def title(self) -> str:
        """Names its record and its line in a ledger: text8_lstm.text8_prefix.seed0."""
        return title_of(self.config.name, self.config.data.corpus, self.config.seed)

    @property
    def directory(self) -> str:
        """The name of the run's work directory and, with .log, of its log."""
        return f"{self.title}.{self.identity}"

    def arguments(self, workdir: str) -> list[str]:
        """Arguments of the command that trains it."""
        changes = [f"--config.seed={self.config.seed}", f"--config.data.corpus={self.config.data.corpus}"]
        return ["launch.py", f"--config={self.path}", *changes, f"--workdir={workdir}"]

    @property
    def command(self) -> str:
        return "python " + shlex.join(self.arguments(f"runs/{self.title}"))


def title_of(name: str, corpus: str, seed: int) -> str:
    """A title that is a single path component, whatever the names contain."""
    return re.sub(r"[/:\\\0]", "_", f"{name}.{corpus}.seed{seed}")


def all_claims() -> list[Claim]:
    """Every config of a run that has targets or sets config.claim.minutes."""
    runs = [entry for entry in all_configs() if entry.config.get("kind", "run") == "run"]
    claimed = [entry for entry in runs if entry.config.targets or entry.config.claim.minutes]
    return [Claim(entry.path, entry.config, entry.module.__doc__ or "") for entry in claimed]


def check_docstring(claim: Claim):
    """Raises UserError if config.name differs from the path, or the docstring lacks source, command or time."""
    path, config = claim.path.removeprefix("configs/").replace(".py", ""), claim.config
    if config.name not in (path, path.partition(":")[0]):
        raise UserError(f"{claim.path}: config.name must be its path, {path!r}, not {config.name!r}")
    file = claim.path.partition(":")[0]
    if sys.flags.optimize > 1:  # Python drops docstrings
        return
    for words in ("Source: ", f"--config={file}", f"{config.claim.minutes:,g} minutes"):
        if not re.search(rf"(?<![\d.]){re.escape(words)}", claim.docstring):
            raise UserError(f"{file}: its docstring must contain {words!r}")


def matching(patterns: str) -> list[Claim]:
    """Claims whose name (text8/lstm), or name and target (ptb/lstm2/test), matches one of PATTERN,PATTERN,... (shell
    globs). A match of one target selects the config with all its targets. Raises UserError for a pattern without a
    match, and for a config that `check_docstring` rejects."""
    claims, chosen = all_claims(), set()
    for pattern in patterns.split(","):
        found = set()
        for name, targets in ((claim.config.name, claim.config.targets) for claim in claims):
            if fnmatch.filter([name, *(f"{name}/{target}" for target in targets)], pattern):
                found.add(name)
        if not found:
            known = suggestions(pattern, [claim.config.name for claim in claims])
            raise UserError(f"--targets={pattern} matches no config with targets{known}")
        chosen |= found
    found = [claim for claim in claims if claim.config.name in chosen]
    for claim in found:
        check_docstring(claim)
    return found


def suits(claim: Claim, corpus: str) -> bool:
    """True if the same function builds this corpus and the claim's own, as for text8_prefix and text8."""
    return corpus in CORPORA and CORPORA[corpus].build is CORPORA[claim.config.data.corpus].build


def planned_run(claim: Claim, seed: int, corpus: str = "") -> PlannedRun:
    """The claim's run with this seed, on the claim's own corpus or on another one that `suits` it."""
    config = claim.config.copy_and_resolve_references()
    config.seed = seed
    config.data.corpus = corpus or config.data.corpus
    return PlannedRun(claim.path, config, identity(config, checksum(config.data)))


def run_titled(title: str, claims: Sequence[Claim]) -> PlannedRun | None:
    """The run with this title, or None if no claim has one."""
    if match := re.fullmatch(r".+\.(\w+)\.seed(\d{1,9})", title):
        corpus, seed = match[1], int(match[2])
        for claim in claims:
            if suits(claim, corpus) and title_of(claim.config.name, corpus, seed) == title:
                return planned_run(claim, seed, corpus)
    return None


def plan(claims: Sequence[Claim], seeds: int, corpus: str = "") -> list[PlannedRun]:
    """The runs to make, cheapest first.

    seeds: runs per claim; 0: as many as each claim asks for
    corpus: replaces the corpus of each claim that it suits, such as text8 by text8_prefix; "": replaces none
    Raises UserError for an unknown corpus, and for one that suits no claim.
    """
    if corpus:
        check_name(corpus, CORPORA, "--corpus")
        if not any(suits(claim, corpus) for claim in claims):
            why = "cannot replace the corpus of any of these targets: it is built differently"
            raise UserError(f"--corpus={corpus} {why}")
    runs = [
        planned_run(claim, seed, corpus if suits(claim, corpus) else "")
        for claim in claims
        for seed in range(seeds or claim.config.claim.seeds)
    ]
    return sorted(runs, key=lambda run: run.config.claim.minutes)
