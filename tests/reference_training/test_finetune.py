"""Fine-tuning: layer decay, mixing, dropped paths, RandAugment, the control from scratch, resuming, errors."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace

import finetune
import numpy as np
import pretrain_mmae
import pytest
import torch
from protocol_runs import changed, done, equal_states, interrupted, make_run, run_program, states
from trainlib.backbone import load_backbone
from trainlib.config import resolve
from trainlib.finetuning import Classifier, parts_off
from trainlib.logs import read_metrics
from trainlib.loop import TrainingLoop
from trainlib.optim import learning_rate, peak_lr
from trainlib.protocol import datasets
from trainlib.protocol_config import FinetuneRunConfig
from trainlib.randaugment import RandAugment
from trainlib.rng import seeded

SHORT = ["--epochs", "2", "--device", "cpu", "--batch", "256"]


@pytest.fixture
def run_dir(tmp_path, make_config):
    make_run(tmp_path / "run", make_config(depth=3))
    return tmp_path / "run"


def tune(*options) -> tuple[str, str]:
    """Run ``finetune.py``, which must succeed; gives stdout and stderr."""
    return done(finetune.main, *options)


def settings(data: str = "digits", **changes):
    """A resolved configuration; keyword arguments replace options of any section."""
    return resolve(changed(FinetuneRunConfig(), data=data, **changes))


def classifier(run_dir, **changes) -> tuple[Classifier, FinetuneRunConfig]:
    config = settings(**changes)
    torch.manual_seed(0)
    return Classifier(config, load_backbone(run_dir), 10), config


def test_published_recipe_is_the_default_for_image_folders():
    config = settings("imagefolder")
    optim, parts = config.optim, config.finetune
    assert (optim.epochs, optim.warmup_epochs, optim.lr, optim.min_lr, optim.layer_decay) == (
        100,
        5,
        5e-4,
        1e-6,
        0.65,
    )
    assert (optim.beta1, optim.beta2, optim.weight_decay) == (0.9, 0.999, 0.05)
    assert (parts.drop_path, parts.mixup, parts.cutmix, parts.erase, parts.smoothing) == (
        0.1,
        0.8,
        1,
        0.25,
        0.1,
    )
    assert (parts.randaugment, parts.feature) == ("full", None)
    assert settings("imagefolder", scratch=True).optim.layer_decay == 1
    assert settings("imagefolder", scratch=True, layer_decay=0.8).optim.layer_decay == 0.8


def test_learning_rates_fall_by_the_layer_decay_from_head_to_stem(run_dir):
    model, config = classifier(run_dir, layer_decay=0.5)
    optimizer = model.make_optimizer(config)
    scale = {
        id(p): group["peak"] / peak_lr(config.optim)
        for group in optimizer.param_groups
        for p in group["params"]
    }
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert isinstance(optimizer, torch.optim.AdamW)
    seen = set()
    for name, parameter in model.named_parameters():
        place = name.removeprefix("backbone.encoder.")
        if place.startswith("blocks."):
            layer = int(place.split(".")[1]) + 1
        else:
            layer = (
                0 if place.startswith(("cls_token", "patch_embed")) else 4
            )  # three blocks; then norm and head
        assert scale[id(parameter)] == pytest.approx(0.5 ** (4 - layer)), name
        free = parameter.ndim == 1 or place == "cls_token"
        assert decay[id(parameter)] == (0 if free else 0.05), name
        seen.add(layer)
    assert seen == {0, 1, 2, 3, 4}
    assert len(scale) == len(list(model.parameters()))


def test_cosine_ends_at_the_smallest_rate_and_layers_keep_their_share():
    optim = settings("imagefolder").optim
    peak = peak_lr(optim)
    assert learning_rate(optim, 100) == pytest.approx(1e-6)
    assert learning_rate(optim, 5) == pytest.approx(peak)
    assert learning_rate(optim, 52.5) == pytest.approx((peak + 1e-6) / 2)
    assert learning_rate(optim, 2.5) == pytest.approx(peak / 2)  # warm-up from zero
    assert learning_rate(optim, 80, 0.1 * peak) == pytest.approx(0.1 * learning_rate(optim, 80))


def test_drop_path_rises_from_zero_in_the_first_block_to_its_rate_in_the_last(run_dir):
    model, _ = classifier(run_dir, drop_path=0.2)
    blocks = model.backbone.encoder.blocks
    for name in ("drop_path1", "drop_path2"):
        assert [getattr(getattr(b, name), "drop_prob", 0) for b in blocks] == pytest.approx([0, 0.1, 0.2])


def test_head_starts_nearly_at_zero(run_dir):
    model, _ = classifier(run_dir)
    weight = model.head.weight.detach()
    assert float(weight.std()) == pytest.approx(2e-5, rel=0.25)  # 160 draws
    assert float(model.head.bias.detach().abs().max()) == 0


def batch():
    source = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 8, 8, generator=source), torch.arange(8)


def test_targets_are_smoothed_and_mixed(run_dir):
    images, labels = batch()
    model, _ = classifier(run_dir, mixup=0, cutmix=0)
    same, targets = model.mixed(images, labels)
    assert torch.equal(same, images)
    assert torch.allclose(targets, torch.full((8, 10), 0.01) + 0.9 * torch.eye(10)[:8])
    model, _ = classifier(run_dir, cutmix=0, smoothing=0)
    with seeded(3):
        mixed, targets = model.mixed(images, labels)
    share = float(targets[0, 0])
    assert 0 < share < 1
    assert torch.allclose(targets, share * torch.eye(10)[:8] + (1 - share) * torch.eye(10)[:8].flip(0))
    assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-6)
    assert torch.equal(images, batch()[0])  # the data set's batch is left alone


def test_cutmix_swaps_a_rectangle_and_its_share_of_the_target(run_dir):
    images, labels = batch()
    model, _ = classifier(run_dir, mixup=0, smoothing=0)
    with seeded(1):
        mixed, targets = model.mixed(images, labels)
    other = (mixed != images).all(1)
    assert torch.equal(mixed[:, 0][other], images.flip(0)[:, 0][other])
    area = float(other[0].float().mean())
    assert 0 < area < 1
    assert float(targets[0, 7]) == pytest.approx(area)


def test_erasing_touches_its_share_of_the_images(run_dir):
    images = torch.zeros(400, 1, 8, 8)
    model, _ = classifier(run_dir, mixup=0, cutmix=0, erase=0.5)
    with seeded(0):
        erased, _ = model.mixed(images, torch.zeros(400, dtype=torch.long))
    share = float((erased != 0).flatten(1).any(1).float().mean())
    assert 0.35 < share < 0.58  # half, less the rectangles of no pixel at 8 x 8; sd 0.025


def test_draw_is_asked_for_where_the_generator_is(monkeypatch):
    """The generator of a card gives no numbers to the CPU."""
    monkeypatch.setattr(torch, "randint", lambda *_, generator, device: device)
    assert Classifier.draw(None, 4, SimpleNamespace(device="card")) == "card"


def test_loss_depends_on_the_steps_draws_alone(run_dir):
    images, labels = batch()
    model, _ = classifier(run_dir, drop_path=0.5, erase=0.5)
    torch.nn.init.normal_(model.head.weight)
    model.train()
    draws = [model.draw(8, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    losses = []
    for number, seed in enumerate(draws):
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002 (what timm's mixing draws from)
        random.seed(number)
        losses.append(float(model(images, labels, seed).loss.detach()))
    assert losses[0] == losses[1] != losses[2]


def test_seeded_puts_all_global_generators_back():
    def numbers():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = numbers()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with seeded(1, 2):
        inside = numbers()
    assert numbers() == expected != inside
    with seeded(1, 2):
        assert numbers() == inside


def test_randaugment_reaches_training_images_and_no_others(run_dir):
    backbone = load_backbone(run_dir)
    dataset = datasets()(settings(), backbone.origin)
    plain = next(iter(dataset.train_batches(0, 0)))[0]
    held_out = next(iter(dataset.evaluation_batches("train", 64)))[0]
    dataset.after_crop = RandAugment("geometric", dataset.mean)
    moved = next(iter(dataset.train_batches(0, 0)))[0]
    assert 0.2 < (moved - plain).flatten(1).norm(dim=1).gt(1).float().mean() < 1
    assert torch.equal(next(iter(dataset.evaluation_batches("train", 64)))[0], held_out)


def test_parts_that_are_off_are_named(run_dir):
    backbone = load_backbone(run_dir)
    assert [line.split(" is off")[0] for line in parts_off(settings(), backbone)] == [
        "RandAugment",
        "random erasing",
    ]
    everything = settings(
        mixup=0, cutmix=0, smoothing=0, drop_path=0, randaugment="geometric", erase=0.1, scratch=True
    )
    text = "\n".join(parts_off(everything, backbone))
    for name in ("mixup", "cutmix", "label smoothing", "drop path", "layer decay"):
        assert f"{name} is off" in text
    assert "RandAugment is without its colour operations" in text
    assert "random erasing" not in text


def test_finetuning_trains_the_encoder_and_leaves_the_run_alone(run_dir):
    before = (run_dir / "checkpoint.pt").read_bytes()
    stdout, stderr = tune(run_dir, *SHORT)
    assert "note: RandAugment is off" in stderr
    assert "note: random erasing is off" in stderr
    assert "| M-MAE 0.01 | 1" in stdout
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    backbone = load_backbone(run_dir)
    weights = states(run_dir / "finetune" / "seed0")["model"]
    assert {name.split(".")[0] for name in weights} == {"backbone", "head"}
    trained = {
        k.removeprefix("backbone.encoder."): v for k, v in weights.items() if k.startswith("backbone.")
    }
    assert trained.keys() == backbone.encoder.state_dict().keys()
    assert all(
        not torch.equal(trained[k], v)
        for k, v in backbone.encoder.state_dict().items()
        if k.endswith("weight")
    )
    assert (run_dir / "finetune.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((run_dir / "finetune.json").read_text())
    assert set(result["heads"][0]["features"]) == {"cls"}
    records = read_metrics(run_dir / "finetune" / "seed0")
    rates = [r["lr"] for r in records if r["kind"] == "train"]
    assert 0 < rates[-1] < max(rates)


def test_scratch_starts_from_fresh_weights_of_the_same_shape(run_dir):
    model, config = classifier(run_dir, scratch=True)
    backbone = load_backbone(run_dir)
    assert (
        model.backbone.fingerprint()
        == backbone.untrained(config.run.seed).fingerprint()
        != backbone.fingerprint()
    )
    tune(run_dir, *SHORT)
    tune(run_dir, *SHORT, "--scratch", "--feature", "pooled")
    result = json.loads((run_dir / "scratch.json").read_text())
    assert result["protocol"]["optim"]["layer_decay"] == 1
    assert set(result["heads"][0]["features"]) == {"pooled"}
    assert (run_dir / "finetune.json").is_file()


def test_resumed_finetuning_equals_an_uninterrupted_one_bit_for_bit(run_dir, tmp_path):
    options = [run_dir, *SHORT, "--erase", "0.25"]
    with interrupted(TrainingLoop, "_step", 8):  # in the second epoch of five steps
        assert run_program(finetune.main, *options, "--out", tmp_path / "cut")[0] == 130
    random.seed(99)  # the state of the process does not matter
    tune(run_dir, "--out", tmp_path / "cut", "--resume")
    tune(*options, "--out", tmp_path / "whole")
    equal_states(*(tmp_path / name / "finetune" / "seed0" for name in ("cut", "whole")), moment="exp_avg_sq")


def test_divergence_stops_with_one_line(run_dir):
    code, stdout, stderr = run_program(finetune.main, run_dir, *SHORT, "--lr", "1e30", "--warmup-epochs", "0")
    assert (code, stdout) == (3, "")
    assert "is not finite at step" in stderr.splitlines()[-1]


def test_bf16_runs(run_dir):
    tune(run_dir, *SHORT, "--epochs", "1", "--precision", "bf16")


@pytest.mark.slow
def test_finetuned_digits_are_recognised(tmp_path):
    """Real, short pre-training and fine-tuning with all that digits leave on; chance is 10 %."""
    run = tmp_path / "run"
    options = ["--epochs", "30", "--no-tensorboard", "--device", "cpu"]
    assert run_program(pretrain_mmae.main, *options, "--out", run)[0] == 0
    tune(run, "--device", "cpu")
    values = json.loads((run / "finetune.json").read_text())["heads"][0]["features"]["cls"]
    assert values["top1"] > 90
    assert values["max_top1"] >= values["top1"]
    assert math.isclose(values["top5"], 100, abs_tol=3)
