"""The official binary archives of CIFAR-10 and CIFAR-100, read without unpacking them to disk.

A record is one byte for each label, then 3,072 bytes of pixels: the red plane, green, blue, each
32x32 in row-major order. A file is nothing but its records.
"""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from experiments.data import cifar
from experiments.data.cifar import Cifar

_MAX_LABEL_FILE = 1 << 16  # bytes; the real ones have some 2,000
_MAX_EXTENDED = 1 << 16  # bytes of a name or of attributes; the official archives have none
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
# What reading a damaged archive raises.
_DECODING = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
_DAMAGE = (*_DECODING, OSError, MemoryError, OverflowError)

Records = dict[str, NDArray[np.uint8]]  # split -> (records, bytes of a record)


def read(data: Cifar, path: Path) -> Records:
    """Reads all records of an official archive into memory (184 MB).

    Only regular members of the expected names are looked at; nothing is written anywhere.

    Raises:
      ValueError: it is the archive of Python pickles, damaged, another data set's, or a file in it
        has not the official number of whole records, a wrong label or other class names.
    """
    _refuse_pickles(data, path.name)
    members = _read_members(data, path)
    for label, file in data.label_files.items():
        _check_names(data, path, label, members[file])
    return {
        split: np.concatenate([_records(data, path, file, members[file]) for file in files])
        for split, files in data.records.items()
    }


def examples(
    data: Cifar, records: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.uint8], dict[str, int]]]:
    """Pixels, uint8 (32, 32, 3), and labels by name, of each record."""
    height, width, channels = cifar.IMAGE_SHAPE
    keys = tuple(data.label_names)
    for record in records:
        labels = {key: int(value) for key, value in zip(keys, record, strict=False)}
        planes = record[len(keys) :].reshape(channels, height, width)
        yield planes.transpose(1, 2, 0), labels


def _refuse_pickles(data: Cifar, name: str) -> None:
    if name == data.python_archive or name.startswith(("cifar-10-batches-py", "cifar-100-python")):
        raise ValueError(
            f"{name} holds Python pickles, and reading a pickle can run any code that someone put "
            f"into it: use the binary archive {data.archive} ({data.url})"
        )


def _read_members(data: Cifar, path: Path) -> dict[str, bytes]:
    """File name -> content, of the files that the set is made of."""
    sizes = {file: n * _record_size(data) for of in data.records.values() for file, n in of.items()}
    wanted = {f"{data.folder}/{file}": file for file in (*sizes, *data.label_files.values())}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*", tarinfo=_Header) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                _refuse_pickles(data, name)
                if name not in wanted or not member.isreg():
                    continue
                _check_size(data, path, member, sizes.get(wanted[name]))
                content = tar.extractfile(member)
                assert content is not None  # only for members that are no files
                found[wanted[name]] = content.read()
            _read_to_end(tar)
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(
            f"{path} is damaged or no tar archive ({reason}): get {data.archive} again ({data.url})"
        ) from error
    missing = sorted(name for name, file in wanted.items() if file not in found)
    if missing:
        raise ValueError(
            f"{path} is not the binary archive of {data.name}: it has no file {missing[0]}; "
            f"get {data.archive} ({data.url})"
        )
    return found


class _Header(tarfile.TarInfo):
    """A member's header; refuses long names and attributes, which tarfile reads at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and not 0 <= header.size <= _MAX_EXTENDED:
            raise tarfile.ReadError(f"a name or attributes of {header.size:,} bytes")
        return header


def _read_to_end(tar: tarfile.TarFile) -> None:
    """Reads past the last member, to gzip's checksum."""
    assert tar.fileobj is not None  # only of a closed archive
    while tar.fileobj.read(1 << 20):
        pass


def _record_size(data: Cifar) -> int:
    return len(data.label_names) + int(np.prod(cifar.IMAGE_SHAPE))


def _check_size(data: Cifar, path: Path, member: tarfile.TarInfo, size: int | None) -> None:
    """Before a byte is read: a member of the wrong size may be huge."""
    if size is None:
        if member.size > _MAX_LABEL_FILE:
            raise ValueError(f"{path}: {member.name} has {member.size:,} bytes: no list of names")
    elif member.size != size:
        record = _record_size(data)
        count = f"{member.size // record:,} records"
        if member.size % record:
            count += f" and {member.size % record:,} bytes"
        raise ValueError(
            f"{path}: {member.name} has {member.size:,} bytes ({count}), but {data.name} has "
            f"{size // record:,} records of {record:,} bytes there: get {data.archive} again "
            f"({data.url}), or give an image folder, which may hold fewer images"
        )


def _check_names(data: Cifar, path: Path, label: str, content: bytes) -> None:
    names = tuple(content.decode("utf-8", errors="replace").split())
    if names != data.label_names[label]:
        raise ValueError(
            f"{path}: {data.label_files[label]} does not list the {label}s of {data.name} in "
            f"official order (it begins with {', '.join(names[:3]) or 'nothing'}): "
            f"get {data.archive} again ({data.url})"
        )


def _records(data: Cifar, path: Path, file: str, content: bytes) -> NDArray[np.uint8]:
    records = np.frombuffer(content, np.uint8).reshape(-1, _record_size(data))
    for column, (label, names) in enumerate(data.label_names.items()):
        largest = int(records[:, column].max(initial=0))
        if largest >= len(names):
            raise ValueError(
                f"{path}: {file} holds {label} {largest}, but {data.name} numbers its {len(names)} "
                f"labels from 0 to {len(names) - 1}: get {data.archive} again ({data.url})"
            )
    return records
