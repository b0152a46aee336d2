"""Recurrent language models. `import lm; run = lm.open_run("runs/mine")` opens a trained model: lm/run.py."""


def __getattr__(name: str):
    """Imports open_run on first use, because it needs JAX and most modules of this package do not."""
    if name == "open_run":
        from lm.run import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
