"""One decomposition that answers every question about eigenvalues."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import context
from matinfo._keywords import answers_keywords
from matinfo._validation import (
    check_choice,
    check_count,
    check_features,
    check_floating,
    check_positive_semidefinite,
    check_trace,
    values_are_readable,
)
from matinfo.operands import (
    AnyGram,
    Factor,
    Gram,
    Matrix,
    Operand,
    as_matrix,
    as_operand,
    as_tensor,
    is_readable,
)
from matinfo.spectral import traces
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.functions import root
from matinfo.spectral.normalize import times_power_of_two
from matinfo.spectral.precision import PRECISIONS

_OF_EIGENVALUES = Noise(16 * torch.finfo(torch.float64).eps, 0.0, 1e-6)
"""Of eigenvalues whose matrix is not known."""


class Spectrum:
    """Eigenvalues of positive semi-definite matrices, and what a quantity has to know beside them.

    Every function of matinfo that needs nothing but eigenvalues takes a ``Spectrum`` in place of the matrix or of the
    features, and is differentiable through it. :func:`spectrum` makes one from a matrix or from features; this
    constructor from eigenvalues that are known already.

    Args:
        values: Eigenvalues ``(..., m)``, Tensor or NumPy array, in any order, real floating point.
        rows: n, the order of the matrix, at least the number of positive eigenvalues; None for m. The rest of the
            spectrum is zero.
        width: d, the number of features if the matrix is ``Z Z^T`` of ``(n, d)`` features; None if that is not known.

    Raises:
        ValueError: If there are no eigenvalues, one is negative beyond round-off, or more than ``rows`` or ``width``
            are positive.
        TypeError: If ``values`` is not real floating point.

    Notes:
        Nothing that takes it changes it. A batch element whose matrix was not finite holds NaN, and so do its
        quantities. ``spectrum[i]`` is an element of a batch. Only symmetric functions of eigenvalues have a derivative
        where these repeat, and all quantities are symmetric. There is no second derivative: it is refused.

    References:
        Lewis (1996), Derivatives of spectral functions: with f symmetric, ``d f(lambda(K)) = <Q diag(df/dlambda) Q^T,
        dK>`` for any eigenvectors Q, repeated eigenvalues or not.

    Example:
        >>> import numpy as np
        >>> from matinfo import Spectrum, effective_rank, renyi_entropy
        >>> S = Spectrum(np.array([1.0, 0.0, 1.0, 2.0]))
        >>> S.values, float(S.trace), int(S.rank)
        (array([2., 1., 1., 0.]), 4.0, 3)
        >>> round(float(renyi_entropy(S, 1, base=2)), 4), round(float(effective_rank(S, 2)), 4)
        (1.5, 2.6667)
    """

    eigenvalues: Tensor
    """``(..., m)``, descending, non-negative, float64, on the graph of what they are of."""
    rows: int
    """n, the order of the matrix."""
    width: int | None
    """d, the number of features, if they are known."""
    noise: Noise
    """What is known of the errors of the eigenvalues."""
    given_dtype: torch.dtype
    """Dtype of what the eigenvalues are of; quantities come in it, in float32 at least."""
    is_numpy: bool
    """Whether quantities come as NumPy."""
    remedy = "A Spectrum holds eigenvalues alone: pass the matrix, or the features, that it is of."

    def __init__(
        self, values: Tensor | np.ndarray, *, rows: int | None = None, width: int | None = None
    ) -> None:
        given = check_floating(as_tensor(values), "values")
        if given.ndim == 0 or given.shape[-1] == 0:
            raise ValueError(f"Expected at least one eigenvalue in (..., m), got shape {tuple(given.shape)}.")
        ascending = given.double().sort(-1).values
        check_positive_semidefinite(ascending.detach(), _OF_EIGENVALUES.indefinite)
        descending = ascending.flip(-1)
        count = descending.shape[-1]
        n = count if rows is None else check_count(rows, "rows")
        d = None if width is None else check_count(width, "width")
        if values_are_readable(given) and given.numel():
            most = int(_OF_EIGENVALUES.rank(descending.detach()).nan_to_num(0.0).max())
            if most > min(n, d or n):
                raise ValueError(
                    f"Expected no more positive eigenvalues than rows and columns, got {most} of rows = {n}"
                    f"{'' if d is None else f', width = {d}'}: Z Z^T of (n, d) features has at most min(n, d)."
                )
        self._set(
            torch.where(descending.detach() < 0, 0.0 * descending, descending),
            n,
            d,
            _OF_EIGENVALUES,
            given.dtype,
            isinstance(values, np.ndarray),
        )

    def _set(self, *fields: Any) -> Spectrum:
        self.eigenvalues, self.rows, self.width, self.noise, self.given_dtype, self.is_numpy = fields
        return self

    @property
    def values(self) -> Tensor:
        """A copy of the eigenvalues ``(..., m)``, descending, float64; those that are not among them are zero."""
        return self.out(self.eigenvalues.clone())

    @property
    def trace(self) -> Tensor:
        """Their sum ``(...)``, float64."""
        return self.out(self.eigenvalues.sum(-1))

    @property
    def probabilities(self) -> Tensor:
        """Eigenvalues over their sum, ``(..., m)``, float64: NaN for the zero matrix."""
        return self.out(self.eigenvalues / self.eigenvalues.sum(-1, keepdim=True))

    @property
    def rank(self) -> Tensor:
        """Number of eigenvalues above round-off, ``(...)``, float64."""
        return self.out(self.noise.rank(self.eigenvalues.detach()))

    @property
    def singular_values(self) -> Tensor:
        """Singular values of the features, ``(..., min(m, n, d))`` in float64, as roots of the eigenvalues.

        Those in the round-off are zero with zero derivative. The square root halves the digits: singular values below
        about 1e-8 of the largest are round-off, where a singular value decomposition of the features would keep them.
        """
        return self.out(self.roots())

    @property
    def shape(self) -> torch.Size:
        """Shape ``(..., n, n)`` of the matrices."""
        return torch.Size((*self.eigenvalues.shape[:-1], self.rows, self.rows))

    @property
    def device(self) -> torch.device:
        """Device of the eigenvalues."""
        return self.eigenvalues.device

    def __getitem__(self, index: Any) -> Spectrum:
        """Element, or part, of a batch."""
        batch = self.eigenvalues.shape[:-1]
        chosen = torch.arange(batch.numel()).reshape(batch)[index]
        part = self._like(self.eigenvalues.flatten(0, -2)[chosen] if batch else self.eigenvalues[index])
        if isinstance(self.noise.entries, Tensor):
            part.noise = self.noise._replace(entries=self.noise.entries.flatten()[chosen])
        return part

    def roots(self) -> Tensor:
        """:attr:`singular_values` as a tensor on the graph."""
        x = self.eigenvalues[..., : min(self.rows, self.width or self.rows)]
        above = x.detach() > self.noise.cut(self.eigenvalues.detach().flip(-1))
        return root(x, above)

    def check_trace(self, name: str = "K") -> None:
        """Refuse a trace that is not positive, and one that float64 cannot hold; NaN passes."""
        total = self.eigenvalues.detach().sum(-1)
        check_trace(total, name)
        if total.device.type == "cpu" and values_are_readable(total) and bool(total.isinf().any()):
            raise ValueError(
                f"Expected eigenvalues of {name} that float64 can hold, got infinite ones. Divide the matrix, or the "
                "features, by their norm: entropies and ranks do not see the scale."
            )

    def detach(self) -> Spectrum:
        """The same without a graph."""
        return self._like(self.eigenvalues.detach())

    def double(self) -> Spectrum:
        """The same, of which quantities come in float64 whatever the dtype of the features."""
        same = self._like(self.eigenvalues)
        same.given_dtype = torch.float64
        return same

    def _like(self, values: Tensor) -> Spectrum:
        fields = (values, self.rows, self.width, self.noise, self.given_dtype, self.is_numpy)
        return Spectrum.__new__(Spectrum)._set(*fields)

    def out(self, x: Tensor) -> Any:
        """A result as the user has it: NumPy for NumPy."""
        return x.detach().cpu().numpy()[()] if self.is_numpy else x

    def __repr__(self) -> str:
        """Order, width, batch shape and dtype."""
        batch = tuple(self.eigenvalues.shape[:-1])
        return f"Spectrum(n={self.rows}, width={self.width}, batch={batch}, dtype={self.given_dtype})"


@answers_keywords
def spectrum(
    K: Tensor | np.ndarray | Gram | Any,
    *,
    center: bool | str | None = None,
    normalize: bool | None = None,
    precision: str = "auto",
) -> Spectrum:
    """Spectrum of a positive semi-definite matrix: one decomposition for many quantities.

    ``lambda_1 >= ... >= lambda_n >= 0`` of K; or of ``Z Z^T``, with Z features whose rows are divided by their length
    (``normalize``) and have their mean subtracted after that (``center``), if either is given.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)``, Tensor or NumPy array; or a :class:`Gram`, also the one of
            a stream or of all ranks; or a kernel operator or SciPy's sparse matrix or ``LinearOperator``, which is
            formed here, without a gradient. If ``center`` or ``normalize`` is given: features ``(..., n, d)``.
        center: Says that K is features, and whether to subtract the mean row; ``"first"`` before the division by the
            lengths, as Diff-eRank has it. A column that is then zero up to the round-off of its mean is set to zero.
        normalize: Says that K is features, and whether to divide each row by its l2 norm first.
        precision: ``"auto"`` and ``"float64"`` solve in float64, so that every quantity is right; ``"float32"`` is
            faster, and right to about 1e-6 of the largest eigenvalue.

    Returns:
        A :class:`Spectrum`.

    Raises:
        ValueError: If K is not square, not symmetric or has a clearly negative eigenvalue.
        TypeError: If K is not real floating point.

    Notes:
        One symmetric eigendecomposition of the smaller side, m = min(n, d): about 4/3 m^3 flops for the values and
        9 m^3 with a gradient, whatever the number of quantities; the backward of all of them together is one product
        of m x m matrices. First derivative exact at repeated and at zero eigenvalues; the second is refused, and
        :func:`renyi_entropy` of the matrix itself has one.

    References:
        Lewis (1996), Derivatives of spectral functions.

    Example:
        >>> import torch
        >>> from matinfo import Gram, effective_rank, renyi_entropy, spectrum, tcr
        >>> Z = torch.eye(3, requires_grad=True)
        >>> S = spectrum(Gram(Z))
        >>> [round(x.item(), 4) for x in (effective_rank(S), tcr(S))]
        [3.0, 2.0794]
        >>> loss = -renyi_entropy(S, 1) + 0.1 * renyi_entropy(S, 2)
        >>> loss.backward()  # one backward through one decomposition
        >>> float(Z.grad.norm())  # all directions are alike already
        0.0
    """
    check_choice(precision, "precision", PRECISIONS)
    if isinstance(K, Spectrum):
        return K
    is_numpy = K.is_numpy if isinstance(K, AnyGram) else not isinstance(K, Tensor | Matrix)
    operand = as_tensor(K)
    with context("spectrum", [operand] if isinstance(operand, Tensor | AnyGram) else []):
        if center is not None or normalize is not None:
            Z = check_features(cast(Tensor, operand), "features")
            operand = Gram(Z, normalize=bool(normalize), center=center or False)
        elif not isinstance(operand, Tensor | AnyGram | Matrix):
            operand = _formed(operand)
        operand = cast(Factor, as_spectral(operand, "K", "spectrum"))
        side = operand.side(precision=precision, sensitive=True)
        values = traces.spectrum(side.matrix, side.noise, side=side.name)
        if side.exponent is not None:
            values = _representable(times_power_of_two(values, side.exponent[..., None]), values)
    width = operand.width if isinstance(operand, AnyGram) else None
    fields = (values, side.order, width, side.noise, operand.given_dtype, is_numpy)
    return Spectrum.__new__(Spectrum)._set(*fields)


def _representable(values: Tensor, scaled: Tensor) -> Tensor:
    """Eigenvalues in their scale, unless float64 ends before."""
    top, known = values[..., 0], scaled[..., 0]
    if is_readable(values) and bool((known.isfinite() & (known > 0) & (top.isinf() | (top == 0))).any()):
        raise ValueError(
            "Expected eigenvalues that float64 can hold, got some beyond it. Scale K: quantities that divide by the "
            "trace do not depend on it, and take K itself at any scale."
        )
    return values


def as_spectral(K: Operand | Spectrum, name: str, function: str) -> Factor | Spectrum:
    """Check an argument of which the eigenvalues are all that matters."""
    if isinstance(K, Tensor):  # first, because it is what most calls have
        return as_matrix(K, name, function)
    return K if isinstance(K, Spectrum | AnyGram) else as_operand(K, name, function)


def of_features(
    features: Tensor | AnyGram | Spectrum, function: str, *, center: bool = False, normalize: bool = False
) -> tuple[AnyGram | Spectrum, int]:
    """The Gram matrix of features that are prepared here, or what stands for one, and the number of columns."""
    if not isinstance(features, AnyGram | Spectrum):
        features = Gram(features, normalize, center=center)
    if features.width is None:
        raise ValueError(
            f"Expected {function} of features, or a Spectrum that knows their width, got that of a matrix. Use "
            "spectrum(Gram(features))."
            + (
                " Use matrix_tcr(S) for the coding rate of a matrix."
                if function in ("tcr", "coding_rate")
                else ""
            )
        )
    return features, features.width


def check_decomposed(method: str, precision: str) -> None:
    """Refuse choices about a decomposition that is done."""
    if method not in ("auto", "eigh") or precision != "auto":
        raise ValueError(
            f"Expected no choice of a route with a Spectrum, got method={method!r}, precision={precision!r}: it has "
            "been decomposed. Choose in spectrum(K, precision=...), or pass the matrix."
        )


def _formed(K: Any) -> Tensor:
    """The matrix of something that is known by its products, without a graph."""
    if hasattr(K, "toarray"):  # SciPy, sparse
        return as_tensor(K.toarray())
    if hasattr(K, "tiles"):
        return cast(Tensor, K.rows(0, K.shape[0]))
    if hasattr(K, "matmat"):  # SciPy's LinearOperator
        return as_tensor(np.asarray(K.matmat(np.eye(K.shape[0]))))
    return check_floating(K, "K")
