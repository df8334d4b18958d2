"""What goes into layerwise: outputs of every kind, padded ids, wrappers, loaders, sentences; and out: files, frames."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import matinfo
from matinfo import Gram, effective_rank, plot
from matinfo.layers import LayerReport, layerwise

ROOT = Path(__file__).resolve().parents[1]
RANDOM = torch.Generator().manual_seed(0)
STATES = [torch.randn(6, 4, d, generator=RANDOM) for d in (5, 7)]
MASK = torch.arange(4) < torch.tensor([[4], [3], [4], [2], [1], [4]])


def same(first, second, atol=1e-6):
    assert first.names == second.names
    torch.testing.assert_close(first.entropies, second.entropies, rtol=0, atol=atol)


# --- outputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["hidden_states", "encoder_hidden_states", "decoder_hidden_states"])
@pytest.mark.parametrize("kind", [dict, lambda **entries: SimpleNamespace(**entries)], ids=["dict", "object"])
def test_layerwise_takes_hidden_states_out_of_any_output(key, kind):
    source = kind(logits=torch.ones(6, 4, 3), **{key: tuple(STATES)})
    same(layerwise(source, mask=MASK), layerwise(STATES, mask=MASK))


def test_layerwise_takes_a_dict_from_disk_and_its_mask(tmp_path):
    torch.save({"hidden_states": STATES, "attention_mask": MASK.long(), "text": ["a"] * 6}, tmp_path / "h.pt")
    saved = torch.load(tmp_path / "h.pt")
    same(layerwise(saved), layerwise(STATES, mask=MASK))
    arrays = {"first": STATES[0].numpy(), "second": STATES[1].numpy(), "attention_mask": MASK.numpy()}
    report = layerwise(arrays)
    assert report.names == ("first", "second")
    np.testing.assert_allclose(report.entropy, layerwise(STATES, mask=MASK).entropy.numpy(), atol=1e-6)


def test_layerwise_of_generate_joins_the_steps_of_a_layer():
    steps = tuple(tuple(h[:, part] for h in STATES) for part in (slice(0, 2), slice(2, 3), slice(3, 4)))
    for source in ({"hidden_states": steps}, {"decoder_hidden_states": steps}, steps):
        same(layerwise(source, mask=MASK, pool="tokens"), layerwise(STATES, mask=MASK, pool="tokens"))


def test_layerwise_of_two_towers_names_the_outputs_that_have_hidden_states():
    output = {f"{name}_output": {"hidden_states": STATES} for name in ("text", "vision")} | {"loss": None}
    with pytest.raises(
        ValueError, match=r"those of 2 parts: pass output\['text_output'\] or output\['vision"
    ):
        layerwise(output)
    same(layerwise(output["vision_output"]), layerwise(STATES))


class Language(nn.Module):
    """What layerwise expects of a model of transformers, with padding."""

    def __init__(self, pad=0):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(output_hidden_states=False, pad_token_id=pad)
        self.embedding, self.layer = nn.Embedding(30, 6), nn.Linear(6, 6)

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        x = self.embedding(input_ids)
        return {"hidden_states": (x, self.layer(x).tanh()) if output_hidden_states else None}


IDS = torch.rand(6, 29, generator=RANDOM).argsort(1)[:, :4] + 1
PADDED = IDS * MASK


@pytest.mark.parametrize("batch", [PADDED, (PADDED,), {"input_ids": PADDED}], ids=["ids", "tuple", "dict"])
def test_layerwise_refuses_padding_without_a_mask(batch):
    with pytest.raises(
        ValueError, match="6 of 24 ids equal to pad_token_id = 0, which would count as tokens"
    ):
        layerwise(Language(), batch)
    everything = layerwise(Language(), batch, mask=torch.ones_like(PADDED))
    assert not torch.equal(everything.entropy, layerwise(Language(), batch, mask=MASK).entropy)
    layerwise(Language(pad=None), batch)  # not known to be padding


@pytest.mark.parametrize("batch", [(PADDED, MASK), {"input_ids": PADDED, "attention_mask": MASK}])
def test_layerwise_finds_the_mask_by_name_and_by_position(batch):
    same(layerwise(Language(), batch), layerwise(Language(), PADDED, mask=MASK))


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, AveragedModel, functools.partial(torch.compile, backend="eager")]
)
def test_layerwise_sees_through_wrappers(wrap):
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), torch.randn(9, 4)
    report = layerwise(wrap(net), x)
    same(report, layerwise(net, x))
    assert report.model == "Sequential"
    language = Language()
    same(layerwise(wrap(language), IDS), layerwise(language, IDS))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_layerwise_refuses_torchscript_in_words_of_its_own():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), torch.randn(9, 4)
    with pytest.raises(TypeError, match="TorchScript"):
        layerwise(torch.jit.trace(net, x), x)


def test_layerwise_joins_the_steps_of_generate_as_arrays_too():
    steps = [[h[:, t : t + 1] for h in STATES] for t in range(3)]
    arrays = layerwise([[h.double().numpy() for h in step] for step in steps])
    tensors = layerwise([[h.double() for h in step] for step in steps])
    np.testing.assert_allclose(arrays.effective_rank, tensors.effective_rank.numpy(), rtol=1e-12)


# --- precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "cls", "tokens"])
@pytest.mark.parametrize("offset", [1e3, 1e6])
@pytest.mark.parametrize("center", [True, "first"])
def test_layerwise_centres_float32_as_its_exact_values(pool, offset, center):
    hidden = [(h + offset) for h in STATES]
    options = {"pool": pool, "center": center, "normalize": center == "first", "pairs": False}
    keep = MASK.clone()
    keep[4] = True
    exact = layerwise([h.double() for h in hidden], mask=keep, **options)
    report = layerwise(hidden, mask=keep, **options)
    torch.testing.assert_close(report.effective_rank.double(), exact.effective_rank, rtol=1e-5, atol=0)


@pytest.mark.parametrize("pool", ["mean", "tokens"])
@pytest.mark.parametrize("batches", [1, 3])
def test_layerwise_refuses_what_varies_by_the_rounding_of_an_array_only(pool, batches):
    """NumPy arrays are computed in float64, and what float32 has left of a constant is no variation for that."""
    hidden = (1e4 * (1 + 1e-7 * np.random.default_rng(0).standard_normal((30, 4, 5)))).astype(np.float32)
    for convert in (torch.from_numpy, np.asarray):
        source = (
            [convert(hidden)] if batches == 1 else ([convert(part)] for part in np.split(hidden, batches))
        )
        with pytest.raises(ValueError, match="rows that vary"):
            layerwise(source, center=True, normalize=False, pool=pool)


# --- many batches ----------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


X = torch.randn(50, 4, generator=RANDOM)


@pytest.mark.parametrize(
    "options", [{}, {"center": True}, {"center": "first"}, {"normalize": False}, {"alpha": 2}]
)
@pytest.mark.parametrize("pairs", [False, True])
def test_layerwise_of_a_loader_equals_one_batch(net, options, pairs):
    loader = DataLoader(TensorDataset(X, torch.arange(50)), batch_size=7)  # labels are left out
    columns = ["rankme", "tcr", "participation_ratio", "coding_rate", "matrix_tcr"]
    streamed = layerwise(net, loader, pairs=pairs, quantities=columns, **options)
    whole = layerwise(net, X, pairs=pairs, quantities=columns, **options)
    assert streamed.rows == whole.rows == 50
    for name, values in whole.columns().items():
        torch.testing.assert_close(streamed.columns()[name], values, rtol=2e-5, atol=2e-5)


class Optional(nn.Module):
    """As vision transformers of timm: an optional second argument that labels must not become."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, attn_mask=None):
        return self.layer(x) if attn_mask is None else self.layer(x * attn_mask[:, None])


def test_layerwise_gives_labels_to_no_optional_argument():
    model, loader = Optional(), [(X, torch.arange(50.0))].__iter__()
    same(layerwise(model, loader, layers="layer"), layerwise(model, X, layers="layer"))


def test_measures_of_features_are_those_of_all_batches(net):
    batches, names = [X[i : i + 10] for i in range(0, 50, 10)], ["uniformity", "effective_rank"]
    streamed = layerwise(net, iter(batches), quantities=names).quantities
    whole = layerwise(net, X, quantities=names, pairs=False).quantities
    for name in names:
        torch.testing.assert_close(streamed[name], whole[name], rtol=1e-6, atol=1e-6)


def test_layerwise_of_a_loader_holds_no_rows(net, monkeypatch):
    from matinfo.layers import collector

    held = []
    add = collector.Collector.add
    monkeypatch.setattr(
        collector.Collector,
        "add",
        lambda self, *given: (add(self, *given), held.append(sum(len(rows[0]) for rows in self.held)))[0],
    )
    layerwise(net, (X for _ in range(4)))
    assert held == [0, 0, 0, 0]


def test_layerwise_of_batches_of_tokens_equals_one_batch():
    batches = [
        {"input_ids": PADDED[part], "attention_mask": MASK[part], "label": torch.ones(1)}
        for part in (slice(0, 2), slice(2, 6))
    ]
    whole = {"input_ids": PADDED, "attention_mask": MASK}
    for options in ({"pool": "tokens", "pairs": True, "quantities": ["tcr"]}, {}, {"pool": "last"}):
        streamed, once = layerwise(Language(), batches, **options), layerwise(Language(), whole, **options)
        same(streamed, once)
        if options.get("pairs"):
            torch.testing.assert_close(streamed.mutual_information, once.mutual_information)
            torch.testing.assert_close(streamed.quantities["tcr"], once.quantities["tcr"])


def test_layerwise_of_an_iterator_of_outputs_needs_no_model():
    outputs = (
        {"hidden_states": [h[i : i + 2] for h in STATES], "attention_mask": MASK[i : i + 2]}
        for i in (0, 2, 4)
    )
    same(layerwise(outputs), layerwise(STATES, mask=MASK, pairs=False))


def tokenize(sentences, *, padding, truncation, return_tensors):
    """Letters are tokens."""
    assert (padding, truncation, return_tensors) == (True, True, "pt")
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor([ord(c) - 96 for c in s]) for s in sentences], batch_first=True
    )
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": ids * 0}


SENTENCES = ["abc", "zyxwv", "q", "hello", "world", "matrix", "spectrum"]


@pytest.mark.parametrize(
    "kind", [list, iter, lambda s: DataLoader(s, batch_size=3)], ids=["list", "iterator", "loader"]
)
@pytest.mark.parametrize("progress", [False, True])
def test_layerwise_takes_sentences_and_a_tokenizer(kind, progress, capsys):
    report = layerwise(Language(), kind(SENTENCES), tokenizer=tokenize, batch_size=3, progress=progress)
    once = layerwise(
        Language(),
        {
            k: v
            for k, v in tokenize(SENTENCES, padding=True, truncation=True, return_tensors="pt").items()
            if k != "token_type_ids"
        },
    )
    same(report, once)
    assert ("batch/s" in capsys.readouterr().err) == progress


def test_layerwise_reference_runs_on_every_batch(net):
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    streamed = layerwise(net, X.split(20).__iter__(), reference=other)
    torch.testing.assert_close(streamed.diff_erank, layerwise(net, X, reference=other).diff_erank)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layerwise(Language(), SENTENCES), TypeError, r"tokenizer for sentences, got none"),
        (lambda: layerwise(Language(), iter(())), ValueError, "got an empty stream"),
        (lambda: layerwise(Language(), iter([IDS, IDS]), mask=MASK), ValueError, "no mask for many batches"),
        (lambda: layerwise(Language(), iter([IDS, PADDED])), ValueError, "pad_token_id = 0"),
        (lambda: layerwise(iter([STATES, STATES[:1]])), ValueError, "same layers in every batch"),
        (lambda: layerwise(iter([STATES] * 2), reference=STATES), ValueError, "a model as the reference"),
        (lambda: layerwise(iter([STATES, [h * torch.nan for h in STATES]])), ValueError, "Layer 0: .*finite"),
        (lambda: layerwise(iter([[h * 0 for h in STATES]] * 9)), ValueError, "nothing but zeros in layer 0"),
        (lambda: layerwise(STATES, quantities=["entropy"]), ValueError, "quantity to be one of renyi"),
    ],
)  # fmt: skip
def test_layerwise_refuses_streams_with_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- columns and the report ------------------------------------------------------------------------------------


def test_quantities_are_those_of_the_public_functions():
    rows = STATES[1].double().mean(1)
    unit = rows / rows.norm(dim=1, keepdim=True)
    given = {
        "rankme": "rankme",
        "order 2": functools.partial(effective_rank, alpha=2),
        "ridge": functools.partial(matinfo.tcr, mu=0.1),
        "rate": matinfo.coding_rate,
        "own": lambda K: K.dense().diagonal(dim1=-2, dim2=-1).sum(-1),
    }
    report = layerwise([h.double() for h in STATES], quantities=given)
    expected = {
        "rankme": matinfo.rankme(unit),
        "order 2": effective_rank(Gram(unit), 2),
        "ridge": matinfo.tcr(unit, 0.1),
        "rate": matinfo.coding_rate(unit),
        "own": torch.tensor(6.0).double(),
    }
    assert list(report.quantities) == list(given)
    for name, value in expected.items():
        torch.testing.assert_close(report.quantities[name][1], value, rtol=1e-9, atol=1e-9)


def test_quantities_of_tokens_are_means_over_sentences_without_padding():
    report = layerwise(STATES, mask=MASK, pool="tokens", quantities=["matrix_tcr", "coding_rate"])
    units = [h / h.norm(dim=-1, keepdim=True) for h in STATES]
    for name, function in (
        ("matrix_tcr", lambda Z: matinfo.matrix_tcr(Gram(Z))),
        ("coding_rate", matinfo.coding_rate),
    ):
        expected = torch.stack(
            [torch.stack([function(Z[b, MASK[b]]) for b in range(6)]).mean() for Z in units]
        )
        torch.testing.assert_close(report.quantities[name], expected)


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_report_survives_a_file_and_a_pickle(kind, tmp_path):
    import pickle

    hidden = [h.numpy() for h in STATES] if kind == "arrays" else STATES
    report = layerwise(
        hidden, mask=MASK, pool="tokens", reference=hidden, quantities=["rankme"], alpha=float("inf")
    )
    report.save(tmp_path / "report.json")
    json.loads((tmp_path / "report.json").read_text())
    for again in (LayerReport.load(tmp_path / "report.json"), pickle.loads(pickle.dumps(report))):
        assert again.table() == report.table()
        assert repr(again) == repr(report)
        assert type(again.entropy) is type(report.entropy)
        assert again.entropy.dtype == report.entropy.dtype
        assert again.mutual_information.tolist() == report.mutual_information.tolist()
        assert again.reference.entropies.tolist() == report.reference.entropies.tolist()


def test_report_as_a_data_frame_has_a_row_a_layer():
    report = layerwise(STATES, quantities=["rankme"])
    frame = report.to_pandas()
    assert list(frame.index) == ["0", "1"]
    assert frame["rankme"].tolist() == pytest.approx(report.quantities["rankme"].tolist())
    assert frame.attrs["matrix"] == report.description
    assert "rankme" in report.table()


def test_committed_cost_over_many_sentences_is_under_the_target_and_on_the_page():
    result = json.loads(
        (ROOT / "benchmarks" / "results" / "layerwise_stream.json").read_text(encoding="utf-8")
    )
    page = (ROOT / "docs" / "how-to" / "compare-layers.md").read_text(encoding="utf-8")
    seconds = result["seconds"]
    assert result["ratio"] == pytest.approx(seconds["whole call"] / seconds["tokenizer and model"])
    assert result["ratio"] <= result["target"] == 1.05
    assert f"one call takes {result['ratio']:.3f} of the processor time" in page
    assert result["command"] in page


# --- pictures --------------------------------------------------------------------------------------------------


def test_models_are_drawn_over_one_another():
    first, second = (layerwise([h * scale for h in STATES], quantities=["tcr"]) for scale in (1, 2))
    axes = plot.layers({"base": first, "large": second}, ["effective_rank", "tcr"])
    lines = axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["base", "large", "largest possible"]
    assert lines[1].get_ydata().tolist() == pytest.approx(second.effective_rank.tolist())
    assert axes[0].get_figure().get_suptitle() == first.description
    assert len(first.plot()) == 3


def test_layers_over_training_colours_small_ranks_apart_beside_large_ones():
    of_rank = {rank: torch.eye(rank).repeat(64 // rank, 1) for rank in (1, 2, 8, 64)}
    far, near = (
        plot.layers_over_training(
            {step: layerwise([of_rank[rank], of_rank[64]]) for step, rank in enumerate(small)}
        )
        for small in ((1, 2), (8, 64))
    )
    assert [ax.images[0].norm.__class__.__name__ for ax in (far, near)] == ["LogNorm", "Normalize"]


def test_layers_over_training_has_a_column_for_each_checkpoint():
    reports = {step: layerwise([h * (1 + step) + step for h in STATES]) for step in (0, 10)}
    ax = plot.layers_over_training(reports)
    drawn = np.asarray(ax.images[0].get_array())[::-1]  # the first layer is at the bottom
    expected = np.stack([report.effective_rank.numpy() for report in reports.values()], 1)
    np.testing.assert_allclose(drawn, expected)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "10"]
    with pytest.raises(ValueError, match="got none in 0, 10"):
        plot.layers_over_training(reports, "tcr")
    for wrong in ({}, {**reports, 20: layerwise(STATES[:1])}):
        with pytest.raises(ValueError, match="at least one report, all with the same layers"):
            plot.layers_over_training(wrong)
