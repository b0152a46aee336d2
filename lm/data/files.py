"""Finds or downloads registered files, verifies and caches them.

The files of registered corpora are read through tensorflow-datasets (TFDS). One TFDS builder per file declares its
address, checksum, features and licence; TFDS downloads, verifies and caches the file. Four TFDS defaults are replaced,
because they need TensorFlow or do not fit single files:

- Prepared files use the ArrayRecord format with one record per file, read by `as_data_source`. TFRecord and
  `as_dataset` need TensorFlow, and one record per line or character would be slow.
- `zipfile` reads archives instead of `dl_manager.extract`. Nothing is written to paths named in an archive.
- `dl_manager.download` retries for minutes when offline. So data_dir is searched first (TFDS's `manual_dir`, verified
  like a download), and the connection is tested before a download.
- Checksums are passed as `url_infos`: checksums.tsv would need a package folder per file.

The cache is $TFDS_DATA_DIR or ~/tensorflow_datasets; if that is not writable, a temporary directory. Every process
prepares a file in its own temporary directory and renames that directory at the end, so several processes can run at
once and a failure leaves no files behind.
"""

import contextlib
import gzip
import hashlib
import io
import os
import re
import socket
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from lm.errors import UserError, first_line
from lm.machine.signals import raising

_PROBE_SECONDS = 4.0  # timeout of the connection test


class RegisteredFile(NamedTuple):
    """A text file with a known checksum: plain, gzipped, or in a zip archive.

    path: relative to data_dir; size: in bytes; url: None if it is not published
    member: name of the text in a zip archive
    """

    path: str
    size: int
    sha256: str
    url: str | None
    member: str | None = None


def files_in(folder: str, table: str, url: str | None = None) -> dict[str, RegisteredFile]:
    """Reads a table with a line "key name size sha256", and the member of a zip archive, for each file. Returns
    {key: RegisteredFile}."""
    rows = (line.split() for line in table.strip().splitlines())
    return {
        key: RegisteredFile(f"{folder}/{name}", int(size), sha256, url and f"{url}/{name}", *member)
        for key, name, size, sha256, *member in rows
    }


def read_text(file: RegisteredFile, data_dir: str | None, licence: str = "") -> str:
    """Reads the text of a file from the cache, else from data_dir, else from the network.

    Bytes that are not UTF-8 become surrogates, which `Vocabulary.encode` turns back into bytes at level byte.
    Raises UserError if the file cannot be found or its checksum is wrong.
    """
    cache = os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    builder = _builder(file, licence, cache)
    if _is_prepared(builder):
        return _prepared_text(builder)
    with _writable_cache(cache) as writable:
        _prepare(file, licence, writable, data_dir)
        return _prepared_text(_builder(file, licence, writable))


def _builder(file: RegisteredFile, licence: str, cache: str):
    """The TFDS builder of a file. Its directory in `cache` is named after the file and its checksum."""
    import tensorflow_datasets as tfds
    from etils import epath

    size = tfds.core.utils.Size(file.size)
    file_name = os.path.basename(file.path)
    address = file.url or f"data_dir:{file.path}"  # key into url_infos; "data_dir:..." is never opened

    class Info(tfds.core.DatasetInfo):
        def initialize_from_bucket(self):
            """Does nothing. The base method would make a temporary directory and look up a registered dataset."""

    class TextFile(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = f"lm_{re.sub('[-./]', '_', file.member or file_name)}_{file.sha256[:12]}"
        url_infos = {address: tfds.download.checksums.UrlInfo(size, file.sha256, file_name)}  # noqa: RUF012 - TFDS's form
        pkg_dir_path = epath.Path(__file__).parent  # if unset, TFDS searches all its package paths

        def _info(self):
            return Info(
                builder=self,
                description=f"One record: the text of {file.path}.",
                features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
                homepage=file.url,
                license=licence,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {"text": self._generate_examples(dl_manager.download(address))}

        def _generate_examples(self, path):
            yield 0, {"text": _read_content(file, path)}

    return TextFile(data_dir=cache)


def _is_prepared(builder) -> bool:
    """Like builder.is_prepared(), without its warning about unprepared directories."""
    return os.path.isfile(os.path.join(builder.data_dir, "dataset_info.json"))


def _prepared_text(builder) -> str:
    """Reads the text of a prepared builder. Raises UserError if its directory is damaged."""
    try:
        content = builder.as_data_source(split="text")[0]["text"]
    except Exception as error:  # ArrayRecord, protobuf and TFDS each raise their own exceptions
        raise UserError(f"{builder.data_dir} is damaged: delete that directory ({first_line(error)})") from error
    return content.decode("utf-8", "surrogateescape")


def _prepare(file: RegisteredFile, licence: str, cache: str, data_dir: str | None) -> None:
    """Finds or downloads the file through TFDS, verifies and caches it.

    Raises UserError on failure.
    """
    import tensorflow_datasets as tfds

    local = os.path.join(os.path.expanduser(data_dir), file.path) if data_dir else ""
    if not os.path.isfile(local):
        _probe_host(file, f"not in {data_dir}" if data_dir else "not in the cache")
        local = ""
        print(f"downloading {file.url} ({file.size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
    if local or not sys.stderr.isatty():
        tfds.disable_progress_bar()
    origin = local or file.url
    try:
        with (
            raising(),
            tempfile.TemporaryDirectory(prefix=".lm-download-", dir=cache) as downloads,  # only the text is kept
            contextlib.redirect_stdout(io.StringIO()),  # hides what TFDS prints about unknown sizes
        ):
            _builder(file, licence, cache).download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=os.path.dirname(local) or downloads),
                file_format="array_record",
            )
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        content = Path(local).read_bytes() if local else b""
        found = f"it has {len(content)} bytes with sha256 {hashlib.sha256(content).hexdigest()}, " if local else ""
        raise UserError(
            f"{origin} is not the registered file: {found}expected {file.size} bytes with sha256 "
            f"{file.sha256}; {_advice(file)}"
        ) from error
    except (OSError, tfds.download.DownloadError) as error:  # requests' errors are OSErrors
        if _is_prepared(_builder(file, licence, cache)):  # another process prepared it first
            return
        message = f"cannot prepare {file.path} from {origin} in {cache}: {first_line(error)}; {_advice(file)}"
        raise UserError(message) from error


def _read_content(file: RegisteredFile, path) -> bytes:
    """Unpacks a verified file: its bytes are the registered ones, so nothing in them can surprise."""
    if file.member is not None:
        with zipfile.ZipFile(path) as archive:
            return archive.read(file.member)
    content = Path(path).read_bytes()
    return gzip.decompress(content) if file.path.endswith(".gz") else content


@contextlib.contextmanager
def _writable_cache(cache: str):
    """Yields `cache` if it is writable, else a temporary directory."""
    try:
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        print(
            f"{cache} cannot be written ({error.strerror or error}): nothing is cached; set TFDS_DATA_DIR to another "
            "directory",
            file=sys.stderr,
        )
        with raising(), tempfile.TemporaryDirectory(prefix="lm-corpora-") as temporary:
            yield temporary
    else:
        yield cache


def _probe_host(file: RegisteredFile, missing: str) -> None:
    """Raises UserError within seconds if the file has no URL or its host cannot be reached."""
    if file.url is None:
        raise UserError(f"{file.path} is {missing}: {_advice(file)}")
    parts = urllib.parse.urlsplit(file.url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    reached = threading.Event()

    def probe():
        with contextlib.suppress(OSError):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), _PROBE_SECONDS).close()
            reached.set()

    # In a thread, because name resolution has no timeout.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if not reached.is_set():
        raise UserError(f"{file.path} is {missing}, and {parts.hostname} cannot be reached: {_advice(file)}")


def _advice(file: RegisteredFile) -> str:
    """Says how to get the file by hand."""
    origin = f"download {file.url}" if file.url else "it has no public address; get a copy"
    return f"{origin}, put it at DIR/{file.path} and pass --data_dir=DIR (or set LM_DATA_DIR)"
