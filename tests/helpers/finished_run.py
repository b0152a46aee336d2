"""A finished run of two layers with zoneout."""

from ml_collections import ConfigDict

import lm
from lm.training.loop import train
from lm.training.setup import Setup, make_setup
from tests.helpers import tiny


def make_finished_run(workdir) -> Setup:
    """Trains it in `workdir` and returns its setup."""
    config = tiny.config(zoneout__memory=0.5, zoneout__output=0.5, model__hidden=(3, 4), checkpoint__best="keep")
    setup = make_setup(config, tiny.corpus())
    train(setup, workdir)
    return setup


def saved_config(workdir) -> ConfigDict:
    """The config of the run in `workdir`."""
    return ConfigDict(lm.open_run(workdir).config)
