"""Entropies to be minimised or maximised: an estimate with an estimated gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._validation import is_transformed
from matinfo.estimate.estimator import Entropy, Quadrature, check_arguments
from matinfo.estimate.result import Estimate
from matinfo.operands import Gram
from matinfo.operands.adjoints import Cotangent, pulled_back, sources, squared_length
from matinfo.operands.kernel_operator import KernelOperator
from matinfo.operands.operator import as_operator, smaller_operator
from matinfo.spectral.block_lanczos import BlockLanczos, Rules
from matinfo.spectral.first_order import followed
from matinfo.spectral.hutchpp import displacement, fit_of_others
from matinfo.spectral.operator import SymmetricOperator, check_definite, checked_moments
from matinfo.spectral.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    Differentiable: TypeAlias = Tensor | Gram | KernelOperator

_PROBES, _DEGREE = 16, 24

_GROUPS = 4
"""The scatter of the gradient is judged by the means of so many groups of probes."""


@dataclass(frozen=True)
class DifferentiableEstimate:
    """An estimated entropy as a loss.

    Attributes:
        value: The estimate as a tensor of shape ``()``, in nats, with the gradient attached.
        estimate: The same with its standard error and bias bound, as :func:`estimate_entropy` gives it.
        gradient_standard_error: Standard error of the whole gradient: the square root of the sum of the variances of
            its entries, to be compared with its Euclidean norm. None where nothing requires a gradient.
    """

    value: Tensor
    estimate: Estimate
    gradient_standard_error: float | None


@answers_keywords
def stochastic_entropy(
    K: Differentiable,
    alpha: float = 1.0,
    *,
    probes: int = _PROBES,
    degree: int = _DEGREE,
    generator: torch.Generator | None = None,
) -> DifferentiableEstimate:
    """Matrix-based Rényi entropy from matrix-vector products alone, as a loss.

    The value is an estimate as that of :func:`estimate_entropy`, never by all eigenvalues. Its gradient is the mean
    over the same random signs z of ``dH/dtr f(P) z^T f'(P) dP z``, with ``f'(P) z`` from the same Lanczos basis. As for
    the value, what the best ``c1 x + c2 x^2`` explains is not estimated: the gradients of ``tr P`` and ``|P|_F^2`` are
    exact.

    Args:
        K: One positive semi-definite matrix ``(n, n)``: Tensor, :class:`~matinfo.Gram` of features, or
            :class:`KernelOperator` of samples.
        alpha: Order, 0 < alpha < inf.
        probes: Number of random vectors, at least 2.
        degree: Number of Lanczos steps, raised to ``alpha/2 + 1`` and never above n.
        generator: Source of the random signs, on the device of K; None for torch's own.

    Returns:
        A :class:`DifferentiableEstimate`; its ``value`` has the dtype of K, at least float32.

    Raises:
        ValueError: If K is not one square symmetric matrix with finite positive trace, has a clearly negative
            eigenvalue, alpha is outside (0, inf), or a number is not positive.
        TypeError: If K is not one of the three, or not real floating point.
        RuntimeError: In the backward pass, if a second derivative is asked for.

    Notes:
        ``(degree + 1) probes`` products with K, and about two to five more for the gradient, which is computed with
        the value and kept (as large as what it is a gradient of). A kernel matrix is never formed: the memory is
        O(n tile) here too. The gradient is unbiased at alpha = 1, up to truncation of the recurrence; elsewhere
        ``1/tr P^alpha`` adds a relative bias of about the variance of ``log tr P^alpha``. It is an estimate of rank
        ``probes``, good for stochastic gradient descent and no replacement of :func:`matinfo.renyi_entropy` where
        that is affordable. For alpha <= 1.25 the null space of K, where ``f'`` diverges, counts as in
        :func:`matinfo.renyi_entropy`: the derivative there is the mean one, and for features it does not matter. The
        bandwidth of a kernel is a constant. Once differentiable; not inside ``torch.func`` transforms.

    References:
        Hutchinson (1990), A stochastic estimator of the trace of the influence matrix; Ubaru, Chen and Saad (2017),
        Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.estimate import stochastic_entropy
        >>> Z = torch.randn(300, 400, generator=torch.Generator().manual_seed(0)).requires_grad_()
        >>> found = stochastic_entropy(Gram(Z), generator=torch.Generator().manual_seed(1))
        >>> (-found.value).backward()  # a step against it makes the features more diverse
        >>> Z.grad.shape
        torch.Size([300, 400])
        >>> bool(found.gradient_standard_error < Z.grad.norm())
        True
    """
    order = check_arguments(alpha, probes, degree)
    if not isinstance(K, Tensor | Gram | KernelOperator):
        raise TypeError(
            "Expected K to be a Tensor, a Gram or a KernelOperator, whose gradients are known, got "
            f"{type(K).__name__}. For the value alone use estimate_entropy."
        )
    if isinstance(K, Gram):
        K = K.gathered()
    tensors = (
        [Z for term in K.terms for Z in term] if isinstance(K, Gram) else [K] if isinstance(K, Tensor) else []
    )
    if any([is_transformed(tensor) for tensor in tensors]):
        raise ValueError(
            "Expected plain tensors, got one inside a torch.func transform. Use renyi_entropy there."
        )
    with torch.no_grad():
        operator = smaller_operator(as_operator(K))
    wanted = sources(operator) if torch.is_grad_enabled() else []
    with torch.no_grad(), without_autocast(operator.device):
        checked_moments(operator)
        term = _DifferentiableEntropy(operator, order)
        if order == 2:
            assert term.collision is not None
            check_definite(operator)
            estimate = Estimate(term.collision, 0.0, term.rounding, 0, 0)
        else:
            sampler = Quadrature([term], generator, degree=degree)
            sampler.open(probes)
            estimate = sampler.read()
        value = torch.tensor(estimate.value, dtype=_dtype(K), device=operator.device)
        if not wanted:
            return DifferentiableEstimate(value, estimate, None)
        gradients, error = term.gradients()
    for tensor, gradient in zip(wanted, gradients, strict=True):
        value = value + followed(tensor, torch.zeros_like(value), _change, torch.mul, gradient)
    return DifferentiableEstimate(value, estimate, error)


def _change(dx: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * dx).sum().to(dx.dtype)


def _dtype(K: Differentiable) -> torch.dtype:
    if isinstance(K, KernelOperator):
        return at_least_float32(K.given.dtype) if isinstance(K.given, Tensor) else torch.float64
    return at_least_float32(K.given_dtype if isinstance(K, Gram) else K.dtype)


class _DifferentiableEntropy(Entropy):
    """An entropy that keeps ``z``, ``P z`` and ``f'(P) z`` of its probes, in the columns of ``(n, s)``."""

    def __init__(self, operator: SymmetricOperator, alpha: float) -> None:
        super().__init__(operator, alpha)
        self.steps = None  # f'(P) z takes twice the steps of z^T f(P) z
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scales: list[float] = []

    def keep(self, lanczos: BlockLanczos, signs: Tensor, sizes: Tensor) -> None:
        super().keep(lanczos, signs, sizes)
        total, top = self.trace.total, float(self.trace.parts[-1].nodes.max())
        scale = top if self.is_power and top > 0 else 1.0
        derivative = lanczos.applied(lambda x, weights: self._derivative(x / total, weights, scale))
        self._kept.append((signs, lanczos.first_images() / total, derivative))
        self._scales.append(scale)

    def _derivative(self, x: Tensor, weights: Tensor, scale: float) -> Tensor:
        """``d f(x/scale)/dx``, with its mean where it diverges, so that the derivative of the entropy is zero there."""
        x = x.clamp_min(0.0)
        if not self.function.projects_null_space:
            return self.function.derivative(x / scale) / scale
        above = x > displacement(float(x.max()), self.n, self.trace.squared, self.operator.noise)
        slopes = self.function.derivative(torch.where(above, x, 1.0) / scale) / scale
        mass = torch.where(above, x * weights, 0.0)
        tiny = torch.finfo(x.dtype).tiny
        return torch.where(above, slopes, (mass * slopes).sum() / mass.sum().clamp_min(tiny))

    def gradients(self) -> tuple[list[Tensor], float]:
        """The mean gradient and its standard error, from the mean gradients of groups of probes."""
        if not self._kept:
            squared, total = self.trace.squared, self.trace.total
            assert squared is not None
            none = torch.zeros(self.n, 0, dtype=self.operator.dtype, device=self.operator.device)
            exact = Cotangent(none, none, -2 / (squared * total**2), -2 / total)
            return next(pulled_back(self.operator, [exact])), 0.0
        cotangents = self._cotangents()
        sizes = [cotangent.left.shape[1] for cotangent in cotangents]
        count = sum(sizes)
        mean: list[Tensor] = []
        squares = 0.0
        for size, parts in zip(sizes, pulled_back(self.operator, cotangents), strict=True):
            squares += size * squared_length(parts)
            weighted = [part * (size / count) for part in parts]
            mean = [a.add_(b) for a, b in zip(mean, weighted, strict=True)] if mean else weighted
        spread = max(0.0, squares - count * squared_length(mean))
        return mean, math.sqrt(spread / (count * (len(sizes) - 1)))

    def _cotangents(self) -> list[Cotangent]:
        # dH = h (z^T (f'(P) - a - b P) dP z + b/2 d|P|_F^2) with h = dH/dtr f(P); the constant a drops out. The fit
        # a + b x and the value that h is taken at are those of the other probes, so that both are independent of z.
        # In dP = dK/t - P dt/t the second term makes each probe's gradient orthogonal to K.
        squared, total = self.trace.squared, self.trace.total
        assert squared is not None
        found = self.trace.estimate(self.f, self.rescaled(self.trace.largest_node))
        kept = [
            (z, images, derivatives * (scale / self.scale) ** self.alpha)  # one scale for all batches
            for (z, images, derivatives), scale in zip(self._kept, self._scales, strict=True)
        ]
        z, images, derivatives = [torch.cat(columns, 1) for columns in zip(*kept, strict=True)]
        rules = Rules.joined(self.trace.parts)
        x = rules.nodes.clamp_min(0.0)
        top = x.max()
        powers = torch.stack([torch.ones_like(x), x / top], -1)
        fit = fit_of_others(rules.weights * x, powers, self._derivative(x, rules.weights, self.scale))
        a, b = fit[:, 0], fit[:, 1] / top

        count = len(x)
        others = (count * found.value - found.samples) / (count - 1)
        h = x.new_tensor([self.slope(float(value)) for value in others]) / total
        w = derivatives - a * z - b * images
        shift = h * ((w * images).sum(0) + b * squared)
        w, square = w * h, h * b / total
        groups = torch.arange(count, device=z.device).tensor_split(min(_GROUPS, count))
        return [
            Cotangent(z[:, g], w[:, g] / len(g), float(square[g].mean()), float(shift[g].mean()))
            for g in groups
        ]
