"""``tr f(K/s)`` with exact first and second derivatives at any spectrum.

Algebra. With ``K/s = Q diag(x) Q^T``,

    d  tr f(K/s)    = <f'(K/s), dK> / s,                      f'(K/s) = Q diag(f'(x)) Q^T
    d  f'(K/s)      = Q (Phi o (Q^T dK Q)) Q^T / s,           Phi_ij  = (f'(x_i) - f'(x_j)) / (x_i - x_j)

(Daleckii and Krein). No gap between eigenvalues is ever divided by: ``Phi`` comes from the closed forms of
:mod:`matinfo.spectral.functions`. The scale ``s`` (the trace, or the largest eigenvalue) is a constant of the
differentiation; callers use expressions whose value does not depend on it.

Structure. Three nested functions, because a backward that used saved eigenpairs directly would have a zero second
derivative without saying so: ``_Trace`` -> ``_Gradient`` -> ``_Hessian``. The last one is linear and self-adjoint in
its argument and refuses to be differentiated once more with respect to K.

Null space. Where ``f'`` diverges at 0 (orders up to 1.25) eigenvalues below ``cut`` are given the mean derivative
``h0 = sum x f'(x) / sum x``, so that the gradient of a trace-normalised quantity vanishes there. For a matrix that
comes from features any choice gives the same gradient with respect to the features.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matinfo.spectral import compiled
from matinfo.spectral.eigensolver import check_positive_semidefinite, eigh_psd
from matinfo.spectral.functions import SpectralFunction


class TraceResult(NamedTuple):
    """``value = tr f(K/scale)`` and the constant ``scale``, both float64."""

    value: Tensor
    scale: Tensor


class Noise(NamedTuple):
    """What is known about the errors in a matrix: eigenvalues below ``cut(...)`` cannot be told from zero.

    ``solver`` multiplies the largest eigenvalue, ``entries`` the largest entry; ``indefinite`` is the relative size
    from which a negative eigenvalue is an error of the user's.
    """

    solver: float
    entries: float
    indefinite: float

    @classmethod
    def of(cls, n: int, working: torch.dtype, given: torch.dtype) -> Noise:
        """For a matrix of order n whose entries were rounded to ``given`` and that is solved in ``working``."""
        solver = (16 if working == torch.float64 else 4) * torch.finfo(working).eps
        entries = math.sqrt(n) * torch.finfo(given).eps
        return cls(solver, entries, max(1e-6, n * torch.finfo(given).eps))

    def cut(self, K: Tensor, eigenvalues: Tensor) -> Tensor:
        top = eigenvalues[..., -1:]
        entry = K.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).to(top)
        return self.solver * top + self.entries * entry


class _Plan(NamedTuple):
    """The constants of one call."""

    f: SpectralFunction
    noise: Noise
    truncate: bool
    side: str


def derivatives_are_wanted(K: Tensor) -> bool:
    """Whether some transform may ask for a derivative of the result (if unsure: yes)."""
    if torch.is_grad_enabled() and K.requires_grad:
        return True
    if torch._C._functorch.is_functorch_wrapped_tensor(K):
        return True
    return torch.autograd.forward_ad._current_level >= 0


def trace_function(
    K: Tensor, f: SpectralFunction, *, noise: Noise, scale: Tensor | None = None, truncate: bool = False, side: str
) -> TraceResult:
    """``tr f(K/s)`` of a batch of positive semi-definite matrices ``(..., n, n)``.

    Args:
        K: The matrices, float32 or float64.
        f: The scalar function.
        noise: Decides which eigenvalues count as zero.
        scale: ``s``, of shape ``(...)``, taken as a constant; None for the largest eigenvalue.
        truncate: Whether eigenvalues in the noise are left out of the value too.
        side: For the explanation.

    Returns:
        The trace and the scale, shape ``(...)``, float64.
    """
    plan = _Plan(f, noise, truncate, side)
    s = None if scale is None else scale.detach().double()
    if torch.compiler.is_compiling():
        return _compiled_trace(K, s, plan)
    if not derivatives_are_wanted(K):
        eigenvalues, _ = eigh_psd(K, vectors=False, side=side)
        x, _, s_used = scaled_spectrum(K, eigenvalues, s, plan)
        return TraceResult(f.value(x).sum(-1), s_used)
    value, s_used, *_ = _Trace.apply(K, s, plan)
    return TraceResult(value, s_used)


def _compiled_trace(K: Tensor, s: Tensor | None, plan: _Plan) -> TraceResult:
    eigenvalues, Q = compiled.eigh_psd(K, vectors=torch.is_grad_enabled())
    x, above, s_used = scaled_spectrum(K, eigenvalues, s, plan)
    value = plan.f.value(x).sum(-1)
    if torch.is_grad_enabled():
        weights = (gradient_weights(x, above, plan.f) / s_used[..., None]).to(K.dtype)
        value = compiled.linearized(value, (K, (Q * weights[..., None, :]) @ Q.mT))
    return TraceResult(value, s_used)


def scaled_spectrum(K: Tensor, eigenvalues: Tensor, s: Tensor | None, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Non-negative float64 ``x = eigenvalues/s``, the mask of those above the noise, and s."""
    check_positive_semidefinite(eigenvalues, plan.noise.indefinite)
    lam = eigenvalues.double()
    above = lam > plan.noise.cut(K.detach(), lam)
    lam = lam.clamp_min(0.0)
    if plan.truncate:
        lam = torch.where(above | lam.isnan(), lam, 0.0)
    s = lam[..., -1] if s is None else s
    return lam / s[..., None], above, s


def gradient_weights(x: Tensor, above: Tensor, f: SpectralFunction) -> Tensor:
    """``f'(x)``, with the mean derivative on the null space where the function asks for it; NaN stays NaN."""
    if not f.projects_null_space:
        return f.derivative(x)
    h = f.derivative(torch.where(above, x, 1.0))
    mass = torch.where(above, x, 0.0)
    h0 = (mass * h).sum(-1, keepdim=True) / mass.sum(-1, keepdim=True)
    return torch.where(above, h, h0) + 0.0 * x


def _divided_differences(x: Tensor, above: Tensor, f: SpectralFunction) -> Tensor:
    """``Phi``, with 0 between two null directions and the plain quotient between null and range."""
    a, b = x[..., :, None], x[..., None, :]
    if not f.projects_null_space:
        return f.divided_difference(a, b)
    h = gradient_weights(x, above, f)
    both = above[..., :, None] & above[..., None, :]
    one = above[..., :, None] ^ above[..., None, :]
    phi = f.divided_difference(torch.where(both, a, 1.0), torch.where(both, b, 1.0))
    larger = torch.where(one, torch.maximum(a, b), 1.0)
    sign = torch.where(above[..., :, None], 1.0, -1.0)
    mixed = sign * (h[..., :, None] - h[..., None, :]) / larger
    return torch.where(both, phi, torch.where(one, mixed, 0.0))


def _batch_first(x: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """``x`` with its vmapped dimension in front; an unmapped one is expanded to ``size``."""
    if x is None:
        return None
    if dim is None:
        return x.unsqueeze(0).expand(size, *x.shape)
    return x.movedim(dim, 0)


class _Trace(torch.autograd.Function):
    """K, s -> tr f(K/s); passes the eigensystem on for the derivatives."""

    @staticmethod
    def forward(K: Tensor, s: Tensor | None, plan: _Plan) -> tuple[Tensor, ...]:
        eigenvalues, Q = eigh_psd(K, side=plan.side)
        x, above, s_used = scaled_spectrum(K, eigenvalues, s, plan)
        return plan.f.value(x).sum(-1), s_used.clone(), x, above, Q

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        K, _, ctx.plan = inputs
        _, s, x, above, Q = output
        ctx.mark_non_differentiable(s, x, above, Q)
        ctx.save_for_backward(K, s, x, above, Q)
        ctx.save_for_forward(K, s, x, above, Q)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        K, s, x, above, Q = ctx.saved_tensors
        weight = (grads[0] / s)[..., None, None]
        return weight.to(K.dtype) * _Gradient.apply(K, s, x, above, Q, ctx.plan), None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> tuple:
        K, s, x, above, Q = ctx.saved_tensors
        slope = (_Gradient.apply(K, s, x, above, Q, ctx.plan).double() * dK.double()).sum((-2, -1)) / s
        return slope, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, K: Tensor, s: Tensor | None, plan: _Plan) -> tuple:
        K = _batch_first(K, in_dims[0], info.batch_size)
        s = _batch_first(s, in_dims[1], info.batch_size)
        return _Trace.apply(K, s, plan), (0, 0, 0, 0, 0)


class _Gradient(torch.autograd.Function):
    """The matrix f'(K/s). K enters only to carry the graph; the eigensystem is its own."""

    @staticmethod
    def forward(K: Tensor, s: Tensor, x: Tensor, above: Tensor, Q: Tensor, plan: _Plan) -> Tensor:
        h = gradient_weights(x, above, plan.f).to(Q.dtype)
        return (Q * h[..., None, :]) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.plan = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, *rest = ctx.saved_tensors
        return _Hessian.apply(grad, _Guard.apply(K), *rest, ctx.plan), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, *rest = ctx.saved_tensors
        return _Hessian.apply(dK, _Guard.apply(K), *rest, ctx.plan)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        *tensors, plan = args
        moved = [_batch_first(t, dim, info.batch_size) for t, dim in zip(tensors, in_dims, strict=False)]
        return _Gradient.apply(*moved, plan), 0


class _Hessian(torch.autograd.Function):
    """E -> derivative of f'(K/s) in direction E; linear and self-adjoint in E."""

    @staticmethod
    def forward(
        E: Tensor, K: Tensor, s: Tensor, x: Tensor, above: Tensor, Q: Tensor, plan: _Plan
    ) -> Tensor:
        phi = (_divided_differences(x, above, plan.f) / s[..., None, None]).to(Q.dtype)
        E = (E + E.mT) / 2
        return Q @ (phi * (Q.mT @ E @ Q)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, *tensors, ctx.plan = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K = ctx.saved_tensors[0]
        refused = K.new_zeros(()).expand_as(K)  # goes to _Guard, which raises if anybody asks for it
        return _Hessian.apply(grad, *ctx.saved_tensors, ctx.plan), refused, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dE: Tensor, *_: Any) -> Tensor:
        return _Hessian.apply(dE, *ctx.saved_tensors, ctx.plan)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        *tensors, plan = args
        moved = [_batch_first(t, dim, info.batch_size) for t, dim in zip(tensors, in_dims, strict=False)]
        return _Hessian.apply(*moved, plan), 0


class _Guard(torch.autograd.Function):
    """K -> K, refusing the third derivative: a node of its own, so that only a real request for it raises."""

    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return K.view_as(K)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise NotImplementedError(_THIRD_ORDER)

    @staticmethod
    def jvp(ctx: Any, dK: Tensor) -> Tensor:
        raise NotImplementedError(_THIRD_ORDER)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, K: Tensor) -> tuple[Tensor, int]:
        return _Guard.apply(_batch_first(K, in_dims[0], info.batch_size)), 0


_THIRD_ORDER = (
    "matinfo's spectral quantities have first and second derivatives; a third derivative with respect to the matrix "
    "was asked for. Use alpha=2 or a coding rate, which are differentiable to every order."
)
