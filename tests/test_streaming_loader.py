"""One pass over a loader."""

import json
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import matinfo
from matinfo import Gram
from matinfo.streaming import CovarianceAccumulator, JointAccumulator, PairAccumulator, accumulate

Z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(50)


def rank(X):
    return matinfo.effective_rank(Gram(X.double()))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "batches",
    [
        Z.split(7),
        DataLoader(TensorDataset(Z, LABELS), batch_size=7),
        DataLoader(TensorDataset(Z), batch_size=50, shuffle=True),
        [(batch,) for batch in Z.split(20)],
        (batch for batch in Z.split(20)),
    ],
    ids=["tensors", "with labels", "alone", "tuples", "generator"],
)
def test_single_stream_of_every_kind_of_loader(batches):
    stream = accumulate(batches, CovarianceAccumulator(4, normalize=False))
    assert stream.count == 50
    close(matinfo.effective_rank(stream.gram()), rank(Z))


@pytest.mark.parametrize("kind", [PairAccumulator, JointAccumulator])
def test_pair_of_streams(kind):
    stream = accumulate(DataLoader(TensorDataset(Z, Y, LABELS), batch_size=9), kind(4, 3, normalize=False))
    close(stream.matrix_js(), matinfo.matrix_js(Gram(Z.double()), Gram(Y.double())))


def test_extract_gives_the_features_without_a_graph():
    model = torch.nn.Linear(4, 2)
    modes = []

    def extract(batch):
        modes.append(torch.is_grad_enabled())
        return model(batch["image"])

    stream = accumulate(
        [{"image": batch} for batch in Z.split(10)],
        CovarianceAccumulator(2, normalize=False),
        extract=extract,
    )
    assert modes == [False] * 5
    close(matinfo.effective_rank(stream.gram()), rank(model(Z).detach()))
    pairs = accumulate(
        Z.split(10), PairAccumulator(4, 2, normalize=False), extract=lambda batch: (batch, model(batch))
    )
    assert pairs.count == 50


def test_passes_add_up():
    stream = accumulate(Y.split(10), accumulate(Y.split(3), CovarianceAccumulator(3, normalize=False)))
    assert stream.count == 100


def test_numpy_batches_give_numpy():
    assert isinstance(accumulate([Z.numpy()], CovarianceAccumulator(4, normalize=False)).tcr(), np.floating)


@pytest.mark.parametrize(
    ("batches", "error", "match"),
    [
        ([Z, Z, Y], ValueError, r"shape \(n, 4\).*got \(50, 3\).*Batch 2 of the loader"),
        ([Z, Z / 0], ValueError, r"50 of 50 rows with NaN or infinity.*Batch 1"),
        ([{"image": Z}], TypeError, "got dict. Pass extract.*Batch 0"),
        ([()], ValueError, "features of 1 stream, got 0"),
        ([LABELS[:, None]], TypeError, "floating point"),
    ],
)
def test_bad_batches_are_refused_with_their_number(batches, error, match):
    stream = CovarianceAccumulator(4, normalize=False)
    with pytest.raises(error, match=match):
        accumulate(batches, stream)
    assert stream.count == 50 * (len(batches) - 1)  # the batches before stay


def test_wrong_numbers_of_streams_are_refused():
    with pytest.raises(ValueError, match="features of 2 streams, got 1"):
        accumulate([Z], PairAccumulator(4, 4, normalize=False))
    with pytest.raises(ValueError, match="features of 1 stream, got 2"):
        accumulate([Z], CovarianceAccumulator(4, normalize=False), extract=lambda batch: (batch, batch))
    with pytest.raises(TypeError, match="accumulator of matinfo.streaming, got Tensor"):
        accumulate([Z], Z)


def test_empty_loader_leaves_an_empty_stream():
    stream = accumulate([], CovarianceAccumulator(4, normalize=False))
    with pytest.raises(ValueError, match="at least one row"):
        stream.gram()


def test_errors_of_extract_come_as_they_are():
    with pytest.raises(json.JSONDecodeError) as caught:
        accumulate(["{bad"], CovarianceAccumulator(4, normalize=False), extract=json.loads)
    assert caught.value.doc == "{bad"
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["Batch 0 of the loader."]
