"""Self-distillation losses: BYOL, SimSiam, DINO. No gradient reaches a target or a teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_features, check_floating, check_in, check_positive
from matinfo.losses._batch import (
    log_probabilities,
    mean_over_other_views,
    students_and_teachers,
    unit_rows,
)
from matinfo.spectral.precision import at_least_float32


@quantity
def byol_loss(predictions1: Tensor, predictions2: Tensor, targets1: Tensor, targets2: Tensor) -> Tensor:
    """BYOL loss in both directions.

    ``mean_b [2 - 2 cos(p1_b, t2_b) + 2 - 2 cos(p2_b, t1_b)]``: the prediction from each view against the target
    network's projection of the other, a sum of the two directions.

    Args:
        predictions1: ``(B, d)`` predictor outputs of the online network on the first view.
        predictions2: The same on the second view, row by row the same samples.
        targets1: ``(B, d)`` projections of the target network on the first view; detached here.
        targets2: The same on the second view; detached here.

    Returns:
        A scalar in [0, 8] up to round-off; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, or ``predictions1`` does not have two dimensions or is empty.
        TypeError: If an argument is not real floating point.

    Notes:
        O(B d). The cosine with a zero row is 0 and has zero gradient; finite for rows of any length.

    References:
        Grill et al. (2020), Bootstrap your own latent, Equation 2.

    Example:
        >>> import torch
        >>> from matinfo.losses import byol_loss
        >>> Z = torch.eye(3)
        >>> float(byol_loss(Z, Z, 5 * Z, 5 * Z)), float(byol_loss(Z, Z, -Z, -Z))
        (0.0, 8.0)
    """
    cosines = _cosines(predictions1, predictions2, targets1, targets2)
    return 4 - 2 * cosines.mean(-1)


@quantity
def simsiam_loss(predictions1: Tensor, predictions2: Tensor, targets1: Tensor, targets2: Tensor) -> Tensor:
    """SimSiam loss in both directions.

    ``mean_b [-cos(p1_b, z2_b)/2 - cos(p2_b, z1_b)/2]``, a mean of the two directions.

    Args:
        predictions1: ``(B, d)`` predictor outputs of the first view.
        predictions2: The same of the second view, row by row the same samples.
        targets1: ``(B, d)`` projector outputs of the first view; detached here.
        targets2: The same of the second view; detached here.

    Returns:
        A scalar in [-1, 1] up to round-off; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, or ``predictions1`` does not have two dimensions or is empty.
        TypeError: If an argument is not real floating point.

    Notes:
        O(B d). Stop-gradient: the targets get none, although they come from the network that is trained. The cosine
        with a zero row is 0 and has zero gradient; finite for rows of any length. :func:`byol_loss` is four times this
        plus 4.

    References:
        Chen and He (2021), Exploring simple Siamese representation learning, Equations 1 to 4.

    Example:
        >>> import torch
        >>> from matinfo.losses import simsiam_loss
        >>> Z = torch.eye(3)
        >>> float(simsiam_loss(Z, Z, 5 * Z, 5 * Z)), float(simsiam_loss(Z, Z, -Z, -Z))
        (-1.0, 1.0)
    """
    cosines = _cosines(predictions1, predictions2, targets1, targets2)
    return -cosines.mean(-1) / 2


def _cosines(predictions1: Tensor, predictions2: Tensor, targets1: Tensor, targets2: Tensor) -> Tensor:
    """``cos(p1_b, t2_b) + cos(p2_b, t1_b)`` of every sample b."""
    p1, p2, t1, t2 = unit_rows(
        predictions1=predictions1, predictions2=predictions2, targets1=targets1, targets2=targets2
    )
    return (p1 * t2.detach()).sum(-1) + (p2 * t1.detach()).sum(-1)


@quantity
def dino_loss(
    students: Tensor,
    teachers: Tensor,
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """DINO loss: cross-entropy of the students' distributions against those of the teacher on other views.

    ``mean_{b, t != v} -sum_k softmax((teachers_tb - center)/tau_t)_k log softmax(students_vb/tau_s)_k`` over the
    T V - T pairs of different views.

    Args:
        students: ``(V, B, K)`` outputs of the student, V >= 2. The first T views are those of the teacher.
        teachers: ``(T, B, K)`` outputs of the teacher, 1 <= T <= V; detached here.
        center: ``(K,)``, such as :class:`DINOCenter` holds; detached here.
        student_temperature: tau_s > 0.
        teacher_temperature: tau_t > 0; the authors raise it from 0.04 to 0.07 on ImageNet over the first 30 epochs.

    Returns:
        A scalar >= 0 in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes do not fit together, a tensor is empty, there is no pair of different views, or a
            temperature <= 0.
        TypeError: If an argument is not real floating point.

    Notes:
        O(T V B K); finite for outputs up to 1e30, never NaN. The centre is not updated: call :meth:`DINOCenter.update`
        afterwards.

    References:
        Caron et al. (2021), Emerging properties in self-supervised vision transformers, Equations 1 to 4.

    Example:
        >>> import torch
        >>> from matinfo.losses import DINOCenter, dino_loss
        >>> center, outputs = DINOCenter(4), torch.zeros(2, 8, 4)
        >>> round(float(dino_loss(outputs, outputs, center.center)), 4)  # uniform: log 4
        1.3863
        >>> center.update(outputs)
    """
    check_positive(student_temperature, "student_temperature")
    check_positive(teacher_temperature, "teacher_temperature")
    students, teachers = students_and_teachers(students, teachers)
    check_floating(center, "center")
    if center.shape != students.shape[-1:]:
        raise ValueError(f"Expected center of shape ({students.shape[-1]},), got {tuple(center.shape)}.")
    log_q = log_probabilities(students, student_temperature)
    centred = teachers / 2 - center.detach() / 2  # no overflow
    p = log_probabilities(centred, teacher_temperature / 2).exp()
    dtype = torch.promote_types(p.dtype, log_q.dtype)
    return -mean_over_other_views(
        torch.einsum("tbk,vbk->tv", p.to(dtype), log_q.to(dtype)) / students.shape[1]
    )


class DINOCenter(torch.nn.Module):
    """Running mean of the teacher's outputs, which DINO subtracts from them against collapse to one dimension.

    ``center <- momentum center + (1 - momentum) mean(teachers)``, from zero; a buffer, so saved and moved with the
    module that owns it.

    Args:
        dim: Number of outputs K.
        momentum: In [0, 1); 0.9 in the paper.

    Raises:
        TypeError: If ``dim`` is not an integer or ``momentum`` not a number.
        ValueError: If ``dim < 1`` or ``momentum`` is outside [0, 1).

    Notes:
        Knows one process: in distributed training give :meth:`update` the outputs gathered over all of them.

    References:
        Caron et al. (2021), Equation 4.

    Example:
        >>> import torch
        >>> from matinfo.losses import DINOCenter
        >>> center = DINOCenter(2, momentum=0.75)
        >>> center.update(torch.tensor([[[4.0, 0.0], [0.0, 4.0]]]))
        >>> center.center
        tensor([0.5000, 0.5000])
    """

    center: Tensor

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = check_in(momentum, "momentum", "[0, 1)", "At 1 the centre would never move.")
        self.register_buffer("center", torch.zeros(check_count(dim, "dim")))

    @torch.no_grad()
    def update(self, teachers: Tensor) -> None:
        """Move the centre towards the mean of the teacher's outputs ``(..., B, K)``, in place."""
        check_features(teachers, "teachers")
        if teachers.shape[-1:] != self.center.shape or teachers.numel() == 0:
            raise ValueError(
                f"Expected teachers of shape (..., B, {len(self.center)}), not empty, got {tuple(teachers.shape)}."
            )
        mean = teachers.to(at_least_float32(teachers.dtype)).flatten(0, -2).mean(0)
        self.center.copy_(self.momentum * self.center.to(mean.dtype) + (1 - self.momentum) * mean)

    def extra_repr(self) -> str:
        """The two settings, for ``print``."""
        return f"{len(self.center)}, momentum={self.momentum}"
