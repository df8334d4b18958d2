"""The same rows, the same number: every tool that prepares rows prepares them alike, and says how."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

import matinfo
from matinfo import Gram, metrics, spectrum
from matinfo.cli import main
from matinfo.layers import layerwise
from matinfo.measures import MEASURES, measure
from matinfo.monitor import Monitor
from matinfo.streaming import CovarianceAccumulator, accumulate

Z = torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Z = 3 * Z * torch.linspace(1, 0.2, 8, dtype=torch.float64) + 1  # of unequal lengths, with a mean
BATCHES = list(Z.split(13))
NAMES = ("effective_rank", "rankme", "tcr", "coding_rate", "vendi_score")
PREPARED = {
    "defaults": {},
    "as they are": {"normalize": False},
    "centred": {"center": True},
    "centred, as they are": {"normalize": False, "center": True},
}


def by_hand(normalize=True, center=False):
    X = Z / Z.norm(dim=1, keepdim=True) if normalize else Z
    X = X - X.mean(0) if center else X
    K = Gram(X)
    functions = (
        matinfo.effective_rank(K),
        matinfo.rankme(X),
        matinfo.tcr(X),
        matinfo.coding_rate(X),
        matinfo.vendi_score(K),
    )
    return dict(zip(NAMES, map(float, functions), strict=True))


def of_spectrum(options):
    S = spectrum(Z, **{"normalize": True, "center": False} | options)
    return {name: getattr(matinfo, name)(S) for name in NAMES}


def of_measure(options):
    return measure(Z, NAMES, **{"normalize": True} | options)


def of_layerwise(options):
    return layerwise([Z], quantities=NAMES, **options).columns()


def of_a_stream_of_layers(options):
    return layerwise(([batch] for batch in BATCHES), quantities=NAMES, **options).columns()


def of_the_monitor(options):
    model = nn.Identity()
    with Monitor(model, "", every=1, quantities=NAMES, **options) as monitor:
        model(Z)
        return monitor.step()[0]


def of_an_accumulator(options):
    S = spectrum(accumulate(BATCHES, CovarianceAccumulator(8, **options)).gram())
    return {name: getattr(matinfo, name)(S) for name in NAMES}


def of_metrics(options):
    kinds = {
        "effective_rank": metrics.EffectiveRank,
        "rankme": metrics.RankMe,
        "tcr": metrics.TotalCodingRate,
    }
    if not options.get("center"):
        kinds["vendi_score"] = metrics.VendiScore
    found = {name: kind(8, **options) for name, kind in kinds.items()}
    for batch in BATCHES:
        for metric in found.values():
            metric.update(batch)
    return {name: metric.compute() for name, metric in found.items()}


TOOLS = (
    of_spectrum,
    of_measure,
    of_layerwise,
    of_a_stream_of_layers,
    of_the_monitor,
    of_an_accumulator,
    of_metrics,
)


@pytest.mark.parametrize("prepared", PREPARED.values(), ids=[*PREPARED])
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__.removeprefix("of_"))
def test_the_same_rows_have_the_same_number_in_every_tool(tool, prepared):
    found, expected = tool(prepared), by_hand(**prepared)
    compared = [name for name in NAMES if name in found]
    assert len(compared) >= 3
    for name in compared:
        assert float(found[name]) == pytest.approx(expected[name], rel=1e-9), name


@pytest.mark.parametrize("center", [False, True])
def test_every_named_measure_is_one_number_in_every_tool(tmp_path, center):
    names = list(MEASURES)
    expected = measure(Z, names, normalize=True, center=center)
    layers = layerwise([Z], quantities=names, center=center).quantities
    model = nn.Identity()
    with Monitor(model, "", every=1, quantities=names, center=center) as monitor:
        model(Z)
        (record,) = monitor.step()
    np.save(tmp_path / "Z.npy", Z.numpy())
    command = ["report", str(tmp_path / "Z.npy"), "--measures", ",".join(names), "--alpha", "1"]
    assert main([*command, *["--center"] * center, "--json", str(tmp_path / "report.json")]) == 0
    (array,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["arrays"]
    report = {quantity["name"]: quantity["value"] for quantity in array["quantities"]}
    for name in names:
        found = [layers[name][0], record[name], report[name]]
        if MEASURES[name].of == "spectrum":
            metric = metrics.SpectralMeasure(8, name, center=center)
            for batch in BATCHES:
                metric.update(batch)
            found.append(metric.compute())
        assert [float(value) for value in found] == pytest.approx(
            [float(expected[name])] * len(found), rel=1e-8
        ), name


@pytest.mark.parametrize("prepared", PREPARED.values(), ids=[*PREPARED])
def test_every_report_says_which_matrix(prepared):
    options = {"normalize": True, "center": False} | prepared
    phrase = "rows of Z divided by their length" if options["normalize"] else "rows of Z as they are"
    phrase += ", less their mean" if options["center"] else ", not centred"
    report = layerwise([Z], **prepared)
    assert phrase in repr(report)
    assert phrase in report.table()
    assert phrase in repr(Monitor(nn.Identity(), "", **prepared))
    assert phrase in repr(CovarianceAccumulator(8, **prepared))
    assert phrase in repr(MetricCollection([metrics.EffectiveRank(8, **prepared)]))
    pair = metrics.MatrixJensenShannon(8, 8, normalize=options["normalize"])
    assert phrase.replace("less their mean", "not centred") in repr(pair)
