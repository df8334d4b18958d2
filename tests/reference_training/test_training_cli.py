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
    older = to_dict(config)
    del older["method"]["mu"]  # an option that the recipe sets
    assert from_dict(MaskedRunConfig, older) == config
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


def test_existing_run_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    for options in ([], ["--compare"]):
        said = refused(pretrain_mmae.main, *TINY, "--out", tmp_path, *options)
        assert f"--out: {tmp_path} already exists; choose another --out, or continue it with --resume" in said
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_resume_of_a_folder_that_is_no_run(tmp_path):
    for content, problem in (
        (
            None,
            f"--resume: {tmp_path} is not a run folder (it has no config.json); name the --out of an earlier run",
        ),
        ("{}", "is not a configuration of this program"),
        ('{"method": ', "config.json: is damaged (not JSON)"),
    ):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        assert problem in refused(pretrain_mmae.main, "--resume", tmp_path)


def test_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    said = refused(pretrain_mmae.main, *TINY, "--out", tmp_path / "file" / "run")
    assert "--out: Not a directory" in said


def test_unwritable_folder_is_one_line(tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = refused(pretrain_mmae.main, *TINY, "--out", tmp_path / "run")
    assert f"--out: {tmp_path / 'run'} is not writable; choose another --out" in said


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trainlib.driver", None)
    assert "pip install" in refused(pretrain_mmae.main, *TINY)
