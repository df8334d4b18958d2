"""Intrinsic dimension, from distances to neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_count, check_features, check_in, check_labels
from matinfo.operands import Gram

_ENTRIES = 2**24
"""Distances in memory at a time: 128 MiB in float64."""


@quantity
def two_nn(features: Tensor, *, discard: float = 0.1) -> Tensor:
    """Intrinsic dimension by the ratio of the distances to two neighbours.

    ``sum_i x_i y_i / sum_i x_i^2`` over the ``1 - discard`` smallest ratios, with ``x_i = log(r_2/r_1)`` in ascending
    order, ``y_i = -log(1 - i/n)`` and i = 1 .. n: the line through the origin of Facco et al.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n >= 4.
        discard: Share of the largest ratios to leave out, in (0, 1).

    Returns:
        ``(...)``, > 0: a number of dimensions, without a gradient. Samples with a copy have no ratio and are left out;
        NaN where fewer than three are left.

    Raises:
        ValueError: If there are fewer than four rows, or ``discard`` is outside (0, 1).
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n^2 d) time, rows in blocks. Statistical error about ``dimension sqrt(1/n)``, and a downward bias above ten
        dimensions or so. The same number as scikit-dimension's ``TwoNN`` (0.5) for distinct samples.

    References:
        Facco, d'Errico, Rodriguez and Laio (2017), Estimating the intrinsic dimension of datasets by a minimal
        neighborhood information, steps 1 to 5.

    Example:
        >>> import torch
        >>> from matinfo.measures import two_nn
        >>> plane = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) @ torch.eye(2, 50)
        >>> round(float(two_nn(plane)))
        2
    """
    check_in(discard, "discard", "(0, 1)")

    def slope(Z: Tensor) -> Tensor:
        r = _neighbours(Z, 2)[0]
        r = r[r[:, 0] > 0]
        n = len(r)
        kept = int(n * (1 - discard))
        if kept < 3:
            return r.new_full((), torch.nan)
        x = (r[:, 1] / r[:, 0]).log().sort().values[:kept]
        y = -torch.log1p(-torch.arange(1, kept + 1, device=r.device, dtype=r.dtype) / n)
        return (x * y).sum() / x.square().sum()

    return _each(features, slope)


@quantity
def mle_dimension(features: Tensor, *, neighbours: int = 20, average: str = "inverse") -> Tensor:
    """Intrinsic dimension by maximum likelihood.

    ``m(z) = [(1/(k - 1)) sum_{j<k} log(T_k(z)/T_j(z))]^{-1}`` with T_j the distance to the j-th neighbour, and over the
    samples ``1/mean(1/m)`` (``"inverse"``, the likelihood of all samples together) or ``mean(m)`` (``"mean"``, Levina
    and Bickel's, which is biased upwards).

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n > ``neighbours``.
        neighbours: k >= 2.
        average: ``"inverse"`` or ``"mean"``.

    Returns:
        ``(...)``, > 0: a number of dimensions, without a gradient. Neighbours at distance zero are left out of the
        sums.

    Raises:
        ValueError: If there are not more rows than neighbours, or an argument is outside its domain.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n^2 d) time, rows in blocks. The same numbers as scikit-dimension's ``MLE`` for distinct samples.

    References:
        Levina and Bickel (2004), Equation 8; MacKay and Ghahramani (2005), Comments on it, for the inverse.

    Example:
        >>> import torch
        >>> from matinfo.measures import mle_dimension
        >>> cube = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) @ torch.eye(3, 50)
        >>> round(float(mle_dimension(cube)))
        3
    """
    k = check_count(neighbours, "neighbours", 2)
    check_choice(average, "average", ("inverse", "mean"))

    def likelihood(Z: Tensor) -> Tensor:
        r = _neighbours(Z, k)[0]
        apart = r > 0
        logs = torch.where(apart, r[:, -1:].log() - torch.where(apart, r, 1.0).log(), 0.0).sum(-1)
        inverse = (logs / (apart.sum(-1) - 1))[apart.sum(-1) > 1]
        return 1 / inverse.mean() if average == "inverse" else (1 / inverse).mean()

    return _each(features, likelihood)


@quantity
def local_participation_ratio(features: Tensor, neighbours: int) -> Tensor:
    """Participation ratio of neighbourhoods: a dimension at the scale of k neighbours.

    ``mean_i PR_i`` with ``PR_i = (tr C)^2/|C|_F^2`` for the covariance C of sample i and its k nearest neighbours.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array.
        neighbours: k >= 2, less than n; with ``n - 1`` it is the participation ratio of everything.

    Returns:
        ``(...)``, between 1 and min(k, d): a number of dimensions, without a gradient. Call it for several k:
        dimensions that grow with k are those of noise or of curvature.

    Raises:
        ValueError: If there are not more rows than neighbours.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n^2 d + n k^2 d) time. Neighbourhoods of copies of one sample are left out.

    References:
        Gao et al. (2017) for the participation ratio; Recanatesi et al. (2022), A scale-dependent measure of system
        dimensionality, for the scales.

    Example:
        >>> import torch
        >>> from matinfo.measures import local_participation_ratio
        >>> circle = torch.linspace(0, 6.2, 200, dtype=torch.float64)
        >>> circle = torch.stack([circle.cos(), circle.sin()], 1)
        >>> [round(float(local_participation_ratio(circle, k)), 2) for k in (4, 199)]
        [1.0, 2.0]
    """
    k = check_count(neighbours, "neighbours")

    def mean_ratio(Z: Tensor) -> Tensor:
        ratios = []
        for part in _neighbours(Z, k)[1].split(max(1, _ENTRIES // (Z.shape[-1] * (k + 1)))):
            K = Gram(Z[part] - Z[part].mean(-2, keepdim=True))
            ratios.append(K.trace().square() / K.frobenius_squared())
        return torch.cat(ratios).nanmean()

    return _each(features, mean_ratio)


def _each(features: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of ``(n, d)`` in float64 for each batch element; NaN for one that is not finite."""
    Z = check_features(features, "features").detach().double()
    elements = Z.reshape(-1, *Z.shape[-2:])
    nan = Z.new_full((), torch.nan)
    values = [f(element) if bool(element.isfinite().all()) else nan for element in elements]
    return torch.stack(values).reshape(Z.shape[:-2]) if values else Z.new_empty(Z.shape[:-2])


def _neighbours(Z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ascending distances ``(n, k)`` to the nearest others, and indices ``(n, k + 1)`` of these and the row itself."""
    n, d = Z.shape
    if n <= k or n < 4:
        raise ValueError(f"Expected more rows than neighbours ({k}), and at least four, got {n}.")
    Z = Z - Z.mean(0)  # distances do not change, their round-off shrinks
    distances, indices = [], []
    for block in Z.split(max(1, _ENTRIES // max(n, (k + 1) * d))):
        # Found by products of rows, which round; measured by differences, which do not.
        index = torch.cdist(block, Z).topk(k + 1, largest=False).indices
        exact = torch.linalg.vector_norm(Z[index] - block[:, None], dim=-1)
        distances.append(exact.sort(-1).values[:, 1:])
        indices.append(index)
    return torch.cat(distances), torch.cat(indices)


@quantity
def cluster_learnability(features: Tensor, labels: Tensor, *, neighbours: int = 1) -> Tensor:
    """Cluster learnability: how well neighbours predict the cluster of a sample.

    The share of samples whose label is the one that most of their k nearest other samples have (of equally many the
    smallest label): the leave-one-out accuracy of a k-nearest-neighbour classifier.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n > ``neighbours`` and n >= 4.
        labels: ``(n,)``, integers: clusters of the features, for the definition those of k-means, which
            ``sklearn.cluster.KMeans`` finds.
        neighbours: k.

    Returns:
        ``(...)``, between 0 and 1, without a gradient. With :func:`two_nn` it makes CLID: over a set of models the sum
        of the two, each less its mean and over its standard deviation.

    Raises:
        ValueError: If the number of labels is not n, or there are too few rows.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n^2 d) time, rows in blocks.

    References:
        Lu, Liu, Baratin, Laroche, Courville and Sordoni (2023), Using representation expressiveness and learnability to
        evaluate self-supervised learning methods; the version of 2022 read the classifier's learning speed instead.

    Example:
        >>> import torch
        >>> from matinfo.measures import cluster_learnability
        >>> Z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.1, 0.0]])
        >>> float(cluster_learnability(Z, torch.tensor([0, 0, 1, 1])))
        1.0
    """
    k = check_count(neighbours, "neighbours")
    classes = check_labels(labels, features.shape[-2]).unique(return_inverse=True)[1]

    def accuracy(Z: Tensor) -> Tensor:
        index = _neighbours(Z, k)[1]
        itself = torch.arange(len(Z), device=Z.device)
        other = index != itself[:, None]
        other[:, -1] &= other.sum(-1) <= k  # a copy may have taken the place of the row itself
        votes = torch.zeros(len(Z), int(classes.max()) + 1, device=Z.device)
        votes.scatter_add_(1, classes.to(Z.device)[index], other.float())
        return (votes.argmax(-1) == classes.to(Z.device)).double().mean()

    return _each(features, accuracy)
