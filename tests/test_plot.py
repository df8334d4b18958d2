"""Pictures show the numbers they are given, can be read on both grounds, and leave matplotlib as it was."""

import importlib
import math
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import matinfo
from matinfo import Gram, plot
from matinfo.plot import theme
from matinfo.plot.inputs import unit_of

ROOT = Path(__file__).resolve().parents[1]
ALPHAS = (0, 0.3, 0.5, 1, 1.2, 2, 5, math.inf)


@pytest.fixture(autouse=True)
def _no_display_and_no_figures_left():
    mpl.use("agg")
    before = dict(mpl.rcParams)
    yield
    importlib.import_module("matplotlib.pyplot").close("all")
    assert dict(mpl.rcParams) == before


def features(rows=60, columns=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, columns + 1, dtype=dtype)
    return torch.randn(rows, columns, dtype=dtype, generator=generator) / scale


def draw(ax):
    """Render, so that what is only computed at drawing time is computed."""
    ax.get_figure().canvas.draw()
    return ax


def curves(ax):
    """The lines that are in the legend, or all if there is none."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 2]


# The decomposition behind the pictures


def test_a_spectrum_is_drawn_as_the_matrix_it_is_of():
    K = Gram(features())
    drawn = [plot.spectrum(operand).get_lines()[0].get_ydata() for operand in (K, matinfo.spectrum(K))]
    assert drawn[0].tolist() == drawn[1].tolist()


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        (torch.ones(3, 4), r"For features use matinfo.plot.spectrum\(Gram\(features\)\)"),
        (torch.eye(3).expand(2, 3, 3), "Expected one matrix"),
        (torch.tensor([1.0, -0.5]), "positive semi-definite"),
        (torch.tensor([1.0, math.nan]), "finite"),
        (Gram(torch.full((3, 2), math.nan)), "finite"),
        (torch.zeros(3), "positive trace"),
        (torch.zeros(0), "at least one eigenvalue"),
        ({}, "at least one operand"),
    ],
)
def test_spectrum_refuses_what_has_no_spectrum(operand, message):
    with pytest.raises(ValueError, match=message):
        plot.spectrum(operand)


# What is drawn


def test_spectrum_draws_the_shares_and_marks_the_effective_rank():
    Z = features()
    (line,) = curves(ax := draw(plot.spectrum(Gram(Z))))
    expected = torch.linalg.eigvalsh(Z.mT @ Z).flip(0)
    np.testing.assert_allclose(line.get_ydata(), expected / expected.sum(), rtol=1e-9)
    assert line.get_xdata().tolist() == list(range(1, 8))
    rank = float(matinfo.effective_rank(Gram(Z)))
    drop, mark = ax.get_lines()[1:]
    assert drop.get_xdata()[0] == mark.get_xdata()[0] == pytest.approx(rank)
    low, high = np.floor(rank), np.ceil(rank)
    assert line.get_ydata()[int(high) - 1] <= mark.get_ydata()[0] <= line.get_ydata()[int(low) - 1]
    assert ax.get_legend().get_texts()[0].get_text() == f"effective rank {rank:.3g}"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_spectrum_leaves_out_eigenvalues_in_the_round_off():
    Z = features(40, 3)
    (line,) = curves(plot.spectrum(Gram(torch.cat([Z, Z], 1))))
    assert len(line.get_xdata()) == 3


def test_spectrum_of_rank_one_is_a_point():
    ax = draw(plot.spectrum(torch.tensor([2.0, 0.0])))
    assert ax.get_lines()[0].get_ydata().tolist() == [1.0]
    low, high = ax.get_ylim()
    assert low < 1 < high


def test_spectrum_labels_come_from_mapping_and_from_labels():
    operands = [Gram(features()), Gram(features(seed=1))]
    texts = [
        [
            text.get_text().split(":")[0]
            for text in plot.spectrum(*arguments, **options).get_legend().get_texts()
        ]
        for arguments, options in (
            ((dict(zip("ab", operands, strict=True)),), {}),
            ((operands,), {"labels": ["a", "b"]}),
        )
    ]
    assert texts == [["a", "b"]] * 2
    with pytest.raises(ValueError, match="one label for each"):
        plot.spectrum(operands, labels=["a"])
    with pytest.raises(ValueError, match="labels=None"):
        plot.spectrum({"a": operands[0]}, labels="b")


@pytest.mark.parametrize("base", [None, 2])
def test_entropy_profile_draws_the_entropies_at_every_order(base):
    K = Gram(features())
    ax = draw(plot.entropy_profile(K, alphas=ALPHAS, base=base))
    (line,) = curves(ax)
    expected = [float(matinfo.renyi_entropy(K, alpha, base=base)) for alpha in ALPHAS]
    np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-10)
    np.testing.assert_allclose(line.get_xdata()[[0, 3, -1]], [0, 0.5, 1])
    assert ax.get_ylabel() == ("entropy (nats)" if base is None else "entropy (bits)")


def test_entropy_profile_default_reaches_from_the_rank_to_the_largest_eigenvalue():
    ax = draw(plot.entropy_profile({"a": np.diag([0.5, 0.25, 0.25, 0.0])}))
    heights = curves(ax)[0].get_ydata()
    assert heights[0] == pytest.approx(math.log(3))
    assert heights[-1] == pytest.approx(math.log(2))
    assert all(low <= high + 1e-12 for high, low in pairwise(heights))
    ticks = {
        text.get_text(): place for place, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    }
    assert ticks["1"] == 0.5
    assert ticks["∞"] == 1.0


HISTORY = [
    {
        "step": 20,
        "enc/rankme": 3.0,
        "head/rankme": 2.0,
        "mutual_information": None,
        "note": "x",
        "done": True,
    },
    {"step": 0, "enc/rankme": 1.0, "mutual_information": 0.5, "note": "y", "done": False},
    {"step": 10, "enc/rankme": 2.0, "head/rankme": math.nan, "mutual_information": 0.7},
]


def test_training_curves_draws_each_quantity_against_sorted_steps_without_gaps():
    axes = plot.training_curves(HISTORY)
    assert [ax.get_ylabel() for ax in axes] == ["rankme (dimensions)", "mutual information (nats)"]
    assert [ax.get_xlabel() for ax in axes] == ["step", "step"]
    drawn = {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes[0].get_lines()
    }
    assert drawn == {"enc": ([0, 10, 20], [1, 2, 3]), "head": ([20], [2])}
    assert axes[1].get_lines()[0].get_xdata().tolist() == [0, 10]


def test_training_curves_of_columns_equals_that_of_rows():
    columns = {"epoch": [0, 1], "loss": torch.tensor([2.0, 1.0]), "a/loss": np.array([3.0, 2.0])}
    rows = [{"epoch": 0, "loss": 2.0, "a/loss": 3.0}, {"epoch": 1, "loss": 1.0, "a/loss": 2.0}]
    drawn = [
        [
            (line.get_label(), line.get_ydata().tolist())
            for line in plot.training_curves(h, step="epoch")[0].get_lines()
        ]
        for h in (columns, rows)
    ]
    assert [ydata for _, ydata in drawn[0]] == [[2, 1], [3, 2]]
    assert drawn[0][1] == drawn[1][1] == ("a", [3, 2])


def test_training_curves_by_a_column_draws_a_line_for_each_of_its_values():
    rows = [{"step": s, "layer": layer, "entropy": s + i} for s in range(3) for i, layer in enumerate("ab")]
    (ax,) = plot.training_curves(rows, by="layer", units={"entropy": "bits"})
    assert [line.get_ydata().tolist() for line in ax.get_lines()] == [[0, 1, 2], [1, 2, 3]]
    assert ax.get_ylabel() == "entropy (bits)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize(
    ("history", "options", "message"),
    [
        ([{"epoch": 1, "loss": 2.0}], {}, "column 'step'"),
        ([{"step": 1, "name": "x"}], {}, "at least one quantity"),
        ([{"step": 1, "loss": 2.0}], {"quantities": ["lost"]}, "among loss, got lost"),
        ([{"step": 1, "loss": 2.0}], {"by": "layer"}, "column 'layer'"),
        ({"step": [1, 2], "loss": [1]}, {}, "one length"),
        ([{"step": 1, "loss": 2.0, "kl": 1.0}], {"ax": Figure().subplots()}, "one axes for each of 2 panels"),
    ],
)
def test_training_curves_refuses_a_history_it_cannot_draw(history, options, message):
    with pytest.raises(ValueError, match=message):
        plot.training_curves(history, **options)


def test_layers_of_operands_and_of_numbers_and_of_rows_agree():
    operands = {f"block {i}": Gram(features(columns=i + 2)) for i in range(3)}
    numbers = {
        name: {"entropy": float(matinfo.renyi_entropy(K)), "effective_rank": float(matinfo.effective_rank(K))}
        for name, K in operands.items()
    }
    rows = [
        {"name": name, **{q: torch.tensor(v) for q, v in values.items()}} for name, values in numbers.items()
    ]
    drawn = []
    for report in (operands, numbers, rows):
        axes = plot.layers(report)
        assert [text.get_text() for text in axes[0].get_xticklabels()] == list(operands)
        drawn.append([ax.get_lines()[0].get_ydata() for ax in axes])
    np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-10)
    np.testing.assert_allclose(drawn[1], drawn[2], rtol=1e-6)  # tensors of float32
    with pytest.raises(TypeError, match="'x' to be a mapping"):
        plot.layers({"x": "y"})


def test_layers_draws_the_report_of_layerwise():
    from matinfo.layers import layerwise

    states = [features(12, 5, seed=i, dtype=torch.float32)[None] for i in range(3)]
    report = layerwise(states, pool="tokens")
    axes = plot.layers(report)
    np.testing.assert_allclose(axes[0].get_lines()[0].get_ydata(), report.entropy, rtol=1e-6)
    np.testing.assert_allclose(axes[1].get_lines()[0].get_ydata(), report.effective_rank, rtol=1e-6)


def test_layers_draws_what_the_shape_allows_for_each_model():
    from matinfo.layers import layerwise

    narrow, wide = (features(12, columns, dtype=torch.float32) for columns in (5, 20))
    long_and_short = [features(n, 8, dtype=torch.float32)[None] for n in (2, 6)]
    for reports, sizes in (
        ({"narrow": layerwise([narrow]), "wide": layerwise([wide])}, [5, 12]),
        ({"narrow": layerwise([narrow]), "again": layerwise([narrow])}, [5]),
        ({"sentences": layerwise(([Z] for Z in long_and_short), pool="tokens")}, [4]),
    ):
        entropy, rank = plot.layers(reports, ["entropy", "effective_rank"])
        for ax, expected in ((entropy, np.log(sizes)), (rank, sizes)):
            values, bounds = ax.get_lines()[: len(reports)], ax.get_lines()[len(reports) :]
            np.testing.assert_allclose([line.get_ydata()[0] for line in bounds], expected)
            assert all(line.get_linestyle() == ":" for line in bounds)
            assert max(line.get_ydata().max() for line in values) <= max(expected) * (1 + 1e-6)
        assert "largest possible" in [text.get_text() for text in entropy.get_legend().get_texts()]
        assert rank.get_legend() is None  # once is enough


@pytest.mark.parametrize(
    ("ranks", "scale"), [((1.0, 64.0), "log"), ((8.0, 64.0), "linear"), ((0.0, 64.0), "linear")]
)
def test_ranks_far_apart_have_a_logarithmic_axis_and_nothing_else_has(ranks, scale):
    rows = [{"name": str(i), "effective_rank": rank, "loss": rank} for i, rank in enumerate(ranks)]
    rank_axes, loss_axes = plot.layers(rows)
    assert (rank_axes.get_yscale(), loss_axes.get_yscale()) == (scale, "linear")


def test_information_matrix_writes_its_numbers_where_they_can_be_read():
    M = torch.tensor([[0.0, 1.0], [math.nan, 0.25]])
    ax = draw(plot.information_matrix(M, (["r1", "r2"], ["c1", "c2"]), quantity="JS", unit=""))
    texts = {tuple(text.get_position()): text for text in ax.texts}
    assert {place: text.get_text() for place, text in texts.items()} == {
        (0, 0): "0.00",
        (1, 0): "1.00",
        (1, 1): "0.25",
    }
    assert texts[0, 0].get_color() == "white"
    assert texts[1, 0].get_color() == "black"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["r1", "r2"]
    assert ax.get_figure().axes[1].get_ylabel() == "JS"


@pytest.mark.parametrize(
    ("M", "labels", "message"),
    [
        (np.ones(3), None, "matrix"),
        (np.full((2, 2), math.nan), None, "finite"),
        (np.ones((2, 3)), ["a", "b"], "names of rows"),
        (np.ones((2, 2)), ["a"], "names of rows"),
    ],
)
def test_information_matrix_refuses_what_is_not_one(M, labels, message):
    with pytest.raises(ValueError, match=message):
        plot.information_matrix(M, labels)


def test_labels_that_start_with_an_underscore_are_in_the_legend():
    operands = {"_a": Gram(features()), "b": Gram(features(seed=1))}
    history = [{"step": s, "layer": name, "loss": s} for s in range(3) for name in operands]
    (panel,) = plot.training_curves(history, by="layer")
    for ax in (plot.spectrum(operands), plot.entropy_profile(operands), panel):
        texts = [text.get_text().split(":")[0].strip() for text in draw(ax).get_legend().get_texts()]
        assert texts == ["_a", "b"]


def test_bfloat16_and_tensors_with_a_graph_are_numbers():
    loss = [torch.tensor(x, dtype=torch.bfloat16, requires_grad=True) * 2 for x in (1.0, 2.0)]
    for history in (
        {"step": [0, 1], "loss": loss},
        {"step": [0, 1], "loss": torch.stack(loss)},
        [{"step": i, "loss": value} for i, value in enumerate(loss)],
    ):
        (ax,) = plot.training_curves(history)
        assert ax.get_lines()[0].get_ydata().tolist() == [2, 4]
    ax = plot.information_matrix(torch.eye(2, dtype=torch.bfloat16).requires_grad_())
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.00", "0.00", "1.00"]


def test_spectra_over_time_draws_a_line_for_each_step_and_a_bar():
    spectra = np.arange(1, 9) ** -np.linspace(2, 1, 4)[:, None]
    ax = draw(plot.spectra_over_time([0, 5, 10, 20], spectra, label="epoch"))
    lines = ax.get_lines()
    np.testing.assert_allclose(lines[1].get_ydata(), spectra[1] / spectra[1].sum())
    bar = ax.get_figure().axes[1]
    assert bar.get_ylabel() == "epoch"
    assert bar.get_ylim() == (0, 20)
    brightness = [theme.luminance(to_rgb(line.get_color())) for line in lines]
    assert brightness == sorted(brightness)
    with pytest.raises(ValueError, match="one spectrum for each step"):
        plot.spectra_over_time([0], spectra)


@pytest.mark.parametrize("name", ["spectrum", "entropy_profile", "spectra_over_time", "information_matrix"])
def test_functions_draw_on_the_axes_given_and_make_no_figure(name):
    pyplot = importlib.import_module("matplotlib.pyplot")
    ax = Figure().subplots()
    arguments = {
        "spectrum": (torch.eye(3),),
        "entropy_profile": (torch.eye(3),),
        "spectra_over_time": ([0, 1], np.eye(2) + 1),
        "information_matrix": (np.eye(2),),
    }[name]
    assert getattr(plot, name)(*arguments, ax=ax) is ax
    assert pyplot.get_fignums() == []
    assert ax.lines or ax.images


# Who can see it


@pytest.mark.parametrize("name", ["light", "dark"])
def test_palette_has_contrast_to_its_ground(name):
    ground = theme.GROUNDS[name]
    background = to_rgb(ground.background)
    assert min(theme.contrast(to_rgb(colour), background) for colour in ground.palette) >= 3
    assert theme.contrast(to_rgb(ground.text), background) >= 4.5


# Viénot, Brettel and Mollon (1999): linear RGB as seen without the red or without the green cones.
BLINDNESS = {
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


def lab(linear):
    """CIELAB of linear sRGB, for distances between colours."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ linear / [0.9505, 1, 1.089], 1e-4, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_first_colours_differ_for_the_colour_blind(name, kind):
    seen = []
    for colour in theme.GROUNDS[name].palette[:4]:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.clip(BLINDNESS[kind] @ linear, 0, 1)))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 10  # 2.3 is just noticeable side by side


def test_lines_differ_in_marker_and_dash_too():
    ax = Figure().subplots()
    looks = [theme.line_style(ax, i) for i in range(7)]
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 7
    assert len({look["color"] for look in looks}) == 7


@pytest.mark.parametrize("name", ["light", "dark"])
def test_style_sets_ground_and_lines_and_comes_back(name):
    with plot.style(name):
        ax = plot.spectrum(torch.eye(3) + 1)
    ground = theme.GROUNDS[name]
    assert to_rgb(ax.get_facecolor()) == to_rgb(ax.get_figure().get_facecolor()) == to_rgb(ground.background)
    assert ax.get_lines()[0].get_color() in ground.palette
    with pytest.raises(ValueError, match="'light', 'dark'"), plot.style("grey"):
        pass


def test_colours_follow_the_ground_whoever_chose_it():
    with mpl.rc_context({"axes.facecolor": "black"}):
        assert theme.ground_of(Figure().subplots()) == theme.GROUNDS["dark"]
    ax = Figure(facecolor="black").subplots()
    assert theme.ground_of(ax) == theme.GROUNDS["light"]
    ax.set_facecolor("none")
    assert theme.ground_of(ax) == theme.GROUNDS["dark"]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("effective_rank", "dimensions"),
        ("RankMe", "dimensions"),
        ("joint entropy", "nats"),
        ("matrix_kl", "nats"),
        ("normalized_mutual_information", ""),
        ("loss", ""),
    ],
)
def test_unit_of_knows_the_quantities(name, unit):
    assert unit_of(name) == unit


# Without matplotlib


@pytest.mark.parametrize(
    "call",
    [
        lambda: plot.spectrum(torch.eye(2)),
        lambda: plot.entropy_profile(torch.eye(2)),
        lambda: plot.training_curves([{"step": 0, "loss": 1.0}]),
        lambda: plot.layers({"a": torch.eye(2)}),
        lambda: plot.information_matrix(np.eye(2)),
        lambda: plot.spectra_over_time([0], [torch.eye(2)]),
        lambda: plot.style("dark").__enter__(),
    ],
)
def test_functions_without_matplotlib_name_the_extra(call, monkeypatch):
    def absent(name, package=None):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return importlib.__import__(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'matinfo\[plot\]'"):
        call()


def test_spectra_over_time_leave_out_what_is_not_known():
    decay = np.arange(1, 9) ** -np.linspace(2, 0.5, 3)[:, None]
    decay[1] = np.nan
    assert len(plot.spectra_over_time([0, 10, 20], decay).get_lines()) == 2
    with pytest.raises(ValueError, match="NaN alone"):
        plot.spectra_over_time([0], [np.full(3, np.nan)])
