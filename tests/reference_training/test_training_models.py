"""The masked autoencoder against lightly's parts (the oracle) and against naive restatements."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.models import utils as oracle
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from timm.models.vision_transformer import VisionTransformer
from trainlib.models import (
    SIZES,
    MaskedAutoencoder,
    Sizes,
    patchify,
    random_masking,
    sincos_positions,
    unpatchify,
)

from matinfo.losses import masked_reconstruction_loss, patch_normalize

TINY = Sizes(16, 2, 2, 8, 1, 2)


@pytest.mark.parametrize(("length", "ratio"), [(16, 0.75), (9, 0.75), (16, 0.6), (49, 0.9)])
def test_random_masking_equals_lightly(length, ratio):
    torch.manual_seed(0)
    keep, hidden = oracle.random_token_mask((5, length + 1), mask_ratio=ratio)
    torch.manual_seed(0)
    noise = torch.rand(5, length + 1)[:, 1:]  # its first column belongs to the CLS token
    masking = random_masking(noise, ratio)
    assert torch.equal(masking.keep + 1, keep[:, 1:])
    expected = torch.zeros(5, length).scatter_(1, hidden - 1, 1.0)
    assert torch.equal(masking.mask, expected)


def test_random_masking_keeps_smallest_noise_of_each_image():
    noise = torch.rand(7, 12, generator=torch.Generator().manual_seed(1))
    masking = random_masking(noise, 0.75)
    for row, keep, mask in zip(noise, masking.keep, masking.mask, strict=True):
        order = sorted(range(12), key=lambda i, row=row: float(row[i]))
        assert keep.tolist() == order[:3]
        assert [i for i in range(12) if mask[i] == 0] == sorted(order[:3])
    assert len({tuple(m.tolist()) for m in masking.mask}) > 1  # images have masks of their own


def test_random_masking_restore_puts_every_patch_back():
    noise = torch.rand(3, 10, generator=torch.Generator().manual_seed(2))
    masking = random_masking(noise, 0.5)
    shuffled = noise.sort(dim=1).values
    assert torch.equal(shuffled.gather(1, masking.restore), noise)


def test_patchify_equals_lightly_and_naive_order():
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    patches = patchify(images, 2)
    assert torch.equal(patches, oracle.patchify(images, 2))
    for patch in range(9):
        values = [
            images[1, c, 2 * (patch // 3) + row, 2 * (patch % 3) + column]
            for row in range(2)
            for column in range(2)
            for c in range(3)
        ]
        assert torch.equal(patches[1, patch], torch.stack(values))
    assert torch.equal(unpatchify(patches, 2, 3), images)


@pytest.mark.parametrize(("width", "side"), [(16, 4), (128, 2), (768, 14)])
def test_sincos_positions_equal_lightly(width, side):
    expected = torch.from_numpy(oracle.get_2d_sine_cosine_positional_embedding(width, side)).float()
    torch.testing.assert_close(sincos_positions(width, side)[0], expected, atol=2e-6, rtol=0)


def lightly_autoencoder(model: MaskedAutoencoder, image_size: int, sizes: Sizes):
    """Lightly's encoder and decoder with the weights of ours."""
    vit = VisionTransformer(
        image_size, model.patch, model.channels, num_classes=0, global_pool="token", embed_dim=sizes.width,
        depth=sizes.depth, num_heads=sizes.heads,
    )  # fmt: skip
    encoder = MaskedVisionTransformerTIMM(vit)
    ours = model.encoder.state_dict()
    missing, unexpected = vit.load_state_dict(ours, strict=False)
    assert (missing, unexpected) == (["pos_embed"], [])
    vit.pos_embed.data.copy_(model.encoder.positions)
    decoder = MaskedVisionTransformerDecoderTIMM(
        model.length, sizes.decoder_width, sizes.decoder_depth, sizes.decoder_heads
    )
    parts = {k: v for k, v in model.decoder.state_dict().items() if not k.startswith(("embed.", "predict."))}
    missing, unexpected = decoder.load_state_dict(parts, strict=False)
    assert (missing, unexpected) == (["pos_embed"], [])
    decoder.pos_embed.data.copy_(model.decoder.positions)
    return encoder, decoder


def test_autoencoder_equals_lightly_bit_for_bit():
    torch.manual_seed(0)
    model = MaskedAutoencoder(16, 4, 3, TINY).eval()
    for parameter in model.parameters():  # away from zero biases and unit norms
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    encoder, decoder = lightly_autoencoder(model, 16, TINY)
    images = torch.randn(6, 3, 16, 16)
    noise = torch.rand(6, 17)
    noise[:, 0] = -1
    order = noise.argsort(1)
    keep, hidden = order[:, :5], order[:, 5:]

    latent, prediction = model(images, random_masking(noise[:, 1:], 0.75))
    expected_latent = encoder.eval().encode(images, idx_keep=keep)
    assert torch.equal(latent, expected_latent)

    tokens = model.decoder.mask_token.expand(6, 17, -1).clone()
    tokens = oracle.set_at_index(tokens, keep, model.decoder.embed(expected_latent))
    expected = model.decoder.predict(decoder.eval()(tokens))
    assert torch.equal(prediction, expected[:, 1:])

    target = oracle.normalize_mean_var(oracle.get_at_index(oracle.patchify(images, 4), hidden - 1))
    expected_loss = torch.nn.functional.mse_loss(oracle.get_at_index(expected, hidden), target)
    mask = random_masking(noise[:, 1:], 0.75).mask
    loss = masked_reconstruction_loss(prediction, patchify(images, 4), mask, norm_pix=True)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        patch_normalize(patchify(images, 4)), oracle.normalize_mean_var(patchify(images, 4))
    )


def test_reconstruction_loss_equals_naive_sum_over_masked_patches():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    mask = torch.tensor([[1.0, 0, 1, 1], [1, 1, 0, 1]])
    total, count = 0.0, 0
    for image in range(2):
        for patch in range(4):
            if mask[image, patch]:
                values = target[image, patch].tolist()
                mean = sum(values) / 5
                variance = sum((v - mean) ** 2 for v in values) / 4  # unbiased
                normal = [(v - mean) / math.sqrt(variance + 1e-6) for v in values]
                errors = [
                    (p - t) ** 2 for p, t in zip(prediction[image, patch].tolist(), normal, strict=True)
                ]
                total += sum(errors) / 5
                count += 1
    loss = masked_reconstruction_loss(prediction, target, mask, norm_pix=True)
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_autoencoder_prediction_ignores_hidden_pixels():
    torch.manual_seed(0)
    model = MaskedAutoencoder(16, 4, 3, TINY).eval()
    images = torch.randn(2, 3, 16, 16)
    masking = random_masking(torch.rand(2, 16), 0.75)
    hidden = unpatchify(masking.mask[:, :, None].expand(-1, -1, 48), 4, 3)
    _, prediction = model(images, masking)
    _, changed = model(images + 5 * hidden, masking)
    assert torch.equal(prediction, changed)


@torch.no_grad()
def test_initialization_is_maes():
    torch.manual_seed(0)
    model = MaskedAutoencoder(32, 8, 3, SIZES["tiny"])
    projection = model.encoder.patch_embed.proj
    weights = {"projection": projection.weight.flatten(1), "qkv": model.encoder.blocks[0].attn.qkv.weight,
               "embed": model.decoder.embed.weight}  # fmt: skip
    for name, weight in weights.items():
        bound = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))
        assert 0.97 * bound < float(weight.abs().max()) <= bound, name
    assert float(model.encoder.cls_token.std()) == pytest.approx(0.02, rel=0.3)
    assert float(model.decoder.mask_token.std()) == pytest.approx(0.02, rel=0.3)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        if "norm" in name and name.endswith("weight"):
            assert bool((parameter == 1).all()), name
    assert not any("positions" in name for name, _ in model.named_parameters())  # fixed


def test_sizes_are_the_papers():
    assert SIZES["vit_base"] == (768, 12, 12, 512, 8, 16)
    assert SIZES["vit_large"] == (1024, 24, 16, 512, 8, 16)
    assert SIZES["tiny"][:2] + SIZES["tiny"][3:5] == (128, 4, 64, 1)
