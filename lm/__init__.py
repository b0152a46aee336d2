"""Recurrent language models. `import lm; run = lm.open_run("runs/mine")` picks up a trained model: lm/run.py."""


def __getattr__(name: str):
    """Imports open_run when it is first used: it needs JAX, which most modules of this package do not."""
    if name == "open_run":
        from lm.run import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
