"""Directories for corpora: an empty cache, an empty data directory, and no network."""

import socket

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A TFDS cache for this test only, and no network."""

    look_up = socket.getaddrinfo

    def unknown(host, *arguments, **options):
        if host == "127.0.0.1":
            return look_up(host, *arguments, **options)
        raise socket.gaierror("no name server")

    directory = tmp_path / "cache"
    monkeypatch.setenv("TFDS_DATA_DIR", str(directory))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    return directory


@pytest.fixture
def data_dir(tmp_path):
    """An empty data directory."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory
