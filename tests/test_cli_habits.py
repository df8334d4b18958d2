"""Files as other programs write them: read as what they are, or refused in one line, and never as other numbers."""

import gzip
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from matinfo.cli import main
from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError
from matinfo.cli.files import open_files

D = np.random.default_rng(0).normal(size=(40, 4)).round(4)
GAP = np.where(np.arange(160).reshape(40, 4) == 13, np.nan, D)
SPARSE = np.where(D > 0, D, 0)
FRAME = pd.DataFrame(D, columns=list("abcd"))
SHUFFLED = FRAME.sample(frac=1, random_state=0)
T = torch.from_numpy(D)
ROWS = [row.tolist() for row in D]


def text(content, encoding="utf-8"):
    return lambda p: p.write_bytes(content.encode(encoding))


def csv(frame=FRAME, **options):
    return lambda p: frame.to_csv(p, **{"index": False} | options)


def parquet(frame):
    return lambda p: frame.to_parquet(p)


def columns(**arrays):
    return lambda p: pq.write_table(pa.table(arrays), p)


def stream(frame):
    def write(path):
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, 7)

    return write


def joined(separator, quote=str, names=True):
    lines = [separator.join([quote(i + 1)] * names + [str(x) for x in row]) for i, row in enumerate(ROWS)]
    return "\n".join(lines) + "\n"


def in_quotes(value):
    return f'"{value}"'


def damaged_member(path):
    np.savez(path, x=D, y=D)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"\x93NUMPY")] = 0
    path.write_bytes(data)


def packed(codec):
    return lambda p: p.write_bytes(pa.compress(FRAME.to_csv(index=False).encode(), codec, asbytes=True))


def sparse(kind):
    return lambda p: scipy.sparse.save_npz(p, scipy.sparse.csr_array(SPARSE).asformat(kind))


def tensors(**others):
    return lambda p: save_file({**others, "x": T}, p)


def vectors(as_text):
    return csv(pd.DataFrame({"id": range(40), "text": "hello, you", "v": [as_text(row) for row in D]}))


READ = {
    # An index is no feature, wherever it was written.
    "index.csv": (csv(index=True), D),
    "shuffled.csv": (csv(SHUFFLED, index=True), SHUFFLED),
    "unnamed.csv": (csv(FRAME.reset_index().rename(columns={"index": "Unnamed: 0"})), D),
    "twice.csv": (csv(FRAME.reset_index().rename(columns={"index": "Unnamed: 0"}), index=True), D),
    "reset.csv": (csv(SHUFFLED[::2].reset_index()), SHUFFLED[::2]),
    "id.csv": (csv(FRAME.assign(sample_id=np.arange(40)[::-1])), D),
    "levels.csv": (csv(FRAME.set_index(pd.MultiIndex.from_product([range(8), range(5)])), index=True), D),
    "names.csv": (csv(FRAME.set_index(pd.Index([f"n{i}" for i in range(40)])), index=True), D),
    "R.csv": (text('"","a","b","c","d"\n' + joined(",", in_quotes)), D),
    "R2.csv": (text('"";"a";"b";"c";"d"\n' + joined(";", in_quotes).replace(".", ",")), D),
    "R-table.txt": (text('"a" "b" "c" "d"\n' + joined(" ", in_quotes)), D),
    "R-again.csv": (text('"X","a","b","c","d"\n' + joined(",")), D),
    "shuffled.parquet": (parquet(SHUFFLED), SHUFFLED),
    "named.parquet": (parquet(SHUFFLED.rename_axis("time")), SHUFFLED),
    "levels.parquet": (
        parquet(FRAME.set_index(pd.MultiIndex.from_product([range(8), range(5)], names=["u", "v"]))),
        D,
    ),
    "reset.parquet": (parquet(SHUFFLED[::2].reset_index()), SHUFFLED[::2]),
    "stripped.parquet": (
        lambda p: pq.write_table(pa.Table.from_pandas(SHUFFLED).replace_schema_metadata(None), p),
        SHUFFLED,
    ),
    "shuffled.arrow": (stream(SHUFFLED), SHUFFLED),
    "frame.feather": (lambda p: FRAME.to_feather(p), D),
    # Separators, decimal commas, blank lines, comments, encodings, compression.
    "semicolons.csv": (csv(sep=";"), D),
    "semicolons-commas.csv": (csv(sep=";", decimal=","), D),
    "bare-commas.csv": (csv(sep=";", decimal=",", header=False), D),
    "quoted-commas.csv": (csv(decimal=","), D),
    "tabs.csv": (csv(sep="\t"), D),
    "commas.tsv": (csv(), D),
    "pipes.csv": (csv(sep="|"), D),
    "blanks.csv": (csv(sep=" "), D),
    "aligned.txt": (lambda p: p.write_text(FRAME.to_string()), D),
    "savetxt.csv": (lambda p: np.savetxt(p, D, fmt="%9.4f", header="made by x\nand y, z"), D),
    "blank-first.csv": (text("\n  \n" + FRAME.to_csv(index=False) + " \n\n"), D),
    "sep.csv": (text("sep=;\r\n" + FRAME.to_csv(index=False, sep=";")), D),
    "trailing.csv": (text("a,b,c,d,\n" + joined(",", names=False).replace("\n", ",\n")), D),
    "utf-16.txt": (csv(sep="\t", encoding="utf-16"), D),
    "latin.csv": (csv(FRAME.rename(columns={"a": "é"}), encoding="latin-1"), D),
    "packed.csv.gz": (csv(), D),
    "packed.tsv.bz2": (csv(sep="\t"), D),
    "packed.csv.zst": (packed("zstd"), D),
    "gap.csv": (csv(pd.DataFrame(GAP)), GAP),
    "gap-NA.csv": (csv(pd.DataFrame(GAP), na_rep="NA"), GAP),
    "late-fraction.csv": (text("a,b\n" + "1,2\n" * 300_000 + "1,2.5\n"), [[1, 2]] * 300_000 + [[1, 2.5]]),
    "wide.csv": (lambda p: np.savetxt(p, np.ones((3, 1000)), "%.2400f", ","), np.ones((3, 1000))),
    "labels.csv": (csv(FRAME.assign(t=pd.date_range("2020", periods=40), kind=["cat", "dog"] * 20)), D),
    "iris.csv": (csv(FRAME.assign(kind="Iris-setosa"), header=False), D),
    "logical.csv": (text("a,b\nTRUE,1.5\nFALSE,2\n"), [[1, 1.5], [0, 2]]),
    # Vectors in one column.
    "json.csv": (vectors(lambda row: json.dumps(row.tolist())), D),
    "numpy.csv": (vectors(lambda row: str(row).replace(" ", "\n")), D),
    "tensor.csv": (vectors(lambda row: str(torch.from_numpy(row))), D),
    "bare.csv": (vectors(lambda row: " ".join(map(str, row))), D),
    "glove.txt": (text("\n".join(f"word{i} " + " ".join(map(str, row)) for i, row in enumerate(ROWS))), D),
    "json.parquet": (columns(v=[None, *map(json.dumps, ROWS[1:])]), np.vstack([[[np.nan] * 4], D[1:]])),
    "fixed.parquet": (columns(v=pa.FixedSizeListArray.from_arrays(pa.array(D.ravel()), 4)), D),
    "large.parquet": (columns(v=pa.array(ROWS, pa.large_list(pa.float64()))), D),
    "tensor.parquet": (columns(v=pa.FixedShapeTensorArray.from_numpy_ndarray(D)), D),
    "missing.parquet": (
        columns(v=pa.array([None, *ROWS[1:]], pa.list_(pa.float64(), 4))),
        np.vstack([[[np.nan] * 4], D[1:]]),
    ),
    "others.parquet": (
        columns(s=[[{"a": 1.0}]] * 40, t=pa.array(range(40), pa.timestamp("s")), a=D[:, 0], b=D[:, 1]),
        D[:, :2],
    ),
    "nullable.parquet": (
        columns(a=pa.array([1, None]), b=pa.array([True, None]), c=[2.5, 3]),
        [[1, 1, 2.5], [np.nan, np.nan, 3]],
    ),
    # Arrays.
    **{f"{kind}.npz": (sparse(kind), SPARSE) for kind in ("csr", "csc", "coo", "bsr", "dia")},
    "mixed.npz": (
        lambda p: np.savez(p, x=D, y=np.array(["a"]), c=D + 1j, o=np.array([[None]]), t=D.astype("m8[s]")),
        D,
    ),
    "damaged.npz": (damaged_member, D),
    "other.npz": (lambda p: (np.savez(p, x=D), zipfile.ZipFile(p, "a").writestr("notes.txt", "hi")), D),
    "negative.pt": (lambda p: torch.save(torch.complex(T, -T).conj().imag, p), D),
    "meta.pt": (lambda p: torch.save({"m": torch.empty(3, 4, device="meta"), "x": T}, p), D),
    "checkpoint.ckpt": (lambda p: torch.save({"state_dict": {"w": T}, "epoch": 3}, p), D),
    "pytorch_model.bin": (lambda p: torch.save({"w": T}, p), D),
    "complex.safetensors": (tensors(c=torch.complex(T, T).to(torch.complex64)), D),
    "four-bits.safetensors": (tensors(q=torch.zeros(3, 4).byte().view(torch.float4_e2m1fn_x2)), D),
}


@pytest.mark.parametrize("name", READ)
def test_file_of_another_program_is_read_as_what_it_is(tmp_path, name):
    write, expected = READ[name]
    write(tmp_path / name)
    ((source,),), _ = open_files(Options(files=(tmp_path / name,)))
    rows = np.concatenate([batch.rows for batch in source.read(100_000)])
    np.testing.assert_allclose(rows, np.asarray(expected), rtol=1e-15)


def npy(shape):
    def write(path):
        with open(path, "wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

    return write


COMPLEX = "np.hstack([x.real, x.imag])"
REFUSED = {
    "identifiers.csv": (text("id,x\n100_0,1\n100_1,2\n"), "got '100_0'"),
    "one-identifier.csv": (text("id,x\n1,1\n100_0,2\n"), "got '100_0'"),
    "arabic.csv": (text("x,y\n1,2\n٣,3\n"), "got '٣'"),
    "hexadecimal.csv": (text("x,y\n0x12,2\n0x13,3\n"), "got '0x12'"),
    "thousands.csv": (text('a,b\n"1,234","5,678"\n"2,345","7,891"\n'), "got '1,234'"),
    "thousands2.csv": (text("a;b\n1.234,5;5.678,5\n2.345,5;7.891,2\n"), "got '1.234,5'"),
    "late-word.csv": (text("x,y\n" + "1,2\n" * 300_000 + "1,cat\n"), "line 300002, column y"),
    "late-ragged.csv": (text("x,y\n" + "1,2\n" * 300_000 + "1\n"), "line 300002 has 1 columns"),
    "shortened.csv": (csv(pd.DataFrame({"v": list(np.ones((9, 2000)))})), "'...'"),
    "not-packed.csv.gz": (text("1,2\n3,4\n"), "cannot be read"),
    "cut.csv.gz": (lambda p: p.write_bytes(gzip.compress(FRAME.to_csv().encode())[:-99]), "cannot be read"),
    "structs.parquet": (columns(v=[[{"a": 1.0}]] * 4), "struct"),
    "times.parquet": (columns(v=pa.array([[1, 2]] * 4, pa.list_(pa.timestamp("s")))), "timestamp"),
    "matrices.parquet": (
        columns(v=pa.FixedShapeTensorArray.from_numpy_ndarray(D.reshape(40, 2, 2))),
        "pool or flatten",
    ),
    "huge.npy": (npy((2**70, 4)), "claims the shape"),
    "negative.npy": (npy((-4, -4)), "claims the shape"),
    "complex.npy": (lambda p: np.save(p, D + 1j), COMPLEX),
    "complex.npz": (lambda p: np.savez(p, x=D + 1j), COMPLEX),
    "complex.pt": (lambda p: torch.save(torch.complex(T, T).conj(), p), COMPLEX),
    "complex.safetensors": (lambda p: save_file({"x": torch.complex(T, T).cfloat()}, p), COMPLEX),
    "complex-sparse.npz": (lambda p: scipy.sparse.save_npz(p, scipy.sparse.csr_array(D + 1j)), COMPLEX),
    "structured.npy": (
        lambda p: np.save(p, np.zeros(4, [("a", "f4"), ("b", "f4")])),
        "structured_to_unstructured",
    ),
    "times.npy": (lambda p: np.save(p, D.astype("M8[s]")), "timedelta64"),
    "sparse-out-of-range.npz": (
        lambda p: np.savez(
            p, format=b"csr", shape=[4, 4], data=np.ones(2), indices=[0, 99], indptr=[0, 1, 2, 2, 2]
        ),
        "indices must be < 4",
    ),
    "coords.npz": (
        lambda p: np.savez(p, data=[1], coords=[[0], [0]], shape=[4, 4], fill_value=0),
        "package sparse",
    ),
    "meta.pt": (lambda p: torch.save(torch.empty(3, 4, device="meta"), p), "meta tensor"),
    "four-bits.pt": (
        lambda p: torch.save(torch.zeros(3, 4).byte().view(torch.float4_e2m1fn_x2), p),
        "real numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_that_is_no_table_of_numbers_is_refused_in_one_line(tmp_path, capsys, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    assert main(["report", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"matinfo: error: {tmp_path / name}")
    assert error.count("\n") == 1
    assert message in error


def test_columns_that_are_left_out_are_named(tmp_path):
    path = tmp_path / "a.csv"
    FRAME.assign(kind="cat", id=range(40)).to_csv(path)
    _, notes = open_files(Options(files=(path,)))
    for part in (
        "column '' is an index",
        "column 'kind': expected numbers, got text such as 'cat'",
        "column 'id' is",
    ):
        assert any(part in note for note in notes)
    _, notes = open_files(Options(files=(path,), drop=(",kind,id",)))
    assert notes == []


def test_column_that_may_be_a_label_or_an_index_without_a_name_for_it_is_kept(tmp_path):
    path = tmp_path / "a.csv"
    FRAME.assign(id=[1, 1] * 20).to_csv(path, index=False)
    ((source,),), _ = open_files(Options(files=(path,)))
    assert source.columns == 5


def test_title_above_a_table_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("My data\n1,2\n3,4\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2 has 2 columns, the first line 1"):
        open_files(Options(files=(path,)))
