"""Images per second of SimCLR here and of the same network in lightly's loop, in one run.

    python reference_training/time_training.py --data-dir DATA --threads 1

Both train the recipe's network for CIFAR-10 with the same batch, optimiser and temperature on the same images, in
turns. Ours is the loop of ``pretrain_siamese.py`` without logging: views made on whole batches, the loss of
``matinfo``. Lightly's is that of its examples: its transform on PIL images in a ``DataLoader``, its NT-Xent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "time_training.py"


def _parser() -> argparse.ArgumentParser:
    from trainlib.cli import OneLineParser

    parser = OneLineParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", metavar="PATH", required=True, help="CIFAR-10 in torchvision's layout")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="images per step [256]")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="steps per sample [4]")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="samples of each loop [3]")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes of lightly's loader [0]"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads [1]")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import missing_package
    from trainlib.driver import guarded

    arguments = _parser().parse_args(argv)
    try:
        import lightly  # noqa: F401
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    return guarded(PROGRAM, arguments.data_dir, lambda: print(json.dumps(_compare(arguments), indent=2)))


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from trainlib.config import DataConfig, resolve
    from trainlib.data import load_dataset
    from trainlib.siamese.config import SiameseOptimConfig, SiameseRunConfig

    torch.set_num_threads(arguments.threads)
    config = resolve(
        SiameseRunConfig(
            data=DataConfig(data="cifar10", data_dir=str(Path(arguments.data_dir))),
            optim=SiameseOptimConfig(batch=arguments.batch),
        )
    )
    dataset = load_dataset(config)
    loops = {"matinfo": _ours(config, dataset), "lightly": _lightly(config, dataset, arguments.workers)}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        next(loop)  # warm-up
    for _ in range(arguments.repeats):
        for name, loop in loops.items():
            began, spent = time.perf_counter(), time.process_time()
            for _ in range(arguments.steps):
                next(loop)
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - spent)
    images = arguments.batch * arguments.steps
    return {
        "batch": arguments.batch,
        "threads": arguments.threads,
        "workers": arguments.workers,
        "torch": torch.__version__,
        "images_per_second": {name: images / statistics.median(times) for name, times in seconds.items()},
        "images_per_cpu_second": {name: images / statistics.median(times) for name, times in cpu.items()},
    }


def _ours(config: Any, dataset: Any) -> Iterator[None]:
    """One step of our loop at a time."""
    from trainlib.siamese.registry import build_method

    method = build_method(config, dataset.channels, dataset.classes).train()
    optimizer = method.make_optimizer(config)
    epoch = 0
    while True:
        for images, labels in method.train_batches(dataset, epoch, 0):
            optimizer.zero_grad()
            method(images, labels, labels).loss.backward()
            optimizer.step()
            method.after_step(0.0)
            yield
        epoch += 1


def _lightly(config: Any, dataset: Any, workers: int) -> Iterator[None]:
    """One step of lightly's loop at a time."""
    import torch
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image
    from trainlib.siamese.registry import build_method

    transform = SimCLRTransform(input_size=dataset.image_size)
    split = dataset.splits["train"]
    pictures = [to_pil_image(image) for image in split.images[: 8 * config.optim.batch]]
    loader = torch.utils.data.DataLoader(
        [(picture, 0) for picture in pictures],
        batch_size=config.optim.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=lambda items: [
            torch.stack(view) for view in zip(*(transform(picture) for picture, _ in items), strict=True)
        ],
    )
    method = build_method(config, dataset.channels, dataset.classes).train()
    criterion = NTXentLoss(temperature=config.method.temperature)
    optimizer = method.make_optimizer(config)
    while True:
        for first, second in loader:
            optimizer.zero_grad()
            criterion(method.online(first)[1], method.online(second)[1]).backward()
            optimizer.step()
            yield


if __name__ == "__main__":
    sys.exit(main())
