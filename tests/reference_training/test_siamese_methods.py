"""One step of every joint-embedding method: its loss, its gradient, its state."""

from __future__ import annotations

import math

import pytest
import torch
from siamese_options import random_views, siamese_config, siamese_method
from torch.nn.functional import normalize
from trainlib.data import load_dataset
from trainlib.optim import peak_lr, set_learning_rates
from trainlib.siamese.config import METHOD_OPTIONS, METHODS, SiameseRunConfig
from trainlib.siamese.deepcluster import spherical_kmeans
from trainlib.siamese.networks import Branch, calibrate, mlp
from trainlib.siamese.registry import METHOD_CLASSES

from matinfo.losses import barlow_twins_loss, ntxent_loss

WITH_TARGET = [name for name in METHODS if METHOD_CLASSES[name].settings.has("ema")]
NO_DRAWS = torch.empty(0)


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(siamese_config())


def first_weight(branch: Branch) -> torch.Tensor:
    return next(branch.backbone.parameters())


def test_registry_and_command_line_know_the_same_methods_and_options():
    assert tuple(METHOD_CLASSES) == METHODS
    assert set(SiameseRunConfig.compared) <= set(METHODS)
    used = {option for c in METHOD_CLASSES.values() for option in c.settings.defaults(8)}
    assert used == METHOD_OPTIONS
    assert len({c.settings.label for c in METHOD_CLASSES.values()}) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_step_trains_the_online_network_and_not_the_target(name, dataset):
    method = siamese_method(name)
    method.prepare(dataset)
    method.train()
    method.before_epoch(1)
    optimizer = method.make_optimizer(siamese_config(name))
    set_learning_rates(optimizer, siamese_config(name).optim, 0.5)
    before = first_weight(method.online).detach().clone()
    output = method(*random_views(), NO_DRAWS)
    assert math.isfinite(float(output.loss.detach()))
    assert output.loss.dtype == torch.float32
    assert all(view.shape == (24, 8) and not view.requires_grad for view in output.views)
    assert torch.equal(output.features, output.views[0])
    output.loss.backward()
    assert float(first_weight(method.online).grad.abs().max()) > 0
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    optimizer.step()
    assert not torch.equal(first_weight(method.online), before)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.parameters() if p.requires_grad}
    for _, target in method.followed():
        assert all(p.grad is None and id(p) not in trained for p in target.parameters())
    assert (method.target is not None) == (name in WITH_TARGET)


@pytest.mark.parametrize("name", METHODS)
def test_labels_do_not_change_the_gradient_of_the_networks(name, dataset):
    gradients = []
    for shift in (0, 3):
        method = siamese_method(name)
        method.prepare(dataset)
        method.train()
        method.before_epoch(1)
        images, labels = random_views()
        method(images, (labels + shift) % 10, NO_DRAWS).loss.backward()
        gradients.append(
            [p.grad for n, p in method.named_parameters() if p.requires_grad and "probe" not in n]
        )
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["byol", "dino"])
def test_target_follows_by_its_moving_average_which_slows_down_to_a_stop(name):
    method = siamese_method(name, ema=0.9)
    for online, target in method.followed():
        for parameter in online.parameters():
            parameter.data.add_(1.0)
        assert all(not p.requires_grad for p in target.parameters())
    pairs = [
        (p, t) for o, g in method.followed() for p, t in zip(o.parameters(), g.parameters(), strict=True)
    ]
    for epoch, share in ((0.0, 0.1), (1.0, 0.05), (2.0, 0.0)):  # of two epochs
        before = [t.clone() for _, t in pairs]
        method.after_step(epoch)
        for (online, target), old in zip(pairs, before, strict=True):
            torch.testing.assert_close(target, old + share * (online - old))
    assert float((pairs[0][0] - pairs[0][1]).detach().abs().max()) == pytest.approx(0.9 * 0.95, rel=1e-5)


def test_loss_is_matinfos_of_the_projections():
    images, labels = random_views()
    simclr, twins = siamese_method("simclr", temperature=0.3), siamese_method("barlow_twins", lambda_=0.2)
    z1, z2 = simclr.online(images.first)[1], simclr.online(images.second)[1]
    torch.testing.assert_close(
        simclr(images, labels, NO_DRAWS).logs["loss"], ntxent_loss(z1, z2, temperature=0.3).detach()
    )
    z1, z2 = twins.online(images.first)[1], twins.online(images.second)[1]
    torch.testing.assert_close(
        twins(images, labels, NO_DRAWS).logs["loss"], 0.1 * barlow_twins_loss(z1, z2, lambda_=0.2).detach()
    )


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("simclr", "temperature", (0.3, 0.7)), ("spectral", "lambda_", (0.5, 2.0)), ("matrix_ssl", "gamma", (0.5, 2.0)),
        ("simclr_er", "kappa", (5.0, 20.0)), ("byol_er", "kappa", (5.0, 20.0)), ("swav", "temperature", (0.1, 0.3)),
        ("dino", "temperature", (0.1, 0.3)), ("dino_er", "temperature", (0.1, 0.3)),
    ],
)  # fmt: skip
def test_option_reaches_the_loss(name, option, values):
    losses = [
        float(siamese_method(name, **{option: v})(*random_views(), NO_DRAWS).logs["loss"]) for v in values
    ]
    assert losses[0] != losses[1]


def test_methods_start_from_the_same_backbone():
    weights = [first_weight(siamese_method(name, seed=3).online) for name in METHODS]
    assert all(torch.equal(weights[0], w) for w in weights)


def test_bf16_computes_the_loss_in_float32():
    images, labels = random_views()
    full = siamese_method("byol")(images, labels, NO_DRAWS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = siamese_method("byol")(images, labels, NO_DRAWS)
    assert mixed.loss.dtype == mixed.features.dtype == mixed.views[1].dtype == torch.float32
    assert not torch.equal(mixed.features, full.features)
    torch.testing.assert_close(mixed.logs["loss"], full.logs["loss"], rtol=0.05, atol=0)


def test_dino_centre_moves_in_training_only():
    method = siamese_method("dino", prototypes=12)
    method.eval()
    method(*random_views(), NO_DRAWS)
    assert not method.centre.center.any()
    method.train()
    method(*random_views(), NO_DRAWS)
    assert method.centre.center.shape == (12,)
    assert method.centre.center.abs().min() > 0


def test_prototypes_are_held_still_in_the_first_epoch():
    for name in ("swav", "dino"):
        method = siamese_method(name)
        method.before_epoch(0)
        method(*random_views(), NO_DRAWS).loss.backward()
        assert method.prototypes.weight.grad is None
        assert first_weight(method.online).grad.abs().max() > 0
        method.before_epoch(1)
        method(*random_views(), NO_DRAWS).loss.backward()
        assert method.prototypes.weight.grad.abs().max() > 0


def test_swav_queue_holds_the_newest_projections_and_is_used_once_full(monkeypatch):
    from trainlib.siamese import swav

    seen = []
    monkeypatch.setattr(
        swav, "swav_loss", lambda *scores, queue1, **_: (seen.append(queue1), sum(s.sum() for s in scores))[1]
    )
    method = siamese_method("swav", queue=40, prototypes=6)
    views = [method(*random_views(24, seed=seed), NO_DRAWS).views for seed in range(3)]
    assert seen[0] is None
    assert seen[1] is None  # 24 of 40
    assert seen[2].shape == (40, 6)
    expected = torch.cat([normalize(v[1], dim=1) for v in reversed(views)])[:40]
    torch.testing.assert_close(method.queue[1], expected)
    assert int(method.queued) == 72
    method.eval()
    method(*random_views(), NO_DRAWS)
    assert int(method.queued) == 72


def test_deepcluster_remembers_projections_and_assigns_every_image(dataset):
    method = siamese_method("deepcluster", prototypes=7)
    method.prepare(dataset)
    assert method.bank.shape == (2, 1437, 8)
    assert bool((method.assignments == -1).all())
    method.train()
    method.before_epoch(0)
    assert method.assignments.shape == (3, 1437)
    assert set(method.assignments.unique().tolist()) <= set(range(7))
    nearest = (method.bank[1] @ method.centres[1].T).argmax(1)  # the second head clusters the second view
    assert torch.equal(method.assignments[1], nearest)
    images, labels = random_views()
    images = images._replace(index=torch.arange(24) * 50)
    output = method(images, labels, NO_DRAWS)
    torch.testing.assert_close(method.bank[1, images.index], normalize(output.views[1], dim=1))


def test_spherical_kmeans_finds_separate_clusters():
    source = torch.Generator().manual_seed(0)
    truth = torch.arange(300) % 3
    rows = normalize(torch.eye(8)[truth] + 0.1 * torch.randn(300, 8, generator=source), dim=1)
    found = [spherical_kmeans(rows, 3, torch.Generator().manual_seed(seed)) for seed in range(5)]
    spread = [float((rows * centres[nearest]).sum(1).mean()) for centres, nearest in found]
    centres, nearest = found[spread.index(max(spread))]  # Lloyd's iterations may end in a local optimum
    assert all(len(set(nearest[truth == k].tolist())) == 1 for k in range(3))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(3))


def test_deepcluster_has_no_more_clusters_than_images():
    rows = normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    centres, nearest = spherical_kmeans(rows, 9, torch.Generator().manual_seed(0))
    assert len(centres) == 5
    assert sorted(nearest.tolist()) == list(range(5))


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_optimizer_decays_matrices_only_and_the_probe_has_its_own_rate(kind):
    config = siamese_config("byol", optimizer=kind, weight_decay=0.03, warmup_epochs=0.0)
    method = siamese_method("byol")
    optimizer = method.make_optimizer(config)
    assert type(optimizer).__name__.lower() == kind
    probe = {id(p) for p in method.probe.parameters()}
    set_learning_rates(optimizer, config.optim, 1.0)  # half of two epochs
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            decays = parameter.ndim > 1 and id(parameter) not in probe
            assert group["weight_decay"] == (0.03 if decays else 0.0)
            if id(parameter) in probe:
                assert group["lr"] == pytest.approx({"adamw": 0.01, "sgd": 0.1, "lars": 0.1}[kind] / 2)
            else:
                assert group["lr"] == pytest.approx(peak_lr(config.optim) / 2)


def test_simsiam_predictor_keeps_its_learning_rate():
    config = siamese_config("simsiam")
    method = siamese_method("simsiam")
    optimizer = method.make_optimizer(config)
    predictor = {id(p) for p in method.predictor.parameters()}
    for epoch in (0.0, 1.0, 2.0):
        set_learning_rates(optimizer, config.optim, epoch)
        rates = {g["lr"] for g in optimizer.param_groups if id(g["params"][0]) in predictor}
        assert rates == {peak_lr(config.optim)}
    others = {g["lr"] for g in optimizer.param_groups if id(g["params"][0]) not in predictor}
    assert max(others) < 1e-12


def test_barlow_twins_weight_keeps_its_balance_at_every_width():
    assert siamese_config("barlow_twins", projector_width=2048).method.lambda_ == pytest.approx(5.1e-3)
    assert siamese_config("barlow_twins", projector_width=64).method.lambda_ == pytest.approx(0.1632)
    assert siamese_config("barlow_twins", projector_width=64).label() == "Barlow Twins"
    assert siamese_config("barlow_twins", lambda_=5.1e-3).label() == "Barlow Twins lambda 0.0051"


def test_rates_follow_the_optimizer_and_the_method():
    assert siamese_config("byol", optimizer="lars").optim.lr == 1.0
    assert siamese_config("byol", optimizer="lars").optim.weight_decay == 1e-5
    assert siamese_config("simclr", optimizer="lars").optim.lr == 0.4
    assert siamese_config("simclr", optimizer="lars", lr=0.7).optim.lr == 0.7


@pytest.mark.parametrize(("backbone", "width"), [("convnet", 32), ("resnet18", 512)])
@pytest.mark.parametrize("side", [8, 32])
def test_backbones_take_digits_and_cifar(backbone, width, side):
    model = siamese_config(backbone=backbone).model
    settings = METHOD_CLASSES["simclr"].settings
    branch = Branch(model, 3, settings.projector)
    features, projections = branch(torch.randn(2, 3, side, side))
    assert features.shape == (2, width)
    assert projections.shape == (2, 8)


def test_mlp_ends_without_norm_unless_asked():
    kinds = [type(layer).__name__ for layer in mlp([4, 5, 6, 7])]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in mlp([4, 5, 6], norm=False)] == ["Linear", "ReLU", "Linear"]
    last = mlp([4, 5, 6], last_norm=True)[-1]
    assert isinstance(last, torch.nn.BatchNorm1d)
    assert not last.affine


def test_calibration_gives_an_untrained_network_the_statistics_of_its_images():
    method = siamese_method("byol")
    images = random_views(200)[0].first
    method.train()
    expected = method.online(images)[1]
    fresh = siamese_method("byol")
    calibrate(fresh.online, images)
    fresh.eval()
    uncalibrated = siamese_method("byol").eval()
    # running variances are unbiased, those of a batch are not: a difference of 1/200 at most
    torch.testing.assert_close(fresh.online(images)[1], expected, atol=0.02, rtol=0.02)
    assert not torch.allclose(uncalibrated.online(images)[1], expected, atol=0.1)
    assert {m.momentum for m in fresh.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
