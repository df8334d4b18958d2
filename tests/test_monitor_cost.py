"""The cost of the monitor: the committed result, the page that quotes it, and the benchmark itself."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "monitor_cost.json"
PAGE = ROOT / "docs" / "how-to" / "monitor-collapse.md"


def test_committed_cost_is_under_the_target_and_adds_up():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    seconds, every = result["seconds"], result["settings"]["every"]
    assert (every, result["target"]) == (50, 0.01)
    assert result["cost"] < result["target"]
    expected = (seconds["own"] + (every - 1) * seconds["branches_of_a_step"]) / every / seconds["plain"]
    assert result["cost"] == pytest.approx(expected, rel=0.2)  # a median of ratios, and a ratio of medians
    assert result["command"].startswith("python -m benchmarks.monitor_cost ")
    assert {"processor", "threads", "versions", "clock", "load"} <= set(result["environment"])


def test_page_quotes_the_committed_cost():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    (cost,) = re.findall(r"At k = 50, (\S+) % of a training step", text)
    (share,) = re.findall(r"An observed step costs (\S+) % of a step", text)
    assert cost == f"{100 * result['cost']:.3f}"
    assert share == f"{100 * result['own_share_of_an_observed_step']:.1f}"
    assert f"the hooks on the 49 others {1e6 * result['seconds']['branches_of_a_step']:.0f} µs" in text
    settings = result["settings"]
    assert f"batch {settings['batch']} of {settings['image']} × {settings['image']}" in text
    assert f"median of {settings['rounds']} rounds" in text


@pytest.mark.slow
def test_benchmark_runs_and_renders():
    pytest.importorskip("torchvision")
    from benchmarks import monitor_cost

    result = monitor_cost.measure(rounds=2, batch=2, size=32, threads=1, clock="cpu")
    assert 0 < result["cost"] < 1
    assert result["seconds"]["own"] > 0
    assert f"{result['cost']:.3%}" in monitor_cost.render(result)
    json.dumps(result)
