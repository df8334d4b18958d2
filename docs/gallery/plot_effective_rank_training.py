"""
Effective rank while a masked autoencoder trains
================================================

A masked autoencoder (MAE) tends to use few directions of its feature space. U-MAE and M-MAE add a term that spreads
them. Here all three are trained from one seed on scikit-learn's digits, at a size that takes seconds, and their
effective rank is followed.
"""

# %%
# A masked autoencoder of 8 x 8 images
# ------------------------------------
#
# Sixteen patches of 2 x 2 pixels, half of them visible; a transformer with a class token encodes these, a smaller one
# predicts the others.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from matinfo import Gram, effective_rank
from matinfo.losses import masked_reconstruction_loss, mmae_tcr_loss, umae_uniformity_loss

WIDTH, VISIBLE, BATCH, STEPS = 32, 8, 64, 320

images = torch.tensor(load_digits().data, dtype=torch.float32).reshape(-1, 4, 2, 4, 2) / 16
patches = images.transpose(2, 3).reshape(-1, 16, 4)
train, held_out = patches[:1437], patches[1437:]


def transformer(depth):
    block = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(WIDTH), enable_nested_tensor=False)


class MaskedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.places = nn.Parameter(0.3 * torch.randn(17, WIDTH))
        self.hidden = nn.Parameter(0.02 * torch.randn(WIDTH))
        self.encoder, self.decoder = transformer(1), transformer(1)
        self.predict = nn.Linear(WIDTH, 4)

    def encode(self, x, keep):
        """Class token and visible patches, after the final norm."""
        tokens = self.embed(x) + self.places[1:]
        seen = tokens.gather(1, keep[:, :, None].expand(-1, -1, WIDTH))
        start = self.places[:1].expand(len(x), 1, WIDTH)
        return self.encoder(torch.cat([start, seen], 1))

    def forward(self, x, keep):
        code = self.encode(x, keep)
        tokens = self.hidden.expand(len(x), 16, WIDTH)
        tokens = tokens.scatter(1, keep[:, :, None].expand(-1, -1, WIDTH), code[:, 1:])
        decoded = self.decoder(torch.cat([code[:, :1], tokens], 1) + self.places)
        return self.predict(decoded[:, 1:]), code[:, 0]


# %%
# Three objectives, one seed
# --------------------------
#
# Weights, batches and masks are the same for all three; only the added term differs.

terms = {
    "MAE": lambda cls: 0.0,
    "U-MAE": lambda cls: 0.1 * umae_uniformity_loss(cls),
    "M-MAE": lambda cls: 0.1 * mmae_tcr_loss(cls),
}


@torch.no_grad()
def rank_of_held_out(model):
    everything = torch.arange(16).expand(len(held_out), 16)
    cls = model.encode(held_out, everything)[:, 0]
    return float(effective_rank(Gram(cls, normalize=True)))


def train_one(term):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = MaskedAutoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps, ranks, losses = [], [], []
    for step in range(STEPS + 1):
        if step % 20 == 0:
            steps.append(step)
            ranks.append(rank_of_held_out(model))
        x = train[torch.randint(len(train), (BATCH,), generator=generator)]
        keep = torch.rand(BATCH, 16, generator=generator).argsort(1)[:, :VISIBLE]
        mask = torch.ones(BATCH, 16).scatter(1, keep, 0.0)
        prediction, cls = model(x, keep)
        reconstruction = masked_reconstruction_loss(prediction, x, mask, norm_pix=False)
        optimiser.zero_grad()
        (reconstruction + term(cls)).backward()
        optimiser.step()
        losses.append(reconstruction.item())
    return steps, ranks, losses


runs = {name: train_one(term) for name, term in terms.items()}

# %%
# Effective rank of the class token
# ---------------------------------
#
# Of unmasked held-out images, rows l2-normalised, not centred. At most 32 directions are there.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, (steps, ranks, losses) in runs.items():
    left.plot(steps, ranks, label=name)
    smooth = torch.tensor(losses).unfold(0, 20, 20).mean(1)
    right.plot(torch.arange(1, len(smooth) + 1) * 20, smooth, label=name)
left.set(xlabel="step", ylabel="effective rank", title="class token, held-out images", ylim=(0, None))
right.set(xlabel="step", ylabel="reconstruction loss", yscale="log", title="what is being learned")
left.legend(frameon=False)
plt.show()

# %%
# At the end: effective rank, and mean reconstruction loss of the last hundred steps.

{name: (round(ranks[-1], 1), round(sum(losses[-100:]) / 100, 4)) for name, (_, ranks, losses) in runs.items()}

# %%
# A higher rank is no end in itself: in the longer runs of :doc:`/results` accuracy rises with it only up to a point.
# ``reference_training/pretrain_mmae.py --compare`` trains the same three at full size.
