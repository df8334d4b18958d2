"""The masked autoencoder (He et al. 2022), built on timm's vision transformer blocks."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Sizes(NamedTuple):
    """Width, depth and heads of encoder and decoder."""

    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


SIZES = {
    "mini": Sizes(64, 4, 4, 64, 1, 4),
    "tiny": Sizes(128, 4, 4, 64, 1, 4),
    "small": Sizes(192, 12, 3, 192, 4, 3),
    "vit_small": Sizes(384, 12, 6, 512, 8, 16),
    "vit_base": Sizes(768, 12, 12, 512, 8, 16),
    "vit_large": Sizes(1024, 24, 16, 512, 8, 16),
}


def model_sizes(model) -> Sizes:
    """The named size with the explicitly given numbers put in their places."""
    given = {name: getattr(model, name) for name in Sizes._fields}
    return SIZES[model.model]._replace(**{k: v for k, v in given.items() if v is not None})


class Masking(NamedTuple):
    """Visible patches ``(B, K)``, the inverse permutation ``(B, L)`` and the mask ``(B, L)``, 1 = hidden."""

    keep: Tensor
    restore: Tensor
    mask: Tensor


def random_masking(noise: Tensor, mask_ratio: float) -> Masking:
    """Keep the ``int(L (1 - mask_ratio))`` patches of smallest noise, per image. ``noise`` is ``(B, L)``."""
    length = noise.shape[1]
    visible = int(length * (1 - mask_ratio))
    shuffle = noise.argsort(dim=1)
    restore = shuffle.argsort(dim=1)
    mask = (restore >= visible).to(noise.dtype)
    return Masking(shuffle[:, :visible], restore, mask)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images ``(B, C, H, W)`` to patches ``(B, L, patch * patch * C)``; inside a patch: row, column, channel."""
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, channels: int) -> Tensor:
    """The inverse of ``patchify`` for square images."""
    batch, length, _ = patches.shape
    side = int(length**0.5)
    grid = patches.reshape(batch, side, side, patch, patch, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, side * patch, side * patch)


def sincos_positions(width: int, side: int) -> Tensor:
    """Fixed 2-D sine-cosine positions ``(1, 1 + side * side, width)``; the CLS row is zero."""
    frequency = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    line = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    column = line.repeat(side, 1)  # the first half of the width encodes the column
    row = line.repeat_interleave(side, 0)
    positions = torch.cat([column, row], 1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), positions])[None].float()


def _blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    return nn.Sequential(
        *(Block(width, heads, mlp_ratio=4, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


class Encoder(nn.Module):
    """Pre-norm vision transformer on the visible patches and a CLS token."""

    def __init__(self, image_size: int, patch: int, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(image_size, patch, channels, sizes.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.register_buffer(
            "positions", sincos_positions(sizes.width, image_size // patch), persistent=False
        )
        self.blocks = _blocks(sizes.width, sizes.depth, sizes.heads)
        self.norm = LayerNorm(sizes.width)
        self.apply(_initialize)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        nn.init.zeros_(self.patch_embed.proj.bias)
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens ``(B, 1 + K, width)`` after the final norm, CLS first; all patches where ``keep`` is ``None``."""
        tokens = self.patch_embed(images) + self.positions[:, 1:]
        if keep is not None:
            tokens = _gather(tokens, keep)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        return self.norm(self.blocks(tokens))


class Decoder(nn.Module):
    """Transformer that predicts every patch from the encoded visible ones."""

    def __init__(self, image_size: int, patch: int, channels: int, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.decoder_width
        self.embed = nn.Linear(sizes.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sincos_positions(width, image_size // patch), persistent=False)
        self.blocks = _blocks(width, sizes.decoder_depth, sizes.decoder_heads)
        self.norm = LayerNorm(width)
        self.predict = nn.Linear(width, patch * patch * channels)
        self.apply(_initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Predicted patches ``(B, L, patch * patch * C)``."""
        tokens = self.embed(latent)
        hidden = restore.shape[1] + 1 - tokens.shape[1]
        patches = torch.cat(
            [tokens[:, 1:], self.mask_token.to(tokens.dtype).expand(len(tokens), hidden, -1)], 1
        )
        tokens = torch.cat([tokens[:, :1], _gather(patches, restore)], 1) + self.positions
        return self.predict(self.norm(self.blocks(tokens)))[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder with the masking between them."""

    def __init__(self, image_size: int, patch: int, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.patch, self.channels = patch, channels
        self.length = (image_size // patch) ** 2
        self.encoder = Encoder(image_size, patch, channels, sizes)
        self.decoder = Decoder(image_size, patch, channels, sizes)

    def forward(self, images: Tensor, masking: Masking) -> tuple[Tensor, Tensor]:
        """Latent tokens of the visible patches and the predicted patches."""
        latent = self.encoder(images, masking.keep)
        return latent, self.decoder(latent, masking.restore)
