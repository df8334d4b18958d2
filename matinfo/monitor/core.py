"""The monitor itself: what is measured when, what is kept, and what is said."""

from __future__ import annotations

import contextlib
import copy
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor, nn

from matinfo._columns import Quantities, as_columns
from matinfo._conventions import describe_rows
from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count
from matinfo.distributed import world_size
from matinfo.layers.modules import chosen_modules, plain_module
from matinfo.monitor.collapse import Alarm, MonitorWarning, NonFiniteWarning
from matinfo.monitor.hooks import Capture, Mask, check_mask, take_off
from matinfo.monitor.measurement import Spectra, measure
from matinfo.monitor.pooling import POOLS, Pool, joined_rows
from matinfo.monitor.writers import RESERVED, Record, Writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OTHER = ("effective_rank_centered", "effective_rank_uncentered")
"""The effective rank that the monitor does not prepare its rows for, by whether it centres."""


class Monitor:
    """Quantities and spectra of any layers of a model while it trains.

    At every k-th step, for each layer, ``p = eig(Z Z^T)/tr(Z Z^T)`` with Z the rows that the layer returned in this
    step, of length one, and of it any quantity of this package; a warning when ``exp(H_1(p))``, the effective rank,
    collapses.

    Args:
        model: The module; compiled or in ``DistributedDataParallel`` too. It is not changed, only hooked.
        layers: Names as of ``model.named_modules()``, or patterns of them, in which ``*`` stands for part of one
            component (``"blocks.*"``: the blocks, not what is in them) and ``**`` for any number of components. ``""``
            is the model itself.
        every: k, in calls of :meth:`step`. Step 0 is observed.
        quantities: Names: every measure of a spectrum in :data:`matinfo.measures.MEASURES`, such as ``effective_rank``,
            ``rankme``, ``tcr`` or ``stable_rank``. Or a mapping from names of columns to such names, to these functions
            or ``functools.partial`` of them (``partial(renyi_entropy, alpha=2)``), all of one decomposition; or to any
            callable of a :class:`~matinfo.Gram`, which does its own work. The effective rank with the other choice of
            ``center`` is recorded beside them.
        writers: :class:`CSVWriter`, :class:`TensorBoardWriter` or any callable of a record, a plain dict.
        pool: What a sample is. For outputs ``(n, tokens, d)`` and ``(n, channels, ...)``: ``"mean"`` over tokens or
            positions, ``"tokens"`` (each token or position is a row), ``"flatten"``, ``"cls"`` or ``"last"`` (the first
            or last token that the mask keeps). Or a callable from whatever the layer returns to ``(n, d)``, which the
            mask does not concern: maps ``(n, height, width, channels)``, as those of Swin, need one. ``(n, d)`` stays.
            Modules of PyTorch with ``batch_first=False`` may return ``(tokens, n, d)``; a nested tensor
            ``(n, tokens, d)`` brings its own lengths in place of a mask.
        mask: Where tokens are, for ragged batches ``(n, tokens)``: non-zero or True is kept. The name of an argument of
            ``model.forward``, or a callable of its ``(args, kwargs)``. None takes the argument ``attention_mask``, if
            there is one, for outputs that it fits, ``decoder_attention_mask`` for layers of a ``decoder`` beside an
            encoder, and none for towers of other tokens (``vision...``, ``audio...``); else see :meth:`mask`.
        center: Whether to subtract the mean row, after rows are divided by their length. Without, a collapse to one
            point has effective rank 1; with it, it has zero features: a column is zero where its spread is no more than
            rounding the layer's dtype makes.
        normalize: Whether to divide each row by its l2 norm.
        max_rows: Rows that are kept of a layer and step, drawn without replacement where there are more, each row of
            every call with the same probability.
        calls: ``"all"``: the rows of all calls of a layer within a step together (gradient accumulation, two views,
            shared layers), of the first 256 where there are more, with a warning; ``"last"``: those of the last call.
        collapse: Whether to warn of a layer that has lost what it had and does not get it back, for five observations
            in a row: of its effective rank r without centring (below 1.1) or with it (below a twentieth of min(rows,
            width)), ``r - 1`` is less than a tenth or a twentieth of the highest so far. The how-to counts false alarms
            and misses.
        collapse_below: Effective rank below which a layer has collapsed; None for no such threshold.
        collapse_fall: Share in (0, 1) of its highest effective rank so far that a layer has lost when it has collapsed;
            None for no such threshold.
        warmup: Steps that are recorded but not judged, and not part of the highest value.
        on_nonfinite: ``"warn"`` with :class:`NonFiniteWarning`, or ``"raise"`` FloatingPointError, after the record is
            written.
        reduce: Whether to take the rows of all ranks together. Every rank must call :meth:`step` alike.
        group: Process group; None for the default one.
        seed: Of the choice of rows. The generators of the training are never touched.

    Raises:
        ValueError: If a layer does not exist (the message lists near names), an argument is outside its domain, or, at
            the first observed step, the shape of an output does not fit ``pool`` or the mask.
        TypeError: If an argument is of the wrong type, or, at the first observed step, a layer returns no tensor, or a
            nested one that ``pool`` does not take apart (this comes from :meth:`step`).

    Notes:
        Between observed steps a hook costs one branch. At an observed one it copies at most ``max_rows`` pooled rows;
        :meth:`step` then takes one eigendecomposition a layer, ``O(n d min(n, d))``, in float64, off the autograd
        graph, on the device of the features, under autocast too. Layers that activation checkpointing runs again, and
        copies of the model, are not observed. In a compiled model the observed steps are a variant of their own with a
        graph break at each layer: make the monitor before the first call, and not with ``fullgraph=True``. Without
        ``reduce`` every rank observes its own rows; only rank 0 writes.

    References:
        Roy and Vetterli (2007), The effective rank; Jing et al. (2022), Understanding dimensional collapse in
        contrastive self-supervised learning.

    Example:
        >>> import torch
        >>> from matinfo.monitor import Monitor
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with Monitor(model, ["0", "2"], every=10) as monitor:
        ...     for _ in range(30):
        ...         loss = model(torch.randn(16, 4)).square().mean()
        ...         records = monitor.step()
        >>> [(record["step"], record["layer"]) for record in monitor.history]
        [(0, '0'), (0, '2'), (10, '0'), (10, '2'), (20, '0'), (20, '2')]
        >>> monitor.spectra["0"].eigenvalues.shape
        (3, 8)
    """

    @answers_keywords
    def __init__(
        self,
        model: nn.Module,
        layers: str | Iterable[str],
        *,
        every: int = 50,
        quantities: Quantities = ("effective_rank", "rankme", "participation_ratio"),
        writers: Iterable[Writer] = (),
        pool: Pool = "mean",
        mask: Mask | None = None,
        center: bool = False,
        normalize: bool = True,
        max_rows: int = 1024,
        calls: str = "all",
        collapse: bool = True,
        collapse_below: float | None = None,
        collapse_fall: float | None = None,
        warmup: int = 0,
        on_nonfinite: str = "warn",
        reduce: bool = False,
        group: Any = None,
        seed: int = 0,
    ) -> None:
        self.every = check_count(every, "every")
        self.quantities = as_columns(quantities, reserved=(*RESERVED, *_OTHER))
        if not self.quantities:
            raise ValueError("Expected at least one quantity, got none.")
        self.writers = list(writers)
        self.warmup, self.seed, self.reduce, self.group = int(warmup), int(seed), bool(reduce), group
        self.max_rows = check_count(max_rows, "max_rows")
        self.on_nonfinite = check_choice(on_nonfinite, "on_nonfinite", ("warn", "raise"))
        self.prepare = {"center": bool(center), "normalize": bool(normalize)}
        if not callable(pool):
            check_choice(pool, "pool", POOLS)
        plain = plain_module(model)
        found = chosen_modules(plain, layers)
        self.layers = list(found)
        self.history: list[Record] = []
        self.events: list[dict[str, Any]] = []
        self._spectra: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in found}
        self._alarms = {name: Alarm(collapse_below, collapse_fall, default=collapse) for name in found}
        self._step, self._pauses, self._removed = 0, 0, False
        self._capture = Capture(
            plain,
            found,
            pool=pool,
            mask=mask,
            max_rows=self.max_rows,
            keep_all=check_choice(calls, "calls", ("all", "last")) == "all",
            seed=self._row_seed(),
        )
        # A monitor that is forgotten watches no longer.
        weakref.finalize(self, take_off, self._capture.handles).atexit = False
        self._refresh()

    @property
    def spectra(self) -> dict[str, Spectra]:
        """Spectra of each layer so far."""
        return {layer: Spectra.of(kept) for layer, kept in self._spectra.items()}

    def mask(self, mask: Tensor | None) -> None:
        """Say which tokens of the next forward are there; it holds until the next call or :meth:`step`.

        Args:
            mask: ``(n, tokens)``, non-zero or True where there is a token, as ``attention_mask`` of transformers (the
                ``key_padding_mask`` of PyTorch is the opposite). It concerns outputs ``(n, tokens, d)``.

        Raises:
            TypeError: If it is no tensor.
        """
        self._capture.given = check_mask(mask)

    def step(self) -> list[Record]:
        """End of a training step: measure what this step showed, if it is an observed one.

        Returns:
            The records of this step, empty on most.

        Raises:
            FloatingPointError: If features are not finite and ``on_nonfinite="raise"``.
            ValueError: If the calls of a layer within the step differ in width, or a quantity is no single number. The
                step has ended all the same, and the next one is observed as ever; so it is if a writer raises.
            TypeError: If a layer has returned a nested tensor that ``pool`` does not take apart. With ``reduce``, what
                a layer has shown on one rank is refused on all.
        """
        records: list[Record] = []
        messages: list[MonitorWarning] = []
        try:
            if self._is_due() and not self._removed:
                for layer in self.layers:
                    Z = self._rows(layer, messages)
                    if Z is not None:
                        records.append(self._observe(layer, Z, messages))
        finally:  # an error is one of this step: the next begins without its rows, and what was found is kept and said
            self._step += 1
            self._capture.clear(self._row_seed())
            self._refresh()
            self.history += records
            try:
                self._write(records)
            finally:
                self._say(messages)
        return records

    @property
    def description(self) -> str:
        """Which matrix is measured."""
        return describe_rows(**self.prepare)

    def __reduce__(self) -> tuple:
        """A copy, by ``copy`` or by ``pickle``, has everything that was recorded, and watches nothing."""
        settings, found = ("every", "layers", "prepare", "warmup", "seed"), ("history", "events", "_spectra")
        kept = {name: getattr(self, name) for name in (*settings, *found, "_alarms", "_step")}
        return _recording, (kept,)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager in which nothing is observed: for a validation pass within a training step."""
        self._pauses += 1
        self._refresh()
        try:
            yield
        finally:
            self._pauses -= 1
            self._refresh()

    def remove(self) -> None:
        """Take the hooks off and close the writers; what was recorded stays."""
        self._removed = True
        self._capture.remove()
        for writer in self.writers:
            if hasattr(writer, "close"):
                writer.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw the spectra of every layer over time, the effective ranks, and the steps of events.

        Args:
            figure: An empty figure to draw on; None for a new one of pyplot.

        Returns:
            The figure.

        Raises:
            ValueError: If nothing has been observed.
        """
        from matinfo.monitor.picture import draw

        return draw(self.spectra, self.events, self.description, figure)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, for ``torch.save``: step, history, events, spectra, and what has been warned of."""
        return {
            "step": self._step,
            "history": [dict(record) for record in self.history],
            "events": [dict(event) for event in self.events],
            "spectra": {layer: list(kept) for layer, kept in self._spectra.items()},
            "alarms": {layer: alarm.state_dict() for layer, alarm in self._alarms.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; :class:`CSVWriter` and :class:`TensorBoardWriter` drop what was written after it.

        Args:
            state: Of a monitor of the same layers.

        Raises:
            ValueError: If the layers differ.
        """
        layers = list(state.get("alarms", ()))
        if layers != self.layers:
            raise ValueError(
                f"Expected the state of a monitor of the layers {self.layers}, got one of {layers or list(state)}."
            )
        self._step = state["step"]
        self.history = [dict(record) for record in state["history"]]
        self.events = [dict(event) for event in state["events"]]
        self._spectra = {
            layer: [(int(step), p.cpu()) for step, p in kept] for layer, kept in state["spectra"].items()
        }
        for layer, alarm in self._alarms.items():
            alarm.load_state_dict(state["alarms"][layer])
        self._capture.clear(self._row_seed())
        self._refresh()
        if _is_first_rank(self.group):
            for writer in self.writers:
                if hasattr(writer, "rewind"):
                    writer.rewind(self._step)

    def __repr__(self) -> str:
        return f"Monitor(layers={self.layers}, every={self.every}, step={self._step}; {self.description})"

    def _is_due(self) -> bool:
        return self._step % self.every == 0

    def _row_seed(self) -> int:
        return self.seed * 1_000_003 + self._step

    def _refresh(self) -> None:
        self._capture.active = self._is_due() and self._pauses == 0 and not self._removed

    def _rows(self, layer: str, messages: list[MonitorWarning]) -> Tensor | None:
        """The rows of a step; None if there are none, on any rank if ranks are taken together."""
        seen = self._capture.seen.get(layer)
        missing = seen is None or not any(map(len, seen.parts))
        flags: list[Any] = [seen.refused if seen and seen.refused else missing]
        if self.reduce and world_size(self.group) > 1:
            mine, flags = flags[0], [None] * world_size(self.group)
            dist.all_gather_object(flags, mine, self.group)
        for flag in flags:
            if isinstance(flag, Exception):  # on every rank, or the others would wait for this one
                raise flag
        missing, calls = any(flags), seen.calls if seen else 0
        messages += self._alarms[layer].watch(layer, self._step, calls=calls, missing=missing)
        if seen is None or missing:
            return None
        return joined_rows(seen.parts, seen.counts, self.max_rows, seen.draw)

    def _observe(self, layer: str, Z: Tensor, messages: list[MonitorWarning]) -> Record:
        m = measure(
            Z,
            self.quantities,
            **self.prepare,
            eps=self._capture.seen[layer].eps,
            reduce=self.reduce,
            group=self.group,
        )
        self._spectra[layer].append((self._step, m.spectrum))
        events = self._alarms[layer].judge(m, layer, self._step, judged=self._step >= self.warmup)
        self.events += [event.record for event in events]
        messages += [event.warning for event in events]
        return {
            "step": self._step,
            "layer": layer,
            "rows": m.rows,
            "width": m.width,
            **m.values,
            _OTHER[self.prepare["center"]]: m.ranks[not self.prepare["center"]],
            "event": "+".join([event.record["reason"] for event in events]),
        }

    def _write(self, records: list[Record]) -> None:
        if _is_first_rank(self.group):
            for record in records:
                for writer in self.writers:
                    writer(dict(record))

    def _say(self, messages: list[MonitorWarning]) -> None:
        """At the very end: a warning may be an error to the user."""
        errors = [str(message) for message in messages if isinstance(message, NonFiniteWarning)]
        if errors and self.on_nonfinite == "raise":
            raise FloatingPointError(" ".join(errors))
        if self.reduce and not _is_first_rank(self.group):
            return
        for message in messages:
            warnings.warn(message, stacklevel=3)


def _recording(kept: dict[str, Any]) -> Monitor:
    """A monitor that has been taken off its model."""
    monitor = Monitor(nn.Identity(), "", every=kept["every"])
    monitor.remove()
    vars(monitor).update(copy.deepcopy(kept))
    return monitor


def _is_first_rank(group: Any) -> bool:
    return world_size(group) == 1 or dist.get_rank(group) == 0
