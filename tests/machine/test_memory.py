"""Free and resident memory, against psutil and against a container's limit in files made here."""

import mmap

import psutil
import pytest

from lm.machine import memory


@pytest.fixture(autouse=True)
def group(tmp_path, monkeypatch):
    """The directory in place of the container's control group, still empty."""
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    return tmp_path


def test_without_a_limit_all_available_memory_is_free(group):
    available = psutil.virtual_memory().available
    assert memory.free_bytes() == pytest.approx(available, rel=0.1)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("123\n")
    assert memory.free_bytes() == pytest.approx(available, rel=0.1)


@pytest.mark.parametrize(("used", "free"), [(300_000, 700_000), (1_200_000, 0)])
def test_a_container_may_use_what_its_limit_leaves(group, used, free):
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text(f"{used}\n")
    assert memory.free_bytes() == free


def test_an_accelerator_reports_its_own_memory(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 400}

    monkeypatch.setattr(memory.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(memory.jax, "local_devices", lambda: [Device()])
    assert memory.free_bytes() == 600
    monkeypatch.setattr(Device, "memory_stats", lambda self: None)
    assert memory.free_bytes() is None


def test_resident_memory_grows_with_what_is_written():
    """Pages of the kernel's: malloc could give memory that the process already holds."""
    before = memory.resident_bytes()
    with mmap.mmap(-1, 50_000_000) as held:
        held.write(b"x" * len(held))
        assert 40e6 < memory.resident_bytes() - before < 150e6
