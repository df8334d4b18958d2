"""The figures and tables of the paper: what is planned, what is drawn, and what is done again."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import statistics
from argparse import Namespace
from pathlib import Path

import plot_figures
import pretrain_mmae
import pytest
import run_paper
import torch
from protocol_runs import changed, refused, run_program, states
from training_options import TINY
from trainlib import checkpoint, deadline, paper
from trainlib.cli import read_config
from trainlib.config import MaskedRunConfig, resolve, to_dict
from trainlib.files import write_json
from trainlib.paper_commands import RESULTS, Chosen, commands
from trainlib.programs import COMPARED, CONFIGS, parser
from trainlib.run import create_run_dir, read_run_config
from trainlib.siamese.config import SiameseRunConfig

SIAMESE_KEYS = ("mutual_information", "joint_entropy", "matrix_js", "spectrum_js", "knn_accuracy")


def planned(what: str, scale: str, **changes) -> dict:
    """The pre-training configurations of a figure or table by title, of one seed."""
    data = paper.data_of(what, scale)
    chosen = Chosen(Path("out"), data, None if scale == "digits" else "DATA", 1, **changes)
    return {c.title: c.config for c in commands(paper.plan(what, scale), chosen) if c.pretrains}


# What is planned


@pytest.mark.parametrize("scale", paper.SCALES)
def test_dry_run_prints_commands_that_the_programs_accept(scale):
    code, stdout, stderr = run_program(run_paper.main, "all", "--scale", scale, "--dry-run")
    assert code == 0, stderr
    lines = [line for line in stdout.splitlines() if line and not line.startswith("#")]
    places = []
    for line in lines:
        interpreter, script, *options = shlex.split(line)
        assert interpreter == "python"
        program = Path(script).name
        given = parser(program).parse_args(options)
        if program in (paper.MASKED, paper.SIAMESE):
            places.append(given.out)
        else:
            assert given.runs == [places[-1]]  # what it evaluates has just been trained
    whats = len(paper.WHATS) - (len(paper.NOT_ON_IMAGENET) if scale == "imagenet" else 0)
    assert stdout.count(" commands, 0 of them finished; about ") == whats + 1
    assert stderr.count("skipped: ") == len(paper.WHATS) - whats
    assert not Path(places[0]).exists()


@pytest.mark.parametrize("scale", paper.SCALES)
def test_runs_of_equal_folders_are_equal(scale):
    found: dict[Path, object] = {}
    count = 0
    for what in paper.WHATS:
        if scale == "imagenet" and what in paper.NOT_ON_IMAGENET:
            continue
        chosen = Chosen(Path("out"), paper.data_of(what, scale), "DATA", 2)
        for command in commands(paper.plan(what, scale), chosen):
            if command.pretrains:
                count += 1
                assert found.setdefault(command.folder, command.config) == command.config
    assert len(found) < count  # some are shared


def test_full_scales_are_the_papers_recipes():
    config = planned("figure4", "cifar-full")["M-MAE"]
    assert (config.data.data, config.data.image_size, config.data.flip) == ("cifar100", 32, True)
    assert (config.model.model, config.model.patch, config.run.precision) == ("vit_base", 4, "bf16")
    assert (config.optim.epochs, config.optim.warmup_epochs, config.optim.batch) == (1000, 100, 1024)
    assert (config.optim.lr, config.method.lambda_, config.method.mu) == (1.5e-4, 0.01, 1)
    table = planned("table1", "imagenet")
    assert len(table) == 6
    assert (table["M-MAE"].method.mu, table["M-MAE, ViT-L"].method.mu) == (1, 3)
    assert (table["MAE, ViT-L"].model.model, table["MAE"].model.model) == ("vit_large", "vit_base")
    assert {c.optim.warmup_epochs for c in table.values()} == {40}
    sweep = planned("figure3", "cifar-full").values()
    assert [c.method.temperature for c in sweep] == [0.3, 0.5, 0.7]
    assert {(c.model.backbone, c.optim.optimizer, c.optim.lr, c.optim.warmup_epochs) for c in sweep} == {
        ("resnet18", "lars", 0.4, 10)
    }
    assert {c.model.projector_width for c in planned("figure1", "cifar-full").values()} == {256}
    dino = planned("er", "cifar-full")
    assert [dino[f"DINO{end}"].method.ema for end in ("", "+ER", ", EMA 0.8")] == [0.9995, 0.9995, 0.8]


def test_table2_has_the_published_values_of_mu_in_both_scales():
    found = [(c.method.tcr_scale, c.method.mu) for c in planned("table2", "digits").values()]
    assert found == [(scale, mu) for scale in ("code", "paper") for mu in (0.1, 0.5, 0.75, 1, 1.25, 1.5, 3)]


def test_defects_differ_from_mmae_in_what_they_are_named_after():
    found = planned("defects", "digits")
    right = found["M-MAE"].method
    changes = {
        title: {
            f.name: getattr(config.method, f.name)
            for f in dataclasses.fields(right)
            if getattr(config.method, f.name) != getattr(right, f.name)
        }
        for title, config in found.items()
    }
    assert changes == {
        "MAE": {"method": "mae"},
        "M-MAE": {},
        "M-MAE, gradient divided by 8": {"lambda_": 0.01 / 8},
        "M-MAE, norm applied twice": {"double_norm": True},
        "M-MAE as released on 8 GPUs": {"lambda_": 0.01 / 8, "double_norm": True},
        "M-MAE, coding rate as printed": {"tcr_scale": "paper"},
    }


def test_er_variants_have_the_batch_and_ema_of_their_originals():
    found = planned("er", "digits")
    assert len(found) == 16
    for title, config in found.items():
        if "+ER" in title:
            original = found[title.replace("+ER", "")]
            assert config.optim.batch == original.optim.batch
            assert config.method.ema == original.method.ema
            assert config.method.method == original.method.method + "_er"
    assert found["BYOL+ER, EMA 0.8"].method.ema == 0.8
    assert found["DINO, batch 32"].optim.batch == 32


def test_mimae_is_held_against_four_masks_and_four_times_the_epochs():
    found = planned("mimae", "digits")
    epochs = found["MI-MAE style"].optim.epochs
    assert [(c.method.method, c.optim.epochs) for c in found.values()] == [
        ("mae", epochs), ("mae", 4 * epochs), ("mae4", epochs), ("mimae", epochs)
    ]  # fmt: skip


# What is drawn


def make_log(
    folder: Path, config, values: dict[int, float], keys: tuple[str, ...] = SIAMESE_KEYS, *, finish: bool = False
) -> Path:  # fmt: skip
    """A run with measurements: each quantity is ``values[epoch]``, that of the backbone or the pooled feature half."""
    create_run_dir(folder, config)
    features = ("projector", "backbone") if isinstance(config, SiameseRunConfig) else ("cls", "pooled")
    records = [
        {"kind": "eval", "step": epoch, "epoch": epoch}
        | {f"{f}_{key}": value / (1 + i) for i, f in enumerate(features) for key in keys}
        for epoch, value in values.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if finish:
        write_json(folder / "summary.json", {})
    return folder


def siamese(seed: int = 0, method: str = "simclr", **options):
    return resolve(changed(SiameseRunConfig().with_seed(seed), method=method, **options))


def masked(seed: int = 0, method: str = "mmae"):
    return resolve(changed(MaskedRunConfig().with_seed(seed), method=method))


def panels_of(folder: Path, number: int) -> dict[tuple[str, str], dict]:
    content = json.loads((folder / f"figure{number}.json").read_text())
    assert (folder / f"figure{number}.png").read_bytes().startswith(b"\x89PNG")
    return {(panel["feature"], panel["quantity"]): panel for panel in content["panels"]}


def test_figures_hold_mean_and_spread_over_seeds_and_the_bound(tmp_path):
    make_log(tmp_path / "a", siamese(0), {0: 1.0, 5: 2.0, 10: 3.0})
    make_log(tmp_path / "b", siamese(1), {0: 2.0, 5: 5.0})  # stopped early
    make_log(tmp_path / "c", siamese(0, "byol"), {0: 0.5, 5: 0.25})
    folders = [tmp_path / name for name in "abc"]
    code, stdout, stderr = run_program(plot_figures.main, *folders, "--out", tmp_path / "out")
    assert code == 0, stderr
    assert stdout.split() == [str(tmp_path / "out" / f"figure{n}.png") for n in (1, 2, 5)]
    assert (
        "skipped: figure 3 needs runs of pretrain_siamese.py --method simclr with at least two values"
        in stderr
    )
    assert "skipped: figure 4 needs runs of pretrain_mmae.py (MAE, U-MAE, M-MAE)\n" in stderr
    panel = panels_of(tmp_path / "out", 1)["projector", "mutual_information"]
    assert panel["curves"] == [
        {
            "label": "SimCLR", "seeds": [0, 1], "epochs": [0, 5], "mean": [1.5, 3.5],
            "sd": [statistics.stdev([1, 2]), statistics.stdev([2, 5])], "values": [[1.0, 2.0], [2.0, 5.0]],
            "untrained_default_norms": None,
        },
        {
            "label": "BYOL", "seeds": [0], "epochs": [0, 5], "mean": [0.5, 0.25], "sd": None, "values": [[0.5, 0.25]],
            "untrained_default_norms": None,
        },
    ]  # fmt: skip
    assert panel["limits"] == [{"n": 64, "log_n": pytest.approx(math.log(64))}]
    backbone = panels_of(tmp_path / "out", 2)["backbone", "joint_entropy"]
    assert backbone["curves"][1]["mean"] == [0.25, 0.125]
    assert backbone["limits"][0]["n"] == 128
    divergences = panels_of(tmp_path / "out", 5)
    assert {key for _, key in divergences} == {"matrix_js", "spectrum_js"}
    assert not any(panel["limits"] for panel in divergences.values())


def test_figure3_is_of_simclr_at_several_temperatures(tmp_path):
    for temperature in (0.3, 0.5):
        config = siamese(temperature=temperature)
        make_log(tmp_path / str(temperature), config, {0: 1.0, 5: 10 * temperature})
    make_log(tmp_path / "byol", siamese(method="byol"), {0: 1.0})
    write_json(tmp_path / "study.json", {"runs": ["0.3", "0.5", "byol", "not-begun"]})
    options = [tmp_path, "--out", tmp_path / "out", "--figure", 3]
    code, stdout, stderr = run_program(plot_figures.main, *options)
    assert (code, stderr, len(stdout.split())) == (0, "", 1)
    panel = panels_of(tmp_path / "out", 3)["projector", "knn_accuracy"]
    assert {c["label"]: c["mean"][-1] for c in panel["curves"]} == {
        "SimCLR temperature 0.3": 3.0,
        "SimCLR": 5.0,
    }


def test_figure4_is_of_masked_runs(tmp_path):
    for method in ("mae", "umae", "mmae"):
        make_log(tmp_path / method, masked(method=method), {0: 1.0, 250: 4.0}, ("effective_rank",))
    folders = [tmp_path / name for name in ("mae", "umae", "mmae")]
    code, stdout, stderr = run_program(plot_figures.main, *folders, "--out", tmp_path / "out")
    assert (code, len(stdout.split()), stderr.count("skipped: ")) == (0, 1, 5)
    panels = panels_of(tmp_path / "out", 4)
    assert [c["label"] for c in panels["cls", "effective_rank"]["curves"]] == [
        "MAE",
        "U-MAE 0.01",
        "M-MAE 0.01",
    ]
    assert panels["pooled", "effective_rank"]["curves"][0]["mean"] == [0.5, 2.0]


def test_nothing_to_draw_is_one_line(tmp_path):
    make_log(tmp_path / "run", masked(), {})
    line = refused(plot_figures.main, tmp_path / "run", "--out", tmp_path / "out")
    assert "no figure can be drawn from these runs; figure 1 needs runs of pretrain_siamese.py" in line
    assert not (tmp_path / "out").exists()


def test_figures_refuse_what_cannot_be_compared(tmp_path):
    def problem(*names: str) -> str:
        return refused(plot_figures.main, *(tmp_path / n for n in names), "--out", tmp_path / "out")

    config = siamese()
    make_log(tmp_path / "a", config, {0: 1.0})
    make_log(tmp_path / "twin", config, {0: 1.0})
    longer = changed(config, epochs=7)
    make_log(tmp_path / "longer", longer, {0: 1.0})
    other = changed(config, data="cifar10")
    make_log(tmp_path / "other", other, {0: 1.0})
    for twin in ("twin", "a"):
        assert "are both SimCLR with seed 0; give each run once" in problem("a", twin)
    assert "has --epochs 7" in problem("a", "longer")
    assert "was trained on cifar10" in problem("a", "other")
    assert "is neither a run nor a comparison" in problem(".")
    assert "there is no " in problem("nowhere")
    (tmp_path / "a" / "config.json").write_text('{"model": {}}')
    assert "is not the configuration of a pre-training run" in problem("a")


# What is done


@pytest.fixture
def programs(monkeypatch):
    """Programs that leave what real ones leave, without training; gives the command lines that they got."""
    calls: list[tuple[str, Namespace]] = []
    codes: dict[str, int] = {}

    def pretrain(given):
        folder = given.out or given.resume
        config = resolve(read_config(given, MaskedRunConfig()))
        if given.out:
            make_log(folder, config, {0: 1.0}, ("effective_rank",))
        code = codes.get(config.method.method, 0)
        if code == 0:
            feature = {"effective_rank": 3.0 + config.run.seed, "knn_accuracy": 50.0}
            write_json(
                folder / "summary.json",
                {"label": config.label(), "epochs": 1, "seed": config.run.seed, "seconds": 1.0, "cpu_seconds": 2.0,
                 "features": {"cls": feature, "pooled": feature}},
            )  # fmt: skip
        return code

    def protocol(name, given):
        source = read_run_config(given.runs[0], MaskedRunConfig)
        config = resolve(read_config(given, CONFIGS[name]()).with_source(source))
        values = {"top1": 60.0, "max_top1": 61.0, "top5": 90.0}
        write_json(
            given.runs[0] / f"{RESULTS[name]}.json",
            {"protocol": to_dict(config), "heads": [{"features": {"cls": values}}]},
        )
        return 0

    def run(name, given):
        calls.append((name, given))
        return pretrain(given) if name in COMPARED else protocol(name, given)

    monkeypatch.setattr("trainlib.paper_commands.run_program", run)
    return calls, codes


def test_table1_trains_probes_and_fine_tunes_once(programs, tmp_path):
    calls, _ = programs
    command = ["table1", "--scale", "digits", "--seeds", "2", "--out", str(tmp_path)]
    code, stdout, stderr = run_program(run_paper.main, *command)
    assert code == 0, stderr
    assert [name for name, _ in calls] == 6 * [paper.MASKED, paper.PROBE, paper.FINETUNE]
    header, _, *rows = (line.split("|") for line in stdout.splitlines() if line.startswith("|"))
    titles = [cell.strip() for cell in header]
    cells = [cell.strip() for cell in rows[0]]
    assert cells[titles.index("method")] == "MAE"
    assert cells[titles.index("eff. rank, cls")] == "3.50 ± 0.71"
    assert cells[titles.index("linear, cls, top-1 last")] == "60.00 ± 0.00"
    assert cells[titles.index("fine-tuned, cls, max")] == "61.00 ± 0.00"
    assert "linear, pooled, top-1 last" not in titles  # nothing measured it
    assert len(rows) == 3
    assert "18 of 18 commands finished" in stdout
    names = {p.name for p in (tmp_path / "table1").iterdir()}
    assert names == {"figure4.json", "figure4.png", "study.json", "summary.json", "table.md"}
    summary = json.loads((tmp_path / "table1" / "summary.json").read_text())
    assert summary["rows"][0]["values"]["run_cls_effective_rank"]["values"] == [3.0, 4.0]

    calls.clear()
    again = run_program(run_paper.main, *command)
    assert (again[0], calls) == (0, [])
    assert again[1] == stdout
    dry = run_program(run_paper.main, *command, "--dry-run")[1]
    assert dry.count("# finished: python") == 18
    assert "18 of them finished; nothing left to do" in dry
    # Figure 4 needs the same runs, on the same data at this scale
    assert run_program(run_paper.main, "figure4", *command[1:])[0] == 0
    assert calls == []
    # the folder of the table stands for its runs
    assert run_program(plot_figures.main, tmp_path / "table1", "--out", tmp_path / "f")[0] == 0


def test_a_stopped_run_is_resumed_and_a_changed_one_refused(programs, tmp_path):
    calls, _ = programs
    command = ["figure4", "--scale", "digits", "--seeds", "1", "--out", str(tmp_path)]
    assert run_program(run_paper.main, *command)[0] == 0
    folder = tmp_path / "runs" / "digits-250ep-umae-seed0"
    (folder / "summary.json").unlink()
    calls.clear()
    dry = run_program(run_paper.main, *command, "--dry-run")[1]
    assert [f"--resume {folder}" in line for line in dry.splitlines()[1:4]] == [False, True, False]
    assert run_program(run_paper.main, *command)[0] == 0
    assert [given.resume for _, given in calls] == [folder]
    values = json.loads((folder / "config.json").read_text())
    values["optim"]["lr"] = 1.0
    (folder / "config.json").write_text(json.dumps(values))
    assert "was started with --lr 1.0, not 0.003" in refused(run_paper.main, *command)


def test_a_diverged_run_is_reported_and_the_others_go_on(programs, tmp_path):
    calls, codes = programs
    codes["umae"] = 3
    command = ["table1", "--scale", "digits", "--seeds", "1", "--out", str(tmp_path)]
    code, stdout, _ = run_program(run_paper.main, *command)
    assert code == 3
    assert [name for name, _ in calls] == [
        paper.MASKED, paper.PROBE, paper.FINETUNE, paper.MASKED, paper.MASKED, paper.PROBE, paper.FINETUNE
    ]  # fmt: skip
    assert "Diverged: U-MAE, seed 0." in stdout
    codes["umae"] = 2  # anything else ends the whole
    calls.clear()
    assert run_program(run_paper.main, *command)[0] == 2
    assert len(calls) == 1


def test_an_interrupted_command_says_how_the_whole_goes_on(programs, tmp_path):
    calls, codes = programs
    codes["umae"] = 130
    code, _, stderr = run_program(
        run_paper.main, "figure4", "--scale", "digits", "--seeds", "1", "--out", tmp_path
    )
    assert (code, len(calls)) == (130, 2)
    assert stderr.endswith("run_paper.py: error: interrupted; continue with the same command\n")


def test_mu_is_swept_into_a_picture(programs, tmp_path):
    code, stdout, stderr = run_program(
        run_paper.main, "table2", "--scale", "digits", "--seeds", "1", "--out", tmp_path
    )
    assert code == 0, stderr
    assert (tmp_path / "table2" / "mu.png").read_bytes().startswith(b"\x89PNG")
    assert "M-MAE, mu 1.25, paper's scale" in stdout


def test_time_that_is_over_stops_before_the_next_run(programs, tmp_path):
    calls, _ = programs
    command = ["figure4", "--scale", "digits", "--seeds", "1", "--out", str(tmp_path), "--minutes", "1e-9"]
    code, stdout, _ = run_program(run_paper.main, *command)
    assert (code, calls) == (0, [])
    assert stdout.splitlines()[-1] == "stopped after 1e-09 minutes; continue with the same command"
    assert "0 of 3 commands finished" in stdout


PAUSED = [*TINY, "--epochs", "3", "--checkpoint-every", "3", "--device", "cpu"]


def test_training_stops_with_a_checkpoint_after_the_epoch_in_which_the_time_is_over(tmp_path):
    with deadline.stop_after(0), pytest.raises(deadline.PausedError):
        pretrain_mmae.main([*PAUSED, "--out", str(tmp_path)])
    assert checkpoint.unseal(tmp_path / "checkpoint.pt")["progress"]["epoch"] == 1
    assert not deadline.passed()


@pytest.mark.slow
def test_training_that_was_paused_ends_as_if_it_had_not_been(tmp_path):
    with deadline.stop_after(0), pytest.raises(deadline.PausedError):
        pretrain_mmae.main([*PAUSED, "--out", str(tmp_path / "a")])
    assert pretrain_mmae.main(["--resume", str(tmp_path / "a")]) == 0
    assert pretrain_mmae.main([*PAUSED, "--out", str(tmp_path / "b")]) == 0
    one, other = (states(tmp_path / name)["model"] for name in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_figure4_on_digits_from_end_to_end_in_two_pieces(tmp_path):
    command = ["figure4", "--scale", "digits", "--seeds", "1", "--epochs", "2", "--out", str(tmp_path)]
    code, stdout, stderr = run_program(run_paper.main, *command, "--minutes", "0.0001")
    assert code == 0, stderr
    assert "continue with the same command" in stdout
    code, stdout, stderr = run_program(run_paper.main, *command)
    assert code == 0, stderr
    assert "3 of 3 commands finished" in stdout
    curves = panels_of(tmp_path / "figure4", 4)["cls", "effective_rank"]["curves"]
    assert [(c["label"], c["epochs"]) for c in curves] == [
        ("MAE", [0, 2]),
        ("U-MAE", [0, 2]),
        ("M-MAE", [0, 2]),
    ]
