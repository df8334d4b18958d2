"""The loss of each method: its parts, its features, and what gets a gradient."""

from __future__ import annotations

import pytest
import torch
from trainlib.masked import MaskedMethod
from trainlib.models import patchify, random_masking

from matinfo.losses import mmae_tcr_loss, umae_uniformity_loss


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(0)
    images = torch.randn(12, 1, 8, 8, generator=source)
    return images, torch.arange(12) % 10, torch.rand(12, 16, generator=source)


def build(config, seed: int = 0) -> MaskedMethod:
    torch.manual_seed(seed)
    method = MaskedMethod(config, channels=1, classes=10)
    for parameter in method.autoencoder.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return method


def naive_reconstruction(method, batch) -> torch.Tensor:
    images, _, noise = batch
    masking = random_masking(noise, 0.75)
    _, prediction = method.autoencoder(images, masking)
    target = patchify(images, 2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    return (prediction - target).square().mean(-1)[masking.mask == 1].mean()


def cls_feature(method, batch) -> torch.Tensor:
    """CLS output of the masked pass, written out with the encoder's parts."""
    images, _, noise = batch
    encoder = method.autoencoder.encoder
    tokens = encoder.patch_embed(images) + encoder.positions[:, 1:]
    keep = noise.argsort(1)[:, :4]
    tokens = torch.stack([t[k] for t, k in zip(tokens, keep, strict=True)])
    tokens = torch.cat([encoder.cls_token.expand(len(tokens), 1, -1), tokens], 1)
    return encoder.norm(encoder.blocks(tokens))[:, 0]


@pytest.mark.parametrize("name", ["mae", "umae", "mmae"])
def test_objective_is_reconstruction_plus_weighted_regulariser(name, batch, make_config):
    method = build(make_config(method=name, lambda_=0.3, mu=2.0, centering=True))
    output = method(*batch)
    feature = cls_feature(method, batch)
    regulariser = {
        "mae": torch.zeros(()),
        "umae": umae_uniformity_loss(feature),
        "mmae": mmae_tcr_loss(feature, mu=2.0, centering=True),
    }[name]
    torch.testing.assert_close(output.features, feature.detach())
    torch.testing.assert_close(output.logs["reconstruction"], naive_reconstruction(method, batch).detach())
    torch.testing.assert_close(output.logs["regulariser"], regulariser.detach())
    expected = output.logs["reconstruction"] + 0.3 * output.logs["regulariser"]
    torch.testing.assert_close(output.logs["loss"], expected)
    torch.testing.assert_close(output.loss.detach(), expected + output.logs["probe_loss"])


def test_methods_differ_only_in_the_regulariser(batch, make_config):
    outputs = {name: build(make_config(method=name, lambda_=0.1))(*batch) for name in ("mae", "umae", "mmae")}
    reconstructions = {float(o.logs["reconstruction"]) for o in outputs.values()}
    assert len(reconstructions) == 1
    assert len({float(o.loss.detach()) for o in outputs.values()}) == 3


def test_tcr_scale_and_mu_reach_the_loss(batch, make_config):
    values = {
        float(build(make_config(method="mmae", tcr_scale=scale, mu=mu))(*batch).logs["regulariser"])
        for scale in ("code", "paper")
        for mu in (1.0, 3.0)
    }
    assert len(values) == 4


def test_online_probe_gives_no_gradient_to_the_encoder(batch, make_config):
    method = build(make_config(method="mae"))
    logits = method.probe(cls_feature(method, batch).detach())
    torch.nn.functional.cross_entropy(logits, batch[1]).backward()
    probe_gradient = method.probe.weight.grad.clone()
    method.zero_grad()

    output = method(*batch)
    probe_loss = output.loss - naive_reconstruction(
        method, batch
    )  # equals the probe's loss, and its gradient
    probe_loss.backward()
    for name, parameter in method.autoencoder.named_parameters():
        assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e-6, name
    torch.testing.assert_close(method.probe.weight.grad, probe_gradient)


def test_labels_do_not_change_the_gradient_of_the_encoder(batch, make_config):
    gradients = []
    for shift in (0, 3):
        method = build(make_config(method="mmae"))
        method(batch[0], (batch[1] + shift) % 10, batch[2]).loss.backward()
        gradients.append([p.grad for p in method.autoencoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_every_parameter_of_the_autoencoder_gets_a_gradient(batch, make_config):
    method = build(make_config(method="mmae"))
    method(*batch).loss.backward()
    assert [n for n, p in method.named_parameters() if p.grad is None] == []


def test_double_norm_applies_the_final_norm_twice(batch, make_config):
    once, twice = (build(make_config(method="mmae", double_norm=flag)) for flag in (False, True))
    expected = twice.autoencoder.encoder.norm(cls_feature(twice, batch)).detach()
    torch.testing.assert_close(twice(*batch).features, expected)
    assert not torch.allclose(once(*batch).features, expected)


def test_double_norm_changes_nothing_at_initialization(batch, make_config):
    torch.manual_seed(0)
    once = MaskedMethod(make_config(double_norm=False), 1, 10)
    torch.manual_seed(0)
    twice = MaskedMethod(make_config(double_norm=True), 1, 10)
    torch.testing.assert_close(once(*batch).features, twice(*batch).features, atol=1e-4, rtol=1e-4)


def test_bf16_forward_computes_the_loss_in_float32(batch, make_config):
    method = build(make_config(method="mmae", lambda_=0.1))
    full = method(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(*batch)
    assert mixed.loss.dtype == mixed.features.dtype == torch.float32
    torch.testing.assert_close(mixed.loss, full.loss, rtol=0.02, atol=0)


def test_encode_gives_cls_and_mean_of_patch_tokens_of_the_whole_image(batch, make_config):
    method = build(make_config())
    features = method.encode(batch[0])
    tokens = method.autoencoder.encoder(batch[0])
    assert tokens.shape == (12, 17, 16)
    torch.testing.assert_close(features["cls"], tokens[:, 0])
    torch.testing.assert_close(features["pooled"], tokens[:, 1:].sum(1) / 16)


def test_reconstruct_keeps_visible_patches_and_undoes_the_patch_normalization(batch, make_config):
    method = build(make_config())
    images, _, noise = batch
    masking = random_masking(noise, 0.75)
    visible, filled = method.reconstruct(images, noise)
    hidden = masking.mask[:, :, None].bool()
    shown, target = patchify(visible, 2), patchify(images, 2)
    assert torch.equal(shown, torch.where(hidden, 0, target))
    prediction = method.autoencoder(images, masking)[1]
    result = patchify(filled, 2)
    torch.testing.assert_close(result[~hidden[..., 0]], target[~hidden[..., 0]])
    scale, shift = (target.var(-1, keepdim=True) + 1e-6).sqrt(), target.mean(-1, keepdim=True)
    torch.testing.assert_close(
        ((result - shift) / scale)[hidden[..., 0]], prediction[hidden[..., 0]], rtol=1e-3, atol=1e-4
    )
