"""The training loop. It knows nothing of masks or views: a method (``method.py``) gives batches, loss and features."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from trainlib import checkpoint, deadline, ranks
from trainlib.checkpoint import Progress
from trainlib.errors import DivergedError
from trainlib.evaluate import extract, spectrum
from trainlib.logs import MetricsLog, NullLog
from trainlib.method import Measurements, Method, StepOutput
from trainlib.optim import set_learning_rates
from trainlib.progress import ProgressDisplay
from trainlib.rng import generator

Instrument = Callable[[Any, Any], dict[str, float]]  # (configuration, step output) -> numbers to log
CAPTURE_WARMUP = (
    3  # ordinary steps before one is recorded, as PyTorch's recipe for graphs of whole networks has it
)
FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def make_fabric(config, *, skips_parameters: bool = False) -> Fabric:
    """Lightning Fabric with the precision of the run, for one device or, under torchrun, one per process."""
    common = {"accelerator": config.run.device, "precision": FABRIC_PRECISION[config.run.precision]}
    if ranks.started() == 1:
        return Fabric(devices=1, **common)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(find_unused_parameters=skips_parameters)
    fabric = Fabric(devices=local, num_nodes=ranks.started() // local, strategy=strategy, **common)
    fabric.launch()
    return fabric


@torch.no_grad()
def whole_batch(output: StepOutput) -> StepOutput:
    """The step as one process would have seen it: features and views gathered, numbers averaged."""
    if ranks.started() == 1:
        return output
    logs = {name: ranks.mean(value.float()) for name, value in output.logs.items()}
    views = None if output.views is None else tuple(ranks.gather(z) for z in output.views)
    return output._replace(logs=logs, features=ranks.gather(output.features), views=views)


class FiniteCheck:
    """Whether the loss is finite, read one step late, so that the host never waits for the step it has just begun.

    A step that follows one with a loss that is not finite never begins, and no checkpoint is written before the last
    flag was read: what such a step did to the weights is lost with the process.
    """

    def __init__(self) -> None:
        self._step: int | None = None

    def put(self, step: int, loss: torch.Tensor) -> None:
        """Note the loss of a step."""
        flag = torch.isfinite(loss.detach())
        self._arrived = None
        if flag.is_cuda:
            flag = flag.to("cpu", non_blocking=True)  # into pinned memory; read after the event only
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        self._step, self._flag = step, flag

    def failed(self) -> int | None:
        """The noted step, if its loss was not finite."""
        step, self._step = self._step, None
        if step is None:
            return None
        if self._arrived is not None:
            self._arrived.synchronize()
        return None if bool(self._flag) else step


def record(
    step: Callable[[], object], stream: torch.cuda.Stream, what: str, pool: Any = None
) -> torch.cuda.CUDAGraph | None:
    """What ``step`` does as a CUDA graph, or ``None`` with a note: something in it waits for the device."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            step()
    except RuntimeError as error:
        print(f"note: {what} is not captured ({str(error).splitlines()[0]})", file=sys.stderr, flush=True)
        torch.cuda.synchronize()
        return None
    return graph


class CapturedStep:
    """Forward, backward and the optimiser's update as one CUDA graph, replayed on the batches that follow.

    A small network's step is a thousand short kernels, and launching them one by one takes longer than they do. The
    first steps are made in the ordinary way, since what they set up (compiled code, the optimiser's state) cannot be
    recorded. A step that cannot be recorded stays as it is.
    """

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, fabric: Fabric) -> None:
        self.method, self.optimizer, self.fabric = method, optimizer, fabric
        self.stream, self.made = torch.cuda.Stream(), 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False

    def __call__(self, *batch: torch.Tensor) -> StepOutput:
        """Images, labels and draws of one step; the numbers of the output are overwritten by the next one."""
        if self.graph is None and not self.failed and self.made >= CAPTURE_WARMUP:
            self._capture(batch)
        if self.graph is None:
            self.made += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                output = self._step(*batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return output
        for own, given in zip(self.batch, batch, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output

    def _step(self, *batch: torch.Tensor) -> StepOutput:
        with self.fabric.autocast():
            output = self.method(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.optimizer.step()
        return output

    def _capture(self, batch: tuple[torch.Tensor, ...]) -> None:
        self.batch = [part.clone() for part in batch]

        def step() -> None:
            self.output = self._step(*self.batch)

        self.graph = record(step, self.stream, "the step")
        self.failed = self.graph is None


class TrainingLoop:
    """Trains one method on one data set, from scratch or from the last checkpoint of ``run_dir``."""

    def __init__(
        self, fabric: Fabric, config, method: Method, dataset, run_dir: Path, label: str,
        instrument: Instrument | None = None,
    ) -> None:  # fmt: skip
        self.fabric, self.config, self.method = fabric, config, method
        self.instrument = instrument or method.instrument
        self.dataset, self.run_dir, self.label = dataset, run_dir, label
        if ranks.started() > 1 and fabric.device.type == "cuda":
            torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
        # Before the optimiser is made, which fuses its update where the weights lie on a card.
        method.to(fabric.device)
        if getattr(config.run, "compile", False):
            method.compile_parts()
        captures = getattr(config.run, "compile", False) and method.capturable and ranks.started() == 1
        method.captured = captures and fabric.device.type == "cuda" and config.run.precision != "16"
        self.module, self.optimizer = fabric.setup(method, method.make_optimizer(config))
        self._captured = CapturedStep(method, self.optimizer.optimizer, fabric) if method.captured else None
        self.progress, self._measured = Progress(), Measurements()
        self._check = FiniteCheck()

    def restore(self) -> None:
        """Continue where the last checkpoint of the run left off, if there is one."""
        found = checkpoint.load(self.run_dir, self.config)
        if found is not None:
            self.progress, states = found
            self.method.load_state_dict(states["model"])
            self.optimizer.load_state_dict(states["optimizer"])
            # Where the rate is kept belongs to the device, not to the run.
            for group in self.optimizer.param_groups:
                rate = float(group["lr"])
                group["lr"] = torch.tensor(rate, device=self.fabric.device) if self.method.captured else rate
                if "capturable" in group:
                    group["capturable"] = self.method.captured
            self.fabric.strategy.precision.load_state_dict(states["precision"])

    def run(self) -> Progress:
        """Train to the last epoch, with a log line, a measurement and a checkpoint as often as configured."""
        steps = self.dataset.steps_per_epoch()
        run, epochs = self.config.run, self.config.optim.epochs
        self.log = (
            MetricsLog(self.run_dir, step=self.progress.step, tensorboard=run.tensorboard)
            if ranks.is_first()
            else NullLog()
        )
        self.display = ProgressDisplay(
            self.label, epochs * steps, self.progress.step, quiet=not ranks.is_first()
        )
        self._since, self._cpu_since = time.monotonic(), time.process_time()
        self._before = self._saved = self.progress
        try:
            self._expect_finite_weights()  # runs that were trained together keep the weights of one that diverged
            if self.progress.step == 0:
                self._measure(0)
                self._save()
            for epoch in range(self.progress.epoch, epochs):
                self._epoch(epoch, steps)
                finished = epoch + 1
                if finished % run.eval_every == 0 or finished == epochs:
                    self._measure(finished)
                stop = finished < epochs and ranks.agree(deadline.passed())
                if finished % run.checkpoint_every == 0 or finished == epochs or stop:
                    self._save()
                if stop:
                    raise deadline.PausedError
        finally:
            self.log.close()
            self.display.close()
        return self.progress

    def _epoch(self, epoch: int, steps: int) -> None:
        self.method.train()
        config, began = self.config, time.monotonic()
        self._measure_seconds = 0.0
        window, window_step = began, 0
        self.method.before_epoch(epoch)
        batches = self.method.train_batches(self.dataset, epoch, config.run.seed)
        for index, (images, labels) in enumerate(batches):
            step = epoch * steps + index
            rate = set_learning_rates(self.optimizer, config.optim, epoch + index / steps)
            source = generator(config.run.seed, "mask", epoch, index, device=labels.device)
            draws = self.method.draw(config.optim.batch, source)
            output = self._step(step, images, labels, ranks.share(draws))
            self.method.after_step(epoch + (index + 1) / steps)
            if (step + 1) % config.run.log_every == 0 or index + 1 == steps:
                now = time.monotonic()
                speed = (index + 1 - window_step) * config.optim.batch / max(1e-9, now - window)
                window, window_step = now, index + 1
                self._log_step(step + 1, epoch + (index + 1) / steps, rate, speed, output)
        self._expect_finite()
        self.progress = self.progress._replace(
            epoch=epoch + 1,
            step=(epoch + 1) * steps,
            train_seconds=self.progress.train_seconds + time.monotonic() - began,
            measure_seconds=self.progress.measure_seconds + self._measure_seconds,
        )

    def _step(self, step: int, images, labels, draws) -> StepOutput:
        """Forward, backward and update; a loss that is not finite ends the run before anything made of it is kept."""
        self._expect_finite()
        if self._captured is not None:
            output = self._captured(images, labels, draws)
            self._check.put(step, output.loss)
            return output
        try:
            output = self.module(images, labels, draws)
        except (ValueError, ArithmeticError, torch.linalg.LinAlgError):
            if all(bool(torch.isfinite(p).all()) for p in self.method.parameters()):
                raise
            self._diverged(step, "a weight")
        self._check.put(step, output.loss)
        self.optimizer.zero_grad()
        self.fabric.backward(output.loss)
        self.optimizer.step()
        return output

    def _expect_finite(self) -> None:
        """End the run if the loss of the step before was not finite."""
        failed = self._check.failed()
        if failed is not None:
            self._diverged(failed, "the loss")

    def _expect_finite_weights(self) -> None:
        """End the run if a weight is not finite."""
        for name, parameter in self.method.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                self._diverged(self.progress.step, f"the weight {name}")

    def _diverged(self, step: int, what: str) -> None:
        self.log.write("stopped", step=step, epoch=self.progress.epoch, reason=f"{what} is not finite")
        kept = f"the checkpoint of epoch {self._saved.epoch} is kept in {self.run_dir / checkpoint.NAME}"
        raise DivergedError(step, what, kept)

    def _log_step(self, step: int, epoch: float, rate: float, speed: float, output) -> None:
        self._expect_finite()  # numbers that are not finite do not enter the log
        output = whole_batch(output)
        values = {name: float(value) for name, value in output.logs.items()}
        began = time.monotonic()
        measured = self.instrument(self.config, output)
        if self.method.spectral:
            measured |= {f"batch_{k}": v for k, v in spectrum(output.features).items()}
            shown = {"batch_effective_rank": measured["batch_effective_rank"]}
        else:
            shown = {f"{kind} top-1": own["top1"] for kind, own in self._measured.items()}
        self._measure_seconds += time.monotonic() - began
        self._record("train", step, epoch, lr=rate, images_per_second=speed, **values, **measured)
        self.display.update(step, loss=values["loss"], images_per_second=speed, **shown)

    def _measure(self, epoch: int) -> None:
        """Log the spectra of held-out images, and what the method itself measures, at the end of an epoch."""
        if not ranks.is_first():
            return
        parts = []
        if self.method.spectral:
            features, _ = extract(self.encode, self.dataset, "test", self.config.run.rank_images)
            parts.append({kind: spectrum(values) for kind, values in features.items()})
        self._measured = self.measure()
        parts.append(self._measured)
        if epoch == 0:
            parts.append(self.method.measure_untrained(self.dataset, self.fabric.autocast))
        values = {f"{kind}_{k}": v for part in parts for kind, own in part.items() for k, v in own.items()}
        self._record("eval", self.progress.step, epoch, **values)

    def _record(self, kind: str, step: int, epoch: float, **values: float) -> None:
        """A line of the log. A number that is not finite ends the run: of finite weights, features may overflow."""
        for name, value in values.items():
            if not math.isfinite(value):
                self._diverged(step, name)
        self.log.write(kind, step=step, epoch=epoch, **values)

    def measure(self) -> Measurements:
        """The method's own measurements under the precision of the run."""
        self.method.eval()
        return self.method.measure(self.dataset, self.fabric.autocast)

    def encode(self, images) -> dict[str, Any]:
        """The method's features under the precision of the run."""
        self.method.eval()
        with self.fabric.autocast():
            return self.method.encode(images)

    def _save(self) -> None:
        if not ranks.is_first():
            return
        self._expect_finite_weights()
        now, cpu = time.monotonic(), time.process_time()
        self.progress = self.progress._replace(
            seconds=self._before.seconds + now - self._since,
            cpu_seconds=self._before.cpu_seconds + cpu - self._cpu_since,
        )
        self.log.sync()
        states = {
            "model": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        checkpoint.save(self.run_dir, self.config, self.progress, states)
        self._saved = self.progress
