"""Figures on the pages are those of the committed benchmark results, to the digits that are printed."""

import json
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def times(case, peer):
    """How many times the processor time of a contender is that of ours."""
    (found,) = [one for one in result("cpu")["cases"] if one["title"].startswith(case)]
    return found["contenders"][peer]["cpu"] / found["contenders"]["matinfo"]["cpu"]


def failures(contender):
    """Exceptions and values that are NaN or infinity, of an entropy of order 1 in float32; of how many inputs."""
    (row,) = [
        row
        for row in result("cpu")["failures"]["rows"]
        if (row["dtype"], row["quantity"], row["contender"]) == ("float32", "H_1", contender)
    ]
    return row["exceptions"] + row["non-finite"], row["problems"]


def readme():
    plain, problems = failures("torch eigvalsh")
    yield f"On {problems} hard inputs"
    yield f"`torch.linalg.eigvalsh` fails {plain} times"
    yield f"package {failures('repitl')[0]} times"
    joint = times("joint entropy of features, forward + backward, n = 4096", "torch Gram + eigvalsh")
    yield f"joint entropy of 4,096 samples **{joint:.0f}×**"
    yield f"H₁ **{times('H_1 of features, forward + backward, n = 4096', 'torch Gram + eigvalsh'):.0f}×**"
    yield f"**{100 * result('monitor_cost')['cost']:.2f} %** of a training step"
    yield f"**{result('layerwise')['ratio']['cpu']:.0f}×** faster than the published recipe"


def layers():
    found = result("layerwise")
    seconds = {name: one["cpu"] for name, one in found["seconds"].items()}
    yield f'`pool="tokens"` takes {seconds["layerwise, tokens"]:.2f} s of processor time'
    yield f"{seconds['published recipe']:.0f} s: {found['ratio']['cpu']:.0f} times less"
    yield f"{found['ratio_with_forward']['cpu']:.0f} times less with the forward pass"
    yield f"the forward pass, {seconds['forward pass, padded batch']:.1f} s"
    yield f"layers make it {seconds['layerwise, tokens, pairs']:.2f} s"


def large_n():
    found = result("reach")
    block = {(row["matrix"], row["alpha"]): row for row in found["block"]["rows"]}
    row = block["RBF, 3 dimensions, Scott's bandwidth", 1.0]
    yield f"| | 1 | {row['single']} | {row['block']} |"
    kernel = found["rbf-16k"]
    yield f"| {kernel['eigvalsh_seconds_extrapolated']:.0f} s |"
    for one, ratio in zip(kernel["estimates"], kernel["ratios_to_extrapolation"], strict=True):
        memory, bar = one["peak_mebibytes"], 100 * one["relative_error_bar"]
        yield f"| {one['seconds']:.2g} s ({ratio:.0f} times less) | {memory:.0f} MiB | {bar:.1f} % |"
    yield f"after {found['rbf-100k']['estimate']['seconds']:.0f} seconds"
    vendi = found["vendi"]
    yield f"`vendi_score(Gram(Z))` {vendi['matinfo']['seconds']:.2f} s"
    yield f"`score_X` {vendi['score_X']['seconds']:.0f} s ({vendi['ratios']['score_X']:.0f} times more"
    yield f"`score_dual` {vendi['score_dual']['seconds']:.2f} s"
    for section, order in product(("cmi-20k", "mi-100k"), ("order 1", "order 2")):
        one = found[section][order]
        cells = f"{one['alpha']:g} | {one['value']:.5f} ± {one['error_bar']:.5f}"
        yield f"| {one['n']:,}, {one['d']} | {cells} | {one['seconds']:.3g} s | {one['peak_mebibytes']:.0f} MiB |"
    minutes = found["mi-100k"]["order 1"]["seconds"] * 100 / 60
    yield f"order 1 of 100,000 samples would take some {minutes:.0f} minutes of one core, extrapolated"


def independence():
    seconds = {
        name: one["seconds_of_1000"]
        for name, one in result("reach")["independence"].items()
        if name[0] in "oh"
    }
    yield f"no eigenvalues | {seconds['order 2']:.0f} s |"
    yield f"linear in both kernels | {seconds['hsic']:.0f} s |"
    yield f"{seconds['order 1'] / 60:.0f} minutes at full rank (8 dimensions)"
    yield f"{seconds['order 1, one dimension']:.0f} s in one dimension, extrapolated"


def streams():
    found = result("reach_streams")
    for one in found["settings"].values():
        shares = f"{100 * one['share_of_own_product_rate']:.0f} % | {100 * one['share_of_float32_product_rate']:.0f} %"
        yield f"| {one['cpu_seconds']:.1f} s | {one['gflops']:.0f} | {shares} |"
    yield f"{found['largest_error_of_float32_over_largest_diagonal']:.1e} of the largest diagonal entry"


def features():
    columns = ("nystrom random", "nystrom uniform", "random features", "orthogonal features")
    for row in result("traces")["feature_maps"]:
        for order in (1, 2):
            errors = [100 * row[f"{column}, H_{order}"] for column in columns]
            cells = [f"{error:.2g} %" for error in errors if error > 0.005]  # smaller ones are powers of ten
            yield f"| {order} | {row['d']} | {row['features']} |", cells


def which_number():
    case = "the decomposition and one entropy"
    yield f"all 18 take {1 / times('all 18 measures', case):.2f} of the time of {case}"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("README.md", readme),
        ("docs/how-to/compare-layers.md", layers),
        ("docs/how-to/independence.md", independence),
        ("docs/how-to/large-n.md", large_n),
        ("docs/how-to/streaming.md", streams),
        ("docs/how-to/traces.md", features),
        ("docs/how-to/which-number.md", which_number),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_page_has_the_committed_figures(page, expected):
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = text.splitlines()
    for figure in expected():
        if isinstance(figure, str):
            assert figure in " ".join(lines), figure
        else:  # the row of a table that begins so, and its cells
            start, cells = figure
            (line,) = [line for line in lines if line.startswith(start)]
            assert [cell for cell in cells if f"| {cell} |" not in line] == []


def test_benchmarks_page_has_the_committed_ratio_of_the_case_that_misses_its_target():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (case,) = [
        c for c in result("cpu")["cases"] if c["title"].startswith("H_1 of features, forward + backward")
    ]
    (target,) = case["targets"]
    assert f"*H_1 of features, {target['cpu']:.0f}x of {target['ratio']:.0f}x.*" in page
