"""What the M-MAE regulariser costs: its share of a training step, beside a plain d x d LU log-determinant.

    python reference_training/time_regulariser.py --threads 1

Times forward and backward passes of one masked autoencoder on random images, each taken alternately and reported
as the median over repetitions. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

PROGRAM = "time_regulariser.py"


def _parser() -> argparse.ArgumentParser:
    from trainlib.cli import program_parser

    parser = program_parser(PROGRAM, __doc__)
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="images per step [256]")
    parser.add_argument("--model", default="small", help="model size of pretrain_mmae.py [small: width 192]")
    parser.add_argument(
        "--patch", type=int, default=4, metavar="N", help="side of a patch of the 32 x 32 images [4]"
    )
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="steps timed [7]")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads, 0 for PyTorch's choice [0]"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where [cpu]")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    import torch
    from trainlib.config import DataConfig, MaskedConfig, MaskedRunConfig, ModelConfig, resolve
    from trainlib.masked import MaskedMethod

    from matinfo.losses import mmae_tcr_loss

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = resolve(
        MaskedRunConfig(
            method=MaskedConfig(method="mae"),
            data=DataConfig(data="cifar10", data_dir="unused"),
            model=ModelConfig(model=arguments.model, patch=arguments.patch),
        )
    )
    method = MaskedMethod(config, channels=3, classes=10).to(arguments.device)
    images = torch.randn(arguments.batch, 3, 32, 32, device=arguments.device)
    labels = torch.zeros(arguments.batch, dtype=torch.long, device=arguments.device)
    noise = torch.rand(arguments.batch, method.autoencoder.length, device=arguments.device)
    features = method(images, labels, noise).features

    def step() -> None:
        method.zero_grad()
        method(images, labels, noise).loss.backward()

    def ours() -> None:
        mmae_tcr_loss(features.requires_grad_(), mu=1.0).backward()

    def lu() -> None:
        unit = torch.nn.functional.normalize(features.requires_grad_(), dim=1)
        width = unit.shape[1]
        gram = torch.eye(width, device=unit.device) + unit.T @ unit / width
        (-torch.linalg.slogdet(gram).logabsdet).backward()

    def clock(run: Callable[[], None], times: int) -> float:
        run()
        began = time.perf_counter()
        for _ in range(times):
            run()
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / times * 1e3

    rows: dict[str, list[float]] = {"step": [], "matinfo": [], "lu": []}
    for _ in range(arguments.repeats):
        rows["step"].append(clock(step, 1))
        rows["matinfo"].append(clock(ours, 20))
        rows["lu"].append(clock(lu, 20))
    median = {name: statistics.median(values) for name, values in rows.items()}
    result = {
        "batch": arguments.batch,
        "width": features.shape[1],
        "threads": torch.get_num_threads(),
        "device": arguments.device,
        **{f"{name}_ms": value for name, value in median.items()},
        **{f"{name}_share_percent": 100 * median[name] / median["step"] for name in ("matinfo", "lu")},
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
