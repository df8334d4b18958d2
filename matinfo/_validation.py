"""Every check of an argument, and every message about one."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

is_transformed: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
"""Whether a tensor is inside a ``torch.func`` transform (``grad``, ``jvp``, ``vmap``, ...)."""


def values_are_readable(x: Tensor) -> bool:
    """Whether a Python branch may depend on the values of ``x``.

    Not so while compiling, under ``vmap``, while a CUDA graph is captured, and where ``torch.cuda.set_sync_debug_mode``
    makes waiting for the device an error.
    """
    if torch.compiler.is_compiling() or x.is_meta or is_transformed(x):
        return False
    return not x.is_cuda or not (
        torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode() == 2
    )


def check_floating(x: object, name: str, *, gram: bool = True) -> Tensor:
    """Accept a real floating-point tensor; ``gram`` says whether a Gram would do too."""
    if not isinstance(x, Tensor):
        kinds = "a torch.Tensor, a NumPy array or a Gram" if gram else "a torch.Tensor or a NumPy array"
        raise TypeError(f"Expected {name} to be {kinds}, got {type(x).__name__}.{_conversion(x, name)}")
    if x.is_complex():
        raise TypeError(
            f"Expected {name} to be real, got {x.dtype}. Complex Hermitian matrices are not supported; "
            "the real symmetric embedding [[Re, -Im], [Im, Re]] has the same spectrum, each eigenvalue twice."
        )
    if not x.is_floating_point():
        raise TypeError(
            f"Expected {name} to be floating point, got {x.dtype}. Convert it: {name}.float(), or "
            f"{name}.astype(float) of an array."
        )
    if x.is_meta:
        raise TypeError(
            f"Expected {name} to hold numbers, got a tensor on the meta device, which has only a shape. "
            "Load the weights or features first."
        )
    if x.is_sparse or x.layout != torch.strided:
        raise TypeError(
            f"Expected {name} to be dense (strided), got layout {x.layout}. Use {name}.to_dense()."
        )
    return x


def _conversion(x: object, name: str) -> str:
    """What to pass instead: a class of ours says it itself, as ``remedy``."""
    if hasattr(x, "remedy"):
        return f" {x.remedy}"
    if hasattr(x, "to_numpy"):
        return f" Use {name}.to_numpy()."
    if hasattr(x, "toarray"):
        return f" Use {name}.toarray(), or matinfo.estimate.estimate_entropy, which takes it as it is."
    if hasattr(x, "matmat"):  # SciPy's LinearOperator, and operators of ours
        return (
            " A matrix that is never formed has estimates: matinfo.estimate.estimate_entropy(K), and "
            "estimate_information(mutual_information, K1, K2) for what is made of several."
        )
    if isinstance(x, int | float) and not isinstance(x, bool):
        return " A number goes in by its name, such as alpha=2, bandwidth=1.0 or eps=0.5."
    return f" Use numpy.asarray({name})." if isinstance(x, list | tuple) else ""


def check_tensor(x: object, name: str, remedy: str = "") -> Tensor:
    """Accept a tensor of any dtype."""
    if not isinstance(x, Tensor):
        kinds = "a torch.Tensor or a NumPy array"
        raise TypeError(f"Expected {name} to be {kinds}, got {type(x).__name__}. {remedy}".rstrip())
    return x


def check_features(Z: Tensor, name: str, *, least: int = 1) -> Tensor:
    """Accept ``(..., n, d)`` with n >= least and d >= 1."""
    check_floating(Z, name, gram=False)
    if Z.ndim < 2:
        raise ValueError(
            f"Expected {name} of shape (..., n, d), one row a sample, got {tuple(Z.shape)}. "
            f"For one sample use {name}.unsqueeze(0)."
        )
    if Z.shape[-2] == 0 or Z.shape[-1] == 0:
        raise ValueError(f"Expected {name} to have at least one row and one column, got {tuple(Z.shape)}.")
    if Z.shape[-2] < least:
        raise ValueError(f"Expected {name} to have at least {least} rows, got {tuple(Z.shape)}.")
    return Z


def check_labels(given: object, n: int) -> Tensor:
    """Accept whole numbers ``(n,)``, the classes of n samples."""
    labels = check_tensor(given, "labels", "Use torch.tensor(labels), with numbers for names.")
    if labels.shape != (n,):
        raise ValueError(f"Expected labels of shape ({n},), got {tuple(labels.shape)}.")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"Expected integer labels of shape ({n},), got {labels.dtype}. Use labels.long().")
    return labels


def check_views(views: Tensor, name: str, *, least: int = 1) -> Tensor:
    """Accept ``(..., V, n, d)`` with V >= least, n >= 1 and d >= 1."""
    check_floating(views, name)
    if views.ndim < 3:
        raise ValueError(
            f"Expected {name} of shape (..., V, n, d), V views of one batch, got {tuple(views.shape)}. "
            "Stack them with torch.stack."
        )
    if views.shape[-3] < least:
        raise ValueError(
            f"Expected {name} to hold at least {least} view{'s' * (least > 1)}, got shape {tuple(views.shape)}."
        )
    return check_features(views, name)


def check_probabilities(p: Tensor, name: str, remedy: str = "Pass logits.softmax(-1).") -> Tensor:
    """Accept ``(..., n, k)`` whose rows are distributions; the values are looked at on the CPU only."""
    check_features(p, name)
    if p.device.type != "cpu" or not values_are_readable(p):
        return p
    rows = p.detach().double()
    tolerance = 1e-2 if p.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if bool((rows < 0).any()) or bool(((rows.sum(-1) - 1).abs() > tolerance).any()):
        raise ValueError(
            f"Expected {name} to be probabilities (non-negative, rows that sum to 1), got values from "
            f"{rows.min().item():.3g} to {rows.max().item():.3g} and row sums from {rows.sum(-1).min().item():.3g} "
            f"to {rows.sum(-1).max().item():.3g}. {remedy}"
        )
    return p


def check_same_shape(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Accept two tensors of one shape."""
    if first.shape != second.shape:
        raise ValueError(
            f"Expected {names[0]} and {names[1]} of the same shape, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}."
        )


def check_same_samples(shapes: list[tuple[int, ...]]) -> None:
    """Accept matrices over the same samples, with batch dimensions that broadcast."""
    if len({shape[-1] for shape in shapes}) > 1:
        raise ValueError(
            "Expected matrices over the same samples (equal order), got orders "
            f"{', '.join(str(shape[-1]) for shape in shapes)}."
        )
    check_batches(shapes)


def check_batches(shapes: list[tuple[int, ...]]) -> None:
    """Accept batch dimensions that broadcast."""
    try:
        torch.broadcast_shapes(*[shape[:-2] for shape in shapes])
    except RuntimeError:
        raise ValueError(
            f"Expected batch shapes that broadcast, got {', '.join(str(shape[:-2]) for shape in shapes)}."
        ) from None


def check_number(value: object, name: str, what: str) -> float:
    """Accept a number, infinity and NaN among them."""
    if isinstance(value, bool) or not isinstance(value, Real):
        remedy = f" Use {name}.item()." if isinstance(value, Tensor | np.ndarray) else ""
        raise TypeError(f"Expected {name} to be {what}, got {type(value).__name__}.{remedy}")
    return float(value)


def check_in(value: object, name: str, domain: str, remedy: str = "") -> float:
    """Accept a number of an interval, which is written as in mathematics: ``"[0, 1)"`` has 0 and not 1."""
    number = check_number(value, name, f"a number in {domain}")
    low, high = map(float, domain[1:-1].split(","))
    above = number >= low if domain[0] == "[" else number > low
    below = number <= high if domain[-1] == "]" else number < high
    if not (above and below):  # NaN included
        raise ValueError(f"Expected {name} in {domain}, got {number}. {remedy}".rstrip())
    return number


def check_order(alpha: Any, name: str = "alpha") -> float:
    """Accept an order in [0, inf]."""
    if type(alpha) in (float, int) and alpha >= 0:  # the common case
        return float(alpha)
    return check_in(alpha, name, "[0, inf]")


def check_positive(value: Any, name: str, remedy: str = "") -> float:
    """Accept a positive finite number."""
    if type(value) in (float, int) and 0 < value < math.inf:  # the common case
        return float(value)
    return check_in(value, name, "(0, inf)", remedy)


def check_base(base: object) -> float:
    """Accept a base of the logarithm and return its natural logarithm (1 for None)."""
    if base is None:
        return 1.0
    return math.log(check_in(base, "base", "(1, inf)", "Use base=2 for bits, base=None for nats."))


def check_choice(value: str, name: str, choices: tuple[str, ...]) -> str:
    """Accept one of the named choices."""
    if value not in choices:
        raise ValueError(f"Expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def check_trace(trace: Tensor | float, name: str = "K") -> None:
    """Refuse a zero or negative trace, for which normalised quantities have no value; let NaN pass."""
    if isinstance(trace, Tensor):
        if trace.device.type != "cpu" or not values_are_readable(trace):
            return
        refused = (trace <= 0) & (trace > -math.inf)  # what is not finite becomes NaN in its own element
        trace = trace[refused].min().item() if bool(refused.any()) else 1.0
    if -math.inf < trace <= 0:
        remedy = (
            "It is not positive semi-definite."
            if trace < 0
            else "A zero matrix has no spectrum to normalise: check for features that are all zero, and for distances "
            "where similarities belong."
        )
        raise ValueError(f"Expected {name} to have a positive trace, got {trace:.3g}. {remedy}")


def check_positive_semidefinite(eigenvalues: Tensor, tolerance: float) -> None:
    """Refuse eigenvalues below ``-tolerance`` times the largest; NaN passes."""
    if eigenvalues.ndim == 1:  # the common case, without an operation for each comparison
        numbers = eigenvalues.tolist()
        bad = numbers[0] < -tolerance * abs(numbers[-1])
    else:
        bad = bool((eigenvalues[..., 0] < -tolerance * eigenvalues[..., -1].abs()).any())
    if bad:
        smallest, largest = eigenvalues[..., 0], eigenvalues.abs().amax(-1)
        worst = (smallest / largest).nan_to_num(0.0).argmin()
        value, top = smallest.reshape(-1)[worst].item(), largest.reshape(-1)[worst].item()
        raise ValueError(
            f"Expected a positive semi-definite matrix, got an eigenvalue {value:.3g} (largest magnitude {top:.3g}), "
            "beyond round-off. Matrix information quantities are defined on Gram or kernel matrices: use "
            "Gram(features), a positive definite kernel, or project K with its non-negative eigenvalues."
        )


def check_frobenius_norm(squared: Tensor, trace: Tensor) -> None:
    """Refuse matrices whose Frobenius norm exceeds their trace: no positive semi-definite matrix does that."""
    if squared.is_cuda or not values_are_readable(squared):
        return
    if squared.ndim == 0 and not squared.item() > 1.0001 * trace.item() ** 2:
        return
    excess = squared > 1.0001 * trace.square()
    if bool(excess.any()):
        norm, total = squared[excess].sqrt().max().item(), trace[excess].max().item()
        if math.isfinite(norm):
            raise ValueError(
                f"Expected a positive semi-definite matrix, got Frobenius norm {norm:.3g} above the trace {total:.3g}, "
                "so that an eigenvalue is negative. Use Gram(features) or a positive definite kernel."
            )


def check_count(n: object, name: str, least: int = 1, why: str = "") -> int:
    """Accept an integer >= least; ``why`` fewer will not do."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"Expected {name} to be an integer, got {type(n).__name__}.")
    if n < least:
        raise ValueError(f"Expected {name} >= {least}, got {n}{': ' + why if why else ''}.")
    return int(n)
