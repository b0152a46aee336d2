"""Corpora whose files are written by the tests."""

import hashlib
import zipfile

import pytest

from configs.base import base
from lm.data.corpora import CORPORA
from lm.data.files import RegisteredFile
from lm.data.text import TEXT8_ALPHABET
from lm.errors import UserError

TEXT = "the quick brown fox jumps over the lazy dog "


def data_config(**changes):
    data = base().data
    data.update(changes)
    return data


def place(data_dir, path, content: bytes, **fields) -> RegisteredFile:
    """Writes a file into the data directory and registers it."""
    file = data_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return RegisteredFile(path, len(content), digest, fields.pop("url", None), **fields)


def archive(tmp_path, content: bytes, member="text8") -> bytes:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, content)
    return path.read_bytes()


def register(monkeypatch, name, **files):
    monkeypatch.setitem(CORPORA, name, CORPORA[name]._replace(files=files))


def place_text8(data_dir, tmp_path, monkeypatch, text=TEXT):
    source = place(
        data_dir,
        "text8/text8.zip",
        archive(tmp_path, text.encode()),
        member="text8",
        text_size=len(text.encode()),
        alphabet=TEXT8_ALPHABET,
    )
    register(monkeypatch, "text8", text=source)
    return source


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)
