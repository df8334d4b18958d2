"""All batches of one model, taken together in memory that does not grow with their number."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matinfo._columns import Column
from matinfo.layers.groups import Groups
from matinfo.layers.hidden_states import HiddenStates
from matinfo.layers.report import LayerReport
from matinfo.layers.rows import rows_of
from matinfo.layers.spectra import Spectra, joined, measure, measure_moments
from matinfo.operands import dtype_given, rounded_in
from matinfo.spectral.precision import at_least_float32, without_autocast
from matinfo.streaming import CovarianceAccumulator


class Options(NamedTuple):
    """The arguments of ``layerwise`` that say what is measured."""

    pool: str
    alpha: float
    center: bool | str
    normalize: bool
    pairs: bool
    precision: str
    columns: list[Column]


class Collector:
    """Hidden states of one model, batch by batch.

    Tokens are measured at once, sentence by sentence. Pooled rows are held while they are no more than the widest layer
    has columns, and all of them where pairs or gradients are wanted or the mean comes before the division; else a layer
    becomes the second moment of its rows, and memory does not depend on their number.
    """

    def __init__(self, options: Options, *, hold: bool) -> None:
        self.options, self.hold = options, hold
        self.names: tuple[str, ...] = ()
        self.widths: tuple[int, ...] = ()
        self.dtypes: list[torch.dtype] = []
        self.given: list[torch.dtype] = []
        self.is_numpy = False
        self.count = 0
        self.held: list[list[Tensor]] = []
        self.streams: list[CovarianceAccumulator] = []
        self.measured: list[Spectra] = []

    def add(self, states: HiddenStates, mask: Any) -> None:
        """Measure, hold or add up the rows of a batch."""
        widths = tuple(x.shape[-1] for x in states.tensors)
        if self.names and (self.names, self.widths) != (states.names, widths):
            raise ValueError(
                f"Expected the same layers in every batch, got {self.names} of widths {self.widths}, then "
                f"{states.names} of widths {widths}."
            )
        self.names, self.widths, self.is_numpy = states.names, widths, states.is_numpy
        self.dtypes = [at_least_float32(x.dtype) for x in states.tensors]
        self.given = [dtype_given(x) for x in states.tensors]
        with without_autocast(states.tensors[0].device):
            rows, lengths = rows_of(states, mask, self.options.pool)
            self.count += int(lengths.sum())
            if self.options.pool == "tokens":
                self.measured.append(self._measured(rows, Groups(lengths)))
                return
            self.held.append(rows)
            if self.hold or (not self.streams and self.count <= max(widths)):
                return
            self._add_up()

    def _add_up(self) -> None:
        if not self.streams:
            center, normalize = bool(self.options.center), self.options.normalize
            self.streams = [
                CovarianceAccumulator(width, center=center, normalize=normalize) for width in self.widths
            ]
        for rows in self.held:
            for name, stream, Z, given in zip(self.names, self.streams, rows, self.given, strict=True):
                try:
                    stream.update(rounded_in(given, Z))
                except ValueError as error:
                    raise ValueError(f"Layer {name}: {error}") from error
        self.held = []

    def _measured(self, rows: list[Tensor], groups: Groups) -> Spectra:
        o, prepared = self.options, []
        if o.center and min(groups.sizes) < 2:
            one = f"tokens in every sentence, got one in sentence {groups.sizes.index(min(groups.sizes))}"
            raise ValueError(
                f"Expected at least two {one if o.pool == 'tokens' else 'samples, got one'}: less its mean nothing is "
                "left of it. Leave it out, or pass center=False."
            )
        for name, X, dtype, given in zip(self.names, rows, self.dtypes, self.given, strict=True):
            eps = torch.finfo(at_least_float32(given)).eps
            Z, finite, constant = groups.prepare(X, center=o.center, normalize=o.normalize, eps=eps)
            if bool((~finite | constant).any()):
                self._refuse(name, finite, constant)
            prepared.append(Z.to(dtype))
        return measure(prepared, groups, o.alpha, pairs=o.pairs, precision=o.precision, columns=o.columns)

    def _refuse(self, name: str, finite: Tensor, constant: Tensor) -> None:
        """Say where a layer has no spectrum, and why."""
        bad = ~finite if bool((~finite).any()) else constant
        tokens = self.options.pool == "tokens"
        where = f"layer {name}, sentence {int(bad.int().argmax())}" if tokens else f"layer {name}"
        if bad is not constant:
            raise ValueError(f"Expected finite hidden states, got NaN or infinity in {where}.")
        if not self.options.center:
            raise ValueError(f"Expected hidden states that are not all zero, got zeros in {where}.")
        raise ValueError(
            f"Expected rows that vary, got equal ones in {where}: less their mean nothing is left. Pass center=False, "
            f"or leave out the {'sentence or the layer' if tokens else 'layer'} with layers= (an embedded first token "
            "is the same in every sentence)."
        )

    def _spectra(self) -> Spectra:
        if self.measured:
            return joined(self.measured)
        if self.streams:
            grams = [stream.gram() for stream in self.streams]
            for name, gram in zip(self.names, grams, strict=True):
                if float(gram.trace()) == 0:
                    raise ValueError(
                        f"Expected rows that vary, got nothing but {'equal ones' if self.options.center else 'zeros'} "
                        f"in layer {name}. Leave it out with layers=."
                    )
            return measure_moments(grams, self.options.alpha, self.options.columns)
        rows = [torch.cat(parts) for parts in zip(*self.held, strict=True)]
        return self._measured(rows, Groups(torch.tensor([len(rows[0])], device=rows[0].device)))

    def report(self, model: str) -> LayerReport:
        """What all batches gave."""
        spectra = self._spectra()
        dtype = functools.reduce(torch.promote_types, self.dtypes)

        def out(value: Tensor | None) -> Any:
            if value is None:
                return None
            return value.detach().cpu().numpy() if self.is_numpy else value.to(dtype)

        mean = spectra.entropies.mean(-1)
        return LayerReport(
            names=self.names,
            widths=self.widths,
            alpha=self.options.alpha,
            pool=self.options.pool,
            entropies=out(spectra.entropies),
            entropy=out(mean),
            effective_rank=out(mean.exp()),
            mutual_information=out(spectra.mutual_information),
            matrix_js=out(spectra.matrix_js),
            quantities={name: out(values.mean(-1)) for name, values in spectra.columns.items()},
            model=model,
            rows=self.count,
            center=self.options.center,
            normalize=self.options.normalize,
        )
