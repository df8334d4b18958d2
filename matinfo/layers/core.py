"""The layers of a language or vision model, from a batch, a loader or sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from matinfo._columns import Quantities, as_columns
from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_order
from matinfo.layers.batches import read_batches
from matinfo.layers.collector import Collector, Options
from matinfo.layers.hidden_states import Layers, read_hidden_states
from matinfo.layers.modules import plain_module
from matinfo.layers.report import LayerReport
from matinfo.spectral.precision import PRECISIONS

POOLS = ("mean", "cls", "last", "tokens")

Source: TypeAlias = nn.Module | Sequence[Tensor | np.ndarray] | Mapping[str, Any] | Iterable[Any] | Any
"""A model, its output with ``hidden_states``, or a list or dict of hidden states, or an iterator of either."""


@answers_keywords
def layerwise(
    model: Source,
    batch: Any = None,
    *,
    mask: Tensor | np.ndarray | None = None,
    layers: Layers | None = None,
    pool: str = "mean",
    alpha: float = 1.0,
    center: bool | str = False,
    normalize: bool = True,
    pairs: bool | None = None,
    quantities: Quantities = (),
    reference: Source | None = None,
    tokenizer: Callable[..., Any] | None = None,
    batch_size: int = 64,
    progress: bool = False,
    grad: bool = False,
    precision: str = "auto",
) -> LayerReport:
    """Entropies, effective ranks and shared information of the layers of a model.

    With Z the rows of a layer, of length one (``normalize``) and then less their mean (``center``), and ``K = Z Z^T``:
    ``H = H_alpha(K)``, ``erank = exp(mean H)``, ``I(l; m) = mean [H(K_l) + H(K_m) - H(K_l o K_m)]`` and ``JS(l, m)``
    the mean matrix Jensen-Shannon divergence. The rows are

    - with ``pool="mean"``, ``"cls"`` or ``"last"`` one vector a sentence or image (the mean over its tokens, its
      first or its last token): one matrix for the *data set*, how much the layer tells the sentences apart;
    - with ``pool="tokens"`` the tokens of one *sentence*: a matrix for each sentence, and means over the sentences. At
      alpha = 1 and with ``center="first"`` this is the recipe of Diff-eRank.

    Args:
        model: A ``torch.nn.Module``, compiled or in ``DistributedDataParallel`` too; or its output, or that of
            ``generate``, or a dict, with ``hidden_states``; or a list or dict of the hidden states, one ``(B, T, d)``,
            ``(n, d)`` or ``(B, C, H, W)`` a layer, as Tensors or NumPy arrays (widths d may differ); or an iterator of
            such outputs, lists or dicts, one a batch.
        batch: What the model is called with: a dict (such as a tokenizer's output) by name, a list or tuple of tensors
            by position, anything else as the only argument. Or many of them: a loader, a generator, a list of dicts
            (of these the model gets the arguments that its ``forward`` has, of tuples as many as it needs); or
            sentences, as a list or any iterable of strings. None for hidden states.
        mask: ``(B, T)``, 1 or True for tokens that count. None takes ``attention_mask`` out of the batch, if any,
            ``decoder_attention_mask`` for modules of a ``decoder`` beside an encoder, and none for towers of other
            tokens (``vision...``, ``audio...``); token ids that hold the padding of the model's ``config`` are refused
            without a mask. Not for many batches.
        layers: Names, or patterns of names (``"blocks.*"``; ``*`` stays within one component, ``**`` stands for any
            number of them). Of hidden states and of models of transformers, which are asked for their own (0 is the
            embedding) unless modules are named, also indices or a slice, or None for all. Of other models, names of
            modules only; None is all modules of a ``Sequential`` and refused elsewhere.
        pool: ``"mean"``, ``"cls"``, ``"last"`` or ``"tokens"``. Layers ``(n, d)`` are taken as they are.
        alpha: Order in [0, inf] of entropy, effective rank and mutual information. The JS is of order 1.
        center: Whether to subtract the mean row, over the samples or over the tokens of a sentence; ``"first"``
            subtracts it before rows are divided by their length, as Diff-eRank does.
        normalize: Whether to divide rows by their length, so that K has unit diagonal.
        pairs: Whether to compare every two layers; None to do so for a single batch only.
        quantities: More columns: names of measures in :data:`matinfo.measures.MEASURES`, or a mapping
            from names of columns to these functions, ``functools.partial`` of them or callables of a
            :class:`~matinfo.Gram`, as for :class:`~matinfo.monitor.Monitor`. Means over sentences for ``"tokens"``.
        reference: An untrained or other model, or its hidden states, for Diff-eRank; layer by layer as ``model``.
        tokenizer: What turns a list of sentences into the model's arguments, as ``AutoTokenizer`` does.
        batch_size: Number of sentences in a batch.
        progress: Whether to show a bar; needs tqdm.
        grad: Whether a model's forward pass is recorded for differentiation (hidden states always keep their graph).
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        A :class:`LayerReport` of tensors of the dtype of the hidden states, at least float32; for NumPy hidden states
        of arrays in float64.

    Raises:
        ValueError: If shapes or the mask do not fit together, a sentence has no token (with ``center``: fewer than
            two), a layer holds NaN or infinity or does not vary at all, layers are not found, or ids are padded
            without a mask.
        TypeError: If hidden states are not real floating point, or the model is none of the above.

    Notes:
        A module is called once a batch, in evaluation mode, and left in the mode it was in. Of many batches, tokens are
        measured as they come; pooled rows are added up to ``d x d`` second moments in float64, ``8 L d^2`` bytes of any
        number of rows, unless ``pairs=True``, ``grad``, ``center="first"`` or a measure of features (``"two_nn"``) has
        them held. Padding does not enter: sentences of about equal length are put together, and what is filled up is
        zero rows, which change no entropy. Feature maps have their channels first: those of Swin, ``(B, H, W, C)``, are
        to be permuted and passed as hidden states. All layers and sentences of a size go through the eigensolver in one
        call, on the smaller of T and d, some 4 L B T^3/3 flops at most; pairs cost L (L + 1)/2 in place of L of them,
        for I and for JS each, and L T^2 numbers of memory. For data sets T is the number of rows. Differentiable with
        respect to hidden states.

    References:
        Wei et al. (2024), Diff-eRank, for ``pool="tokens"``; Skean et al. (2025), Layer by layer, for both kinds of
        rows; Sanchez Giraldo, Rao and Principe (2014) for the mutual information.

    Example:
        >>> import torch
        >>> from matinfo.layers import layerwise
        >>> random = torch.Generator().manual_seed(0)
        >>> first = torch.randn(8, 5, 32, generator=random)  # 8 sentences of at most 5 tokens
        >>> second = first[..., :2].repeat(1, 1, 16)  # a layer that keeps two directions
        >>> mask = torch.arange(5) < torch.tensor([[5], [5], [4], [4], [3], [3], [2], [2]])
        >>> print(layerwise([first, second], mask=mask).table())
        layer  width  entropy  effective rank  change  MI to last  JS to last
        0         32    1.941           6.965   0.000       0.596       0.280
        1         32    0.666           1.946  -5.019       0.336       0.000
        pool='mean', n = 8, α = 1, rows of Z divided by their length, not centred
        >>> layerwise([first, second], mask=mask, pool="tokens", pairs=False).entropies.shape
        torch.Size([2, 8])
    """
    check_choice(pool, "pool", POOLS)
    check_choice(precision, "precision", PRECISIONS)
    if center not in (False, True, "first"):
        raise ValueError(f"Expected center to be False, True or 'first', got {center!r}.")
    order, columns = check_order(alpha), as_columns(quantities)
    items, many = read_batches(model, batch, tokenizer, check_count(batch_size, "batch_size"), progress)
    if many and mask is not None:
        raise ValueError(
            "Expected no mask for many batches, got one. Let each batch be a dict with its attention_mask."
        )
    pairs = not many if pairs is None else bool(pairs)
    options = Options(pool, order, center, bool(normalize), pairs, precision, columns)
    hold = not many or pairs or grad or center == "first" or any([column.needs_rows for column in columns])
    own, other = Collector(options, hold=hold), Collector(options._replace(pairs=False), hold=hold)
    is_model = isinstance(model, nn.Module)
    for item in items:
        source = (model, item) if is_model else (item, batch)
        states = read_hidden_states(*source, layers, grad=grad, masked=mask is not None)
        own.add(states, states.mask if mask is None else mask)
        if reference is None:
            continue
        runs = isinstance(reference, nn.Module)
        if many and not runs:
            raise ValueError("Expected a model as the reference for many batches, got hidden states.")
        masked = mask is not None or not runs
        baseline = read_hidden_states(reference, item if runs else None, layers, grad=grad, masked=masked)
        if len(baseline.names) != len(states.names):
            raise ValueError(
                f"Expected a reference with the model's {len(states.names)} layers, got {len(baseline.names)}."
            )
        # The two reports are subtracted: arrays or tensors, and where, is decided by the model's side.
        moved = [x.to(states.tensors[0].device) for x in baseline.tensors]
        baseline = baseline._replace(is_numpy=states.is_numpy, tensors=moved)
        keep = states.mask if mask is None and baseline.mask is None else mask
        other.add(baseline, baseline.mask if keep is None else keep)
    report = own.report(_name(model))
    if reference is None:
        return report
    return LayerReport(**{**vars(report), "reference": other.report(_name(reference))})


def _name(model: Any) -> str:
    return type(plain_module(model)).__name__ if isinstance(model, nn.Module) else ""
