"""What ``run_paper.py`` does: plan, say what it costs, train what is missing, report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainlib import deadline, paper, ranks
from trainlib.config import POSITIVE
from trainlib.data import load_dataset
from trainlib.errors import UsageError
from trainlib.fleet.fleet import Fleet, fitted_epochs
from trainlib.fleet.training import train_fleet
from trainlib.loop import make_fabric
from trainlib.models import model_sizes
from trainlib.paper import FINETUNE, MASKED, PROBE, SIAMESE
from trainlib.paper_commands import Chosen, Command, carry_out, commands
from trainlib.paper_report import report
from trainlib.run import prepare_device
from trainlib.validate import require, require_within

PLACEHOLDER = "DATA"  # the data folder in a dry run that names none
IMAGES = {"digits": 1437, "cifar10": 50_000, "cifar100": 50_000, "imagenette": 9469, "imagefolder": 1_281_167}
# Images of an epoch per second, measured on a shared virtual CPU of two cores; the recipes of the small scales.
CPU_RATES = {
    ("digits", MASKED): 3900, ("digits", SIAMESE): 4800, ("digits", PROBE): 6200, ("digits", FINETUNE): 1800,
    ("cifar-small", MASKED): 2000, ("cifar-small", SIAMESE): 1400, ("cifar-small", PROBE): 25_000,
    ("cifar-small", FINETUNE): 350,
}  # fmt: skip
SUSTAINED = 1e14  # floating-point operations a second that a large GPU keeps up in bf16; an assumption
RESNET18_CIFAR = 2 * 0.56e9  # operations of a forward pass of one image of 32 x 32


def run_paper(arguments: argparse.Namespace) -> int:
    """Carry out the command line; an exit code."""
    ranks.expect_one()
    _check(arguments)
    plans = {what: paper.plan(what, arguments.scale, arguments.epochs) for what in _wanted(arguments)}
    chosen = {what: _chosen(arguments, what) for what in plans}
    todo = {what: commands(plan, chosen[what]) for what, plan in plans.items()}
    if arguments.dry_run:
        for what, plan in plans.items():
            print(f"# {plan.title}")
            print(dry_run(todo[what], arguments.scale))
        if len(plans) > 1:
            print(
                f"# all of it, with shared runs trained once: {_total(list(todo.values()), arguments.scale)}"
            )
        return 0
    worst = 0
    if paper.OF_SCALE[arguments.scale].together:
        for what in plans:
            plans[what], todo[what] = _together(arguments, what)
    with deadline.stop_after(arguments.minutes):
        for what, plan in plans.items():
            paused, diverged, code = False, [], 0
            try:
                code, diverged = carry_out(todo[what])
            except deadline.PausedError:
                paused = True
            if code and not diverged:
                return code
            worst = worst or code
            print(report(what, arguments.scale, plan, todo[what], diverged, chosen[what]))
            print(f"results: {chosen[what].out / what}")
            if paused:
                print(f"stopped after {arguments.minutes:g} minutes; continue with the same command")
                break
    return worst


def _together(arguments: argparse.Namespace, what: str) -> tuple[paper.What, list[Command]]:
    """Train the masked runs of a figure or table in one process; all commands of it, of which those are finished.

    Without ``--epochs`` they train for as many epochs as fit into the minutes, up to the most of the scale.
    """
    chosen = _chosen(arguments, what)
    plan = paper.plan(what, arguments.scale, arguments.epochs)
    todo = commands(plan, chosen)
    configs = [command.config for command in todo if command.program == MASKED]
    if not configs or all(command.state() == "finished" for command in todo if command.pretrains):
        return plan, todo
    prepare_device(configs[0])
    dataset = load_dataset(configs[0]).to(make_fabric(configs[0]).device)
    fleet = Fleet(configs, dataset, arguments.lanes)
    fitted, record = arguments.epochs is None and arguments.minutes is not None, None
    if fitted:
        epochs, record = fitted_epochs(fleet, arguments.minutes, paper.OF_SCALE[arguments.scale].most)
        plan = paper.plan(what, arguments.scale, epochs)
        todo = commands(plan, chosen)
    with deadline.stop_after(None if fitted else arguments.minutes):
        masked = [command for command in todo if command.program == MASKED]
        train_fleet(
            fleet, [command.config for command in masked], [command.folder for command in masked], record=record,
            checkpoints=arguments.checkpoints,
        )  # fmt: skip
    return plan, todo


def dry_run(todo: list[Command], scale: str) -> str:
    """The commands, ready for a shell, and what they cost; a finished one is a comment."""
    states = [command.state() for command in todo]
    lines = [
        ("# finished: " if state == "finished" else "") + command.text(state)
        for command, state in zip(todo, states, strict=True)
    ]
    return "\n".join([*lines, f"# {_total([todo], scale)}\n"])


def _total(parts: list[list[Command]], scale: str) -> str:
    """Number of runs and commands, each counted once, and a rough cost of what is left."""
    distinct = {(command.folder, command.program): command for part in parts for command in part}
    left = [command for command in distinct.values() if command.state() != "finished"]
    runs = len({command.folder for command in distinct.values()})
    todo = cost(left, scale) if left else "nothing left to do"
    return f"{runs} runs, {len(distinct)} commands, {len(distinct) - len(left)} of them finished; {todo}"


def cost(commands: Iterable[Command], scale: str) -> str:
    """Roughly how much is left to do: seconds on two CPU cores, or operations for a GPU."""
    commands = list(commands)
    if all((scale, c.program) in CPU_RATES for c in commands):
        # Several masks of an image share its loading only.
        several = [getattr(getattr(c.config, "method", None), "several", False) for c in commands]
        times = [_images(c) / CPU_RATES[scale, c.program] for c in commands]
        seconds = sum(3.5 * t if many else t for t, many in zip(times, several, strict=True))
        return f"about {max(1, round(seconds / 60))} minutes on two CPU cores"
    pretraining: dict[Any, Any] = {c.folder: c.config for c in commands if c.pretrains}
    total = sum(_operations(c, pretraining.get(c.folder)) for c in commands)
    hours = total / SUSTAINED / 3600
    return (
        f"about {total:.1e} floating-point operations, {hours:.2g} hours of a GPU that sustains 100 TFLOP/s"
    )


def _images(command: Command) -> float:
    return IMAGES[command.config.data.data] * command.config.optim.epochs


def _operations(command: Command, run: Any) -> float:
    """Twice the multiplications of the linear layers, times three with a backward pass."""
    config = command.config if command.pretrains else run
    if config is None:
        return 0.0
    images = _images(command)
    if not hasattr(config.model, "patch"):
        return images * RESNET18_CIFAR * 2 * 3
    sizes, length = model_sizes(config.model), (config.data.image_size // config.model.patch) ** 2
    encoder, decoder = 12 * sizes.depth * sizes.width**2, 12 * sizes.decoder_depth * sizes.decoder_width**2
    if not command.pretrains:
        return 2 * encoder * length * images * (3 if command.program == FINETUNE else 1)
    masks = config.method.masks if config.method.several else 1
    visible = length * (1 - config.method.mask_ratio)
    return 6 * masks * (encoder * visible + decoder * length) * images


def _wanted(arguments: argparse.Namespace) -> list[str]:
    if arguments.what != "all":
        return [arguments.what]
    refused = paper.NOT_ON_IMAGENET if arguments.scale == "imagenet" else {}
    for what, reason in refused.items():
        print(f"skipped: {what}: {reason}", file=sys.stderr)
    return [what for what in paper.WHATS if what not in refused]


def _chosen(arguments: argparse.Namespace, what: str) -> Chosen:
    needs_files = arguments.scale != "digits"
    data_dir = arguments.data_dir or (PLACEHOLDER if needs_files and arguments.dry_run else None)
    return Chosen(
        arguments.out or Path("runs") / f"paper-{arguments.scale}",
        arguments.data or paper.data_of(what, arguments.scale),
        data_dir if needs_files else None,
        arguments.seeds or paper.OF_SCALE[arguments.scale].seeds,
        arguments.device,
        arguments.threads,
    )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no plan can mean."""
    scale = arguments.scale
    if scale == "imagenet" and arguments.what in paper.NOT_ON_IMAGENET:
        raise UsageError(
            "--scale", f"there is no {arguments.what} at scale imagenet: {paper.NOT_ON_IMAGENET[arguments.what]}",
            "use --scale cifar-full",
        )  # fmt: skip
    require(
        arguments.data is None or paper.OF_SCALE[scale].data is None, "--data",
        f"scale {scale} has one data set only", "leave it out",
    )  # fmt: skip
    for name in ("seeds", "epochs", "minutes", "lanes"):
        require_within(POSITIVE, f"--{name}", getattr(arguments, name))
