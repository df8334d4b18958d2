"""RandAugment at the ends of its range of magnitudes."""

from __future__ import annotations

import torch
from trainlib import augment
from trainlib.randaugment import RandAugment


def test_no_draw_asks_for_an_image_of_zero_bits():
    """A magnitude above 10 is one in fifty; posterize then kept no bits, which newer versions of Pillow refuse."""
    source = torch.Generator().manual_seed(0)
    count = 2000
    pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=source).float()
    changed = RandAugment("full", 3, torch.tensor([0.5, 0.5, 0.5])).batch(pixels, augment.draw(count, source))
    assert changed.shape == pixels.shape
    assert changed.isfinite().all()
