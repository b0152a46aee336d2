"""A trained run, opened at one of its checkpoints: what evaluation, sampling and export start from."""

from lm.errors import UserError
from lm.training.recorder import ReadTest, Recorder
from lm.training.setup import Setup
from lm.training.state import TrainState

CHECKPOINTS = ("last", "best")


class Run:
    """A run's state at one of its checkpoints.

    setup: config, corpus and model; state: with `step` steps made; parameters: those that evaluation reads
    """

    def __init__(self, recorder: Recorder, state: TrainState):
        self.setup, self.state, self.recorder = recorder.setup, state, recorder
        self.model, self.vocabulary = self.setup.model, self.setup.corpus.vocabulary
        self.step, self.parameters = int(state.step), recorder.parameters(state)

    def summarise(self) -> dict:
        """Scores every split and protocol of the config, as at the end of training; see lm/training/summary.py."""
        return self.recorder.summarise(self.state)

    def sample(self) -> list[str]:
        """Texts as `config.sample` says."""
        return self.recorder.sample(self.state)


def open_run(setup: Setup, workdir, checkpoint: str = "last", read_test: ReadTest | None = None) -> Run:
    """Opens the run in `workdir` at its last checkpoint, or at the best by validation.

    read_test: see lm/training/recorder.py. Raises UserError if there is no such checkpoint.
    """
    recorder = Recorder(setup, workdir, read_test)
    state = recorder.restore()
    if not recorder.resumed:
        raise UserError(f"{workdir} holds no checkpoint: train a run there first")
    if checkpoint == "best":
        best = recorder.checkpoints.restore(setup.state_shapes, which="best")
        if best is None:
            raise UserError(f"{workdir} holds no best checkpoint: train with config.checkpoint.best=keep")
        state = best[0]
    return Run(recorder, state)
