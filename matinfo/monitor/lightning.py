"""The monitor as a Lightning callback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from matinfo._extras import needs
from matinfo.layers.modules import chosen_modules
from matinfo.monitor.core import Monitor
from matinfo.monitor.measurement import Spectra
from matinfo.monitor.writers import Record, scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

with needs("lightning", "LightningMonitor", "monitor"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class LightningMonitor(Callback):
    """Callback of Lightning that is a :class:`Monitor`.

    A step is an optimiser step: the batches of gradient accumulation are taken together. Validation is not observed.
    The values go to every logger of the trainer as ``<prefix>/<layer>/<quantity>`` at the step of the observation, and
    to ``trainer.callback_metrics``, where early stopping finds them: ``matinfo/encoder/effective_rank``, one name
    for each layer and column of a record but ``step``, ``layer``, ``rows``, ``width`` and ``event``. The state is part
    of checkpoints. What :class:`Monitor` has, the callback has too: ``history``, ``events``, ``spectra``,
    ``description``, ``plot``, ``mask``, ``paused``. Only ``step`` and ``remove`` are called for you.

    Args:
        layers: As for :class:`Monitor`, names within the ``LightningModule``.
        prefix: First part of the names in the loggers.
        module: The ``LightningModule``, if it is there already: layers that it does not have are refused at once. Else
            they are refused when fitting starts.
        **options: Every other argument of :class:`Monitor`.

    Raises:
        ModuleNotFoundError: If lightning is not installed.
        ValueError: If an argument is outside its domain, or ``module`` has no such layer.
        TypeError: If an argument is of the wrong type.

    Notes:
        The monitor is made when fitting starts; it stays as ``callback.monitor`` afterwards. The same trainer fitting
        again goes on with the record; a checkpoint without a state of the monitor begins it at its ``global_step``.
        Loggers write on rank 0 only.

    Example:
        >>> from matinfo.monitor import LightningMonitor
        >>> callback = LightningMonitor(["encoder.*"], every=100, collapse_below=4)
        >>> callback.history  # until Trainer(callbacks=[callback]).fit(...)
        []
    """

    def __init__(
        self,
        layers: str | Iterable[str],
        *,
        prefix: str = "matinfo",
        module: LightningModule | None = None,
        **options: Any,
    ) -> None:
        if module is not None:
            chosen_modules(module, layers)
        # Every argument but the names is checked now, on a model that has none.
        self._checked = Monitor(torch.nn.Identity(), "", **{**options, "mask": None, "writers": ()})
        self._checked.remove()
        self.layers = layers if isinstance(layers, str) else list(layers)
        self.prefix, self.options = prefix, options
        self.monitor: Monitor | None = None
        self._state: dict[str, Any] | None = None
        self._seen, self._fitting = 0, False
        self._pauses = contextlib.ExitStack()

    @property
    def history(self) -> list[Record]:
        """As ``history`` of :class:`~matinfo.monitor.Monitor`, empty before fitting."""
        return self._seen_by.history

    @property
    def events(self) -> list[dict[str, Any]]:
        """As ``events`` of :class:`~matinfo.monitor.Monitor`, empty before fitting."""
        return self._seen_by.events

    @property
    def spectra(self) -> dict[str, Spectra]:
        """As :attr:`Monitor.spectra`, empty before fitting."""
        return {} if self.monitor is None else self.monitor.spectra

    @property
    def description(self) -> str:
        """As :attr:`Monitor.description`."""
        return self._seen_by.description

    def mask(self, mask: Tensor | None) -> None:
        """As :meth:`Monitor.mask`, to be called in ``training_step``."""
        self._seen_by.mask(mask)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """As :meth:`Monitor.paused`: for a pass in training mode that is not to be observed."""
        return self._seen_by.paused()

    def plot(self, figure: Figure | None = None) -> Figure:
        """As :meth:`Monitor.plot`."""
        if self.monitor is None:
            raise ValueError("Expected a training to draw, got none. Fit first.")
        return self.monitor.plot(figure)

    @property
    def _seen_by(self) -> Monitor:
        """The monitor; before fitting, the one on which the arguments were checked, which has seen nothing."""
        return self.monitor or self._checked

    @property
    def state_key(self) -> str:
        """One for each choice of layers, so that a trainer may have several monitors."""
        return self._generate_state_key(layers=self.layers, prefix=self.prefix)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the hooks, and go on from a checkpoint, or from what this trainer has done, if there is one."""
        state, earlier = self._state, self.monitor if trainer.global_step else None
        self.monitor, self._fitting = Monitor(pl_module, self.layers, **self.options), True
        if state is None and earlier is not None and earlier.layers == self.monitor.layers:
            state = earlier.state_dict()
        if state is not None:
            self.monitor.load_state_dict(state)
        self._state = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where training starts; a monitor that has seen nothing of it counts from there."""
        self._seen = trainer.global_step
        if self._seen and self.monitor is not None and not self.monitor._step:
            self.monitor.load_state_dict({**self.monitor.state_dict(), "step": self._seen})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure and log, if the optimiser has stepped."""
        if self.monitor is None or trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        records = self.monitor.step()
        if not records:
            return
        values = {name: value for record in records for name, value in scalars(record, self.prefix).items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=records[0]["step"])
        pl_module.log_dict(values, logger=False, on_step=True, on_epoch=False, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look away."""
        if self.monitor is not None:
            self._pauses.enter_context(self.monitor.paused())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look again."""
        self._pauses.close()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off and close the writers."""
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same when training fails."""
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the state of the monitor, empty before fitting."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        if not state_dict:
            return
        if self.monitor is None or not self._fitting:  # trainers load callbacks before fitting starts
            self._state = state_dict
        else:
            self.monitor.load_state_dict(state_dict)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop what a test or validation has loaded beside its weights; it is no fit to go on with."""
        if stage != "fit":
            self._state = None

    def _detach(self) -> None:
        self._pauses.close()
        self._fitting = False
        if self.monitor is not None:
            self.monitor.remove()
