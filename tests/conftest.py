"""Settings for all tests: JAX on the CPU and strict, a home of their own, no network."""

import os
import socket
import tempfile

import jaxtyping
import pytest

from tests.helpers import checked

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything imports jax

# What a user's home holds must neither help a test nor be changed by one. Set before libraries are
# imported: some read these only then.
_HOME = tempfile.TemporaryDirectory(prefix="lm-tests-")
for _name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TFDS_DATA_DIR", "MPLCONFIGDIR"):
    os.environ[_name] = os.path.join(_HOME.name, _name.lower())
    os.mkdir(os.environ[_name])

# All processes of one test run share their compiled programs: pytest's workers and whatever tests start.
_CACHE = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="lm-tests-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Shapes and types in signatures are checked at every call. Installed before any of these modules is imported.
jaxtyping.install_import_hook(["lm.cells", "lm.data", "lm.model", "lm.scoring"], f"{checked.__name__}.check")


def pytest_configure(config):
    """Promotes no ranks silently: wrong shapes broadcast into plausible numbers.

    Dtypes are promoted as usual, since optax's own Adam relies on it.
    """
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure(config):
    _HOME.cleanup()
    if _CACHE:
        _CACHE.cleanup()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Drops the compiled programs of each test file.

    Each holds several memory mappings, of which Linux allows a process 65,530: a worker that keeps them all
    is aborted inside XLA some 2,000 tests later.
    """
    import jax

    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that connects anywhere but to this machine fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address}")
        return connect(self, address)

    def refused(host, *arguments, **options):
        if host in (None, "127.0.0.1", "::1", "localhost"):
            return getaddrinfo(host, *arguments, **options)
        raise AssertionError(f"a test looks up {host}")

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
