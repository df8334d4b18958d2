"""All layers of a language model: ``layerwise`` beside the published recipe, sentence by sentence and layer by layer.

    python -m benchmarks.layerwise [--threads N] [--rounds N] [--sentences N] [--recipe-sentences N] [--out FILE]

The model is a randomly initialised BERT of 12 layers and width 768, the batch 64 sentences of 5 to 36 tokens, padded.
The recipe (that of Diff-eRank's code) takes one sentence and one layer at a time: centred rows of length one, the width
x width covariance, its singular value decomposition, exp of the entropy. Both get the same hidden states and give
effective ranks of all layers; the ratio is of processor time, which other processes hardly touch. Needs transformers.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cli import RESULTS
from benchmarks.machine import environment
from benchmarks.peers import diff_erank_recipe
from matinfo.layers import layerwise

TARGET = 100.0
LAYERS, WIDTH = 12, 768
SHORTEST, LONGEST = 5, 36


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layerwise", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="samples of everything but the recipe (default: 7)"
    )
    parser.add_argument("--sentences", type=int, default=64, help="in the batch (default: 64)")
    parser.add_argument(
        "--recipe-sentences",
        type=int,
        default=64,
        help="that the recipe is timed on, the first ones; its time is scaled to all (default: 64, some minutes)",
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"of the model (default: {LAYERS})")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the model (default: {WIDTH})")
    parser.add_argument("--out", type=Path, default=RESULTS / "layerwise.json", help="the JSON file")
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> int:
    """Measure, print one line a contender, and write the JSON file."""
    torch.set_num_threads(options.threads)
    model, batch = _model(options), _batch(options.sentences)
    lengths = batch["attention_mask"].sum(1).tolist()
    started = environment("cpu")

    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
        calls: dict[str, Callable[[], Any]] = {
            "forward pass, padded batch": lambda: model(**batch, output_hidden_states=True),
            "layerwise, tokens": lambda: layerwise(
                output, mask=batch["attention_mask"], pool="tokens", center="first", pairs=False
            ),
            "layerwise, tokens, pairs": lambda: layerwise(
                output, mask=batch["attention_mask"], pool="tokens", center="first"
            ),
            "layerwise, data set, pairs": lambda: layerwise(output, mask=batch["attention_mask"]),
        }
        times = {name: _median(call, options.rounds) for name, call in calls.items()}
        report = calls["layerwise, tokens"]()
        recipe, deviation = _recipe(output.hidden_states, lengths, options.recipe_sentences, report.entropies)
    times["published recipe"] = recipe
    ratios = {clock: recipe[clock] / times["layerwise, tokens"][clock] for clock in ("cpu", "wall")}
    forward = times["forward pass, padded batch"]
    with_forward = {
        clock: (forward[clock] + recipe[clock]) / (forward[clock] + times["layerwise, tokens"][clock])
        for clock in ("cpu", "wall")
    }
    record = {
        "environment": started,
        "model": f"BERT, {options.layers} layers, width {options.width}, random weights, float32",
        "sentences": options.sentences,
        "tokens": {"shortest": min(lengths), "longest": max(lengths), "mean": sum(lengths) / len(lengths)},
        "recipe_sentences": min(options.recipe_sentences, options.sentences),
        "seconds": times,
        "ratio": ratios,
        "ratio_with_forward": with_forward,
        "target": TARGET,
        "largest_difference_of_entropies": deviation,
    }
    for name, seconds in times.items():
        _say(f"{name:28s} {seconds['cpu']:9.3f} s cpu {seconds['wall']:9.3f} s wall")
    _say(f"ratio {ratios['cpu']:.0f} (target {TARGET:.0f}); forward pass included {with_forward['cpu']:.0f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _model(options: argparse.Namespace) -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000,
        num_hidden_layers=options.layers,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_attention_heads=max(1, options.width // 64),
    )
    return BertModel(config).eval()


def _batch(sentences: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (sentences, 1), generator=generator)
    mask = torch.arange(int(lengths.max())) < lengths
    ids = torch.randint(1, 1000, mask.shape, generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def _median(call: Callable[[], Any], rounds: int) -> dict[str, float]:
    call()
    cpu, wall = [], []
    for _ in range(rounds):
        start = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return {"cpu": statistics.median(cpu), "wall": statistics.median(wall)}


def _recipe(
    hidden: tuple[torch.Tensor, ...], lengths: list[int], sentences: int, entropies: torch.Tensor
) -> tuple[dict[str, float], float]:
    """Seconds for all sentences, and how far its entropies are from ours."""
    timed, deviation = lengths[:sentences], 0.0
    start = time.process_time(), time.perf_counter()
    for i, length in enumerate(timed):
        for layer, states in enumerate(hidden):
            rank = diff_erank_recipe(states[i, :length])
            deviation = max(deviation, abs(math.log(rank.item()) - entropies[layer, i].item()))
    scale = len(lengths) / len(timed)
    seconds = {
        "cpu": scale * (time.process_time() - start[0]),
        "wall": scale * (time.perf_counter() - start[1]),
    }
    return seconds, deviation


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(parse(sys.argv[1:])))
