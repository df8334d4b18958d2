"""Features whose Gram matrix approximates a kernel matrix, of which few entries or none are evaluated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_features
from matinfo.kernels.bandwidth import sampled_bandwidth
from matinfo.kernels.functions import Kernel, evaluated, laplacian, rbf
from matinfo.operands import Gram, as_tensor
from matinfo.spectral.frequencies import cauchy_frequencies, normal_frequencies, orthogonal_frequencies
from matinfo.spectral.pivoted_cholesky import factor_of_columns, rank_tolerance, select_pivots
from matinfo.spectral.precision import at_least_float32, without_autocast

_NAMED = ("rbf", "laplacian")
_SAMPLING = ("random", "greedy", "uniform")

_DIAGONAL_TILE = 16
"""Samples of which a kernel that is a function gives the diagonal at a time."""


@answers_keywords
def nystrom(
    X: Tensor | np.ndarray,
    *,
    landmarks: int | Tensor | np.ndarray,
    kernel: str | Kernel = "rbf",
    bandwidth: float | str = "median",
    sampling: str = "random",
    generator: torch.Generator | None = None,
) -> Gram:
    """Nyström approximation of a kernel matrix, from its columns at some landmarks.

    ``K ~ C W^{-1} C^T`` with C the ``(n, m)`` kernel values between samples and landmarks, and W the rows of C at the
    landmarks; the features are ``C L^{-T}``, ``W = L L^T``. It is at most K in the positive semi-definite order.

    Args:
        X: Samples ``(n, d)``, Tensor or NumPy array, one row a sample.
        landmarks: Their number m, at most n, or the indices ``(m,)`` of the samples, Tensor or NumPy array.
        kernel: ``"rbf"``, ``"laplacian"``, or a symmetric positive definite function that maps tensors ``(m, d)``
            and ``(n, d)`` to the ``(m, n)`` kernel values.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"`` (of at most 2,048 evenly strided
            samples), ``"scott"`` or ``"silverman"``. A function gets no bandwidth.
        sampling: How landmarks are found: ``"random"``, each with a probability in proportion to what those before have
            left of its diagonal entry (randomly pivoted Cholesky); ``"greedy"``, always the largest of these; or
            ``"uniform"``.
        generator: Source of random numbers, on the device of X; None for torch's own.

    Returns:
        A :class:`~matinfo.Gram` of at most m features, dtype of X, at least float32. Fewer where landmarks depend on
        each other or the rank is reached: the remaining diagonal is below 1e-10 of its largest entry, or below
        ``8 m eps`` of it for a function that gives float32. Then it is K.

    Raises:
        ValueError: If X is not a matrix or not finite, the kernel, bandwidth or sampling unknown, the function gives
            another shape or a diagonal that is not positive beyond rounding, or there are more landmarks than samples.
        TypeError: If X is not real floating point.

    Notes:
        ``n m`` kernel values, each evaluated once (a function: and its diagonal), and O(n m^2) flops in float64.
        Differentiable in X with the landmarks fixed as indices; not at an orthogonal change of features, which no
        quantity of matinfo sees. :func:`matinfo.estimate.tail_corrected_entropy` spreads the missing trace over the
        tail. Where K can be evaluated again and again, :func:`matinfo.estimate.estimate_entropy` of a
        ``KernelOperator`` is far more accurate.

    References:
        Williams and Seeger (2001), Using the Nyström method to speed up kernel machines; Chen, Epperly, Tropp and
        Webber (2024), Randomly pivoted Cholesky.

    Example:
        >>> import torch
        >>> from matinfo import renyi_entropy
        >>> from matinfo.kernels import nystrom, rbf
        >>> X = torch.linspace(0, 5, 200, dtype=torch.float64)[:, None]
        >>> approximate = renyi_entropy(nystrom(X, landmarks=20, bandwidth=1.0, sampling="greedy"))
        >>> abs(float(approximate - renyi_entropy(rbf(X, bandwidth=1.0)))) < 1e-8
        True
    """
    samples, dtype, is_numpy = _samples(X)
    n = len(samples)
    check_choice(sampling, "sampling", _SAMPLING)
    given = _indices(landmarks, n, samples.device)
    with without_autocast(samples.device):
        values, diagonal, dtype_of_values = _evaluator(samples, kernel, bandwidth)
        count = len(given) if given is not None else check_count(landmarks, "landmarks")
        tolerance = rank_tolerance(dtype_of_values, count)
        if not (tolerance < 1 and bool((diagonal if given is None else diagonal[given]).max() > 0)):
            raise ValueError(
                f"Expected a kernel of positive diagonal in at least single precision, got {dtype_of_values} with "
                f"largest diagonal entry {float(diagonal.max()):.3g}."
            )
        if given is None and sampling == "uniform":
            given = torch.randperm(n, generator=generator, device=samples.device)[:count]
        known: dict[int, Tensor] = {}
        if given is not None:
            known.update(zip(given.tolist(), values(given).unbind(1), strict=True))

        def column(index: int) -> Tensor:
            if given is None:
                known[index] = values(torch.tensor([index], device=samples.device))[:, 0]
            return known[index].detach()

        pivots = select_pivots(
            column,
            diagonal,
            count,
            tolerance=tolerance,
            candidates=given,
            at_random=given is None and sampling == "random",
            generator=generator,
        )
        columns = torch.stack([known[pivot] for pivot in pivots], 1)
        return _gram(factor_of_columns(columns, torch.tensor(pivots, device=samples.device)), dtype, is_numpy)


@answers_keywords
def random_features(
    X: Tensor | np.ndarray,
    *,
    n_features: int,
    kernel: str = "rbf",
    bandwidth: float | str = "median",
    orthogonal: bool = False,
    generator: torch.Generator | None = None,
) -> Gram:
    """Random Fourier features of a kernel, which is never evaluated.

    ``sqrt(2/D) [cos(w_k . x), sin(w_k . x)]`` for ``k = 1 .. D/2``, with w normal of variance ``1/sigma^2`` for
    ``"rbf"`` and Cauchy of scale ``1/sigma`` for ``"laplacian"``; the mean of their products is the kernel.

    Args:
        X: Samples ``(..., n, d)``, Tensor or NumPy array, one row a sample; batch elements share w up to sigma.
        n_features: D, even.
        kernel: ``"rbf"`` or ``"laplacian"``.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"`` (of at most 2,048 evenly strided
            samples), ``"scott"`` or ``"silverman"``.
        orthogonal: Whether the w are orthogonal in blocks of d, which lowers the variance; for ``"rbf"`` only.
        generator: Source of random numbers, on the device of X; None for torch's own.

    Returns:
        A :class:`~matinfo.Gram` of D features and unit diagonal, dtype of X, at least float32. Its mean over w is K;
        the root mean square error of an entry is at most ``1/sqrt(D)``.

    Raises:
        ValueError: If X has fewer than two dimensions or no entries, D is odd, the kernel or the bandwidth unknown, or
            ``orthogonal`` asked for another kernel than ``"rbf"``.
        TypeError: If X is not real floating point.

    Notes:
        O(n d D). Entropies of order up to one, being concave, are too small on the mean; no trace is missing, so that
        there is no tail to correct. Where the spectrum decays fast :func:`nystrom` is more accurate by orders of
        magnitude. Differentiable in X.

    References:
        Rahimi and Recht (2007), Random features for large-scale kernel machines; Yu, Suresh, Choromanski,
        Holtmann-Rice and Kumar (2016), Orthogonal random features.

    Example:
        >>> import torch
        >>> from matinfo.kernels import random_features, rbf
        >>> X = torch.linspace(0, 5, 50, dtype=torch.float64)[:, None]
        >>> seed = torch.Generator().manual_seed(0)
        >>> K = random_features(X, n_features=4000, bandwidth=1.0, generator=seed).dense()
        >>> bool((K - rbf(X, bandwidth=1.0)).abs().max() < 0.1)
        True
    """
    samples, dtype, is_numpy = _samples(X, batches=True)
    check_choice(kernel, "kernel", _NAMED)
    if check_count(n_features, "n_features") % 2:
        raise ValueError(f"Expected n_features to be even (a cosine and a sine each), got {n_features}.")
    if orthogonal and kernel != "rbf":
        raise ValueError(
            f"Expected kernel 'rbf' for orthogonal features, got {kernel!r}: pass orthogonal=False."
        )
    draw = cauchy_frequencies if kernel == "laplacian" else normal_frequencies
    draw = orthogonal_frequencies if orthogonal else draw
    with without_autocast(samples.device):
        w = draw(samples.shape[-1], n_features // 2, generator, samples.device)
        phases = samples @ w / sampled_bandwidth(samples, bandwidth)[..., None, None]
        features = torch.cat([phases.cos(), phases.sin()], -1) * (2 / n_features) ** 0.5
        return _gram(features, dtype, is_numpy)


def _samples(X: Tensor | np.ndarray, *, batches: bool = False) -> tuple[Tensor, torch.dtype, bool]:
    """The samples in float64, the dtype of the result, and whether they came as an array."""
    is_numpy = isinstance(X, np.ndarray)
    X = check_features(as_tensor(X), "X")
    if not batches and X.ndim != 2:
        raise ValueError(f"Expected X of shape (n, d), got {tuple(X.shape)}. Call it for each batch element.")
    return X.double(), at_least_float32(X.dtype), is_numpy


def _gram(features: Tensor, dtype: torch.dtype, is_numpy: bool) -> Gram:
    features = features.to(dtype)
    return Gram(features.numpy() if is_numpy else features)


def _indices(landmarks: int | Tensor | np.ndarray, n: int, device: torch.device) -> Tensor | None:
    """Landmarks given as indices, None for a number of them."""
    if isinstance(landmarks, np.ndarray):
        landmarks = torch.as_tensor(landmarks)
    if isinstance(landmarks, Tensor):
        if landmarks.dtype == torch.bool:
            raise ValueError(
                "Expected landmarks as indices (m,) of integers, got torch.bool. Pass mask.nonzero()[:, 0] for a mask."
            )
        if landmarks.ndim != 1 or landmarks.is_floating_point() or len(landmarks) == 0:
            raise ValueError(
                f"Expected landmarks as indices (m,) of integers, got {tuple(landmarks.shape)} {landmarks.dtype}."
            )
        if int(landmarks.min()) < 0 or int(landmarks.max()) >= n:
            raise ValueError(
                f"Expected landmarks in 0 .. {n - 1}, got {int(landmarks.min())} .. {int(landmarks.max())}."
            )
        return landmarks.to(device, torch.int64).unique()
    if check_count(landmarks, "landmarks") > n:
        raise ValueError(f"Expected at most {n} landmarks, one a sample, got {landmarks}.")
    return None


def _evaluator(
    X: Tensor, kernel: str | Kernel, bandwidth: float | str
) -> tuple[Callable[[Tensor], Tensor], Tensor, torch.dtype]:
    """The kernel's columns at given samples, its diagonal, and the dtype that it is evaluated in."""
    if not bool(X.detach().isfinite().all()):
        raise ValueError("Expected X to be finite, got an infinite or NaN entry.")
    if callable(kernel):
        function = kernel
        tiles = [function(T, T).diagonal() for T in X.detach().split(_DIAGONAL_TILE)]
        diagonal = torch.cat(tiles)
    else:
        named = {"rbf": rbf, "laplacian": laplacian}[check_choice(kernel, "kernel", _NAMED)]
        sigma = float(sampled_bandwidth(X.detach(), bandwidth))
        diagonal = torch.ones_like(X[:, 0]).detach()

        def function(A: Tensor, B: Tensor) -> Tensor:
            return named(A, B, bandwidth=sigma)

    def values(indices: Tensor) -> Tensor:
        return evaluated(function, X, X[indices]).double()

    return values, diagonal.double(), diagonal.dtype
