"""Matrix information theory for learned representations.

Everything is a function of the spectrum of a positive semi-definite matrix, and data flows one way:
features or kernel -> operand -> spectral engine -> quantity -> loss, metric, monitor.
"""

import importlib as _importlib
from typing import Any as _Any

from matinfo import bounds, distributed, estimate, kernels, layers, losses, measures, monitor, streaming
from matinfo._checking import no_checks
from matinfo._record import Explanation, Step, explain
from matinfo.coding_rate import coding_rate, matrix_tcr, rate_reduction, tcr
from matinfo.dependence import cka, dime, hsic
from matinfo.divergence import matrix_js, matrix_kl, spectrum_js
from matinfo.entropy import conditional_entropy, joint_entropy, renyi_entropy, von_neumann_entropy
from matinfo.independence import IndependenceTest, conditional_independence_test, independence_test
from matinfo.information import (
    conditional_mutual_information,
    dual_total_correlation,
    mutual_information,
    normalized_dual_total_correlation,
    normalized_mutual_information,
    normalized_total_correlation,
    total_correlation,
)
from matinfo.kernels import correlation
from matinfo.operands import Gram
from matinfo.rank import effective_rank, participation_ratio, rankme, vendi_score
from matinfo.sandwiched import sandwiched_mutual_information
from matinfo.spectrum import Spectrum, spectrum

__version__ = "0.1.0"

__all__ = [
    # operands
    "Gram",
    "correlation",
    "kernels",
    "spectrum",
    "Spectrum",
    # entropies and information
    "renyi_entropy",
    "von_neumann_entropy",
    "joint_entropy",
    "conditional_entropy",
    "mutual_information",
    "conditional_mutual_information",
    "sandwiched_mutual_information",
    "dime",
    "hsic",
    "cka",
    "independence_test",
    "conditional_independence_test",
    "IndependenceTest",
    "normalized_mutual_information",
    "total_correlation",
    "dual_total_correlation",
    "normalized_total_correlation",
    "normalized_dual_total_correlation",
    # divergences
    "matrix_kl",
    "matrix_js",
    "spectrum_js",
    # effective dimensions
    "effective_rank",
    "rankme",
    "participation_ratio",
    "vendi_score",
    # coding rates
    "tcr",
    "matrix_tcr",
    "coding_rate",
    "rate_reduction",
    # models, training, theory and introspection
    "layers",
    "measures",
    "monitor",
    "losses",
    "bounds",
    "distributed",
    "streaming",
    "estimate",
    "explain",
    "no_checks",
    "Explanation",
    "Step",
]

_WITH_EXTRAS = ("cli", "metrics", "plot")


def __getattr__(name: str) -> _Any:
    """Rooms that need an extra are imported when they are asked for."""
    if name in _WITH_EXTRAS:
        return _importlib.import_module(f"matinfo.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those of the extras too."""
    return sorted([*__all__, *_WITH_EXTRAS, "__version__"])
