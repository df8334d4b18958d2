"""Several disjoint masks of each image: the masks, the three information losses and whom they train, the control."""

from __future__ import annotations

import math

import pytest
import torch
from protocol_runs import changed, equal_states, interrupted
from trainlib.config import MaskedRunConfig, resolve
from trainlib.logs import read_metrics
from trainlib.mask_information import Conditional, MaskInformationMethod, disjoint_masking
from trainlib.masked import MaskedMethod
from trainlib.models import patchify, random_masking

from matinfo import Gram, von_neumann_entropy
from matinfo.losses import club_loss, gaussian_nll, mask_infonce_loss


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(0)
    images = torch.randn(12, 1, 8, 8, generator=source)
    return images, torch.arange(12) % 10, torch.rand(12, 16, generator=source)


def build(config, seed: int = 0):
    torch.manual_seed(seed)
    method = config.build(channels=1, classes=10)
    for parameter in method.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return method


def one_mask(masking, k: int, count: int = 12):
    """Mask k of a batch of ``count`` images."""
    return type(masking)(*(part[k * count : (k + 1) * count] for part in masking))


def gradients(value, module) -> dict[str, float]:
    """Largest entry of each parameter's gradient; parameters without one are missing."""
    module.zero_grad()
    value.backward()
    return {n: float(p.grad.abs().max()) for n, p in module.named_parameters() if p.grad is not None}


# --- the masks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patches", "masks"), [(16, 4), (16, 2), (36, 4), (9, 3)])
def test_masks_are_disjoint_and_cover_the_image_once(patches, masks):
    noise = torch.rand(5, patches, generator=torch.Generator().manual_seed(1))
    masking = disjoint_masking(noise, masks)
    visible = 1 - masking.mask.reshape(masks, 5, patches)
    assert torch.equal(visible.sum(0), torch.ones(5, patches))
    assert torch.equal(visible.sum(-1), torch.full((masks, 5), patches / masks))
    for k in range(masks):
        kept = one_mask(masking, k, 5).keep
        assert torch.equal(visible[k].gather(1, kept), torch.ones_like(kept, dtype=torch.float32))


def test_first_mask_is_that_of_the_plain_method_and_every_mask_can_be_undone():
    noise = torch.rand(5, 16, generator=torch.Generator().manual_seed(1))
    masking, plain = disjoint_masking(noise, 4), random_masking(noise, 0.75)
    first = one_mask(masking, 0, 5)
    assert torch.equal(first.keep, plain.keep)
    assert torch.equal(first.mask, plain.mask)
    # `restore` puts kept patches back in their places: the position of patch keep[i] in the shuffled order is i.
    places = masking.restore.gather(1, masking.keep)
    assert torch.equal(places, torch.arange(4).expand(20, 4))


# --- the losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mae4", "mimae"])
def test_reconstruction_is_the_mean_over_the_masks(name, batch, make_config):
    method = build(make_config(method=name))
    images, _, noise = batch
    target = patchify(images, 2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    masking, errors = disjoint_masking(noise, 4), []
    for k in range(4):
        part = one_mask(masking, k)
        _, prediction = method.autoencoder(images, part)
        errors.append((prediction - target).square().mean(-1)[part.mask == 1].mean())
    output = method(*batch)
    torch.testing.assert_close(output.logs["reconstruction"], torch.stack(errors).mean().detach())


def test_objective_is_the_weighted_sum_of_the_losses_of_matinfo(batch, make_config):
    weights = {"infonce_weight": 0.3, "club_weight": 0.02, "nll_weight": 0.7}
    method = build(make_config(method="mimae", temperature=0.2, **weights))
    images, _, noise = batch
    masking = disjoint_masking(noise, 4)
    latents, inputs = [], []
    for k in range(4):
        part = one_mask(masking, k)
        latents.append(method.autoencoder.encoder(images, part.keep)[:, 1:].mean(1))
        tokens = method.autoencoder.encoder.patch_embed(images) + method.autoencoder.encoder.positions[:, 1:]
        inputs.append(torch.stack([t[kept].mean(0) for t, kept in zip(tokens, part.keep, strict=True)]))
    conditionals = [method.conditional(x.detach()) for x in inputs]
    pairs = list(zip(conditionals, latents, strict=True))
    infonce = mask_infonce_loss(torch.stack(latents), temperature=0.2)
    club = sum(club_loss(m, s, h) for (m, s), h in pairs) / 4
    nll = sum(gaussian_nll(m, s, h) for (m, s), h in pairs) / 4

    output = method(*batch)
    for name, value in (("infonce", infonce), ("club", club), ("nll", nll)):
        torch.testing.assert_close(output.logs[name], value.detach(), rtol=1e-4, atol=1e-5)
    expected = output.logs["reconstruction"] + 0.3 * infonce + 0.02 * club
    torch.testing.assert_close(output.logs["loss"], expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        output.logs["regulariser"], (0.3 * infonce + 0.02 * club).detach(), rtol=1e-4, atol=1e-5
    )
    total = expected + 0.7 * nll + output.logs["probe_loss"]
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-5)


def test_control_differs_from_mimae_only_in_the_information_losses(batch, make_config):
    control, informed = build(make_config(method="mae4")), build(make_config(method="mimae"))
    informed.load_state_dict(control.state_dict(), strict=False)
    outputs = control(*batch), informed(*batch)
    assert torch.equal(*(o.logs["reconstruction"] for o in outputs))
    assert torch.equal(*(o.features for o in outputs))
    assert outputs[0].logs["regulariser"] == 0 != outputs[1].logs["regulariser"]
    extra = set(informed.state_dict()) - set(control.state_dict())
    assert {name.split(".")[0] for name in extra} == {"conditional"}
    assert set(outputs[1].logs) - set(outputs[0].logs) == {"infonce", "club", "nll"}


def test_entmae_regulariser_is_minus_the_matrix_entropy_of_the_cls_features(batch, make_config):
    method = build(make_config(method="entmae", lambda_=0.3))
    output = method(*batch)
    entropy = von_neumann_entropy(Gram(output.features, normalize=True))
    torch.testing.assert_close(output.logs["regulariser"], -entropy)
    torch.testing.assert_close(output.logs["loss"], output.logs["reconstruction"] - 0.3 * entropy)
    assert 0 < float(entropy) < math.log(12)


def test_build_masked_takes_the_class_that_the_method_needs(make_config):
    assert type(build(make_config(method="mae"))) is MaskedMethod
    assert type(build(make_config(method="entmae"))) is MaskedMethod
    assert type(build(make_config(method="mimae"))) is MaskInformationMethod
    assert build(make_config(method="mae4")).conditional is None


# --- who is trained by what ----------------------------------------------------------------------------------


def information(method, batch):
    images, _, noise = batch
    masking = disjoint_masking(noise, 4)
    latent, _ = method.autoencoder(images.repeat(4, 1, 1, 1), masking)
    return method.information(images, latent, masking)


def test_likelihood_trains_the_conditional_alone(batch, make_config):
    method = build(make_config(method="mimae"))
    found = gradients(information(method, batch)["nll"], method)
    assert found.keys() == {n for n, _ in method.named_parameters() if n.startswith("conditional.")}
    assert all(size > 0 for size in found.values())


@pytest.mark.parametrize("term", ["club", "infonce"])
def test_information_losses_train_the_encoder_alone(term, batch, make_config):
    method = build(make_config(method="mimae"))
    found = gradients(information(method, batch)[term], method)
    encoder = {n for n, _ in method.named_parameters() if n.startswith("autoencoder.encoder.")}
    assert found.keys() == encoder
    assert sum(size > 0 for size in found.values()) == len(encoder)


def test_labels_do_not_change_the_gradient_of_encoder_and_conditional(batch, make_config):
    found = []
    for shift in (0, 3):
        method = build(make_config(method="mimae"))
        method(batch[0], (batch[1] + shift) % 10, batch[2]).loss.backward()
        found.append([p.grad for n, p in method.named_parameters() if not n.startswith("probe.")])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["mimae", "mae4", "entmae"])
def test_every_parameter_gets_a_gradient_and_a_step_lowers_the_loss(name, batch, make_config):
    method = build(make_config(method=name, lambda_=0.1, nll_weight=0.01))
    before = method(*batch).loss
    before.backward()
    assert [n for n, p in method.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        for parameter in method.parameters():
            parameter -= 1e-3 * parameter.grad
        assert method(*batch).loss < before


def test_log_variance_is_bounded():
    conditional = Conditional(8)
    mean, log_variance = conditional(1e6 * torch.randn(5, 8))
    assert mean.abs().max() > 100
    assert log_variance.abs().max() <= 1


@pytest.mark.parametrize("name", ["mimae", "entmae"])
def test_bf16_forward_computes_the_losses_in_float32(name, batch, make_config):
    method = build(make_config(method=name))
    full = method(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(*batch)
    assert mixed.loss.dtype == mixed.features.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in mixed.logs.values())
    torch.testing.assert_close(mixed.loss, full.loss, rtol=0.02, atol=0)


# --- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mimae", "mae4", "entmae"])
def test_method_trains_from_the_command_line(name, run_script, tmp_path):
    code, table, stderr = run_script("--method", name, "--epochs", "1", "--out", tmp_path / "run")
    assert code == 0, stderr
    label = {"mimae": "MI-MAE style 0.1/0.001", "mae4": "MAE, 4 masks", "entmae": "Ent-MAE 0.01"}[name]
    assert label in table
    last = [r for r in read_metrics(tmp_path / "run") if r["kind"] == "train"][-1]
    assert all(math.isfinite(v) for v in last.values() if isinstance(v, float))
    assert ("infonce" in last) == (name == "mimae")


def test_stopped_and_resumed_mimae_run_equals_an_uninterrupted_one(run_script, tmp_path):
    options = ["--method", "mimae", "--device", "cpu", "--seed", "3"]
    with interrupted(MaskInformationMethod, "forward", 8):  # in the second epoch of five steps
        assert run_script(*options, "--out", tmp_path / "stopped")[0] == 130
    assert run_script("--resume", tmp_path / "stopped", defaults=[])[0] == 0
    assert run_script(*options, "--out", tmp_path / "whole")[0] == 0
    weights = equal_states(tmp_path / "stopped", tmp_path / "whole", moment="exp_avg_sq")
    assert any(name.startswith("conditional.") for name in weights)


def test_labels_tell_settings_apart(make_config):
    def label(**changes):
        return make_config(**changes).label()

    labels = [
        label(method="mimae"),
        label(method="mimae", infonce_weight=0.2),
        label(method="mimae", club_weight=0.01),
        label(method="mimae", masks=2, mask_ratio=0.5),
        label(method="mae4"),
        label(method="mae4", masks=2, mask_ratio=0.5),
        label(method="entmae"),
        label(method="entmae", lambda_=0.1),
    ]
    assert len(set(labels)) == len(labels)


# --- options -------------------------------------------------------------------------------------------------


def test_number_of_masks_does_not_matter_to_the_other_methods(make_config):
    make_config(method="mmae", masks=3).validate()


def paper(name: str, **given):
    """The resolved configuration of a recipe with some options given."""
    return resolve(changed(MaskedRunConfig(), recipe=name, data="imagefolder", **given))


@pytest.mark.parametrize(
    ("name", "model", "mu"), [("paper_vit_b", "vit_base", 1.0), ("paper_vit_l", "vit_large", 3.0)]
)
def test_recipe_fills_what_is_not_given(name, model, mu):
    config = paper(name)
    assert (config.model.model, config.method.mu) == (model, mu)
    assert (config.data.image_size, config.model.patch, config.data.crop_min, config.data.flip) == (
        224,
        16,
        0.2,
        True,
    )
    optim = config.optim
    assert (optim.epochs, optim.warmup_epochs, optim.batch, optim.lr) == (200, 40.0, 1024, 1.5e-4)
    assert (optim.weight_decay, optim.beta1, optim.beta2) == (0.05, 0.9, 0.95)
    assert (config.method.lambda_, config.method.mask_ratio, config.method.norm_pix) == (0.01, 0.75, True)


def test_given_options_win_over_the_recipe():
    config = paper("paper_vit_l", mu=2.0, epochs=100, batch=512)
    assert (config.method.mu, config.optim.epochs, config.optim.batch) == (2.0, 100, 512)
    assert config.optim.warmup_epochs == 20.0  # its share of the epochs
    assert config.model.model == "vit_large"
