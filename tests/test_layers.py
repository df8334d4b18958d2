"""Layer by layer: ragged sentences as a loop without padding finds them, and models left as they were."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from matinfo import Gram, effective_rank, matrix_js, mutual_information, renyi_entropy
from matinfo.layers import LayerReport, layerwise, spectra

LENGTHS = (5, 2, 7, 3, 7)
WIDTHS = (6, 4, 16)  # 4 columns: the feature side is factored for the long sentences, T elsewhere


def random_layers(lengths=LENGTHS, widths=WIDTHS, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    mean = torch.rand(1, generator=generator, dtype=torch.float64)
    hidden = [
        torch.randn(*shape, d, generator=generator, dtype=torch.float64) + mean for d in widths
    ]  # rows with a mean and of unequal length
    return [h.to(dtype) for h in hidden], mask


def prepared(rows, *, center=False, normalize=True):
    rows = rows - rows.mean(0) if center == "first" else rows
    rows = rows / rows.norm(dim=1, keepdim=True) if normalize else rows
    return rows - rows.mean(0) if center is True else rows


def loop_over_sentences(hidden, mask, alpha, **options):
    """Entropies ``(L, B)``, mutual information and JS ``(L, L)``, one sentence and pair at a time, without padding."""
    entropies, information, js = [], [], []
    for b in range(len(mask)):
        K = [(Z := prepared(h[b, mask[b]], **options)) @ Z.mT for h in hidden]
        entropies.append(torch.stack([renyi_entropy(k, alpha) for k in K]))
        information.append(
            torch.stack([torch.stack([mutual_information(a, c, alpha) for c in K]) for a in K])
        )
        js.append(torch.stack([torch.stack([matrix_js(a, c) for c in K]) for a in K]))
    return torch.stack(entropies, 1), torch.stack(information).mean(0), torch.stack(js).mean(0)


def close(actual, expected, atol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# --- the oracle: a loop without padding ------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"center": True}, {"center": "first"}, {"normalize": False}, {"center": True, "normalize": False}],
    ids=str,
)
def test_layerwise_tokens_equal_loop_without_padding(alpha, options):
    hidden, mask = random_layers()
    report = layerwise(hidden, mask=mask, pool="tokens", alpha=alpha, **options)
    entropies, information, js = loop_over_sentences(hidden, mask, alpha, **options)
    close(report.entropies, entropies)
    close(report.entropy, entropies.mean(1))
    close(report.effective_rank, entropies.mean(1).exp())
    close(report.mutual_information, information)
    close(report.matrix_js, js)


@given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, math.inf]),
)
def test_layerwise_sees_no_padding_and_no_order(lengths, seed, alpha):
    hidden, mask = random_layers(tuple(lengths), (5, 3), seed)
    longer = [torch.full((len(lengths), 12, h.shape[-1]), torch.nan, dtype=h.dtype) for h in hidden]
    shift = torch.randint(0, 12 - max(lengths) + 1, (len(lengths),)).tolist()
    moved = torch.zeros(len(lengths), 12, dtype=torch.int64)
    for b, (start, length) in enumerate(zip(shift, lengths, strict=True)):
        moved[b, start : start + length] = 1
        for new, old in zip(longer, hidden, strict=True):
            new[b, start : start + length] = old[b, :length]
    for pool in ("tokens", "mean", "cls", "last") if len(lengths) > 1 else ("tokens",):
        one = layerwise(hidden, mask=mask, pool=pool, alpha=alpha)
        other = layerwise(longer, mask=moved, pool=pool, alpha=alpha)  # left, right, both; NaN in the padding
        close(other.entropies, one.entropies)
        close(other.mutual_information, one.mutual_information)
        close(other.matrix_js, one.matrix_js)


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
def test_layerwise_pooled_equals_entropy_of_pooled_rows(pool):
    hidden, mask = random_layers()
    report = layerwise(hidden, mask=mask, pool=pool)
    rows = []
    for h in hidden:
        tokens = [h[b, mask[b]] for b in range(len(mask))]
        pick = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "last": lambda x: x[-1]}[pool]
        rows.append(prepared(torch.stack([pick(x) for x in tokens])))
    close(report.effective_rank, torch.stack([effective_rank(Gram(Z)) for Z in rows]))
    close(report.mutual_information[0, 2], mutual_information(Gram(rows[0]), Gram(rows[2])))
    close(report.matrix_js[2, 1], matrix_js(Gram(rows[1]), Gram(rows[2])))
    already = layerwise([h.squeeze(1) for h in (Z[:, None] for Z in rows)], normalize=False)
    close(already.mutual_information, report.mutual_information)  # (n, d) is taken as it is


def test_layerwise_equals_published_recipe_of_diff_erank():
    """Per sentence: centred unit rows, d x d covariance, its spectrum; of sentences exp of the mean entropy."""
    trained, mask = random_layers()
    untrained, _ = random_layers(seed=1)

    def recipe(hidden):
        entropies = []
        for b in range(len(mask)):
            Z = prepared(hidden[b, mask[b]], center="first")
            p = torch.linalg.eigvalsh(Z.mT @ Z / len(Z)).clamp_min(0)
            entropies.append(torch.special.entr(p).sum())
        return torch.stack(entropies).mean().exp()

    expected = torch.stack([recipe(u) - recipe(h) for u, h in zip(untrained, trained, strict=True)])
    report = layerwise(trained, mask=mask, pool="tokens", center="first", pairs=False, reference=untrained)
    close(report.diff_erank, expected)


@pytest.mark.parametrize("entries", [1, 60, 500])
def test_layerwise_does_not_depend_on_chunks(entries, monkeypatch):
    hidden, mask = random_layers()
    whole = layerwise(hidden, mask=mask, pool="tokens")
    monkeypatch.setattr(spectra, "_ENTRIES", entries)
    parts = layerwise(hidden, mask=mask, pool="tokens")
    close(parts.entropies, whole.entropies)
    close(parts.mutual_information, whole.mutual_information)
    close(parts.matrix_js, whole.matrix_js)


# --- closed forms ----------------------------------------------------------------------------------------------


def test_layerwise_of_orthogonal_tokens_counts_them():
    hidden = torch.eye(6, dtype=torch.float64).repeat(2, 1, 1) * 3
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
    report = layerwise([hidden], mask=mask, pool="tokens", center=False)
    close(report.entropies, torch.tensor([[4.0, 1.0]], dtype=torch.float64).log())
    close(report.effective_rank, torch.tensor([2.0], dtype=torch.float64))  # exp of the mean entropy
    assert report.matrix_js.tolist() == [[0.0]]


def test_layerwise_centred_simplex_has_one_dimension_less():
    report = layerwise([torch.eye(6, dtype=torch.float64)], center=True)
    close(report.effective_rank, torch.tensor([5.0], dtype=torch.float64))


def test_layerwise_js_of_equal_layers_is_zero_and_of_disjoint_ones_log_2():
    bits = torch.eye(2, dtype=torch.float64)
    first, second = bits[[0, 0, 1, 1]] - 0.5, bits[[0, 1, 0, 1]] - 0.5  # centred: orthogonal Gram matrices
    report = layerwise([first, second, first])
    close(report.matrix_js[0], torch.tensor([0.0, math.log(2), 0.0], dtype=torch.float64))


# --- dtypes and derivatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_layerwise_computes_lower_precision_as_its_exact_values(dtype):
    hidden, mask = random_layers(dtype=dtype)
    report = layerwise(hidden, mask=mask, pool="tokens")
    exact = layerwise([h.double() for h in hidden], mask=mask, pool="tokens")
    assert report.entropies.dtype == report.mutual_information.dtype == torch.float32
    close(report.entropies.double(), exact.entropies, 5e-6)  # rows are centred and scaled in float32
    close(report.mutual_information.double(), exact.mutual_information, 5e-6)


def test_layerwise_numpy_in_numpy_out():
    hidden, mask = random_layers()
    report = layerwise([h.numpy() for h in hidden], mask=mask.numpy(), reference=[h.numpy() for h in hidden])
    expected = layerwise(hidden, mask=mask)
    for name in ("entropies", "entropy", "effective_rank", "mutual_information", "matrix_js", "rank_change"):
        assert isinstance(getattr(report, name), np.ndarray)
        np.testing.assert_array_equal(getattr(report, name), getattr(expected, name).numpy())
    assert report.diff_erank.tolist() == [0.0] * 3
    assert report.table().splitlines()[1].startswith("0")


@pytest.mark.parametrize("pool", ["mean", "tokens"])
def test_layerwise_gradient_equals_finite_differences(pool):
    hidden, mask = random_layers((4, 3), (3, 2))

    def values(*states):
        report = layerwise(list(states), mask=mask, pool=pool)
        return report.effective_rank, report.mutual_information, report.matrix_js

    assert torch.autograd.gradcheck(values, [h.requires_grad_() for h in hidden])


# --- models ----------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A model with blocks, in-place work, running statistics, a tuple as output and a module that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)) for _ in range(2)])
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.memory = nn.LSTM(6, 3, batch_first=True)
        self.unused = nn.Linear(1, 1)
        self.fail = False

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = self.drop(block(x))
        x = self.norm(x.mT).mT
        if self.fail:
            raise RuntimeError("in the forward pass")
        return self.memory(x)[0]


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Blocks()


BATCH = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(1))


def test_layerwise_captures_named_modules_in_order(model):
    report = layerwise(model, BATCH, layers=["memory", "blocks.*", "stem", "drop"], pairs=False)
    assert report.names == ("stem", "blocks.0", "drop", "blocks.1", "drop#2", "memory")
    assert report.widths == (6, 6, 6, 6, 6, 3)
    model.eval()
    stem = model.stem(BATCH)
    by_hand = layerwise([stem, model.blocks[0](stem)], pairs=False)
    close(report.effective_rank[:2], by_hand.effective_rank, 1e-5)


class Translator(nn.Module):
    def __init__(self, second="decoder"):
        super().__init__()
        self.encoder, self.second = nn.ModuleList([nn.Identity()]), second
        self.add_module(second, nn.ModuleList([nn.Identity()]))

    def forward(self, x, attention_mask=None, y=None, decoder_attention_mask=None):
        return self.encoder[0](x), self.get_submodule(self.second)[0](y)


def test_layerwise_takes_the_mask_of_the_decoder_for_its_layers():
    y = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(2))
    mask, other = (
        torch.arange(5) < torch.arange(1, 8)[:, None],
        torch.arange(5) < torch.arange(7, 0, -1)[:, None],
    )
    batch = {"x": BATCH, "attention_mask": mask, "y": y, "decoder_attention_mask": other}
    for layers, hidden, keep in (("encoder.*", BATCH, mask), ("decoder.*", y, other)):
        expected = layerwise([hidden], mask=keep, pool="tokens").entropies
        close(layerwise(Translator(), batch, layers=layers, pool="tokens").entropies, expected, 1e-12)
    del batch["decoder_attention_mask"]
    whole = layerwise([y], pool="tokens").entropies
    close(layerwise(Translator(), batch, layers="decoder.*", pool="tokens").entropies, whole, 1e-12)
    with pytest.raises(ValueError, match="one part of the model, .* Measure them in two calls"):
        layerwise(Translator(), batch, layers=["encoder.*", "decoder.*"])
    expected = layerwise([y], pool="tokens").entropies  # of images as many tokens, and no mask
    model = Translator("vision_model")
    close(layerwise(model, batch, layers="vision_model.*", pool="tokens").entropies, expected, 1e-12)
    del batch["attention_mask"]
    assert len(layerwise(Translator(), batch, layers=["encoder.*", "decoder.*"]).names) == 2


def test_layerwise_keeps_what_a_module_returned_before_in_place_work(model):
    before = layerwise(model, BATCH, layers="blocks.0.0", pairs=False).entropy
    close(before, layerwise([model.blocks[0][0](model.stem(BATCH))], pairs=False).entropy, 1e-5)


def test_layerwise_leaves_the_model_as_it_was(model):
    model.train()
    model.norm.eval()  # frozen statistics in a model that trains
    state = {name: value.clone() for name, value in model.state_dict().items()}
    report = layerwise(model, BATCH, layers="blocks.*")
    assert not report.entropy.requires_grad
    assert model.training
    assert model.drop.training
    assert not model.norm.training
    assert hooks(model) == 0
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(layerwise(model, BATCH, layers="blocks.*").entropy, report.entropy)  # no dropout


def test_layerwise_removes_hooks_after_an_error(model):
    model.fail = True
    with pytest.raises(RuntimeError, match="in the forward pass"):
        layerwise(model, BATCH, layers="blocks.*")
    assert hooks(model) == 0
    assert model.training
    assert torch.is_grad_enabled()


def test_layerwise_grad_reaches_the_weights(model):
    layerwise(model, BATCH, layers="blocks.*", grad=True).effective_rank.sum().backward()
    assert model.stem.weight.grad.norm() > 0


def test_layerwise_sequential_needs_no_names_and_takes_feature_maps():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    images = torch.randn(6, 3, 8, 8)
    net(images)
    report = layerwise(net, images)
    assert (report.names, report.widths) == (("0", "1", "2", "3"), (5, 5, 5 * 36, 4))
    pooled = net[0](images).mean((2, 3)).detach()
    close(report.entropy[0], layerwise([pooled]).entropy[0], 1e-5)
    positions = layerwise(net[:2], images, pool="tokens")
    tokens = net[0](images).detach().permute(0, 2, 3, 1).reshape(6, 36, 5)
    close(positions.entropies[0], layerwise([tokens], pool="tokens").entropies[0], 1e-5)


class Language(nn.Module):
    """What layerwise expects of a model of transformers."""

    class Output(dict):
        """A dict with attributes."""

        __getattr__ = dict.__getitem__

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"output_hidden_states": False})()
        self.embedding = nn.Embedding(20, 6)
        self.layer = nn.Linear(6, 6)

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        x = self.embedding(input_ids)
        y = self.layer(x)
        return self.Output(logits=y, hidden_states=(x, y) if output_hidden_states else None)


def test_layerwise_asks_for_hidden_states_and_takes_the_attention_mask():
    torch.manual_seed(0)
    language = Language()
    mask = random_layers()[1]
    ids = torch.rand(len(mask), 20).argsort(1)[:, : mask.shape[1]]  # no token twice in a sentence
    batch = {"input_ids": ids, "attention_mask": mask.long()}
    report = layerwise(language, batch, pool="tokens")
    states = language(ids, output_hidden_states=True).hidden_states
    close(report.mutual_information, layerwise(states, mask=mask, pool="tokens").mutual_information, 1e-6)
    assert report.names == ("0", "1")
    assert layerwise(language, batch, layers=[-1]).names == ("1",)
    assert layerwise(language, batch, layers=slice(1, None)).names == ("1",)
    assert layerwise(language, batch, layers="layer").names == ("layer",)
    everything = layerwise(language, batch, mask=torch.ones_like(mask), pool="tokens")
    close(everything.entropy, layerwise(states, pool="tokens").entropy, 1e-6)  # a mask that is given wins
    output = language(**batch, output_hidden_states=True)
    close(layerwise(output, mask=mask).entropy, layerwise(language, batch).entropy, 1e-6)


def test_layerwise_reference_runs_on_the_same_batch(model):
    other = Blocks()
    report = layerwise(model, BATCH, layers="blocks.*", reference=other)
    separate = layerwise(other, BATCH, layers="blocks.*")
    close(report.diff_erank, separate.effective_rank - report.effective_rank)
    assert isinstance(report.reference, LayerReport)
    assert report.reference.mutual_information is None


# --- the report ------------------------------------------------------------------------------------------------


def test_report_table_has_a_line_a_layer_and_only_columns_that_exist():
    hidden, mask = random_layers()
    report = layerwise(
        {"first": hidden[0], "second": hidden[2]}, mask=mask, pool="tokens", reference=hidden[:2]
    )
    *lines, matrix = report.table().splitlines()
    assert matrix == "tokens of each sentence, n = 24, α = 1, rows of Z divided by their length, not centred"
    assert [line.split()[0] for line in lines] == ["layer", "first", "second"]
    assert lines[1].split()[3] == f"{report.effective_rank[0]:.3f}"
    assert "Diff-eRank" in lines[0]
    assert "MI to last" in lines[0]
    plain = layerwise(hidden, mask=mask, pairs=False)
    assert plain.mutual_information is None
    assert plain.matrix_js is None
    assert plain.diff_erank is None
    assert "last" not in plain.table()
    assert repr(report).startswith(
        "LayerReport(2 layers, 5 sentences, pool='tokens', alpha=1, effective rank "
    )
    close(report.rank_change[1], report.effective_rank[1] - report.effective_rank[0])


# --- errors ----------------------------------------------------------------------------------------------------

HIDDEN, MASK = random_layers()
NAN = [
    HIDDEN[0],
    HIDDEN[1].clone().index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(torch.nan).double()),
]
ONE_TOKEN = torch.tensor([[1] + [0] * 6] + [[1] * 7] * 4)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (HIDDEN, {"mask": MASK[:, :3]}, r"shape \(B, T\) = \(5, 7\) of layer 0, got \(5, 3\)"),
        (HIDDEN, {"mask": MASK[0]}, r"mask of shape \(B, T\)"),
        (HIDDEN, {"mask": MASK * -1e9}, "1 or True for tokens that count"),
        (HIDDEN, {"mask": MASK * (torch.arange(5) != 3)[:, None]}, "got none in sentence 3"),
        (
            HIDDEN,
            {"mask": ONE_TOKEN, "pool": "tokens", "center": True},
            "at least two tokens.*one in sentence 0",
        ),
        ([HIDDEN[0][:1]], {"center": True}, "at least two samples"),
        (NAN, {"pool": "tokens"}, "NaN or infinity in layer 1, sentence 2"),
        (NAN, {}, "NaN or infinity in layer 1"),
        ([HIDDEN[0], HIDDEN[1][:4]], {}, "same samples in every layer, got 5 in layer 0 and 4 in layer 1"),
        ([HIDDEN[0], HIDDEN[1][:, :4]], {"pool": "tokens"}, "same tokens in every layer.*pool='mean'"),
        (
            [HIDDEN[0], HIDDEN[0] * 0 + 0.1],
            {"center": True},
            "rows that vary, got equal ones in layer 1.*layers=",
        ),
        ([HIDDEN[0] * 0], {"pool": "tokens"}, "zeros in layer 0, sentence 0"),
        ([], {}, "at least one layer"),
        ([HIDDEN[0][0, 0]], {}, r"layer 0 of shape \(n, d\), \(B, T, d\) or \(B, C, H, W\)"),
        (HIDDEN, {"layers": [3]}, "layers from 0 to 2, got 3"),
        (HIDDEN, {"layers": "blocks.*"}, "layers among '0', '1', '2', got 'blocks"),
        (HIDDEN, {"pool": "max"}, "pool to be one of"),
        (HIDDEN, {"alpha": -1}, r"alpha in \[0, inf\]"),
        (HIDDEN, {"reference": HIDDEN[:2]}, "3 layers, got 2"),
        (HIDDEN, {"batch": BATCH}, "torch.nn.Module beside a batch, got list"),
        (Blocks(), {}, "a batch for the model"),
        (Blocks(), {"batch": BATCH}, "names of modules in layers=.*'stem', 'blocks'"),
        (
            Blocks(),
            {"batch": BATCH, "layers": "blocs"},
            "got 'blocs', which is none of the.*Near it: 'blocks'",
        ),
        (Blocks(), {"batch": BATCH, "layers": "unused"}, "no output of 'unused'"),
        ({"last_hidden_state": HIDDEN[0]}, {}, "call the model with output_hidden_states=True"),
        (
            {"encoder_hidden_states": HIDDEN, "decoder_hidden_states": HIDDEN},
            {},
            r"of an encoder and a decoder: pass output\['encoder_hidden_states'\] or",
        ),
        ({"hidden_states": HIDDEN, "beam_indices": MASK}, {}, "beam search.*output.sequences"),
        (HIDDEN, {"center": "last"}, "center to be False, True or 'first'"),
    ],
)
def test_layerwise_refuses(source, options, message):
    with pytest.raises(ValueError, match=message):
        layerwise(source, **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (HIDDEN[0], {}, r"list of hidden states.*list\(hidden\)"),
        (3, {}, "got int"),
        ([HIDDEN[0].long()], {}, "layer 0 to be floating point"),
        (HIDDEN, {"mask": MASK.tolist()}, "mask to be a torch.Tensor"),
    ],
)
def test_layerwise_refuses_types(source, options, message):
    with pytest.raises(TypeError, match=message):
        layerwise(source, **options)


# --- models, references and names ------------------------------------------------------------------------------


class Padded(nn.Module):
    """An encoder that hands on nested tensors in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x, mask):
        return self.encoder(x, src_key_padding_mask=mask == 0)


def test_layerwise_of_an_encoder_with_padding_equals_sentences_one_by_one():
    torch.manual_seed(0)
    net, x = Padded(), torch.randn(4, 5, 8)
    mask = torch.arange(5) < torch.tensor([[4], [2], [3], [5]])
    for fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(fast)
        try:
            report = layerwise(net, [x, mask], layers="encoder.layers.*", mask=mask, pool="tokens")
            assert torch.backends.mha.get_fastpath_enabled() is fast
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        for i, length in enumerate(mask.sum(1).tolist()):
            one = layerwise(
                net,
                [x[i : i + 1, :length], mask[i : i + 1, :length]],
                layers="encoder.layers.*",
                pool="tokens",
            )
            close(report.entropies[:, i], one.entropies[:, 0], 1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning")
def test_layerwise_refuses_nested_tensors_with_the_remedy():
    nested = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])
    with pytest.raises(TypeError, match="layer 0 to be a dense tensor, got a nested one.*to_padded_tensor"):
        layerwise([nested])


def test_layerwise_reference_may_be_arrays_beside_tensors_and_the_reverse():
    hidden, mask = random_layers()
    other, _ = random_layers(seed=1)
    expected = layerwise(hidden, mask=mask, reference=other).diff_erank
    tensors = layerwise(hidden, mask=mask, reference=[h.numpy() for h in other]).diff_erank
    arrays = layerwise([h.numpy() for h in hidden], mask=mask, reference=other).diff_erank
    assert torch.equal(tensors, expected)
    np.testing.assert_array_equal(arrays, expected.numpy())


def test_repr_and_table_of_a_differentiable_report_warn_of_nothing(model):
    report = layerwise(model, BATCH, layers="blocks.*", grad=True)
    assert report.effective_rank.requires_grad
    assert "effective rank" in repr(report)
    assert report.table()


def test_layerwise_patterns_are_those_of_the_monitor(model):
    from matinfo.monitor import Monitor

    for pattern in ("blocks.*", "**.0", "blocks.**", "blocks.?.0", "*.1.**"):
        names = layerwise(model, BATCH, layers=pattern, pairs=False).names
        assert sorted(names) == sorted(Monitor(model, pattern).layers), pattern


def test_layerwise_of_a_sequential_takes_names_and_no_indices():
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.randn(6, 4)
    assert layerwise(net, x, layers=["1"]).names == ("1",)
    with pytest.raises(ValueError, match=r"names of modules in layers= for a Sequential, got \[0\]"):
        layerwise(net, x, layers=[0])
