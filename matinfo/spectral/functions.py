"""Scalar functions whose spectral traces the quantities are made of, each with its exact divided difference.

Every function works in float64 on eigenvalues ``x >= 0`` that its caller has scaled to [0, 1] or so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def root(x: Tensor, above: Tensor | None = None) -> Tensor:
    """``sqrt(x)`` where x is positive (or ``above`` says so), else 0 with derivative 0; NaN stays NaN."""
    above = x > 0 if above is None else above
    return torch.where(above, torch.where(above, x, 1.0).sqrt(), 0.0 * x)


def _log_ratio(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``t = log(a/b)/2`` by atanh where a and b are within a factor three, and the mask of those places.

    There a - b is exact (Sterbenz for a factor two) and atanh((a-b)/(a+b)) has full relative accuracy, so nothing
    cancels however close the two are. Outside the mask t is a harmless 0.
    """
    total = a + b
    d = torch.where(total > 0, (a - b) / torch.where(total > 0, total, 1.0), 0.0)
    near = d.abs() < 0.5
    return torch.atanh(torch.where(near, d, 0.0)), near


def _sinh_ratio(e: float, t: Tensor) -> Tensor:
    """``sinh(e t) / (e sinh t)``, continuous at t = 0 and at e = 0."""
    flat = t.abs() < 1e-150
    safe = torch.where(flat, 1.0, t)
    ratio = safe / torch.sinh(safe) if e == 0 else torch.sinh(e * safe) / (e * torch.sinh(safe))
    return torch.where(flat, 1.0, ratio)


def _far_difference(difference: Tensor, a: Tensor, b: Tensor, near: Tensor) -> Tensor:
    return torch.where(near, 0.0, difference) / torch.where(near, 1.0, a - b)


@dataclass(frozen=True)
class Tsallis:
    """``f(x) = (x^alpha - x)/(alpha - 1)``, which is ``x log x`` at alpha = 1 and free of cancellation near it."""

    alpha: float

    projects_null_space = True

    def value(self, x: Tensor) -> Tensor:
        e = self.alpha - 1
        if e == 0:
            return torch.xlogy(x, x)
        positive = x > 0
        return x * torch.expm1(e * torch.where(positive, x, 1.0).log()) / e

    def derivative(self, x: Tensor) -> Tensor:
        e = self.alpha - 1
        if e == 0:
            return x.log() + 1
        return self.alpha * torch.expm1(e * x.log()) / e + 1

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        e = self.alpha - 1
        t, near = _log_ratio(a, b)
        close = self.alpha * (a * b) ** ((e - 1) / 2) * _sinh_ratio(e, t)
        return torch.where(near, close, _far_difference(self.derivative(a) - self.derivative(b), a, b, near))


@dataclass(frozen=True)
class Power:
    """``f(x) = x^alpha``."""

    alpha: float

    @property
    def projects_null_space(self) -> bool:
        return self.alpha <= 1.25

    def value(self, x: Tensor) -> Tensor:
        return x**self.alpha

    def derivative(self, x: Tensor) -> Tensor:
        return self.alpha * x ** (self.alpha - 1)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        e = self.alpha - 1
        if e == 1:
            return torch.full_like(a - b, 2.0)
        t, near = _log_ratio(a, b)
        mean = torch.where(near, a * b, 1.0) ** ((e - 1) / 2)
        close = self.alpha * e * mean * _sinh_ratio(e, t)
        close = torch.where((a == 0) & (b == 0), 0.0, close)
        return torch.where(near, close, _far_difference(self.derivative(a) - self.derivative(b), a, b, near))


@dataclass(frozen=True)
class LogShift:
    """``f(x) = log(mu + x)``."""

    mu: float

    projects_null_space = False

    def value(self, x: Tensor) -> Tensor:
        return (self.mu + x).log()

    def derivative(self, x: Tensor) -> Tensor:
        return 1 / (self.mu + x)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        return -1 / ((self.mu + a) * (self.mu + b))


@dataclass(frozen=True)
class ContinuedLog:
    """``f(x) = log(shift + x)``, continued by its tangent where ``shift + x < floor``; the shift may be negative."""

    shift: float
    floor: float

    projects_null_space = False

    def value(self, x: Tensor) -> Tensor:
        y = self.shift + x
        u = y.clamp_min(self.floor)
        return u.log() + (y - u) / self.floor

    def derivative(self, x: Tensor) -> Tensor:
        return 1 / (self.shift + x).clamp_min(self.floor)

    def divided_difference(self, a: Tensor, b: Tensor) -> Tensor:
        u, v = ((self.shift + x).clamp_min(self.floor) for x in (a, b))
        above = (self.shift + a >= self.floor) & (self.shift + b >= self.floor)
        share = torch.where(above, 1.0, (u - v) / torch.where(a == b, 1.0, a - b))
        return -share / (u * v)


SpectralFunction = Tsallis | Power | LogShift | ContinuedLog
