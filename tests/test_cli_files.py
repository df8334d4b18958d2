"""Every kind of file: read in batches, in constant memory, and never run."""

import json
import math
import os
import pickle
import sys
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from matinfo import Gram, renyi_entropy
from matinfo.cli import main
from matinfo.cli.arguments import Options
from matinfo.cli.files import open_files

DATA = np.random.default_rng(0).normal(size=(23, 4)).round(3)


def as_dtype(dtype):
    return DATA.astype(dtype)


def write_fixed_lists(path):
    column = pa.FixedSizeListArray.from_arrays(pa.array(DATA.reshape(-1)), 4)
    pq.write_table(pa.table({"x": column, "name": ["n"] * 23}), path, row_group_size=5)


def write_columns(path):
    pd.DataFrame(DATA, columns=list("abcd")).to_parquet(path, row_group_size=5)


FILES = {
    "c.npy": lambda p: np.save(p, DATA),
    "fortran.npy": lambda p: np.save(p, np.asfortranarray(DATA)),
    "half.npy": lambda p: np.save(p, as_dtype("float16")),
    "big-endian.npy": lambda p: np.save(p, as_dtype(">f8")),
    "ints.npy": lambda p: np.save(p, (DATA * 1000).round().astype("int16")),
    "c.npz": lambda p: np.savez(p, x=DATA),
    "compressed.npz": lambda p: np.savez_compressed(p, x=DATA),
    "fortran.npz": lambda p: np.savez(p, x=np.asfortranarray(DATA)),
    "tensor.pt": lambda p: torch.save(torch.from_numpy(DATA), p),
    "old.pth": lambda p: torch.save(torch.from_numpy(DATA), p, _use_new_zipfile_serialization=False),
    "nested.pt": lambda p: torch.save({"epoch": 3, "layers": [torch.from_numpy(DATA).requires_grad_()]}, p),
    "transposed.pt": lambda p: torch.save(torch.from_numpy(DATA.T.copy()).mT, p),
    "bfloat16.safetensors": lambda p: save_file({"x": torch.from_numpy(DATA).bfloat16()}, p),
    "x.safetensors": lambda p: save_file({"x": torch.from_numpy(DATA)}, p),
    "header.csv": lambda p: pd.DataFrame(DATA, columns=list("abcd")).to_csv(p, index=False),
    "bare.csv": lambda p: np.savetxt(p, DATA, delimiter=","),
    "bom.csv": lambda p: pd.DataFrame(DATA, columns=list("äbcd")).to_csv(
        p, index=False, encoding="utf-8-sig"
    ),
    "tabs.tsv": lambda p: pd.DataFrame(DATA).to_csv(p, index=False, sep="\t", header=list("abcd")),
    "quoted.csv": lambda p: p.write_text(
        "a,b,c,d\r\n" + "\r\n".join(",".join(f'"{x}"' for x in row) for row in DATA) + "\r\n\r\n"
    ),
    "columns.parquet": write_columns,
    "lists.parquet": lambda p: pd.DataFrame({"x": list(DATA)}).to_parquet(p),
    "fixed.parquet": write_fixed_lists,
}
TOLERANCE = {"half.npy": 1e-3, "bfloat16.safetensors": 8e-3, "ints.npy": 0}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_files_give_their_rows_in_batches_twice(tmp_path, name, batch):
    FILES[name](tmp_path / name)
    ((source,),), _ = open_files(Options(files=(tmp_path / name,)))
    assert source.columns == 4
    assert source.rows in {23, None}
    scale = 1000 if name == "ints.npy" else 1
    for _ in range(2):
        batches = list(source.read(batch))
        assert max(len(b.rows) for b in batches) <= batch
        assert all(b.rows.dtype == np.float64 and b.rows.flags.writeable for b in batches)
        assert sum(b.progress for b in batches) == source.total
        rows = np.concatenate([b.rows for b in batches])
        np.testing.assert_allclose(rows / scale, DATA, rtol=TOLERANCE.get(name, 0) or 1e-15)


@pytest.mark.parametrize("name", ["two.npz", "two.pt", "two.safetensors", "two.parquet"])
def test_files_of_several_arrays_open_in_order_and_by_key(tmp_path, name, capsys):
    path, second = tmp_path / name, DATA[:, :2].copy()
    tensors = {"b": torch.from_numpy(DATA), "a": torch.from_numpy(second)}
    {
        "npz": lambda: np.savez(path, b=DATA, a=second),
        "pt": lambda: torch.save(tensors, path),
        "safetensors": lambda: save_file(tensors, path),
        "parquet": lambda: pd.DataFrame({"b": list(DATA), "a": list(second)}).to_parquet(path),
    }[name.partition(".")[2]]()
    (sources,), _ = open_files(Options(files=(path,)))
    assert {s.key: s.columns for s in sources} == {"b": 4, "a": 2}
    (chosen,), _ = open_files(Options(files=(path,), keys=("a",)))
    assert [s.columns for s in chosen] == [2]
    assert main(["report", str(path), "--key", "c"]) == 2
    assert "no array 'c'; it has" in capsys.readouterr().err
    assert main(["report", str(path), str(path), "--key", "a", "--key", "b", "--alpha", "1"]) == 0
    assert "mutual information, order 1" in capsys.readouterr().out


def test_csv_gaps_are_nan_and_columns_can_be_dropped(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text(",name,x,y\n0,cat,1,2\n1,dog,,4\n2,eel,5,7\n", encoding="utf-8")
    flags = ["--drop", "", "--drop", "name", "--nan", "skip", "--json", "-"]
    assert main(["report", str(path), *flags]) == 0
    (array,) = json.loads(capsys.readouterr().out)["arrays"]
    assert (array["rows"], array["skipped_rows"], array["columns"]) == (2, 1, 2)
    expected = renyi_entropy(Gram(np.array([[1.0, 2], [5, 7]]), normalize=True))
    assert array["quantities"][1]["value"] == pytest.approx(float(expected), abs=1e-12)


# Never unpickled


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_pickle(path, thing):
    path.write_bytes(pickle.dumps(thing))


def write_bomb_npz(path, bomb):
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = bomb
    np.savez(path, x=array, y=DATA)


BOMBS = {
    "object.npy": lambda p, b: np.save(p, np.array([[b]], dtype=object), allow_pickle=True),
    "raw.npy": write_pickle,
    "raw.npz": write_pickle,
    "object.npz": write_bomb_npz,
    "object.pt": lambda p, b: torch.save({"x": torch.eye(3), "y": b}, p),
    "old.pt": lambda p, b: torch.save({"x": b}, p, _use_new_zipfile_serialization=False),
    "raw.pt": write_pickle,
    "raw.pth": write_pickle,
    "raw.safetensors": write_pickle,
    "raw.parquet": write_pickle,
    "raw.csv": write_pickle,
}


@pytest.mark.parametrize("name", BOMBS)
def test_malicious_pickle_does_not_run(tmp_path, capsys, name):
    mark = tmp_path / "ran"
    BOMBS[name](tmp_path / name, Bomb(mark))
    status = main(["report", str(tmp_path / name)])
    assert not mark.exists()
    error = capsys.readouterr().err
    if name == "object.npz":  # the other array is fine
        assert status == 0
        assert "Left out" in error
        assert main(["report", str(tmp_path / name), "--key", "x"]) == 2
        assert "never done" in capsys.readouterr().err
    else:
        assert status == 2
        assert error.startswith("matinfo: error: ")
        assert error.count("\n") == 1
    assert not mark.exists()


def test_the_bomb_would_run_if_it_were_unpickled(tmp_path):
    write_pickle(tmp_path / "raw.pt", Bomb(tmp_path / "ran"))
    with open(tmp_path / "raw.pt", "rb") as stream:
        pickle.load(stream)
    assert (tmp_path / "ran").exists()


# Errors: one line, the name of the file, what to do


def save_text(text):
    return lambda p: p.write_text(text, encoding="utf-8")


def truncate(write, keep=0.5):
    def cut(path):
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return cut


def with_nan(write):
    bad = DATA.copy()
    bad[17, 2] = math.nan
    return lambda p: write(p, bad)


def asymmetric(path):
    np.save(path, np.triu(np.ones((4, 4))))


ERRORS = {
    "vector.npy": (lambda p: np.save(p, np.ones(3)), "got shape (3,); reshape it"),
    "cube.npy": (lambda p: np.save(p, np.ones((3, 4, 5))), "x.reshape(-1, 5)"),
    "empty.npy": (lambda p: np.save(p, np.ones((0, 4))), "empty array"),
    "text.npy": (lambda p: np.save(p, np.array([["a", "b"]])), "real numbers"),
    "nan.npy": (with_nan(np.save), "row 17, counted from 0, holds NaN or infinity. Use --nan skip"),
    "zero.npy": (lambda p: np.save(p, np.zeros((9, 2))), "positive trace"),
    "short.npy": (truncate(lambda p: np.save(p, DATA)), "ends early"),
    "none.npy": (lambda p: p.touch(), "cannot be read as a NumPy array"),
    "text.npy.npz": (save_text("no"), "cannot be read as a NumPy archive"),
    "short.npz": (truncate(lambda p: np.savez(p, x=DATA)), "cannot be read as a NumPy archive"),
    "no-arrays.npz": (lambda p: np.savez(p, x=np.arange(3)), "no array that can be used"),
    "short.pt": (
        truncate(lambda p: torch.save(torch.ones(50, 4), p)),
        "cannot be read as a file of torch.save",
    ),
    "numbers.pt": (lambda p: torch.save({"epoch": 3}, p), "expected a tensor"),
    "sparse.pt": (lambda p: torch.save(torch.eye(3).to_sparse(), p), "dense tensor"),
    "short.safetensors": (
        truncate(lambda p: save_file({"x": torch.ones(50, 4)}, p)),
        "cannot be read as safetensors",
    ),
    "empty.csv": (save_text(""), "empty file"),
    "header.csv": (save_text("a,b\n"), "expected rows of numbers, but there is none"),
    "ragged.csv": (save_text("1,2\n3,4\n5\n"), "line 3 has 1 columns, the first line 2"),
    "word.csv": (
        save_text("a,b\n1,2\n3,cat\n"),
        "column b, row 1, counted from 0: expected a number, got 'cat'. Leave",
    ),
    "gap.csv": (save_text("a,b\n1,2\n3,\n"), "row 1, counted from 0, holds NaN"),
    "bytes.csv": (lambda p: p.write_bytes(b"\xff\xfe\x00"), "is not text"),
    "words.parquet": (lambda p: pd.DataFrame({"b": ["x"]}).to_parquet(p), "text such as 'x'"),
    "ragged.parquet": (lambda p: pd.DataFrame({"a": [[1.0, 2], [3.0]]}).to_parquet(p), "lists of one length"),
    "empty.parquet": (
        lambda p: pd.DataFrame({"a": pd.Series([], dtype=float)}).to_parquet(p),
        "expected rows",
    ),
    "short.parquet": (
        truncate(lambda p: pd.DataFrame(DATA).rename(columns=str).to_parquet(p)),
        "cannot be read as Parquet",
    ),
    "absent.npy": (lambda p: None, "no such file"),
    "folder.npy": (lambda p: p.mkdir(), "is a folder"),
    "what.xyz": (lambda p: p.touch(), "unknown kind of file '.xyz'"),
}


def error_of(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", ERRORS)
def test_bad_file_is_one_line_that_names_it(tmp_path, capsys, name):
    write, message = ERRORS[name]
    write(tmp_path / name)
    error = error_of(capsys, tmp_path / name)
    assert error.startswith(f"matinfo: error: {tmp_path / name}")
    assert message in error


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_one_line_or_other_numbers(tmp_path, capsys, name):
    path, random = tmp_path / name, np.random.default_rng(7)
    FILES[name](path)
    whole = path.read_bytes()
    for part in (len(whole), 200):
        for _ in range(3):
            data = bytearray(whole)
            for place in random.integers(min(part, len(whole)), size=4):
                data[place] = random.integers(256)
            path.write_bytes(data)
            status = main(["report", str(path), "--alpha", "1", "--quiet"])
            lines = capsys.readouterr().err.count("\n")
            assert (status, lines) in {(0, 0), (2, 1)}
    path.write_bytes(whole[: len(whole) // 3])
    assert main(["report", str(path), "--quiet"]) in ({0, 2} if path.suffix in {".csv", ".tsv"} else {2})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: np.save(p, DATA), "For features use --kind features"),
        (asymmetric, "symmetric"),
        (lambda p: np.save(p, np.diag([2.0, -1.0])), "positive semi-definite"),
        (lambda p: np.save(p, np.full((2, 2), math.nan)), "holds NaN"),
    ],
)
def test_bad_matrix_is_one_line_that_names_it(tmp_path, capsys, write, message):
    write(tmp_path / "K.npy")
    error = error_of(capsys, tmp_path / "K.npy", "--kind", "matrix")
    assert str(tmp_path / "K.npy") in error
    assert message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "-1"], "[0, inf]"),
        (["--alpha", "1,x"], "[0, inf]"),
        (["--mu", "0"], "number > 0"),
        (["--measures", "rank"], "expected names among renyi_entropy"),
        (["--rows", "0"], "whole number >= 1"),
        (["--seed", "-1"], "whole number >= 0"),
        (["--base", "1"], "number > 1"),
        (["--batch-rows", "0"], "whole number"),
        (["--key", "x"], "no array 'x'"),
        (["--drop", "x"], "--drop is for columns"),
        (["--plot", "out.txt"], ".png or .svg or .pdf"),
        (["--plot", "absent/out.png"], "no folder absent"),
        (["--html", "out.png"], ".html"),
        (["--memory", "1e-9"], "raise --memory"),
        (["--kind", "matrix", "--center"], "--center is about rows"),
        (["--kind", "matrix", "--nan", "skip"], "--nan skip is about rows"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_argument_is_one_line(tmp_path, capsys, flags, message):
    np.save(tmp_path / "a.npy", DATA)
    assert message in error_of(capsys, tmp_path / "a.npy", *flags)


def test_json_before_a_data_file_does_not_overwrite_it(tmp_path, capsys):
    path = tmp_path / "a.npy"
    np.save(path, DATA)
    before = path.read_bytes()
    assert "--json takes a file that ends in .json" in error_of(capsys, path, "--json", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("module", ["safetensors", "pyarrow"])
def test_missing_extra_is_named(tmp_path, capsys, monkeypatch, module):
    path = tmp_path / ("a.safetensors" if module == "safetensors" else "a.parquet")
    path.touch()

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr("importlib.import_module", absent)
    assert "pip install 'matinfo[cli]'" in error_of(capsys, path)


# Memory


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_file_larger_than_the_limit_streams(tmp_path, capsys, name):
    path, rows, columns = tmp_path / name, 400_000, 16
    block = np.random.default_rng(0).normal(size=(1000, columns)).astype("float32")
    with open(tmp_path / "a.npy", "wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(rows // 1000):
            stream.write(block.tobytes())
    if name.endswith(".npz"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "a.npy", "x.npy")
    size = rows * columns * 4
    tracemalloc.start()  # NumPy reports its arrays to it; those of torch are views of them or 8 MiB of float64
    status = main(["report", str(path), "--json", "-", "--batch-rows", "10000"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 0
    assert peak < size / 3
    (array,) = json.loads(capsys.readouterr().out)["arrays"]
    expected = renyi_entropy(Gram(block.astype("float64"), normalize=True))
    assert array["quantities"][1]["value"] == pytest.approx(float(expected), abs=1e-9)


# Headers and names


def rows_and_notes(capsys, path, *flags):
    assert main(["report", str(path), *flags, "--quiet", "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    return content["arrays"][0]["rows"], content["notes"]


def test_numbers_of_columns_written_by_pandas_are_a_header_and_noted(tmp_path, capsys):
    path = tmp_path / "a.csv"
    pd.DataFrame(DATA).to_csv(path, index=False)
    rows, (note,) = rows_and_notes(capsys, path)
    assert rows == 23
    assert "counts the columns from 0" in note
    assert rows_and_notes(capsys, path, "--drop", "2")[0] == 23
    pd.DataFrame(DATA).to_csv(path)
    assert rows_and_notes(capsys, path, "--drop", "")[0] == 23
    path.write_text("0.0,1,2\n4,5,7\n", encoding="utf-8")
    assert rows_and_notes(capsys, path) == (2, [])


@pytest.mark.parametrize("first", ["0x10,1", "1_0,2", "-,3"])
def test_first_line_of_numbers_and_text_is_a_header_and_noted(tmp_path, capsys, first):
    """A slip in the first row must not lose it without a word."""
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\n3,4\n5,7\n", encoding="utf-8")
    rows, (note,) = rows_and_notes(capsys, path)
    assert rows == 2
    assert "the first line has numbers beside names, and is read as names of columns" in note
    path.write_text("a,b\n3,4\n5,7\n", encoding="utf-8")
    assert rows_and_notes(capsys, path) == (2, [])


@pytest.mark.parametrize("gap", ["", "NA", "n/a", "null", "NaN"])
def test_gap_in_the_first_row_does_not_make_it_a_header(tmp_path, capsys, gap):
    path = tmp_path / "a.csv"
    path.write_text(f"1,{gap},3\n4,5,6\n7,{gap},2\n7,1,2\n", encoding="utf-8")
    assert rows_and_notes(capsys, path, "--nan", "skip")[0] == 2
    assert "row 0, counted from 0, holds NaN" in error_of(capsys, path)


def test_containers_that_hold_themselves_are_read_once(tmp_path, capsys):
    path, loop = tmp_path / "a.pt", []
    loop.extend([loop] * 8)
    torch.save(loop, path)
    assert "expected a tensor" in error_of(capsys, path)
    shared = [torch.from_numpy(DATA)]
    torch.save({"a": shared, "b": shared, "sizes": [(), ()]}, path)
    (sources,), notes = open_files(Options(files=(path,)))
    assert [source.key for source in sources] == ["a.0"]
    assert notes == [f"Left out: {path}:b: its tensors are in the report already, under another key."]


def test_names_with_control_characters_do_not_reach_the_terminal(tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, **{"red\x1b[31m\nx": DATA, "cube\x1b[31m": np.ones((2, 2, 2))})
    assert main(["report", str(path), "--html", str(tmp_path / "a.html")]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err + (tmp_path / "a.html").read_text(encoding="utf-8")
    assert captured.out.startswith(r"a.npz:red\x1b[31m\nx: 23 rows")
    assert r"cube\x1b[31m" in captured.err
    assert "got shape (2, 2, 2)" in error_of(capsys, path, "--key", "cube\x1b[31m")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are characters there, not bytes")
def test_name_that_is_no_text_is_escaped_and_kept_in_json(tmp_path, capsys):
    path, out = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npy"), tmp_path / "a.json"
    np.save(path, DATA)
    assert main(["report", path, "--json", str(out), "--html", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out.startswith(r"\udcff.npy: 23 rows")
    (array,) = json.loads(out.read_text(encoding="utf-8"))["arrays"]
    assert (array["name"], array["file"]) == (r"\udcff.npy", path)


def test_whole_numbers_above_fractions_are_a_row_and_noted(tmp_path, capsys):
    path = tmp_path / "years.csv"
    path.write_text("1990,2000\n0.5,0.25\n0.75,1.5\n0.1,0.3\n")
    assert main(["report", str(path), "--alpha", "1"]) == 0
    captured = capsys.readouterr()
    assert "4 rows" in captured.out
    assert "whole numbers above fractions" in captured.out + captured.err
