"""Registered files: found or downloaded, verified, cached.

Files that are not the user's own come through tensorflow-datasets (TFDS): a builder per file states
its address, checksum, features and licence, and TFDS downloads, verifies, caches and describes it. It
does so without TensorFlow, but for four things that are done here:

- Prepared files are ArrayRecord, one record each, read by `as_data_source`: TFRecord and `as_dataset`
  need TensorFlow, and a record per line or per character would be slow.
- Archives are read with `zipfile`: `dl_manager.extract` needs TensorFlow. So the paths that stand in
  an archive are never written to.
- `dl_manager.download` retries for minutes where there is no network. So files are first looked for in
  data_dir (as TFDS's `manual_dir`, verified like a download), and the connection is tried first.
- Checksums are given to TFDS as `url_infos`; checksums.tsv would need a package folder per file.

The cache is $TFDS_DATA_DIR or ~/tensorflow_datasets; where that cannot be written, a temporary one
serves. Every process prepares in a folder of its own and renames it at the end, so several may run at
once, and what fails leaves nothing behind.
"""

import contextlib
import functools
import hashlib
import io
import os
import socket
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from lm.data.text import decode_utf8
from lm.errors import UserError, first_line
from lm.machine.signals import raising

_PROBE_SECONDS = 4.0  # to find out whether there is a network


class RegisteredFile(NamedTuple):
    """A file. path: below data_dir; size (bytes), sha256: of the file; url: None if nowhere public;
    member, text_size: of a zip archive, its member and that one's bytes; alphabet: the only
    characters that may occur, if that is known."""

    path: str
    size: int
    sha256: str
    url: str | None
    member: str | None = None
    text_size: int = 0
    alphabet: str | None = None


def read_text(file: RegisteredFile, data_dir: str | None, licence: str = "") -> str:
    """The text of a file: from the cache, else from data_dir, else from the network.

    Raises UserError where it is nowhere, or is not the registered file.
    """
    cache = os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    builder = _builder(file, licence, cache)
    if _is_prepared(builder):
        return _prepared_text(builder)
    with _writable(cache) as cache:
        _prepare(functools.partial(_builder, file, licence, cache), file, cache, data_dir)
        return _prepared_text(_builder(file, licence, cache))


def _builder(file: RegisteredFile, licence: str, cache: str):
    """The TFDS builder of a file. Its folder below `cache` bears the file's name and checksum."""
    import tensorflow_datasets as tfds
    from etils import epath

    size = tfds.core.utils.Size(file.size)
    file_name = os.path.basename(file.path)
    url_info = tfds.download.checksums.UrlInfo(size, file.sha256, file_name)

    class TextFile(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = f"lm_{file_name.replace('.', '_').replace('-', '_')}_{file.sha256[:12]}"
        url_infos = {_address(file): url_info}  # noqa: RUF012 - the form that TFDS has
        pkg_dir_path = epath.Path(__file__).parent  # TFDS would look for it in every place it knows

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"One record: the text of {file.path}.",
                features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
                homepage=file.url,
                license=licence,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {"text": self._generate_examples(dl_manager.download(_address(file)))}

        def _generate_examples(self, path):
            yield 0, {"text": _content(file, path)}

    return TextFile(data_dir=cache)


def _address(file: RegisteredFile) -> str:
    """The key of its checksum in TFDS: its URL, or what is never opened where it has none."""
    return file.url or f"data_dir:{file.path}"


def _is_prepared(builder) -> bool:
    """As builder.is_prepared, which warns of every folder that is not."""
    return os.path.isfile(os.path.join(builder.data_dir, "dataset_info.json"))


def _prepared_text(builder) -> str:
    """The text that a prepared builder holds."""
    try:
        content = builder.as_data_source(split="text")[0]["text"]
    except Exception as error:  # ArrayRecord, protobuf and TFDS each have their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{builder.data_dir} is damaged: delete that folder ({reason})") from error
    return decode_utf8(content, builder.data_dir)


def _prepare(make_builder, file: RegisteredFile, cache: str, data_dir: str | None):
    """Lets TFDS find or download, verify and cache the file. Raises UserError, leaving nothing."""
    import tensorflow_datasets as tfds

    local = os.path.join(os.path.expanduser(data_dir), file.path) if data_dir else ""
    if not os.path.isfile(local):
        _check_that_it_can_be_downloaded(file, f"not in {data_dir}" if data_dir else "not here")
        local = ""
        print(f"downloading {file.url} ({file.size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
    if local or not sys.stderr.isatty():
        tfds.disable_progress_bar()
    where = local or file.url
    get = _how_to_get(file)
    try:
        # Archives lie in a folder that goes away: what is needed of them is their text.
        with (
            raising(),
            tempfile.TemporaryDirectory(prefix=".lm-download-", dir=cache) as downloads,
            contextlib.redirect_stdout(io.StringIO()),  # TFDS prints about sizes that it does not know
        ):
            make_builder().download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=os.path.dirname(local) or downloads),
                file_format="array_record",
            )
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise UserError(
            f"{where} is not the registered file: {_what_it_is(local)}expected {file.size} bytes "
            f"with sha256 {file.sha256}; {get}"
        ) from error
    except (OSError, tfds.download.DownloadError) as error:  # requests' errors are OSErrors
        if _is_prepared(make_builder()):  # by another process, which was faster
            return
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot make {file.path} from {where} in {cache}: {reason}; {get}") from error


def _what_it_is(local: str) -> str:
    if not local:
        return ""
    with open(local, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"it has {os.path.getsize(local)} bytes with sha256 {digest}, "


def _content(file: RegisteredFile, path) -> bytes:
    """The text's bytes from a file of the registered checksum. Raises UserError naming the file."""
    content = Path(path).read_bytes() if file.member is None else _member(file, path)
    decode_utf8(content, file.path)
    if file.alphabet is not None:
        strange = content.translate(None, file.alphabet.encode())
        if strange:
            first = strange[:1]
            raise UserError(
                f"{file.path}: byte {content.index(first)} is {first.decode('latin-1')!r}, which is "
                f"not in the corpus's alphabet {file.alphabet!r}"
            )
    return content


def _member(file: RegisteredFile, path) -> bytes:
    """The text of an archive. Never reads more than was registered, whatever the archive declares."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(file.member) as member:
            declared = archive.getinfo(file.member).file_size
            content = member.read(file.text_size + 1) if declared <= file.text_size else None
    except Exception as error:  # of a dozen kinds: zipfile's, zlib's, struct's, of methods and flags it does not know
        raise UserError(
            f"{file.path} is not a whole zip archive with a member {file.member}: {first_line(error)}"
        ) from error
    if content is None or len(content) != file.text_size:
        raise UserError(
            f"{file.path}: its member {file.member} does not have the registered "
            f"{file.text_size} bytes (it declares {declared})"
        )
    return content


@contextlib.contextmanager
def _writable(cache: str):
    """`cache`, or a temporary folder, for as long as it is needed, where that cannot be written."""
    try:
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        print(
            f"{cache} cannot be written ({error.strerror or error}): nothing is cached; TFDS_DATA_DIR "
            "names another place",
            file=sys.stderr,
        )
        with raising(), tempfile.TemporaryDirectory(prefix="lm-corpora-") as temporary:
            yield temporary
    else:
        yield cache


def _check_that_it_can_be_downloaded(file: RegisteredFile, lack: str):
    """Raises UserError at once where the file has no URL or its host cannot be reached."""
    if file.url is None:
        raise UserError(f"{file.path} is {lack}: {_how_to_get(file)}")
    parts = urllib.parse.urlsplit(file.url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    reached = threading.Event()

    def probe():
        with contextlib.suppress(OSError):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), _PROBE_SECONDS).close()
            reached.set()

    # In a thread, since nothing limits how long looking up a name may take.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if not reached.is_set():
        raise UserError(f"{file.path} is {lack}, and {parts.hostname} cannot be reached: {_how_to_get(file)}")


def _how_to_get(file: RegisteredFile) -> str:
    origin = f"download {file.url}" if file.url else "it has no public address; get a copy of it"
    return f"{origin}, put it at DIR/{file.path} and give --data_dir=DIR (or set LM_DATA_DIR)"
