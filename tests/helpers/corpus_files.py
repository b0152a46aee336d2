"""Corpora whose files are written by the tests."""

import hashlib
import io
import zipfile

import pytest

from configs.base import base
from lm.data.corpora import CORPORA
from lm.data.files import RegisteredFile
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


def archive(members: dict) -> bytes:
    """A zip archive of {name: content}."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


def register(monkeypatch, name, **files):
    monkeypatch.setitem(CORPORA, name, CORPORA[name]._replace(files=files))


def place_text8(data_dir, monkeypatch, text=TEXT):
    source = place(data_dir, "text8/text8.zip", archive({"text8": text.encode()}), member="text8")
    register(monkeypatch, "text8", text=source)
    return source


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)
