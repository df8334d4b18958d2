"""Requests that cannot be carried out: one line that names the option, exit code 2, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import math

import check_theorems
import finetune
import knn
import linear_probe
import pretrain_mmae
import pretrain_siamese
import pytest
import run_paper
from protocol_runs import changed, make_run, refused
from siamese_options import TINY_SIAMESE
from training_options import TINY
from trainlib import config as domains
from trainlib.config import flag_of, resolve, sections
from trainlib.errors import UsageError
from trainlib.programs import CONFIGS
from trainlib.siamese.config import METHODS, SiameseRunConfig

DEFAULTS = {pretrain_mmae: TINY, pretrain_siamese: TINY_SIAMESE}
EVALUATIONS = (linear_probe, finetune, knn)
REFUSED = {
    pretrain_mmae: {
        "--patch 3": "--patch: a patch of 3 does not divide images of 8 x 8 pixels; choose one of 1, 2, 4",
        "--patch 8": "--patch: one patch covers the whole image",
        "--mask-ratio 1": "--mask-ratio: a ratio of 1.0 leaves 0 of 16 patches visible",
        "--mask-ratio 0": "--mask-ratio: a ratio of 0.0 leaves 16 of 16 patches visible",
        "--mask-ratio 0.99": "--mask-ratio: a ratio of 0.99 leaves 0 of 16 patches visible",
        "--mask-ratio nan": "--mask-ratio: a ratio of nan",
        "--mask-ratio -1": "--mask-ratio: a ratio of -1.0",
        "--lambda -0.1": "--lambda: expected a finite number of at least 0, got -0.1",
        "--mu 0": "--mu: the coding rate needs a positive mu",
        "--batch 5000": "--batch: 5000 images are more than the 1437 training images of digits; choose at most",
        "--batch 1": "--batch: a batch of 1 has no spectrum",
        "--warmup-epochs 3": "--warmup-epochs: 3.0 epochs of warm-up are more than the 2 epochs",
        "--heads 3": "--heads: 3 heads do not divide a width of 16",
        "--decoder-heads 5": "--decoder-heads: 5 heads do not divide a width of 16",
        "--width 18": "--width: 2-D sine-cosine positions need a multiple of 4, got 18; use",
        "--precision 16 --device cpu": "--precision: fp16 training needs a CUDA device",
        "--data cifar10": "--data-dir: --data cifar10 reads image files; name their folder",
        "--data cifar10 --data-dir /nonexistent": "--data-dir: there is no CIFAR10 at /nonexistent/cifar-10",
        "--data imagefolder --data-dir /nonexistent": "--data-dir: there is no folder /nonexistent/train",
        "--download": "--download: --data digits cannot be downloaded",
        "--data mnist": "--data: invalid choice: 'mnist'",
        "--method simclr": "--method: invalid choice",
        "--epochs many": "--epochs: invalid int value: 'many'",
        "--seeds 0": "--seeds: expected at least one seed",
        "--seeds 1,1": "--seeds: expected at least one seed, each at least 0 and given once",
        f"--seed {2**63}": "--seed: expected a whole number from 0 to 2^63 - 1",
        "--compare --method mae": "--compare: it trains mae, umae, mmae, whatever --method says",
        "--nonsense": "unrecognized arguments: --nonsense",
        "--resume /nonexistent": "--resume: there is no folder /nonexistent",
        "--method mimae --masks 1": "--masks: expected a whole number of at least 2, got 1",
        "--method mimae --masks 3": "--masks: 16 patches cannot be divided among 3 masks",
        "--method mimae --masks 2": "--mask-ratio: 2 disjoint masks that show the image once hide 0.5 of it, not 0.75",
        "--method mae4 --mask-ratio 0.5": "--mask-ratio: 4 disjoint masks that show the image once hide 0.75 of it, "
        "not 0.5",
        "--recipe paper_vit_b --image-size 8 --patch 2": "--recipe: paper_vit_b is for ImageNet-1K, not for --data "
        "digits",
    },
    pretrain_siamese: {
        "--method moco": "--method: invalid choice: 'moco'",
        "--method byol --temperature 0.5": "--temperature: byol has no such option; it is for deepcluster, dino, "
        "dino_er, simclr, swav",
        "--ema 0.9": "--ema: simclr has no such option; it is for byol, byol_er, dino, dino_er, matrix_ssl",
        "--temperature nan": "--temperature: expected a finite number above 0, got nan",
        "--batch 5000": "--batch: 5000 images are more than the 1437 training images",
        "--batch 1": "--batch: a batch of 1 has nothing to be compared with",
        "--data imagefolder --data-dir x": "--data-dir: there is no folder x/train",
        "--projector-width 1": "--projector-width: expected a whole number of at least 2, got 1",
        "--patch 2": "unrecognized arguments: --patch 2",
    },
    linear_probe: {
        "--feature token": "--feature: M-MAE 0.01",
        "--batch 1": "--batch: batch norm needs more than one image",
        "--batch 5000": "--batch: 5000 images are more than the 1437 training images of digits",
        "--trust 0": "--trust: expected a finite number above 0, got 0.0",
        "--data cifar10": "--data-dir: --data cifar10 reads image files",
        "--precision 16 --device cpu": "--precision: fp16 training needs a CUDA device",
        "--seeds 0": "--seeds: expected at least one seed",
    },
    finetune: {
        "--batch 63": "--batch: mixing pairs the images of a batch, 63 is odd",
        "--erase 1.5": "--erase: expected a share in [0, 1], got 1.5",
        "--lr 1e-7": "--min-lr: 1e-06 is above the highest learning rate",
        "--randaugment full": "--randaugment: full has colour operations, which greyscale images do not",
        "--feature token": "--feature: M-MAE 0.01",
    },
    knn: {
        "--k 0": "--k: expected whole numbers of at least 1, got 0",
        "--k 20 2000": "--k: 2000 neighbours are more than the 1437 training images",
        "--k many": "--k: invalid int value: 'many'",
        "--temperature 0": "--temperature: expected a finite number above 0, got 0.0",
        "--feature token": "--feature: M-MAE 0.01",
        "--data cifar10": "--data-dir: --data cifar10 reads image files",
    },
    check_theorems: {
        "RUN --epochs 3": "RUN: it is trained already",
        "RUN --methods mae": "RUN: it is trained already",
        "--methods mae,byol": "--methods: got mae,byol; name some of barlow_twins,spectral,mae",
        "--methods mae,mae": "--methods: got mae,mae",
        "--methods mae --data cifar10": "--data-dir",
        "--methods mae --data cifar10 --data-dir /nonexistent": "--data-dir: there is no CIFAR10",
        "--methods mae --batch 1": "--batch",
    },
    run_paper: {
        "figure3 --scale imagenet": "there is no figure3 at scale imagenet: Figure 3 is of CIFAR-10",
        "figure4 --scale digits --data cifar10": "--data: scale digits has one data set only",
        "figure4 --scale cifar-full": "--data-dir: --data cifar100 reads image files; name their folder",
        "figure4 --scale digits --seeds 0": "--seeds: expected a finite number above 0, got 0",
        "strength --scale cifar-long --data-dir x --minutes inf": "--minutes: expected a finite number above 0",
        "strength --scale cifar-long --data-dir x --lanes 0": "--lanes: expected a finite number above 0, got 0",
        "figure6 --scale digits": "invalid choice: 'figure6'",
        "figure4": "the following arguments are required: --scale",
    },
}


@pytest.mark.parametrize(
    ("program", "options", "expected"),
    [
        pytest.param(program, options, expected, id=f"{program.__name__} {options}")
        for program, own in REFUSED.items()
        for options, expected in own.items()
    ],
)
def test_request_is_refused_in_one_line_and_leaves_nothing(program, options, expected, tmp_path, make_config):
    if program in EVALUATIONS:
        make_run(tmp_path / "run", make_config())
        place = [tmp_path / "run"]
    else:
        place = [] if "--resume" in options else ["--out", tmp_path / "new"]
    before = sorted(tmp_path.rglob("*"))
    said = refused(program.main, *place, *DEFAULTS.get(program, ()), *options.split())
    assert said.startswith(f"{program.PROGRAM}: error: ")
    assert expected in said
    assert sorted(tmp_path.rglob("*")) == before


OUTSIDE = {
    domains.COUNT: (0, -4),
    domains.SEVERAL: (1, -2),
    domains.NATURAL: (-1,),
    domains.SEED: (-1, 2**63),
    domains.WEIGHT: (-1.0, math.inf, math.nan),
    domains.POSITIVE: (0.0, -1.0, math.inf, math.nan),
    domains.BELOW_ONE: (1.0, -0.1, math.nan),
    domains.ABOVE_ZERO: (0.0, 1.5, math.nan),
    domains.SHARE: (-0.1, 1.5, math.nan),
}
RULED = {"mask_ratio"}  # checked against the number of patches


@pytest.mark.parametrize("program", CONFIGS)
def test_every_number_has_a_domain_and_a_value_outside_of_it_is_refused(program):
    """Of every program: what a domain does not hold is never trained with."""
    config = changed(CONFIGS[program](), data="digits")
    config = resolve(config) if config.recipes else config
    for _, section in sections(config):
        for item in dataclasses.fields(section):
            if "int" in item.type or "float" in item.type:
                assert (item.metadata["domain"] is None) == (item.name in RULED), item.name
            for value in OUTSIDE.get(item.metadata["domain"], ()):
                with pytest.raises(UsageError, match=f"^{flag_of(item)}: expected .*, got {value};"):
                    changed(config, **{item.name: value}).validate()


@pytest.mark.parametrize("method", METHODS)
def test_defaults_of_every_joint_embedding_method_are_allowed(method):
    resolve(SiameseRunConfig().with_method(method)).validate()
