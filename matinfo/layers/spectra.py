"""Entropies of all layers, and of all pairs of layers, in as few calls as there are sizes of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._columns import Column
from matinfo.entropy import joint_entropy, renyi_entropy, von_neumann_entropy
from matinfo.layers.groups import Groups
from matinfo.operands import AnyGram, Gram, StreamGram, smaller_side
from matinfo.spectral.traces import trace
from matinfo.spectrum import spectrum

_ENTRIES = 2**22
"""Numbers in a stack of matrices or of padded rows: 32 MiB in float64."""


class Spectra(NamedTuple):
    """Entropies ``(L, G)`` of each layer and group, other quantities of them, and what pairs of layers share.

    The pairs ``(L, L)`` are means over the groups.
    """

    entropies: Tensor
    mutual_information: Tensor | None
    matrix_js: Tensor | None
    columns: dict[str, Tensor]


def measure(
    layers: list[Tensor],
    groups: Groups,
    alpha: float,
    *,
    pairs: bool,
    precision: str,
    columns: list[Column],
) -> Spectra:
    """Measure prepared rows ``(N, d_l)``, one tensor a layer, all with the same groups. In nats, float64."""
    if pairs and precision == "auto":
        precision = "float64"  # differences of entropies
    entropies, shared, divergences = [], [], []
    values: dict[str, list[Tensor]] = {column.name: [] for column in columns}
    numbers = []
    # Rows of zeros change no entropy, but a coding rate counts them: with other quantities only equal lengths share.
    spread = 1.0 if columns else 1.25
    for chunk in groups.chunks(_ENTRIES, max(X.shape[-1] for X in layers), len(layers), spread=spread):
        grams = [Gram(chunk.padded(X)) for X in layers]
        if columns:
            own, found = _of_spectra(grams, alpha, columns, precision)
            for name, value in found.items():
                values[name].append(value)
        else:
            own = _entropies(grams, alpha, precision)
        entropies.append(own)
        numbers.append(chunk.groups)
        if pairs:
            order_one = own if alpha == 1 else _entropies(grams, 1.0, precision)
            information, js = _pairs(grams, own, order_one, alpha, precision)
            shared.append(information)
            divergences.append(js)
    back = torch.cat(numbers).argsort()
    count = len(groups.sizes)
    return Spectra(
        torch.cat(entropies, -1)[:, back],
        _symmetric(torch.cat(shared, -1).sum(-1) / count, len(layers), diagonal=True) if pairs else None,
        _symmetric(torch.cat(divergences, -1).sum(-1) / count, len(layers), diagonal=False)
        if pairs
        else None,
        {name: torch.cat(parts, -1)[:, back] for name, parts in values.items()},
    )


def measure_moments(grams: list[StreamGram], alpha: float, columns: list[Column]) -> Spectra:
    """Measure the Gram matrices of rows that were added up, one a layer."""
    entropies, found = _of_spectra(grams, alpha, columns, "auto")
    return Spectra(entropies[:, None], None, None, {name: values[:, None] for name, values in found.items()})


def _of_spectra(
    grams: Sequence[AnyGram], alpha: float, columns: list[Column], precision: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Entropies and other quantities, a row each layer, of one decomposition of each."""
    spectra = [spectrum(gram, precision=precision) for gram in grams]
    values = {
        column.name: torch.stack([column.value(S, gram) for S, gram in zip(spectra, grams, strict=True)])
        for column in columns
    }
    return torch.stack([renyi_entropy(S, alpha).double() for S in spectra]), values


def joined(parts: list[Spectra]) -> Spectra:
    """The groups of several batches side by side; what pairs share is a mean over all groups."""
    if len(parts) == 1:
        return parts[0]
    counts = [part.entropies.shape[1] for part in parts]

    def mean(matrices: list[Tensor | None]) -> Tensor | None:
        weighted = [M * count for M, count in zip(matrices, counts, strict=True) if M is not None]
        return torch.stack(weighted).sum(0) / sum(counts) if weighted else None

    return Spectra(
        torch.cat([part.entropies for part in parts], 1),
        mean([part.mutual_information for part in parts]),
        mean([part.matrix_js for part in parts]),
        {name: torch.cat([part.columns[name] for part in parts], 1) for name in parts[0].columns},
    )


def _entropies(grams: list[Gram], alpha: float, precision: str) -> Tensor:
    """``(L, b)``: the smaller sides of equal size go through the solver together."""
    sides = [smaller_side(gram, precision=precision, sensitive=alpha < 1).matrix for gram in grams]
    found: dict[int, Tensor] = {}
    for size in {side.shape[-1] for side in sides}:
        members = [i for i, side in enumerate(sides) if side.shape[-1] == size]
        values = renyi_entropy(torch.stack([sides[i] for i in members]), alpha, precision=precision).double()
        found.update(zip(members, values, strict=True))
    return torch.stack([found[i] for i in range(len(sides))])


def _pairs(
    grams: list[Gram], own: Tensor, order_one: Tensor, alpha: float, precision: str
) -> tuple[Tensor, Tensor]:
    """Mutual information of the pairs i <= j and Jensen-Shannon divergence of those i < j, ``(pairs, b)`` each."""
    # I = H_i + H_j - H(K_i o K_j) and JS = H_1((P_i + P_j)/2) - (H_1(P_i) + H_1(P_j))/2 as in mutual_information and
    # matrix_js, but each layer's own entropy once for all pairs.
    K = torch.stack([gram.dense(getattr(torch, precision)) for gram in grams])
    P = K / trace(K)[..., None, None].to(K.dtype)
    i, j = torch.triu_indices(len(grams), len(grams), device=K.device)
    m, n = torch.triu_indices(len(grams), len(grams), offset=1, device=K.device)
    step = max(1, _ENTRIES // P[0].numel())
    joint = [
        joint_entropy(P[a], P[b], alpha=alpha, precision=precision)
        for a, b in zip(i.split(step), j.split(step), strict=True)
    ]
    mixture = [
        von_neumann_entropy((P[a] + P[b]) / 2, precision=precision)
        for a, b in zip(m.split(step), n.split(step), strict=True)
    ]
    information = own[i] + own[j] - torch.cat(joint)
    return information, torch.cat(mixture) - (order_one[m] + order_one[n]) / 2


def _symmetric(values: Tensor, size: int, *, diagonal: bool) -> Tensor:
    """``(size, size)`` with ``values`` above the diagonal, and on it or zero there."""
    i, j = torch.triu_indices(size, size, offset=0 if diagonal else 1, device=values.device)
    result = values.new_zeros(size, size)
    return result.index_put((i, j), values).index_put((j, i), values)
