"""Images per second of SimCLR or M-MAE here and of the same network in lightly's loop, in one run.

    python reference_training/time_training.py --data-dir DATA --threads 1
    python reference_training/time_training.py --data-dir DATA --threads 1 --method mmae

Both train the recipe's network for CIFAR-10 with the same batch and optimiser on the same images, in turns. Ours is
the loop of the training scripts without logging: views or crops made on whole batches, the loss of ``matinfo``.
Lightly's is that of its examples: its transform on PIL images in a ``DataLoader``, its NT-Xent, or its MAE (without
our regulariser).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "time_training.py"


def _parser() -> argparse.ArgumentParser:
    from trainlib.cli import program_parser

    parser = program_parser(PROGRAM, __doc__)
    parser.add_argument("--data-dir", metavar="PATH", required=True, help="CIFAR-10 in torchvision's layout")
    parser.add_argument(
        "--method", choices=["simclr", "mmae"], default="simclr", help="what is trained [simclr]"
    )
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
    from trainlib.cli import guarded

    arguments = _parser().parse_args(argv)
    return guarded(PROGRAM, arguments.data_dir, lambda: print(json.dumps(_compare(arguments), indent=2)))


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    import lightly  # noqa: F401 (one line where it is not installed, before the data are read)
    import torch
    from trainlib.config import COUNT
    from trainlib.data import load_dataset
    from trainlib.validate import require_within

    for name in ("steps", "repeats", "threads"):
        require_within(COUNT, f"--{name}", getattr(arguments, name))
    config = _config(arguments)
    config.validate()
    torch.set_num_threads(arguments.threads)
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
        "method": arguments.method,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "workers": arguments.workers,
        "torch": torch.__version__,
        "images_per_second": {name: images / statistics.median(times) for name, times in seconds.items()},
        "images_per_cpu_second": {name: images / statistics.median(times) for name, times in cpu.items()},
    }


def _config(arguments: argparse.Namespace) -> Any:
    """The recipe of the method for CIFAR-10."""
    from trainlib.config import DataConfig, MaskedConfig, MaskedRunConfig, OptimConfig, resolve
    from trainlib.siamese.config import SiameseOptimConfig, SiameseRunConfig

    data = DataConfig(data="cifar10", data_dir=str(Path(arguments.data_dir)))
    if arguments.method == "simclr":
        return resolve(SiameseRunConfig(data=data, optim=SiameseOptimConfig(batch=arguments.batch)))
    optim, method = OptimConfig(batch=arguments.batch), MaskedConfig(method="mmae")
    return resolve(MaskedRunConfig(data=data, optim=optim, method=method))


def _ours(config: Any, dataset: Any) -> Iterator[None]:
    """One step of our loop at a time."""
    import torch

    method = config.build(dataset.channels, dataset.classes).train()
    optimizer = method.make_optimizer(config)
    source = torch.Generator().manual_seed(0)
    epoch = 0
    while True:
        for images, labels in method.train_batches(dataset, epoch, 0):
            optimizer.zero_grad()
            method(images, labels, method.draw(len(labels), source)).loss.backward()
            optimizer.step()
            method.after_step(0.0)
            yield
        epoch += 1


def _lightly(config: Any, dataset: Any, workers: int) -> Iterator[None]:
    """One step of lightly's loop at a time."""
    import torch
    from torchvision.transforms.functional import to_pil_image

    transform, method, loss = (_lightly_mae if config.method.method == "mmae" else _lightly_simclr)(
        config, dataset
    )
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
    optimizer = method.make_optimizer(config)
    while True:
        for views in loader:
            optimizer.zero_grad()
            loss(*views).backward()
            optimizer.step()
            yield


def _lightly_simclr(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Transform, what is trained, and loss: our network under lightly's criterion."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    method = config.build(dataset.channels, dataset.classes).train()
    criterion = NTXentLoss(temperature=config.method.temperature)

    def loss(first: Any, second: Any) -> Any:
        return criterion(method.online(first)[1], method.online(second)[1])

    return SimCLRTransform(input_size=dataset.image_size), method, loss


def _lightly_mae(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Transform, what is trained, and loss: lightly's modules at the sizes of ours."""
    import torch
    from lightly.models import utils
    from lightly.models.modules import MaskedVisionTransformerTIMM
    from lightly.models.modules.masked_vision_transformer_decoder_timm import (
        MaskedVisionTransformerDecoderTIMM,
    )
    from lightly.transforms import MAETransform
    from timm.models.vision_transformer import VisionTransformer
    from trainlib.method import Method
    from trainlib.models import model_sizes

    sizes, patch, side = model_sizes(config.model), config.model.patch, dataset.image_size
    length = (side // patch) ** 2
    encoder = MaskedVisionTransformerTIMM(
        VisionTransformer(
            side, patch, dataset.channels, num_classes=0, global_pool="token", embed_dim=sizes.width,
            depth=sizes.depth, num_heads=sizes.heads,
        )
    )  # fmt: skip
    decoder = MaskedVisionTransformerDecoderTIMM(
        length, sizes.decoder_width, sizes.decoder_depth, sizes.decoder_heads
    )
    embed = torch.nn.Linear(sizes.width, sizes.decoder_width)
    predict = torch.nn.Linear(sizes.decoder_width, patch * patch * dataset.channels)
    method = Method()
    method.parts = torch.nn.ModuleList([encoder, decoder, embed, predict])
    method.mask_token = torch.nn.Parameter(torch.zeros(1, 1, sizes.decoder_width))

    def loss(images: Any) -> Any:
        shape = (len(images), length + 1)
        keep, hidden = utils.random_token_mask(shape, mask_ratio=config.method.mask_ratio)
        tokens = utils.repeat_token(method.mask_token, shape)
        tokens = utils.set_at_index(tokens, keep, embed(encoder.encode(images, idx_keep=keep)))
        prediction = predict(utils.get_at_index(decoder(tokens), hidden))
        target = utils.get_at_index(utils.patchify(images, patch), hidden - 1)
        return torch.nn.functional.mse_loss(prediction, utils.normalize_mean_var(target))

    return MAETransform(input_size=side), method, loss


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
