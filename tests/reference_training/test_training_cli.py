"""The command line: help, options, and one clear line for every request that cannot be carried out."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pretrain_mmae
import pretrain_siamese
import pytest
from protocol_runs import refused, run_program
from training_options import TINY
from trainlib.cli import parse_seeds, read_config
from trainlib.config import MaskedRunConfig, differences, flag_of, from_dict, resolve, sections, to_dict
from trainlib.programs import parser
from trainlib.siamese.config import SiameseRunConfig


@pytest.mark.parametrize(
    ("program", "config", "sentences"),
    [
        (
            pretrain_mmae,
            MaskedRunConfig(),
            ("weight of the regulariser", "8 (digits), 32 (cifar10/cifar100), 96 (imagenette), 224 ("),
        ),
        (pretrain_siamese, SiameseRunConfig(), ("64 (digits), 128 (cifar10/cifar100)", "[the method's]")),
    ],
    ids=["masked", "siamese"],
)
def test_help_names_every_option_with_its_default(program, config, sentences):
    code, text, _ = run_program(program.main, "--help")
    assert code == 0
    for _, section in sections(config):
        assert [item.name for item in dataclasses.fields(section) if flag_of(item) not in text] == []
    plain = " ".join(text.split())
    assert [sentence for sentence in sentences if sentence not in plain] == []


def test_options_reach_the_configuration_and_the_recipe_fills_the_rest():
    given = parser("pretrain_mmae.py").parse_args(
        ["--data", "cifar10", "--lambda", "0.1", "--no-flip", "--tcr-scale", "paper", "--epochs", "24"]
    )
    config = resolve(read_config(given, MaskedRunConfig()))
    assert (config.method.lambda_, config.method.tcr_scale, config.data.flip) == (0.1, "paper", False)
    assert (config.model.patch, config.optim.batch, config.model.model) == (8, 512, "tiny")
    assert config.optim.warmup_epochs == 2.0  # the recipe's share of the epochs


def test_defaults_are_mmae_on_digits_with_the_papers_weight():
    config = resolve(MaskedRunConfig())
    chosen = config.data.data, config.method.method, config.method.lambda_, config.method.mu
    assert chosen == ("digits", "mmae", 0.01, 1.0)
    assert (config.method.tcr_scale, config.method.mask_ratio, config.method.norm_pix) == ("code", 0.75, True)
    assert not config.method.double_norm
    assert not config.method.centering


def test_configuration_survives_json(make_config):
    config = make_config(lambda_=0.1, data_dir="somewhere")
    assert from_dict(MaskedRunConfig, to_dict(config)) == config
    broken = to_dict(config)
    broken["method"]["unknown"] = 1
    with pytest.raises(ValueError, match="'method' does not have the expected options"):
        from_dict(MaskedRunConfig, broken)


def test_differences_name_what_changes_the_result_only(make_config):
    assert differences(make_config(), make_config(threads=3, workers=5)) == []
    assert differences(make_config(mu=1.0), make_config(mu=3.0)) == [("--mu", 1.0, 3.0)]


def test_parse_seeds_counts_or_lists():
    assert parse_seeds("3") == 3
    assert parse_seeds("0,4,2") == [0, 4, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--patch", "3"],
            "--patch: a patch of 3 does not divide images of 8 x 8 pixels; choose one of 1, 2, 4",
        ),
        (["--mask-ratio", "1"], "--mask-ratio: a ratio of 1.0 leaves 0 of 16 patches visible"),
        (["--mask-ratio", "0"], "--mask-ratio: a ratio of 0.0 leaves 16 of 16 patches visible"),
        (["--mask-ratio", "0.99"], "--mask-ratio: a ratio of 0.99 leaves 0 of 16 patches visible"),
        (["--mask-ratio", "nan"], "--mask-ratio: a ratio of nan"),
        (["--mask-ratio", "-1"], "--mask-ratio: a ratio of -1.0"),
        (["--patch", "8"], "--patch: one patch covers the whole image"),
        (["--lambda", "-0.1"], "--lambda: expected a finite number of at least 0, got -0.1"),
        (["--lambda", "nan"], "--lambda: expected a finite number"),
        (["--mu", "0"], "--mu: the coding rate needs a positive mu"),
        (
            ["--batch", "5000"],
            "--batch: 5000 images are more than the 1437 training images of digits; choose at most",
        ),
        (["--batch", "1"], "--batch: a batch of 1 has no spectrum"),
        (["--batch", "-4"], "--batch: expected a whole number of at least 1, got -4"),
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1, got 0"),
        (["--warmup-epochs", "3"], "--warmup-epochs: 3.0 epochs of warm-up are more than the 2 epochs"),
        (["--lr", "-1"], "--lr: expected a finite number of at least 0"),
        (["--heads", "3"], "--heads: 3 heads do not divide a width of 16"),
        (["--decoder-heads", "5"], "--decoder-heads: 5 heads do not divide a width of 16"),
        (["--width", "18"], "--width: 2-D sine-cosine positions need a multiple of 4, got 18; use"),
        (["--seed", "-1"], "--seed: expected a whole number of at least 0"),
        (["--crop-min", "0"], "--crop-min: expected a share in (0, 1], got 0.0"),
        (["--workers", "-1"], "--workers: expected a whole number of at least 0"),
        (["--precision", "16", "--device", "cpu"], "--precision: fp16 training needs a CUDA device"),
        (["--data", "cifar10"], "--data-dir: --data cifar10 reads image files; name their folder"),
        (
            ["--data", "cifar10", "--data-dir", "/nonexistent"],
            "--data-dir: there is no CIFAR10 at /nonexistent/cifar-10",
        ),
        (
            ["--data", "imagefolder", "--data-dir", "/nonexistent"],
            "--data-dir: there is no folder /nonexistent/train",
        ),
        (["--download"], "--download: --data digits cannot be downloaded"),
        (["--data", "mnist"], "--data: invalid choice: 'mnist'"),
        (["--method", "simclr"], "--method: invalid choice"),
        (["--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["--seeds", "0"], "--seeds: expected at least one seed"),
        (["--seeds", "1,1"], "--seeds: expected at least one seed, each at least 0 and given once"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--resume", "/nonexistent"], "--resume: there is no folder /nonexistent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option_is_one_line_and_leaves_nothing(options, expected, tmp_path):
    out = [] if "--resume" in options else ["--out", tmp_path / "run"]
    said = refused(pretrain_mmae.main, *TINY, *options, *out)
    assert said.startswith("pretrain_mmae.py: error: ")
    assert expected in said
    assert list(tmp_path.iterdir()) == []


def test_existing_run_folder_is_left_alone(run_script, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    for options in ([], ["--compare"]):
        code, _, stderr = run_script("--out", tmp_path, *options)
        assert code == 2
        assert stderr.count("\n") == 1
        assert (
            f"--out: {tmp_path} already exists; choose another --out, or continue it with --resume" in stderr
        )
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_resume_of_a_folder_that_is_no_run(run_script, tmp_path):
    code, _, stderr = run_script("--resume", tmp_path, defaults=[])
    assert code == 2
    assert (
        f"--resume: {tmp_path} is not a run folder (it has no config.json); name the --out of an earlier run"
        in stderr
    )
    (tmp_path / "config.json").write_text("{}")
    code, _, stderr = run_script("--resume", tmp_path, defaults=[])
    assert code == 2
    assert stderr.count("\n") == 1
    assert "is not a configuration of this program" in stderr
    (tmp_path / "config.json").write_text('{"method": ')
    code, _, stderr = run_script("--resume", tmp_path, defaults=[])
    assert code == 2
    assert stderr.count("\n") == 1
    assert "config.json: is damaged (not JSON)" in stderr


def test_folder_below_a_file_is_one_line(run_script, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, stderr = run_script("--out", tmp_path / "file" / "run")
    assert code == 2
    assert stderr.count("\n") == 1
    assert "--out: Not a directory" in stderr


def test_unwritable_folder_is_one_line(run_script, tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, stderr = run_script("--out", tmp_path / "run")
    assert code == 2
    assert stderr.count("\n") == 1
    assert f"--out: {tmp_path / 'run'} is not writable; choose another --out" in stderr


def test_missing_package_is_one_line(run_script, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trainlib.driver", None)
    code, _, stderr = run_script()
    assert code == 2
    assert stderr.count("\n") == 1
    assert "pip install" in stderr
