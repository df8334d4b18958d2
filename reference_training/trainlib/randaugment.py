"""timm's RandAugment on single images, each from random numbers of its own."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from trainlib.augment import CropDraws
from trainlib.rng import seeded

POLICY = "rand-m9-mstd0.5-inc1"
GEOMETRIC = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]
SHIFT = 0.45  # of the side, as timm's training recipes set it
MOST = 9.999  # of the magnitudes; at 10, timm's own limit, posterize keeps 0 bits, which Pillow 12 and later refuse


class RandAugment:
    """Two random operations of magnitude 9 +- 0.5, each with probability 1/2, as in the published fine-tuning."""

    def __init__(self, operations: str, channels: int, mean: Tensor) -> None:
        fill = tuple(round(255 * float(value)) for value in mean)
        options = {
            "img_mean": fill if channels > 1 else fill[0],
            "interpolation": Image.Resampling.BICUBIC,
            "translate_pct": SHIFT,
            "magnitude_max": MOST,
        }
        self.transform = rand_augment_transform(
            POLICY, options, transforms=GEOMETRIC if operations == "geometric" else None
        )

    def __call__(self, image: Image.Image, draws: CropDraws) -> Image.Image:
        """One image; equal draws (those of its crop, one row) give equal images."""
        numbers = torch.cat([draws.position.flatten(), draws.flip.flatten()]).double()
        with seeded(*(int(n) for n in numbers * 2**24), pytorch=False):
            return self.transform(image)

    def batch(self, pixels: Tensor, draws: CropDraws) -> Tensor:
        """Pixels ``(B, C, H, W)`` in [0, 255], on any device; the results are whole numbers."""
        array = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        rows = [CropDraws(*(d[i : i + 1] for d in draws)) for i in range(len(array))]
        changed = [
            np.asarray(self(Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a), row))
            for a, row in zip(array, rows, strict=True)
        ]
        stacked = torch.from_numpy(np.stack(changed)).reshape(array.shape)
        return stacked.permute(0, 3, 1, 2).float().to(pixels.device)
