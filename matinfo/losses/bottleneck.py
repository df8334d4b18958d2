"""Information bottlenecks from kernel matrices: deterministic (matrix entropies), and HSIC."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_positive
from matinfo.dependence import hsic_and_exponent
from matinfo.information import mutual_information
from matinfo.operands import Operand
from matinfo.spectral.normalize import times_power_of_two


@quantity
def dib_loss(K_inputs: Operand, K_latents: Operand, *, alpha: float = 1.01) -> Tensor:
    """Regulariser of the deterministic information bottleneck (DIB): what the latents keep of the inputs.

    ``I_alpha(X; T) = H_alpha(K_X) + H_alpha(K_T) - H_alpha(K_X o K_T)``, see :func:`matinfo.mutual_information`; added
    with a small weight to a cross-entropy of the labels.

    Args:
        K_inputs: Positive semi-definite matrix ``(n, n)`` of the inputs as Tensor or NumPy array, or
            :class:`matinfo.Gram`, with unit diagonal.
        K_latents: The same of the latents, over the same samples.
        alpha: Order; 1.01 in the released code.

    Returns:
        A scalar in nats; dtype of the input, at least float32.

    Raises:
        ValueError: As :func:`matinfo.mutual_information`; also of more than one matrix.
        TypeError: As :func:`matinfo.mutual_information`.

    Notes:
        As :func:`matinfo.mutual_information`. The released code has ``exp(-|x - y|^2/sigma)``, that is
        :func:`matinfo.kernels.rbf` with bandwidth ``sqrt(sigma/2)``: sigma = 1000 for images, and for latents the
        square of the mean distance to the ten nearest of the batch, itself included. It counts in bits: divide by
        log 2.

    References:
        Yu, Yu and Principe (2021), Deep deterministic information bottleneck with matrix-based entropy functional.

    Example:
        >>> import torch
        >>> from matinfo.losses import dib_loss
        >>> round(float(dib_loss(torch.eye(4), torch.ones(4, 4))), 4)  # constant latents keep nothing
        0.0
    """
    _check_single(K_inputs=K_inputs, K_latents=K_latents)
    return mutual_information(K_inputs, K_latents, alpha)


@quantity
def hsic_bottleneck_loss(
    K_inputs: Operand, K_latents: Operand, K_targets: Operand, *, beta: float = 100.0
) -> Tensor:
    """HSIC bottleneck: dependence of the latents on the inputs, less beta times that on the targets.

    ``HSIC(X, T) - beta HSIC(T, Y)`` with the biased ``HSIC = tr(K H L H)/(n - 1)^2``, see
    :func:`matinfo.hsic`.

    Args:
        K_inputs: Positive semi-definite matrix ``(n, n)`` of the inputs, n >= 2, as Tensor or NumPy array, or
            :class:`matinfo.Gram`.
        K_latents: The same of the latents, over the same samples.
        K_targets: The same of the targets, such as the Gram of one-hot labels.
        beta: Weight, > 0.

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: As :func:`matinfo.hsic`; also of more than one matrix of each, or if ``beta <= 0``.
        TypeError: As :func:`matinfo.hsic`.

    Notes:
        Twice the cost of :func:`matinfo.hsic`. Not scale-free: it is bilinear in the matrices.

    References:
        Ma, Lewis and Kleijn (2020), The HSIC bottleneck: deep learning without back-propagation; Gretton et al. (2005),
        Measuring statistical dependence with Hilbert-Schmidt norms.

    Example:
        >>> import torch
        >>> from matinfo.losses import hsic_bottleneck_loss
        >>> labels = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        >>> round(float(hsic_bottleneck_loss(torch.eye(4), labels, labels, beta=1.0)), 4)  # (2 - 4)/9
        -0.2222
    """
    check_positive(beta, "beta")
    _check_single(K_inputs=K_inputs, K_latents=K_latents, K_targets=K_targets)
    kept, e = hsic_and_exponent((K_inputs, K_latents), "hsic", "biased")
    told, f = hsic_and_exponent((K_latents, K_targets), "hsic", "biased")
    common = torch.maximum(e, f)  # two terms that float64 does not hold would leave NaN
    difference = times_power_of_two(kept, e - common) - beta * times_power_of_two(told, f - common)
    return times_power_of_two(difference, common)


def _check_single(**operands: Operand) -> None:
    for name, K in operands.items():
        if len(getattr(K, "shape", ())) > 2:
            raise ValueError(f"Expected {name} to be one matrix, got {tuple(K.shape)}. Use torch.func.vmap.")
