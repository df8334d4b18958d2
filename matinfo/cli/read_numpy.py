"""``.npy`` and ``.npz``: header and bytes read by hand, so that no row but those of a batch is in memory."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from matinfo.cli.errors import InputError, first_line
from matinfo.cli.source import Batch, Contents, Source, as_rows, check_dtype, check_shape, slices

Opener = Callable[[], AbstractContextManager[IO[bytes]]]
Header = tuple[tuple[int, ...], bool, np.dtype]


def read_npy(file: Path) -> Contents:
    """The array of an ``.npy`` file."""
    with open(file, "rb") as stream:
        header = _header(stream, str(file))
        there = file.stat().st_size - stream.tell()
    shape, _, dtype = header
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if there < needed:
        raise InputError(f"{file}: ends early: {there} of {needed} bytes of data. Write or copy it again.")
    mapped = lambda: np.load(file, mmap_mode="r", allow_pickle=False)  # noqa: E731
    return Contents([_source(file, None, header, lambda: open(file, "rb"), mapped)], [])


def read_npz(file: Path) -> Contents:
    """The arrays of an ``.npz`` file; those that are not two-dimensional or not numbers are left out."""
    sources: list[Source] = []
    notes: list[str] = []
    with _zip_errors(file), zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            key = member.removesuffix(".npy")
            if not member.endswith(".npy"):
                notes.append(f"Left out: {file}:{key}: not an array.")
                continue
            with archive.open(member) as stream:
                header = _header(stream, f"{file}:{key}")
            opened = lambda member=member: _member(file, member)  # noqa: E731
            whole = lambda key=key: _load(file, key)  # noqa: E731
            try:
                sources.append(_source(file, key, header, opened, whole))
            except InputError as error:
                notes.append(f"Left out: {error}")
    return Contents(sources, notes)


def _load(file: Path, key: str) -> np.ndarray:
    with _zip_errors(file), np.load(file, allow_pickle=False) as archive:
        return archive[key]


@contextmanager
def _member(file: Path, member: str) -> Iterator[IO[bytes]]:
    """One file of an archive, with the archive closed together with it."""
    with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
        yield stream


@contextmanager
def _zip_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{file}: cannot be read as a NumPy archive: {first_line(error)}. Copy it again."
        ) from None


def _header(stream: IO[bytes], name: str) -> Header:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"format version {version} is for structured arrays")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(stream)
    except Exception as error:  # the parser of a damaged header may raise anything
        raise InputError(f"{name}: cannot be read as a NumPy array: {first_line(error)}.") from None


def _source(
    file: Path, key: str | None, header: Header, opened: Opener, whole: Callable[[], np.ndarray]
) -> Source:
    shape, fortran, dtype = header
    name = str(file) if key is None else f"{file}:{key}"
    check_dtype(name, dtype)
    rows, columns = check_shape(name, shape)

    def by_slices(step: int) -> Iterator[Batch]:
        array = whole()
        for part in slices(rows, step):
            yield Batch(as_rows(array[part]), part.stop - part.start)

    def by_bytes(step: int) -> Iterator[Batch]:
        with _zip_errors(file), opened() as stream:
            _header(stream, name)
            for part in slices(rows, step):
                count = part.stop - part.start
                data = stream.read(count * columns * dtype.itemsize)
                if len(data) < count * columns * dtype.itemsize:
                    raise InputError(
                        f"{name}: ends early, in row {part.start} or after. Write or copy it again."
                    )
                yield Batch(as_rows(np.frombuffer(data, dtype).reshape(count, columns)), count)

    return Source(file, key, rows, columns, str(dtype), rows, "row", by_slices if fortran else by_bytes)
