"""``.npy`` and ``.npz``: no rows but those of a batch are in memory."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from matinfo.cli.errors import InputError, first_line
from matinfo.cli.source import Batch, Contents, Source, as_rows, check_dtype, check_shape, slices, usable

Header = tuple[tuple[int, ...], bool, np.dtype]


def read_npy(file: Path) -> Contents:
    """The array of an ``.npy`` file."""
    with open(file, "rb") as stream:
        header = _header(stream, str(file))
        start, there = stream.tell(), file.stat().st_size - stream.tell()
    rows, columns, dtype = _checked(str(file), header)
    needed = rows * columns * dtype.itemsize
    if there < needed:
        raise InputError(f"{file}: ends early: {there} of {needed} bytes of data. Write or copy it again.")

    def read(step: int) -> Iterator[Batch]:
        with open(file, "rb") as stream:
            stream.seek(start)
            yield from _batches(stream, str(file), header, step)

    return Contents([Source(file, None, rows, columns, dtype.name, read)], [])


def read_npz(file: Path) -> Contents:
    """The arrays of an ``.npz`` file that can be used, or the one sparse matrix that they are."""
    with _zip_errors(file):
        archive = zipfile.ZipFile(file)  # open for as long as its arrays: 20,000 arrays have one directory
    names = {member.removesuffix(".npy") for member in archive.namelist()}
    if {"format", "shape", "data"} <= names:
        return Contents([_sparse(file)], [])
    if names == {"data", "coords", "shape", "fill_value"}:
        raise InputError(
            f"{file}: is a sparse array of the package sparse. Save it with scipy.sparse.save_npz(file, x.tocsr()), or "
            "np.save(file, x.todense())."
        )
    return usable([partial(_member, file, archive, member) for member in archive.namelist()])


def _sparse(file: Path) -> Source:
    """A matrix of ``scipy.sparse.save_npz``; a batch of its rows is dense, the whole never."""
    import scipy.sparse  # takes as long to import as the whole of matinfo

    try:
        matrix = scipy.sparse.load_npz(file)
        if hasattr(matrix, "check_format"):  # an index out of range would write anywhere in memory
            matrix.check_format(full_check=True)
    except Exception as error:  # the arrays of a damaged file may disagree in any way
        raise InputError(f"{file}: cannot be read as a sparse matrix: {first_line(error)}.") from None
    rows, columns, _ = _checked(str(file), (matrix.shape, False, matrix.dtype))
    compressed = matrix.tocsr()

    def read(step: int) -> Iterator[Batch]:
        for part in slices(rows, step):
            yield Batch(as_rows(compressed[part].toarray()), part.stop - part.start)

    return Source(file, None, rows, columns, f"{matrix.dtype}, sparse {matrix.format}", read)


def _member(file: Path, archive: zipfile.ZipFile, member: str) -> Source:
    key = member.removesuffix(".npy")
    name = f"{file}:{key}"
    if not member.endswith(".npy"):
        raise InputError(f"{name}: not an array.")
    with _zip_errors(file, name), archive.open(member) as stream:
        header = _header(stream, name)
    rows, columns, dtype = _checked(name, header)

    def read(step: int) -> Iterator[Batch]:
        with _zip_errors(file, name), archive.open(member) as stream, tempfile.TemporaryFile() as unpacked:
            _, fortran, _ = _header(stream, name)
            if fortran:
                # Columns one after the other: a row is whole when all are unpacked, to a file, not to memory.
                shutil.copyfileobj(stream, unpacked, 2**20)
                unpacked.seek(0)
            yield from _batches(unpacked if fortran else stream, name, header, step)

    return Source(file, key, rows, columns, dtype.name, read)


def _batches(stream: IO[bytes], name: str, header: Header, step: int) -> Iterator[Batch]:
    """Rows of an array that begins here. Read, not mapped: mapped pages count as memory for as long as it is open."""
    (rows, columns), fortran, dtype = header
    first = stream.tell() if fortran else 0
    for part in slices(rows, step):
        count = part.stop - part.start
        if fortran:
            parts = []
            for j in range(columns):
                stream.seek(first + (j * rows + part.start) * dtype.itemsize)
                parts.append(stream.read(count * dtype.itemsize))
            data = b"".join(parts)
        else:
            data = stream.read(count * columns * dtype.itemsize)
        if len(data) < count * columns * dtype.itemsize:
            raise InputError(f"{name}: ends early, in row {part.start} or after. Write or copy it again.")
        block = np.frombuffer(data, dtype)
        yield Batch(
            as_rows(block.reshape(columns, count).T if fortran else block.reshape(count, columns)), count
        )


def _checked(name: str, header: Header) -> tuple[int, int, np.dtype]:
    shape, _, dtype = header
    check_dtype(name, dtype)
    return *check_shape(name, shape), dtype


@contextlib.contextmanager
def _zip_errors(file: Path, name: str = "") -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{name or file}: cannot be read as a NumPy archive: {first_line(error)}. Copy it again."
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
            shape, fortran, dtype = read(stream)
    except InputError:
        raise
    except Exception as error:  # the parser of a damaged header may raise anything
        raise InputError(f"{name}: cannot be read as a NumPy array: {first_line(error)}.") from None
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize >= 2**63:
        raise InputError(f"{name}: cannot be read as a NumPy array: it claims the shape {shape}.")
    return shape, fortran, dtype
