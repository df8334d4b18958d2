"""The statements on features: both sides, what counts as a violation, the report, and refusals."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import check_theorems
import numpy as np
import pytest
import torch
from protocol_runs import refused
from trainlib.config import MaskedRunConfig, resolve, to_dict
from trainlib.files import write_json
from trainlib.siamese.config import SiameseRunConfig
from trainlib.theorems import masked, pictures, study, two_views
from trainlib.theorems.catalogue import (
    MASKED,
    METHODS,
    OPERANDS,
    SCALES,
    common_statements,
    masked_statements,
    statements_of,
    two_view_statements,
)
from trainlib.theorems.from_loss import bounds_from_loss, informative_below, trivial
from trainlib.theorems.statement import TOLERANCE, Statement, column
from trainlib.theorems.study import instrument
from trainlib.theorems.verdict import conclusion, judge, read_run, table

import matinfo
from matinfo import bounds
from matinfo.losses import barlow_twins_loss, spectral_contrastive_loss, umae_uniformity_loss

operands = pytest.mark.parametrize("operand", OPERANDS)
LAMBDA = {"rows": 1.0, "columns": 5.1e-3, "centred": 5.1e-3}
FAILS = {"Theorem 5.2, radius", "Proposition 4.7 c at order 2"}  # the statements that nobody may rely on


def views(kind: str, n: int = 12, d: int = 5, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 projections of two views, as training gives them."""
    generator = torch.Generator().manual_seed(n + d)
    first = torch.randn(n, d, generator=generator)
    second = first + noise * torch.randn(n, d, generator=generator)
    shift = torch.ones(d)
    return {
        "near": (first, second),
        "shifted": (first + shift, second + shift),
        "independent": (first, torch.randn(n, d, generator=generator)),
        "equal": (first, first),
        "opposite": (first, -first),
        "collapsed": (shift + 1e-4 * first, shift + 1e-4 * second),
        "orthonormal": (torch.eye(n), torch.eye(n)),
        "dead feature": (first * (torch.arange(d) != 2), second * (torch.arange(d) != 2)),
    }[kind]


KINDS = ("near", "shifted", "independent", "equal", "opposite", "collapsed", "orthonormal", "dead feature")


def evaluated(kind: str, operand: str, **size) -> dict:
    pair = two_views.branches(views(kind, **size), operand, LAMBDA[operand])
    return two_views.evaluate(pair)


# --- both sides ----------------------------------------------------------------------------------------------


@operands
def test_values_are_those_of_direct_calls(operand):
    z1, z2 = (z.double() for z in views("shifted"))
    if operand == "rows":
        K, L = (matinfo.Gram(z, normalize=True).dense() for z in (z1, z2))
        loss = spectral_contrastive_loss(z1, z2, lambda_=1.0)
    else:
        center = operand == "centred"
        K, L = (matinfo.correlation(z, center=center) for z in (z1, z2))
        loss = barlow_twins_loss(z1, z2, lambda_=5.1e-3, center=center)
    found, n = evaluated("shifted", operand), len(K)
    expected = {
        "I_1": matinfo.mutual_information(K, L, 1),
        "I_2": matinfo.mutual_information(K, L, 2),
        "H_1": matinfo.joint_entropy(K, L, alpha=1),
        "H_2": matinfo.joint_entropy(K, L, alpha=2),
        "T": matinfo.matrix_tcr(K * L, 1.0),
        "T_product": matinfo.matrix_tcr(K * L, 3.0),
        "JS_most": matinfo.matrix_js(K, L),
        "JS_spectra": matinfo.spectrum_js(K, L),
        "H_1_most": max(matinfo.von_neumann_entropy(M) for M in (K, L)),
        "overlap": ((K**2).sum() + (L**2).sum()) / 2 - n,
        "H_1_gap": abs(matinfo.von_neumann_entropy(K) - matinfo.von_neumann_entropy(L)),
    }
    for key, value in expected.items():
        assert found[f"{operand}/{key}"].value == pytest.approx(float(value), abs=1e-11), key
    pair = two_views.branches((z1, z2), operand, LAMBDA[operand])
    assert two_views.facts(pair) == {
        f"{operand}/loss": pytest.approx(float(loss), rel=1e-12),
        f"{operand}/n": n,
        f"{operand}/lambda_": LAMBDA[operand],
    }


@operands
def test_printed_bounds_have_the_papers_constants(operand):
    loss, n, w, mu = 0.7, 9, 0.3, 0.5
    printed = {key: forms["printed"] for key, forms in bounds_from_loss(loss, n, operand, w, mu).items()}
    if operand == "rows":
        bracket, inner = (2 + 2 / (w * n)) * loss, (2 / w + 2 * (n - 1)) * loss
    else:
        root = 4 * math.sqrt(n * loss)
        bracket, inner = 2 * loss / (n * w) + root, 2 * loss / w + (n - 1) * root
    assert printed == pytest.approx({
        "I_1": math.log(n) - 2 * math.log(1 + bracket), "I_2": math.log(n) - 2 * math.log(1 + bracket),
        "H_1": math.log(n) - math.log(1 + bracket), "H_2": math.log(n) - math.log(1 + bracket),
        "T": n * math.log(1 + mu) - inner / (2 * mu**2), "overlap": n * bracket,
    }, rel=1e-13)  # fmt: skip


@operands
def test_sharper_bounds_are_those_of_the_package(operand):
    pair = two_views.branches(views("near"), operand, LAMBDA[operand])
    found, n = two_views.evaluate(pair), pair.n
    of_loss = (
        bounds.spectral_contrastive_overlap_bound if operand == "rows" else bounds.barlow_twins_overlap_bound
    )
    overlaps = {
        "sharp": of_loss(pair.loss, n, lambda_=LAMBDA[operand]),
        "cross": float(bounds.cross_overlap_bound(pair.a @ pair.b.mT)),
        "overlap": found[f"{operand}/overlap"].value,
    }
    for form, S in overlaps.items():
        for alpha in (1, 2):
            information = bounds.information_lower_bound(S, n, alpha=alpha)
            entropy = bounds.joint_entropy_lower_bound(S, n, alpha=alpha)
            assert found[f"{operand}/I_{alpha}"].bounds[form] == pytest.approx(information, rel=1e-12)
            assert found[f"{operand}/H_{alpha}"].bounds[form] == pytest.approx(entropy, rel=1e-12)
        rate = bounds.coding_rate_lower_bound(S, n, mu=1.0)
        assert found[f"{operand}/T"].bounds[form] == pytest.approx(rate, rel=1e-12)
    T = float(bounds.trace_distance(pair.K1, pair.K2))
    assert found[f"{operand}/JS_most"].bounds["sharp"] == bounds.js_upper_bound(T)
    assert found[f"{operand}/H_1_gap"].bounds["sharp"] == bounds.entropy_continuity_bound(T, n)


@pytest.mark.parametrize("scale", SCALES)
def test_masked_values_and_bounds_are_those_of_direct_calls(scale):
    F, mu = views("shifted")[0], 0.8
    found, (n, d) = masked.evaluate(F, scale, mu), F.shape
    m = mu if scale == "paper" else d / mu
    F = F.double()
    x = torch.linalg.eigvalsh((F / F.norm(dim=1, keepdim=True)).T @ (F / F.norm(dim=1, keepdim=True))) / m
    rest = float((x.log1p() - x + x**2 / 2).sum())
    assert found[f"{scale}/ratio"].value == pytest.approx(float(x.max()), rel=1e-12)
    assert found[f"{scale}/remainder"].value == pytest.approx(rest, rel=1e-11)
    assert found[f"{scale}/remainder"].bounds == {
        "plain": pytest.approx(float((x**3).sum()) / 3, rel=1e-11),
        "sharp": pytest.approx(float(bounds.mmae_remainder_bound(F, mu=mu, scale=scale)), rel=1e-12),
    }
    quadratic = n**2 / (2 * m**2) * float(umae_uniformity_loss(F))
    assert found[f"{scale}/share"].value == pytest.approx(rest / quadratic, rel=1e-11)
    rate = float(x.log1p().sum())
    assert found[f"{scale}/rate_most"].value == pytest.approx(rate, rel=1e-12)
    assert found[f"{scale}/expansion"].bounds["plain"] == pytest.approx(rest - rate, rel=1e-11)


def test_every_evaluation_belongs_to_a_statement_and_every_statement_has_its_forms():
    for operand in OPERANDS:
        found = evaluated("near", operand)
        assert {s.key: list(s.forms) for s in two_view_statements(operand)} == {
            key: list(e.bounds) for key, e in found.items()
        }
    features = views("near")[0]
    for scale in SCALES:
        found = masked.evaluate(features, scale, 1.0)
        assert {s.key: list(s.forms) for s in masked_statements(scale)} == {
            key: list(e.bounds) for key, e in found.items()
        }
    assert {s.key for s in common_statements()} == set(masked.evaluate_common(features))


# --- what holds ----------------------------------------------------------------------------------------------


def failures(statements: list[Statement], found: dict) -> set[str]:
    return {
        s.number
        for s in statements
        if any(s.is_violated(found[s.key].value, found[s.key].bounds[form]) for form in s.forms)
    }


@operands
@pytest.mark.parametrize("kind", KINDS)
def test_statements_about_two_views_hold_where_they_are_most_likely_to_break(kind, operand):
    for size in ({}, {"n": 4, "d": 9}, {"n": 30, "d": 30, "noise": 1e-6}):
        assert failures(two_view_statements(operand), evaluated(kind, operand, **size)) <= FAILS


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_statements_about_features_hold_at_every_size_of_mu(kind, scale):
    for mu in (1e-3, 1.0, 1e3):
        assert failures(masked_statements(scale), masked.evaluate(views(kind)[0], scale, mu)) <= FAILS
    assert failures(common_statements(), masked.evaluate_common(views(kind)[0])) == set()


def test_the_series_diverges_for_collapsed_features_in_the_code_scale_and_converges_for_spread_ones():
    collapsed = masked.evaluate(views("collapsed", n=12, d=5)[0], "code", 1.0)["code/ratio"]
    assert collapsed.value == pytest.approx(12 / 5, rel=1e-6)
    assert failures(masked_statements("code"), masked.evaluate(views("near")[0], "code", 1.0)) == set()


@pytest.mark.parametrize("operand", ["rows", "centred"])
def test_all_bounds_of_a_loss_are_attained_at_loss_zero(operand):
    eye = torch.eye(8)
    pair = (eye, eye) if operand == "rows" else (torch.linalg.qr(torch.randn(9, 9) + 1)[0],) * 2
    if operand == "centred":  # orthogonal to the constant vector: the centred columns stay orthonormal
        basis = torch.linalg.qr(torch.cat([torch.ones(9, 1), torch.randn(9, 8)], 1).double())[0][:, 1:]
        pair = (basis, basis)
    found = two_views.evaluate(two_views.branches(pair, operand, 1.0))
    for key in ("I_1", "I_2", "H_1", "H_2", "T"):
        value, floors, _ = found[f"{operand}/{key}"]
        assert value == pytest.approx(8 * math.log(2) if key == "T" else math.log(8), abs=1e-9)
        assert list(floors.values()) == pytest.approx([value] * 4, abs=1e-6), key


def test_the_tolerance_is_above_the_rounding_of_eigenvalues_at_the_largest_order_in_use():
    n = 512
    rounding = n * np.finfo(np.float64).eps  # of the normalised eigenvalues, in sum
    for alpha in (1, 2, math.inf):
        assert bounds.entropy_continuity_bound(rounding, n, alpha=alpha) < TOLERANCE


@pytest.mark.parametrize(
    ("side", "value", "bound", "bad"),
    [
        ("at least", 1.0, 1.0 + 1e-6, True),
        ("at least", 1.0, 1.0 + 1e-10, False),
        ("at most", 1.0, 1.0 - 1e-6, True),
        ("at most", 1.0, 2.0, False),
        ("equal", 1.0, 1.0 + 1e-6, True),
        ("equal", 1.0, 1.0 - 1e-6, True),
        ("equal", 1e6, 1e6 + 1e-4, False),
        ("at least", math.nan, 0.0, True),
    ],
)
def test_a_violation_is_a_slack_below_rounding_on_the_right_side(side, value, bound, bad):
    assert Statement("x", "1", "x", side).is_violated(value, bound) is bad


@operands
def test_informative_below_is_the_loss_at_which_a_bound_starts_to_say_something(operand):
    n, w, mu = 16, LAMBDA[operand], 1.0
    known = trivial(n, mu)
    for key, forms in informative_below(n, operand, w, mu).items():
        sign = -1 if key == "overlap" else 1
        for form, loss in forms.items():
            below, above = (bounds_from_loss(x * loss, n, operand, w, mu)[key][form] for x in (0.99, 1.01))
            assert sign * (below - known[key]) > 0 >= sign * (above - known[key]) - 1e-9, (key, form)


# --- logs, verdicts, refusals --------------------------------------------------------------------------------


@pytest.fixture
def no_pictures(monkeypatch):
    """Reports without their pictures, which take seconds."""
    monkeypatch.setattr(study, "draw", lambda runs, out: [])


@functools.cache
def _line(method: str, noise: float) -> dict:
    config = SimpleNamespace(method=SimpleNamespace(method=method, mu=1.0, lambda_=0.1))
    pair = views("shifted", n=16, d=8, noise=noise)
    return instrument(config, SimpleNamespace(features=pair[0], views=pair))


def record(method: str, noise: float, step: int) -> dict:
    """A line of the training log."""
    return {"kind": "train", "step": step, "epoch": 0.5, "loss": 1.0, **_line(method, noise)}


def write_config(folder, method: str):
    config = MaskedRunConfig() if method in MASKED else SiameseRunConfig()
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", to_dict(resolve(config.with_method(method))))


def write_run(folder, method: str, change=lambda records: None):
    """A run folder whose log holds three steps, changed by ``change``."""
    write_config(folder, method)
    records = [record(method, noise, step) for noise, step in ((1.0, 5), (0.3, 10), (0.1, 15))]
    change(records)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_log_of_every_method_holds_finite_numbers_for_its_statements(method):
    line = record(method, 0.3, 5)
    assert all(math.isfinite(value) for value in line.values() if not isinstance(value, str))
    assert {name for s in statements_of(method) for name in s.columns} <= line.keys()


def test_verdicts_name_the_smallest_slack_its_step_and_how_tight_the_sharper_forms_are(tmp_path):
    run = read_run(write_run(tmp_path / "run", "spectral"))
    verdict = next(v for v in judge([run]) if v["key"] == "rows/I_2")
    values = np.array(run.numbers("rows/I_2"))
    printed, sharp = (np.array(run.numbers("rows/I_2", form)) for form in ("printed", "sharp"))
    worst = int(np.argmin(values - printed))
    form = verdict["forms"]["printed"]
    assert form["smallest_slack"] == values[worst] - printed[worst]
    assert form["step"] == [5, 10, 15][worst]
    assert form["violated_at"] == []
    ratio = np.median((values - sharp) / (values - printed))
    assert verdict["forms"]["sharp"]["median_gap_ratio"] == pytest.approx(ratio)
    assert 0 < ratio < 1
    assert verdict["forms"]["overlap"]["informative_share"] == np.mean(
        np.array(run.numbers("rows/I_2", "overlap")) > 1e-9
    )
    assert verdict["smallest_loss"] == min(run.numbers("rows/loss"))
    assert verdict["informative_below"]["sharp"] > verdict["informative_below"]["printed"] > 0
    assert "Theorem 4.3.1 " in table(judge([run]))


@pytest.mark.usefixtures("no_pictures")
def test_runs_that_hold_give_exit_code_0_a_table_and_a_summary(tmp_path, capsys):
    folders = [write_run(tmp_path / method, method) for method in ("barlow_twins", "umae")]
    out = tmp_path / "report"
    assert check_theorems.main([*map(str, folders), "--out", str(out)]) == 0
    output = capsys.readouterr().out
    rows = [line for line in output.splitlines() if line.startswith("| ")]
    assert (out / "table.md").read_text() in output
    assert any(line.startswith("| Theorem 4.3.2 ") for line in rows)
    assert not any("YES" in line for line in rows)
    result = json.loads((out / "theorems.json").read_text())
    assert [r["method"] for r in result["runs"]] == ["barlow_twins", "umae"]
    assert result["violated"] == []
    forms = sum(len(s.forms) for method in ("barlow_twins", "umae") for s in statements_of(method))
    assert result["comparisons"] == 3 * forms
    assert f"{3 * forms:,} comparisons in float64" in output
    assert "claimed to hold: none." in output


def test_a_picture_is_drawn_for_each_group_that_a_run_has_statements_of(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "GROUPS", {name: pictures.GROUPS[name] for name in ("overlap", "radius")})
    assert pictures.draw([read_run(write_run(tmp_path / "run", "spectral"))], tmp_path) == [
        tmp_path / "overlap.png"
    ]
    assert (tmp_path / "overlap.png").read_bytes()[1:4] == b"PNG"


def test_every_statement_of_a_picture_exists():
    known = {statement.key for method in METHODS for statement in statements_of(method)}
    shown = {
        key.replace("*", "rows") for panels in pictures.GROUPS.values() for p in panels for key in p.keys
    }
    assert shown <= known


@pytest.mark.usefixtures("no_pictures")
def test_a_wrong_bound_is_reported_and_gives_exit_code_1(tmp_path, capsys):
    def mutate(records):  # a bound of log n without the loss: above any information that was measured
        records[1][column("columns/I_2", "sharp")] = math.log(8)

    folder = write_run(tmp_path / "run", "barlow_twins", mutate)
    assert check_theorems.main([str(folder)]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("check_theorems.py: error: violated: Theorem 4.3.2, I_2 >= log n - f(L), in ")
    assert "claimed to hold: 1." in captured.out
    assert sum("YES, 1 of 6" in row for row in captured.out.splitlines()) == 1
    (violated,) = json.loads((tmp_path / "theorems.json").read_text())["violated"]
    assert "Theorem 4.3.2" in violated


@pytest.mark.parametrize("statement", statements_of("spectral") + statements_of("mmae"), ids=lambda s: s.key)
def test_a_violation_of_any_statement_is_noticed_and_is_of_that_statement(statement, tmp_path):
    def spoil(records):
        last = next(reversed(statement.forms))
        value = records[2][column(statement.key)]
        records[2][column(statement.key, last)] = value + (1.0 if statement.side == "at least" else -1.0)

    method = "spectral" if statement.key.startswith("rows") else "mmae"
    verdicts = judge([read_run(write_run(tmp_path / "run", method, spoil))])
    bad = {v["key"] for v in verdicts if 15 in next(reversed(v["forms"].values()))["violated_at"]}
    assert statement.key in bad
    assert {key for key in bad if key != statement.key} <= {"code/ratio", "paper/ratio"}


@pytest.mark.usefixtures("no_pictures")
def test_what_nobody_promised_may_fail_without_an_exit_code(tmp_path, capsys):
    def mutate(records):
        for line in records:
            line[column("paper/ratio")] = 7.0

    assert check_theorems.main([str(write_run(tmp_path / "run", "mae", mutate))]) == 0
    assert "not promised; 3 of 3" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "theorems.json").read_text())["failed_as_feared"]) >= 1


def without(name):
    return lambda records: records[2].pop(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "there is no folder"),
        (lambda p: p, "is neither a run nor a comparison"),
        (lambda p: write_run(p / "run", "mae", list.clear), "holds no line of training"),
        (lambda p: write_run(p / "run", "mae", without("theory/code/share")), "lacks theory/code/share and 0 more of"),
        (lambda p: write_run(p / "run", "spectral", without("theory/rows/loss")), "lacks theory/rows/loss"),
    ],
    ids=["no folder", "no run", "no line", "no number", "no loss"],
)  # fmt: skip
def test_folders_without_the_numbers_are_refused_in_one_line(make, message, tmp_path):
    error = refused(check_theorems.main, make(tmp_path), "--out", tmp_path / "report")
    assert message in error
    assert not (tmp_path / "report").exists()


def test_options_reach_the_methods_that_have_them():
    given = ["--lambda", "0.5", "--projector-width", "32", "--seed", "3"]
    configs = study.configurations(check_theorems.build_parser().parse_args(given), list(METHODS))
    assert list(configs) == [config.method.method for config in configs.values()] == list(METHODS)
    assert {config.run.seed for config in configs.values()} == {3}
    assert {configs[m].method.lambda_ for m in ("barlow_twins", "spectral")} == {0.5}
    assert {configs[m].model.projector_width for m in ("barlow_twins", "spectral")} == {32}
    assert {configs[m].method.lambda_ for m in ("umae", "mmae")} == {0.01}
    assert {configs[m].optim.epochs for m in ("mae", "umae", "mmae")} == {60}
    short = check_theorems.build_parser().parse_args(["--epochs", "2"])
    assert {c.optim.epochs for c in study.configurations(short, list(METHODS)).values()} == {2}


def test_a_run_of_another_method_and_a_folder_given_twice_are_refused(tmp_path):
    folder = write_run(tmp_path / "run", "mae")
    assert "named twice" in refused(check_theorems.main, folder, folder)
    write_config(folder, "byol")
    assert "is a run of byol, of which no statement speaks" in refused(check_theorems.main, folder)
    (folder / "config.json").write_text("[]")
    assert "is not the configuration of a pre-training run" in refused(check_theorems.main, folder)
    options = ["--methods", "mae", "--out", folder]
    assert refused(check_theorems.main, *options).endswith("already exists; choose another --out\n")


def test_the_page_shows_the_table_of_the_recorded_results():
    root = Path(__file__).parents[2]
    recorded = json.loads((root / "reference_training" / "results" / "theorems-digits.json").read_text())
    page = (root / "docs" / "theory" / "on-real-training.md").read_text(encoding="utf-8")
    assert table(recorded["statements"]) in page
    assert conclusion(recorded["statements"]) in page
    assert recorded["violated"] == []
    known = {statement.key for method in METHODS for statement in statements_of(method)}
    assert {record["key"] for record in recorded["statements"]} == known


@pytest.mark.slow
def test_training_with_every_statement_evaluated_ends_with_a_report(tmp_path, capsys):
    out = tmp_path / "out"
    options = [
        "--epochs",
        "1",
        "--batch",
        "64",
        "--projector-width",
        "16",
        "--log-every",
        "7",
        "--threads",
        "1",
    ]
    assert check_theorems.main([*options, "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir() if p.is_dir()} == set(METHODS)
    result = json.loads((out / "theorems.json").read_text())
    assert {r["method"] for r in result["runs"]} == set(METHODS)
    assert all(r["lines"] == math.ceil(22 / 7) for r in result["runs"])  # 1437 // 64 steps, the last one too
    assert {p.stem for p in out.glob("*.png")} == set(pictures.GROUPS)
    first = (out / "table.md").read_text()
    capsys.readouterr()
    again = [str(out / method) for method in METHODS]
    assert check_theorems.main([*again, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "table.md").read_text() == first
    loss = next(v for v in result["statements"] if v["key"] == "centred/I_2")["smallest_loss"]
    logged = [json.loads(line) for line in (out / "barlow_twins" / "metrics.jsonl").read_text().splitlines()]
    trained = min(line["loss"] for line in logged if line["kind"] == "train")
    assert loss == pytest.approx(10 * trained, rel=1e-4)  # the loss that trains is a tenth of the centred one
