"""Registered files: a wrong or missing one is an error that names it, and is never cached."""

import functools
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from lm.data import files
from lm.data.corpora import load
from lm.data.files import RegisteredFile, read_text
from tests.helpers.corpus_files import data_config, place, place_text8, refusal

pytestmark = pytest.mark.usefixtures("cache")
ROOT = Path(files.__file__).resolve().parents[2]


def prepared(cache):
    """Everything in the cache: files, and directories of downloads."""
    return [path for path in cache.rglob("*") if path.is_file() or path.name.startswith(".lm")]


def test_a_missing_file_without_a_network_is_an_error_at_once(cache, data_dir):
    message = refusal(load, data_config(corpus="text8"), str(data_dir))
    assert message == (
        f"text8/text8.zip is not in {data_dir}, and mattmahoney.net cannot be reached: download "
        "http://mattmahoney.net/dc/text8.zip, put it at DIR/text8/text8.zip and pass --data_dir=DIR "
        "(or set LM_DATA_DIR)"
    )
    message = refusal(load, data_config(corpus="text8_prefix"), None)
    assert message.startswith("text8/text8-prefix.zip is not in the cache: it has no public address")
    assert prepared(cache) == []


def test_a_missing_file_names_a_corpus_that_would_do(data_dir):
    (data_dir / "text8").mkdir()
    (data_dir / "text8" / "text8-prefix.zip").touch()
    message = refusal(load, data_config(corpus="text8"), str(data_dir))
    assert message.endswith(f"; or pass --config.data.corpus=text8_prefix, which is in {data_dir}")
    (data_dir / "shakespeare").mkdir()
    (data_dir / "shakespeare" / "tinyshakespeare.txt").touch()
    assert "or pass --config" not in refusal(load, data_config(corpus="ptb"), str(data_dir)), "built differently"


def test_a_host_that_never_answers_is_an_error_after_the_time_limit(monkeypatch):
    monkeypatch.setattr(files, "_PROBE_SECONDS", 0.2)
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20) and [])
    assert "cannot be reached" in refusal(load, data_config(corpus="text8"), None)
    released.set()


@pytest.mark.parametrize("change", [lambda c: c[:-7], lambda c: c[:30] + b"?" + c[31:], lambda c: b""])
def test_truncated_or_altered_files_are_errors_and_not_cached(change, cache, data_dir, monkeypatch):
    source = place_text8(data_dir, monkeypatch)
    file = data_dir / "text8/text8.zip"
    whole = file.read_bytes()
    file.write_bytes(change(whole))
    data = data_config(corpus="text8", valid_chars=10)
    message = refusal(load, data, str(data_dir))
    digest = hashlib.sha256(change(whole)).hexdigest()
    assert message.startswith(
        f"{file} is not the registered file: it has {len(change(whole))} bytes with sha256 {digest}, "
        f"expected {source.size} bytes with sha256 {source.sha256}; "
    )
    assert prepared(cache) == []
    file.write_bytes(whole)  # the right file is accepted afterwards
    assert len(load(data, str(data_dir)).splits["train"]) == 34


def test_a_damaged_cache_is_an_error(cache, data_dir):
    source = place(data_dir, "a.txt", b"some text")
    assert read_text(source, str(data_dir)) == "some text"
    [record] = cache.rglob("*array_record*")
    record.write_bytes(record.read_bytes()[:100])
    message = refusal(read_text, source, str(data_dir))
    assert message.startswith(f"{record.parent} is damaged: delete that directory")


def test_without_a_writable_cache_the_file_is_read_uncached(tmp_path, data_dir, monkeypatch, capsys):
    blocked = tmp_path / "a_file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("TFDS_DATA_DIR", str(blocked / "below"))
    source = place(data_dir, "a.txt", b"some text")
    assert read_text(source, str(data_dir)) == "some text"
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{blocked / 'below'} cannot be written (Not a directory)")


def test_two_processes_may_prepare_at_once(cache, data_dir):
    content = b"words and more words\n" * 200_000
    source = place(data_dir, "a.txt", content)
    program = (
        "import sys, hashlib; from lm.data.files import RegisteredFile, read_text; import tensorflow_datasets\n"
        "sys.stdin.readline()\n"
        f"text = read_text(RegisteredFile('a.txt', {source.size}, '{source.sha256}', None), {str(data_dir)!r})\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:  # by now both have imported the slow libraries, or nearly
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers == [source.sha256] * 2
    [folder] = cache.iterdir()
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


def test_the_slower_of_two_processes_uses_the_file_of_the_faster(data_dir, monkeypatch):
    """The other process finishes after this one looked into the cache and before it renames its own file."""
    source = place(data_dir, "a.txt", b"some text")
    made, content = [], files._read_content

    def slow(*arguments):
        if not made:
            made.append("by the other")
            assert read_text(source, str(data_dir)) == "some text"
        return content(*arguments)

    monkeypatch.setattr(files, "_read_content", slow)
    assert read_text(source, str(data_dir)) == "some text"
    assert made


# ---- downloads ----


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder, address) of a web server on this machine, the only host that can be reached."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    local = ("127.0.0.1", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(local, functools.partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_missing_file_is_downloaded_and_verified(cache, server, capfd):
    folder, address = server
    source = place(folder, "a.txt", b"some text", url=f"{address}/a.txt")
    assert read_text(source, None) == "some text"
    out, err = capfd.readouterr()
    assert out == ""
    assert f"downloading {address}/a.txt (0.0 MB)" in err
    (folder / "a.txt").unlink()
    assert read_text(source, None) == "some text"
    [kept] = cache.iterdir()
    assert [path.name for path in kept.iterdir()] == ["1.0.0"]


def test_a_wrong_download_is_an_error_and_not_kept(cache, server):
    folder, address = server
    source = place(folder, "a.txt", b"some text", url=f"{address}/a.txt")
    (folder / "a.txt").write_bytes(b"other text")
    message = refusal(read_text, source, None)
    assert message.startswith(f"{address}/a.txt is not the registered file: expected 9 bytes")
    assert prepared(cache) == []
    (folder / "a.txt").unlink()
    message = refusal(read_text, source, None)
    assert message.startswith(f"cannot prepare a.txt from {address}/a.txt")
    assert "404" in message
    assert prepared(cache) == []


def test_no_temporary_directory_is_left(cache, data_dir, tmp_path, monkeypatch):
    """TFDS makes one for every dataset that it does not find prepared."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    content = b"some text"
    file = RegisteredFile("a.txt", len(content), hashlib.sha256(content).hexdigest(), None)
    (data_dir / "a.txt").write_bytes(content)
    assert read_text(file, str(data_dir)) == "some text"
    assert list((tmp_path / "temporary").iterdir()) == []
