"""Draw scales-of-mu.svg: `python docs/theory/plot_scales_of_mu.py` (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, BATCH = 768, 1024  # ViT-B and the batch of the paper


def rate_range(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`log det(I + F^T F/m)` of collapsed and of isotropic features."""
    return np.log1p(BATCH / m), WIDTH * np.log1p(BATCH / (WIDTH * m))


def share(eigenvalue: np.ndarray, m: float) -> np.ndarray:
    """`log(1 + lambda/m)` over its value for a collapsed batch."""
    return np.log1p(eigenvalue / m) / np.log1p(BATCH / m)


def draw(path: Path) -> None:
    """Write the two panels to an SVG file."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "matinfo", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")

    mu = np.logspace(-1, 4, 200)
    for name, m, colour in (("code: m = d/mu", WIDTH / mu, "tab:blue"), ("print: m = mu", mu, "tab:orange")):
        collapsed, isotropic = rate_range(m)
        left.fill_between(mu, collapsed, isotropic, color=colour, alpha=0.25, label=name, linewidth=0)
        left.plot(mu, collapsed, color=colour, linewidth=1)
        left.plot(mu, isotropic, color=colour, linewidth=1)
    left.set(
        xscale="log", yscale="log", xlabel="mu", ylabel="coding rate (nats)", title="collapsed to isotropic"
    )
    left.axvline(np.sqrt(WIDTH), color="0.6", linewidth=0.8, linestyle=":")
    left.legend(frameon=False, loc="lower center")

    eigenvalue = np.linspace(0, BATCH, 300)
    settings = ((1, "m = 1: printed mu = 1"), (256, "m = 256: code mu = 3"), (768, "m = 768: code mu = 1"))
    for m, name in settings:
        right.plot(eigenvalue, share(eigenvalue, m), label=name)
    right.plot([0, BATCH], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    right.set(
        xlabel="eigenvalue of F^T F", ylabel="share of the largest reward", title="reward of one direction"
    )
    right.legend(frameon=False, loc="lower right")

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).with_name("scales-of-mu.svg"))
