"""What the monitor costs: ``python -m benchmarks.monitor_cost``.

A training step of torchvision's ResNet-18 (forward, backward, SGD with momentum) is timed in turns, without a monitor
and with one that observes it, and inside the observed steps the time of the monitor's own code. At k = 50 one step in
50 is observed; in the others a hook is a branch, which is timed by itself.

    cost = (own time of an observed step + 49 x branches of a step) / 50 / step without monitor

The difference of the two kinds of steps says the same with the noise of whole steps, and is reported beside it.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.cli import read, say, write
from benchmarks.timing import quartiles, timed

EVERY = 50
TARGET = 0.01
LAYERS = ("layer1", "layer2", "layer3", "layer4", "fc")
QUANTITIES = ("effective_rank", "rankme", "renyi_entropy", "participation_ratio", "tcr")
_BRANCHES = 20_000


def main(arguments: list[str]) -> int:
    """Measure, print, and write if asked."""
    options = _parse(arguments)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.threads)  # before torch is loaded
    result = measure(options.rounds, options.batch, options.size, options.threads, options.clock)
    say(render(result))
    if options.out is not None:
        write(options.out, result)
    return 0


def measure(rounds: int, batch: int, size: int, threads: int, clock: str) -> dict[str, Any]:
    """Time both kinds of steps in turns.

    Args:
        rounds: Steps of each kind.
        batch: Images in a step.
        size: Their height and width.
        threads: Of torch.
        clock: ``"cpu"`` (processor time) or ``"wall"``.

    Returns:
        Environment, settings, medians in seconds, quartiles, and the shares of a step.
    """
    import torch

    from benchmarks.machine import environment

    torch.set_num_threads(threads)
    now = time.process_time if clock == "cpu" else time.perf_counter
    step, monitor, own = _training(batch, size, now)
    samples: dict[str, list[float]] = {"plain": [], "observed": [], "own": []}
    for turn in range(rounds + 1):
        kinds = ("plain", "observed") if turn % 2 else ("observed", "plain")
        for kind in kinds:
            own.clear()
            start = now()
            step(kind == "observed")
            seconds = now() - start
            if turn:  # the first round warms up
                samples[kind].append(seconds)
                if kind == "observed":
                    samples["own"].append(sum(own))
    branches = _branches(monitor, clock) * len(LAYERS)
    plain = statistics.median(samples["plain"])
    shares = [
        (a - b) / EVERY / b for a, b in zip(samples["observed"], samples["plain"], strict=True)
    ]  # a round is a pair
    own_shares = [
        (a + (EVERY - 1) * branches) / EVERY / b
        for a, b in zip(samples["own"], samples["plain"], strict=True)
    ]
    return {
        "command": f"python -m benchmarks.monitor_cost --rounds {rounds} --batch {batch} --size {size} "
        f"--threads {threads} --clock {clock}",
        "environment": environment(clock),
        "settings": {
            "model": f"torchvision {metadata.version('torchvision')}, resnet18",
            "batch": batch,
            "image": size,
            "layers": list(LAYERS),
            "quantities": list(QUANTITIES),
            "every": EVERY,
            "rounds": rounds,
        },
        "seconds": {
            **{name: statistics.median(values) for name, values in samples.items()},
            "branches_of_a_step": branches,
        },
        "own_share_of_an_observed_step": statistics.median(samples["own"]) / plain,
        "cost": statistics.median(own_shares),
        "cost_quartiles": list(quartiles(own_shares)),
        "cost_from_differences": statistics.median(shares),
        "cost_from_differences_quartiles": list(quartiles(shares)),
        "target": TARGET,
    }


def render(result: dict[str, Any]) -> str:
    """The result in a few lines.

    Args:
        result: As of :func:`measure`.

    Returns:
        Text.
    """
    seconds, settings = result["seconds"], result["settings"]
    low, high = result["cost_quartiles"]
    low_difference, high_difference = result["cost_from_differences_quartiles"]
    own, cost = result["own_share_of_an_observed_step"], result["cost"]
    difference = result["cost_from_differences"]
    image, layers, quantities = settings["image"], len(settings["layers"]), len(settings["quantities"])
    what = f"{layers} layers, {quantities} quantities, every {settings['every']} steps"
    lines = (
        f"ResNet-18, batch {settings['batch']} of {image} x {image}, {what}",
        f"step without monitor        {1e3 * seconds['plain']:10.2f} ms",
        f"monitor in an observed step {1e3 * seconds['own']:10.2f} ms  ({own:.2%} of a step)",
        f"its branches in other steps {1e3 * seconds['branches_of_a_step']:10.4f} ms",
        f"cost                        {cost:10.3%}  (quartiles {low:.3%} to {high:.3%}; target {result['target']:.0%})",
        f"the same from whole steps   {difference:10.3%}  (quartiles {low_difference:.3%} to {high_difference:.3%})",
    )
    return "\n".join(lines)


def _training(
    batch: int, size: int, now: Callable[[], float]
) -> tuple[Callable[[bool], None], Any, list[float]]:
    """A step that may be observed, the monitor, and the seconds spent in it."""
    import torch
    from torchvision.models import resnet18

    from matinfo.monitor import Monitor

    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % 10
    monitor = Monitor(model, LAYERS, every=1, quantities=QUANTITIES)
    own: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = now()
            result = function(*args)
            own.append(now() - start)
            return result

        return call

    monitor._capture.take = timed(monitor._capture.take)
    observe = timed(monitor.step)

    def step(observed: bool) -> None:
        monitor._capture.active = observed
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if observed:
            observe()

    return step, monitor, own


def _branches(monitor: Any, clock: str) -> float:
    """Seconds that a hook adds to a call of a module on a step that is not observed."""
    import torch

    from matinfo.monitor.hooks import Hook

    monitor._capture.active = False
    plain, hooked, x = torch.nn.Identity(), torch.nn.Identity(), torch.ones(1)
    hooked.register_forward_hook(Hook(monitor._capture, LAYERS[0]))
    without, with_hook = (
        statistics.median(timed(functools.partial(module, x), _BRANCHES)[1][clock] for _ in range(7))
        for module in (plain, hooked)
    )
    return max(0.0, with_hook - without)


def _parse(arguments: list[str]) -> argparse.Namespace:
    return read(
        arguments,
        "benchmarks.monitor_cost",
        (__doc__ or "").split("\n\n")[1],
        rounds=(15, "steps of each kind"),
        batch=(32, "images in a step"),
        size=(64, "their height and width"),
        threads=(1, "of torch"),
        clock=("cpu", "processor or elapsed time", {"choices": ("cpu", "wall")}),
        out=(None, "write the result as JSON", {"type": Path, "metavar": "FILE"}),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
