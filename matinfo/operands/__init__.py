"""What a user hands in: a matrix, or a Gram matrix known by its factors; checked and brought to a safe scale here."""

from matinfo.operands.any_gram import AnyGram
from matinfo.operands.family import (
    Factor,
    Operand,
    as_factors,
    as_operand,
    as_operands,
    hadamard,
    roundoff_entropy,
    smaller_side,
)
from matinfo.operands.gram import Gram
from matinfo.operands.matrix import Matrix, as_matrix, as_tensor, dtype_given, rounded_in
from matinfo.operands.side import Side, constant_trace, is_readable
from matinfo.operands.streamed import StreamGram
from matinfo.spectral.normalize import normalize_rows

__all__ = [
    "AnyGram",
    "Factor",
    "Gram",
    "Matrix",
    "Operand",
    "Side",
    "StreamGram",
    "as_factors",
    "as_matrix",
    "as_operand",
    "as_operands",
    "as_tensor",
    "constant_trace",
    "dtype_given",
    "hadamard",
    "is_readable",
    "normalize_rows",
    "rounded_in",
    "roundoff_entropy",
    "smaller_side",
]
