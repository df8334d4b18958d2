"""All layers of a language model: ``layerwise`` beside the published recipe, sentence by sentence and layer by layer.

    python -m benchmarks.layerwise [--threads N] [--rounds N] [--sentences N] [--recipe-sentences N] [--out FILE]

The model is a randomly initialised BERT of 12 layers and width 768, the batch 64 sentences of 5 to 36 tokens, padded.
The recipe (that of Diff-eRank's code) takes one sentence and one layer at a time: centred rows of length one, the width
x width covariance, its singular value decomposition, exp of the entropy. Both get the same hidden states and give
effective ranks of all layers; the ratio is of processor time, which other processes hardly touch. Needs transformers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cli import RESULTS, read, say, write
from benchmarks.machine import environment
from benchmarks.peers import diff_erank_recipe
from benchmarks.timing import round_robin, timed
from matinfo.layers import layerwise

TARGET = 100.0
LAYERS, WIDTH = 12, 768
SHORTEST, LONGEST = 5, 36


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    return read(
        arguments,
        "benchmarks.layerwise",
        (__doc__ or "").split("\n")[0],
        threads=(1, "of PyTorch"),
        rounds=(7, "samples of everything but the recipe"),
        sentences=(64, "in the batch"),
        recipe_sentences=(64, "that the recipe is timed on, some minutes; its time is scaled to all"),
        layers=(LAYERS, "of the model"),
        width=(WIDTH, "of the model"),
        out=(RESULTS / "layerwise.json", "the JSON file"),
    )


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
        samples, _ = round_robin(calls, rounds=options.rounds, seconds=1e6)
        times = {name: {clock: s.median(clock) for clock in ("cpu", "wall")} for name, s in samples.items()}
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
        say(f"{name:28s} {seconds['cpu']:9.3f} s cpu {seconds['wall']:9.3f} s wall")
    say(f"ratio {ratios['cpu']:.0f} (target {TARGET:.0f}); forward pass included {with_forward['cpu']:.0f}")
    write(options.out, record)
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


def _recipe(
    hidden: tuple[torch.Tensor, ...], lengths: list[int], sentences: int, entropies: torch.Tensor
) -> tuple[dict[str, float], float]:
    """Seconds for all sentences, and how far its entropies are from ours."""
    few = lengths[:sentences]
    ranks, seconds = timed(
        lambda: [diff_erank_recipe(states[i, :length]) for i, length in enumerate(few) for states in hidden]
    )
    found = torch.stack(ranks).log().reshape(len(few), len(hidden)).mT
    deviation = float((found - entropies[:, : len(few)]).abs().max())
    return {clock: s * len(lengths) / len(few) for clock, s in seconds.items()}, deviation


if __name__ == "__main__":
    sys.exit(main(parse(sys.argv[1:])))
