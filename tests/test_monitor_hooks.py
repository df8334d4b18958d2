"""What the hooks see: which layers, which rows of their outputs, in which kinds of training."""

import copy
import gc
import io
import math
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from matinfo.layers import layerwise
from matinfo.layers.modules import first_tensor
from matinfo.monitor import Monitor, MonitorWarning
from matinfo.monitor.hooks import MOST_CALLS


class Returns(nn.Module):
    """A layer that returns what it is told to."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x, attention_mask=None):
        return self.function(x)


def seen(output, *, mask=None, **options):
    """The rows that a monitor keeps of an output."""
    layer = Returns(lambda x: output)
    monitor = Monitor(layer, "", every=1, **options)
    if mask is not None:
        monitor.mask(mask)
    layer(None)
    return monitor._capture.seen[""].parts[0]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.mlp(self.attn(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.head = nn.Sequential(nn.Linear(4, 2))
        self.tied = self.stem

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.tied(x))


# Layers


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("stem", ["stem"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.?.a*", ["blocks.0.attn", "blocks.1.attn"]),
        ("**.mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
        ("**.0", ["blocks.0", "head.0"]),
        (["head", "stem", "st*"], ["stem", "head"]),
        (["", "tied"], ["", "tied"]),
        ("*", ["stem", "head"]),  # a container without forward is left out, the second name of a layer too
    ],
)
def test_layers_are_names_or_patterns_in_the_order_of_the_model(layers, found):
    assert Monitor(Net(), layers).layers == found


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ("mlp", r"got 'mlp', which is none of the 12 modules. Near it: 'blocks.0.mlp', 'blocks.1.mlp'"),
        ("steem", "Near it: 'stem'"),
        ("layers.*", "none of the 12 modules"),
        ("blocks", r"layer with a forward, got 'blocks', a ModuleList. For what it holds use 'blocks.\*'"),
        ([], "at least one layer"),
    ],
)
def test_layer_that_does_not_exist_is_refused_with_near_names(layers, match):
    with pytest.raises(ValueError, match=match):
        Monitor(Net(), layers)


def test_model_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"torch.nn.Module, got function"):
        Monitor(lambda x: x, "0")


# Rows


def test_pools_of_tokens():
    x = torch.randn(3, 5, 4)
    assert torch.equal(seen(x), x.double().mean(1))
    assert torch.equal(seen(x, pool="cls"), x[:, 0])
    assert torch.equal(seen(x, pool="last"), x[:, -1])
    assert torch.equal(seen(x, pool="tokens"), x.reshape(15, 4))
    assert torch.equal(seen(x, pool="flatten"), x.reshape(3, 20))


def test_pools_of_images():
    x = torch.randn(3, 4, 2, 6)
    assert torch.allclose(seen(x), x.double().mean((2, 3)))
    assert torch.equal(seen(x, pool="tokens"), x.permute(0, 2, 3, 1).reshape(36, 4))
    assert torch.equal(seen(x, pool="flatten"), x.reshape(3, 48))
    with pytest.raises(
        ValueError, match=r"return \(n, tokens, d\) for pool=\"cls\", got shape \(3, 4, 2, 6\)"
    ):
        seen(x, pool="cls")


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_mask_leaves_out_padding_whatever_it_holds(dtype):
    x, lengths = torch.randn(3, 5, 4), (2, 5, 0)
    mask = torch.zeros(3, 5, dtype=dtype)
    for i, length in enumerate(lengths):
        mask[i, :length] = 1
        x[i, length:] = math.nan
    tokens = torch.cat([x[0, :2], x[1]])
    assert torch.equal(seen(x, pool="tokens", mask=mask), tokens)
    assert torch.allclose(seen(x, mask=mask), torch.stack([x[0, :2].double().mean(0), x[1].double().mean(0)]))
    assert torch.equal(seen(x, pool="tokens", mask=mask, max_rows=7), tokens)
    fewer = seen(x, pool="tokens", mask=mask, max_rows=4)
    assert len({tuple(row.tolist()) for row in fewer} & {tuple(row.tolist()) for row in tokens}) == 4


def test_mask_does_not_concern_pooled_outputs_and_images():
    mask = torch.zeros(3, 5)
    assert seen(torch.randn(3, 4), mask=mask).shape == (3, 4)
    assert seen(torch.randn(3, 4, 2, 2), mask=mask).shape == (3, 4)


def test_mask_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"mask of shape \(3, 5\), \(n, tokens\), for layer '', got \(3, 4\)"
    ):
        seen(torch.randn(3, 5, 4), mask=torch.ones(3, 4))
    with pytest.raises(ValueError, match='no mask with pool="flatten"'):
        seen(torch.randn(3, 5, 4), mask=torch.ones(3, 5), pool="flatten")


def second_argument(args, kwargs):
    return kwargs["attention_mask"] if "attention_mask" in kwargs else args[1]


@pytest.mark.parametrize("mask", ["attention_mask", second_argument])
@pytest.mark.parametrize("by_name", [True, False])
def test_mask_is_found_among_the_arguments_of_the_model(mask, by_name):
    x, there = torch.randn(2, 3, 4), torch.tensor([[1, 0, 0], [1, 1, 0]])
    model = Returns()
    monitor = Monitor(model, "", every=1, pool="tokens", mask=mask)
    model(x, attention_mask=there) if by_name else model(x, there)
    assert monitor.step()[0]["rows"] == 3
    if mask == "attention_mask":
        model(x)
        assert monitor.step()[0]["rows"] == 6


def test_mask_that_keeps_nothing_leaves_no_record():
    model = Returns()
    monitor = Monitor(model, "", every=1, pool="tokens")
    monitor.mask(torch.zeros(2, 3))
    model(torch.randn(2, 3, 4))
    with pytest.warns(MonitorWarning, match="the mask kept none"):
        assert monitor.step() == []


def test_mask_that_names_no_argument_is_refused():
    with pytest.raises(ValueError, match="got 'padding'; it takes x, attention_mask"):
        Monitor(Returns(), "", mask="padding")


@dataclass
class ModelOutput:
    last_hidden_state: torch.Tensor


@pytest.mark.parametrize(
    "wrap", [lambda x: (x, None), lambda x: [(x, 1)], ModelOutput], ids=["tuple", "nested", "model"]
)
def test_outputs_that_hold_a_tensor(wrap):
    x = torch.randn(3, 4)
    assert torch.equal(seen(wrap(x)), x)


def test_lstm_output_is_its_hidden_states():
    lstm = nn.LSTM(4, 6, batch_first=True)
    monitor = Monitor(lstm, "", every=1, pool="tokens")
    lstm(torch.randn(2, 3, 4))
    assert {k: v for k, v in monitor.step()[0].items() if k in ("rows", "width")} == {"rows": 6, "width": 6}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: nn.GRU(4, 4, **k),
        lambda **k: nn.TransformerEncoderLayer(4, 2, 8, **k),
        lambda **k: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, **k), 1, enable_nested_tensor=False
        ),
    ],
)
def test_samples_are_found_where_tokens_come_first(make, batch_first):
    model, x = make(batch_first=batch_first), torch.randn(6, 3, 4)
    with Monitor(model, "", every=1) as monitor:
        output = first_tensor(model(x), "").detach()
        monitor._capture.seen[""].parts[0].sub_(output.double().mean(1 if batch_first else 0))
        assert float(monitor._capture.seen[""].parts[0].abs().max()) < 1e-6
    assert len(layerwise(make(batch_first=batch_first), x, layers=[""], pool="tokens").entropies[0]) == (
        6 if batch_first else 3
    )


def test_forgotten_monitor_takes_its_hooks_off():
    model = nn.Linear(4, 3)
    for _ in range(3):
        monitor = Monitor(model, "", every=1)
    assert len(model._forward_hooks) == 1
    del monitor
    assert not model._forward_hooks


def test_model_that_holds_its_monitor_is_no_leak():
    model = nn.Linear(4, 3)
    model.monitor = Monitor(model, "", every=1)
    model(torch.randn(5, 4))
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None


@pytest.mark.slow  # a long import
def test_output_of_transformers_is_its_last_hidden_state():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    x = torch.randn(2, 3, 4)
    assert torch.equal(seen(outputs.BaseModelOutput(last_hidden_state=x)), x.double().mean(1))


@pytest.mark.parametrize(
    ("output", "error", "match"),
    [
        ({"b": 1, "a": torch.ones(2, 2)}, TypeError, r"got a mapping with keys \['a', 'b'\]"),
        (None, TypeError, "layer '' to return a tensor, .* got NoneType"),
        ((), TypeError, "got tuple"),
        (torch.ones(2, 2, dtype=torch.long), TypeError, "dense floating-point tensor, got torch.int64"),
        (torch.ones(2, 2).to_sparse(), TypeError, "got torch.float32, torch.sparse_coo"),
        (torch.ones(5), ValueError, r"got shape \(5,\)"),
        (torch.ones(5, 0), ValueError, r"got shape \(5, 0\)"),
    ],
)
def test_outputs_without_rows_are_refused_with_the_remedy(output, error, match):
    with pytest.raises(error, match=match):
        seen(output)


def test_pool_may_be_a_callable_of_whatever_comes():
    x = torch.randn(5, 2, 4)  # tokens first
    assert torch.equal(seen({"hidden": x}, pool=lambda out: out["hidden"].mean(0)), x.mean(0))
    with pytest.raises(ValueError, match=r"pool to return rows \(n, d\) for layer '', got shape \(5, 2, 4\)"):
        seen(x, pool=lambda out: out)
    with pytest.raises(TypeError, match="pool to return a tensor for layer '', got int"):
        seen(x, pool=lambda out: 3)


# Trainings


def test_rows_are_those_before_an_in_place_operation():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    monitor = Monitor(model, ["0", "1"], every=1)
    x = torch.randn(8, 4)
    model(x)
    first, second = (monitor._capture.seen[layer].parts[0] for layer in ("0", "1"))
    assert torch.equal(first, model[0](x))
    assert bool((first < 0).any())
    assert not bool((second < 0).any())


@pytest.mark.parametrize(("calls", "rows"), [("all", 12), ("last", 5)])
def test_calls_of_one_step_are_taken_together_or_the_last_one(calls, rows):
    model = nn.Linear(4, 3)
    monitor = Monitor(model, "", every=1, calls=calls)
    first, second = torch.randn(7, 4), torch.randn(5, 4)
    for x in (first, second):  # gradient accumulation
        model(x).sum().backward()
    (record,) = monitor.step()
    assert record["rows"] == rows
    model(torch.cat([first, second]) if calls == "all" else second)
    assert monitor.step()[0]["effective_rank"] == pytest.approx(record["effective_rank"], rel=1e-6)


def test_all_calls_together_stay_within_max_rows():
    model = nn.Linear(4, 3)
    monitor = Monitor(model, "", every=1, max_rows=6)
    for _ in range(4):
        model(torch.randn(5, 4))
    assert monitor.step()[0]["rows"] == 6


def test_memory_is_bounded_where_step_is_forgotten():
    model = nn.Identity()
    monitor = Monitor(model, "", every=1, max_rows=7)
    for _ in range(20):
        model(torch.ones(5, 1))
        assert sum(map(len, monitor._capture.seen[""].parts)) <= 7
    monitor = Monitor(model, "", every=1)
    for _ in range(MOST_CALLS + 5):
        model(torch.ones(1, 1))
    assert len(monitor._capture.seen[""].parts) == len(monitor._capture.seen[""].counts) == MOST_CALLS


def test_calls_of_different_width_need_the_last_one():
    model = Returns()
    monitor = Monitor(model, "", every=1)
    model(torch.randn(3, 4))
    model(torch.randn(3, 5))
    with pytest.raises(ValueError, match='return the same width, got 4, then 5. Use calls="last"'):
        monitor.step()


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_checkpointing_runs_again_are_seen_once(reentrant):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    monitor = Monitor(model, "0", every=1)
    x = torch.randn(6, 4, requires_grad=True)
    checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    assert x.grad is not None
    assert monitor.step()[0]["rows"] == 6


def test_autocast_frozen_evaluation_and_inference_mode():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval().requires_grad_(False)
    monitor = Monitor(model, "*", every=1)
    x = torch.randn(16, 4)
    model(x)
    expected = [record["effective_rank"] for record in monitor.step()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
        assert monitor._capture.seen["0"].parts[0].dtype == torch.bfloat16
        halved = [record["effective_rank"] for record in monitor.step()]
    assert halved == pytest.approx(expected, rel=2e-2)  # features rounded to 8 bits
    with torch.inference_mode():
        model(x)
    assert [record["effective_rank"] for record in monitor.step()] == expected


def test_half_precision_means_are_taken_in_float64():
    x = torch.full((2, 4096, 3), 100.0, dtype=torch.float16)  # a sum in float16 overflows
    assert torch.equal(seen(x), torch.full((2, 3), 100.0))


def test_copies_and_pickles_of_the_model_have_no_monitor():
    model = Net()
    Monitor(model, ["stem"], every=1, mask="x", writers=[lambda record: None])
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        other(torch.randn(2, 4))
        assert torch.equal(other.stem.weight, model.stem.weight)


# Dynamo silences this warning of torch about its own look at a tensor, unless warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_model_is_observed_under_its_own_names():
    model = Net()
    x = torch.randn(8, 4)
    plain = Monitor(model, ["stem", "blocks.*"], every=1)
    model(x)
    expected = plain.step()
    plain.remove()
    compiled = torch.compile(model, backend="eager")
    monitor = Monitor(compiled, ["stem", "blocks.*"], every=2)
    for step in range(5):
        compiled(x).sum().backward()
        records = monitor.step()
        assert [{**record, "step": 0} for record in records] == (expected if step % 2 == 0 else [])


def test_data_parallel_wrappers_are_seen_through():
    model = nn.DataParallel(Net())
    assert Monitor(model, "stem").layers == ["stem"]


# Rows of several calls


def test_rows_of_several_calls_are_drawn_in_proportion():
    model = nn.Identity()
    shares = []
    for seed in range(10):
        monitor = Monitor(
            model, "", every=1, max_rows=100, seed=seed, quantities={"n": lambda K: seen_ones(K)}
        )
        for count, value in ((10_000, 1.0), (100, -1.0)):
            model(torch.full((count, 2), value))
        (record,) = monitor.step()
        assert record["rows"] == 100
        shares.append(record["n"])
        monitor.remove()
    # Hypergeometric: 990 +- 3.2 of 1000.
    assert 977 <= sum(shares) <= 1000


def seen_ones(K):
    return (K.features().double()[:, 0] > 0).sum()


def test_joint_draw_is_uniform_over_rows_of_all_calls():
    model, hits = nn.Identity(), torch.zeros(30)
    monitor = Monitor(
        model, "", every=1, max_rows=10, quantities={"n": lambda K: hits.add_(K.features().sum(0)).sum()}
    )
    eye = torch.eye(30)
    for _ in range(400):
        for call in (eye[:20], eye[20:22], eye[22:]):
            model(call)
        monitor.step()
    assert hits.sum() == 4000
    # 400/3 = 133 each with standard deviation sqrt(400 * 2/9) = 9.4; 4.5 of them, in one of 30 by chance 2e-4.
    assert float((hits - 400 / 3).abs().max()) < 43


def test_calls_beyond_the_most_are_said_once():
    model = nn.Identity()
    monitor = Monitor(model, "", every=1)
    for _ in range(MOST_CALLS + 44):
        model(torch.ones(2, 1))
    with pytest.warns(MonitorWarning, match=r"called 300 times up to step 0: only the rows of the first 256"):
        (record,) = monitor.step()
    assert record["rows"] == 2 * MOST_CALLS
    for _ in range(MOST_CALLS + 1):
        model(torch.ones(1, 1))
    monitor.step()  # said already
    last = Monitor(model, "", every=1, calls="last")
    for _ in range(MOST_CALLS + 1):
        model(torch.ones(1, 1))
    assert last.step()[0]["rows"] == 1


# Tokens that are there


def test_cls_is_the_first_token_that_the_mask_keeps():
    x = torch.randn(4, 5, 3)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert torch.equal(seen(x, pool="cls", mask=mask), torch.stack([x[0, 0], x[1, 2], x[3, 4]]))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x, mask):
        return self.encoder(x, src_key_padding_mask=mask == 0)


NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning")


@NESTED
@pytest.mark.parametrize("pool", ["mean", "tokens", "cls"])
@pytest.mark.parametrize("layer", ["encoder.layers.0", "encoder.layers.*.linear2"])
def test_encoder_that_hands_on_nested_tensors_is_seen_as_without_them(pool, layer):
    torch.manual_seed(0)
    model = Encoder().eval()
    x, mask = torch.randn(4, 5, 8), (torch.arange(5) < torch.tensor([[4], [2], [3], [1]])).int()
    records = []
    for fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(fast)
        try:
            monitor = Monitor(model, layer, every=1, pool=pool, mask="mask")
            with torch.no_grad():
                model(x, mask)
            records.append([r["effective_rank"] for r in monitor.step()])
            monitor.remove()
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert records[0] == pytest.approx(records[1], rel=1e-5)  # two float32 kernels


@NESTED
@pytest.mark.parametrize("pool", ["flatten", lambda x: x], ids=["flatten", "callable"])
def test_nested_tensor_that_no_pool_takes_apart_is_refused_at_the_step(pool):
    nested = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])
    layer = Returns()
    monitor = Monitor(layer, "", every=1, pool=pool)
    assert layer(nested) is nested
    with pytest.raises(TypeError, match=r"layer '' to return a dense tensor, got a nested one"):
        monitor.step()
    layer(torch.randn(3, 4))
    assert monitor._capture.seen[""].parts[0].shape == (3, 4)
