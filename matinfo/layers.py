"""Entropy, effective rank and shared information of the layers of a language or vision model, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from matinfo._hidden_states import HiddenStates, Layers, read_hidden_states
from matinfo._layer_rows import prepared_rows
from matinfo._layer_spectra import Spectra, measure
from matinfo._validation import check_choice, check_order
from matinfo.spectral.precision import PRECISIONS, at_least_float32, without_autocast

__all__ = ["LayerReport", "layerwise"]

POOLS = ("mean", "cls", "last", "tokens")

Source: TypeAlias = nn.Module | Sequence[Tensor | np.ndarray] | Mapping[str, Any] | Any
"""A model, its output with ``hidden_states``, or a list or dict of hidden states."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerReport:
    """What :func:`layerwise` found; L layers, entropies in nats.

    Attributes:
        names: Name of each layer, its index where it has no other.
        widths: Number of features of each layer.
        alpha: Order of the entropies and of the mutual information.
        pool: ``"tokens"`` if the rows are the tokens of each sentence, else how tokens became one row.
        entropies: ``(L, B)`` of each sentence for ``pool="tokens"``, else ``(L, 1)``.
        entropy: ``(L,)``, the mean of ``entropies``.
        effective_rank: ``(L,)``, exp of ``entropy``.
        mutual_information: ``(L, L)``, None without ``pairs``. The diagonal is ``2 H(K) - H(K o K)``.
        matrix_js: ``(L, L)``, between 0 and log 2, None without ``pairs``.
        reference: The report of the reference model, None without one.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    alpha: float
    pool: str
    entropies: Tensor
    entropy: Tensor
    effective_rank: Tensor
    mutual_information: Tensor | None = None
    matrix_js: Tensor | None = None
    reference: LayerReport | None = None

    @property
    def rank_change(self) -> Tensor:
        """``(L,)``: effective rank less that of the first layer."""
        return self.effective_rank - self.effective_rank[0]

    @property
    def diff_erank(self) -> Tensor | None:
        """``(L,)``: effective rank of the reference less that of the model, Diff-eRank; None without a reference."""
        return None if self.reference is None else self.reference.effective_rank - self.effective_rank

    def table(self) -> str:
        """One line a layer, as text; the last columns compare it with the last layer."""
        columns: dict[str, Any] = {
            "entropy": self.entropy,
            "effective rank": self.effective_rank,
            "change": self.rank_change,
            "Diff-eRank": self.diff_erank,
            "MI to last": None if self.mutual_information is None else self.mutual_information[:, -1],
            "JS to last": None if self.matrix_js is None else self.matrix_js[:, -1],
        }
        columns = {title: values.tolist() for title, values in columns.items() if values is not None}
        rows = [["layer", "width", *columns]]
        for i, (name, width) in enumerate(zip(self.names, self.widths, strict=True)):
            rows.append([name, str(width), *(f"{values[i]:.3f}" for values in columns.values())])
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for first, *rest in rows:
            cells = [first.ljust(sizes[0]), *(cell.rjust(n) for cell, n in zip(rest, sizes[1:], strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Number of layers and the range of effective ranks."""
        ranks = self.effective_rank.tolist()
        sentences = f", {self.entropies.shape[1]} sentences" if self.pool == "tokens" else ""
        return (
            f"LayerReport({len(self.names)} layers{sentences}, pool={self.pool!r}, alpha={self.alpha:g}, "
            f"effective rank {min(ranks):.3g} to {max(ranks):.3g})"
        )


def layerwise(
    model: Source,
    batch: Any = None,
    *,
    mask: Tensor | np.ndarray | None = None,
    layers: Layers | None = None,
    pool: str = "mean",
    alpha: float = 1.0,
    center: bool = True,
    normalize: bool = True,
    pairs: bool = True,
    reference: Source | None = None,
    grad: bool = False,
    precision: str = "auto",
) -> LayerReport:
    """Entropies, effective ranks and shared information of the layers of a model.

    With Z the rows of a layer, less their mean (``center``) and of length one (``normalize``), and ``K = Z Z^T``:
    ``H = H_alpha(K)``, ``erank = exp(mean H)``, ``I(l; m) = mean [H(K_l) + H(K_m) - H(K_l o K_m)]`` and ``JS(l, m)``
    the mean matrix Jensen-Shannon divergence. The rows are

    - with ``pool="mean"``, ``"cls"`` or ``"last"`` one vector a sentence or image (the mean over its tokens, its
      first or its last token): one matrix for the *data set*, how much the layer tells the sentences apart;
    - with ``pool="tokens"`` the tokens of one *sentence*: a matrix for each sentence, and means over the sentences. At
      alpha = 1 this is the recipe of Diff-eRank, tokens in place of features on the side that is factored.

    Args:
        model: A ``torch.nn.Module``; or its output with ``hidden_states``; or a list or dict of the hidden states, one
            ``(B, T, d)``, ``(n, d)`` or ``(B, C, H, W)`` a layer, as Tensors or NumPy arrays (widths d may differ).
        batch: What the model is called with: a dict (such as a tokenizer's output) by name, a list or tuple by
            position, anything else as the only argument. None for hidden states.
        mask: ``(B, T)``, 1 or True for tokens that count. None takes ``attention_mask`` out of the batch, if any.
        layers: Names, or patterns of names (``"blocks.*"``; ``*`` stays within one component, ``**`` stands for any
            number of them). Of hidden states and of models of transformers, which are asked for their own (0 is the
            embedding) unless modules are named, also indices or a slice, or None for all. Of other models, names of
            modules only; None is all modules of a ``Sequential`` and refused elsewhere.
        pool: ``"mean"``, ``"cls"``, ``"last"`` or ``"tokens"``. Layers ``(n, d)`` are taken as they are.
        alpha: Order in [0, inf] of entropy, effective rank and mutual information. The JS is of order 1.
        center: Whether to subtract the mean row, over the sentences or over the tokens of a sentence.
        normalize: Whether to divide rows by their length, so that K has unit diagonal.
        pairs: Whether to compare every two layers.
        reference: An untrained or other model, or its hidden states, for Diff-eRank; layer by layer as ``model``.
        grad: Whether a model's forward pass is recorded for differentiation (hidden states always keep their graph).
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        A :class:`LayerReport` of tensors of the dtype of the hidden states, at least float32; for NumPy hidden states
        of arrays in float64.

    Raises:
        ValueError: If shapes or the mask do not fit together, a sentence has no token (with ``center``: fewer than
            two), a layer holds NaN or infinity or does not vary at all, or layers are not found.
        TypeError: If hidden states are not real floating point, or the model is none of the above.

    Notes:
        A module is called once, in evaluation mode, and left in the mode it was in. Padding does not enter: sentences
        of about equal length are put together, and what is filled up is zero rows, which change no entropy. All layers
        and sentences of a size go through the eigensolver in one call, on the smaller of T and d, some 4 L B T^3/3
        flops at most; pairs cost L (L + 1)/2 in place of L of them, for I and for JS each, and L T^2 numbers of memory.
        For data sets T is the number of rows. Differentiable with respect to hidden states, as the entropies are.

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
        0         32    1.813           6.131   0.000       0.498       0.293
        1         32    0.651           1.917  -4.214       0.329       0.000
        >>> layerwise([first, second], mask=mask, pool="tokens", pairs=False).entropies.shape
        torch.Size([2, 8])
    """
    check_choice(pool, "pool", POOLS)
    check_choice(precision, "precision", PRECISIONS)
    order = check_order(alpha)
    options: dict[str, Any] = {"pool": pool, "center": center, "normalize": normalize, "precision": precision}
    states = read_hidden_states(model, batch, layers, grad=grad)
    report = _report(states, mask, order, pairs=pairs, **options)
    if reference is None:
        return report
    others = read_hidden_states(
        reference, batch if isinstance(reference, nn.Module) else None, layers, grad=grad
    )
    # The two reports are subtracted: arrays or tensors, and where, is decided by the model's side.
    device = states.tensors[0].device
    others = others._replace(is_numpy=states.is_numpy, tensors=[x.to(device) for x in others.tensors])
    if len(others.names) != len(states.names):
        raise ValueError(
            f"Expected a reference with the model's {len(states.names)} layers, got {len(others.names)}."
        )
    baseline = _report(
        others, states.mask if mask is None and others.mask is None else mask, order, pairs=False, **options
    )
    return LayerReport(**{**vars(report), "reference": baseline})


def _report(
    states: HiddenStates,
    mask: Any,
    alpha: float,
    *,
    pool: str,
    center: bool,
    normalize: bool,
    pairs: bool,
    precision: str,
) -> LayerReport:
    with without_autocast(states.tensors[0].device):
        rows, groups = prepared_rows(
            states, states.mask if mask is None else mask, pool=pool, center=center, normalize=normalize
        )
        spectra = measure(rows, groups, alpha, pairs=pairs, precision=precision)
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in states.tensors])
    return _assemble(states, spectra, at_least_float32(dtype), alpha, pool)


def _assemble(
    states: HiddenStates, spectra: Spectra, dtype: torch.dtype, alpha: float, pool: str
) -> LayerReport:
    def out(value: Tensor | None) -> Any:
        if value is None:
            return None
        return value.detach().cpu().numpy() if states.is_numpy else value.to(dtype)

    mean = spectra.entropies.mean(-1)
    return LayerReport(
        names=states.names,
        widths=tuple(x.shape[-1] for x in states.tensors),
        alpha=alpha,
        pool=pool,
        entropies=out(spectra.entropies),
        entropy=out(mean),
        effective_rank=out(mean.exp()),
        mutual_information=out(spectra.mutual_information),
        matrix_js=out(spectra.matrix_js),
    )
