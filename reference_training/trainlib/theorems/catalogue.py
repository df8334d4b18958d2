"""The statements that real training is held against: what they claim, which side, and which bounds they come with."""

from __future__ import annotations

from typing import Any

from trainlib.theorems.statement import Statement

OPERANDS = {
    "columns": "correlation of the features, not centred",
    "centred": "correlation of the features, centred",
    "rows": "Gram matrix of the samples",
}
_FORMS = {
    "printed": "loss, as printed",
    "sharp": "loss, sharper",
    "cross": "cross-products",
    "overlap": "overlap of both matrices",
}


def two_view_statements(operand: str) -> list[Statement]:
    """All statements about the two matrices of an operand."""
    part, tcr = (1 if operand == "rows" else 2), "T(K1 o K2)"
    overlap_forms = {form: text for form, text in _FORMS.items() if form != "overlap"}

    def say(
        key: str, number: str, claim: str, side: str, group: str, forms: Any = None, **options
    ) -> Statement:
        forms = {"plain": ""} if forms is None else forms
        return Statement(f"{operand}/{key}", number, claim, side, forms, group, **options)

    plain_sharp = {"plain": "plain", "sharp": "sharper"}
    return [
        say("overlap", f"Theorem 4.3.{part}, step 1", "overlap <= f(L)", "at most", "overlap", overlap_forms),
        say("I_2", f"Theorem 4.3.{part}", "I_2 >= log n - f(L)", "at least", "information", _FORMS),
        say("I_1", f"Theorem 4.3.{part} at order 1", "I_1 >= log n - f(L)", "at least", "information", _FORMS),
        say("H_2", f"Theorem 4.13.{part}", "H_2(K1,K2) >= log n - f(L)", "at least", "joint_entropy", _FORMS),
        say("H_1", f"Theorem 4.13.{part} at order 1", "H_1(K1,K2) >= log n - f(L)", "at least", "joint_entropy",
            _FORMS),
        say("T", "Theorem 4.17" if part == 2 else "Theorem 4.17 for the contrastive loss",
            f"{tcr} >= n log(1+mu) - f(L)", "at least", "coding_rate", _FORMS),
        say("T_product", "Proposition 4.11", f"{tcr} at mu^2+2mu >= f(T(K1), T(K2))", "at least", "coding_rate",
            {"plain": "sum, as printed", "sharp": "Oppenheim and Schur"}),
        say("lemma", "Lemma 4.2", "a_i.b_j is at most a_i.a_j off by the step a_j - b_j", "at most", "others"),
        say("I_2_identity", "Proposition 4.1", "I_2 = ratio of Frobenius norms", "equal", "others"),
        say("H_2_identity", "Proposition 4.12", "H_2(K1,K2) = 2 log n - 2 log norm(K1 o K2)", "equal", "others"),
        say("H_1_identity", "Proposition 4.10", "H_1(K1) = log n - KL(K1, I)/n", "equal", "others"),
        say("T_identity", "Proposition 4.10", f"{tcr} = n log(1+mu) - KL(I, .)", "equal", "others"),
        say("I_1_most", "Proposition 4.5", "I_1 <= log n", "at most", "always",
            {"plain": "log n", "sharp": "smaller entropy"}),
        say("I_2_most", "Proposition 4.5", "I_2 <= log n", "at most", "always",
            {"plain": "log n", "sharp": "smaller entropy"}),
        say("H_1_rank", "Proposition 4.7 a", "H_1(K1,K2) <= log rank", "at most", "always",
            {"plain": "sum of log ranks", "sharp": "log rank of K1 o K2"}),
        say("H_1_joint", "Proposition 4.7 b", "H_1(K1,K2) >= max H_1", "at least", "always",
            {"plain": "larger entropy"}),
        say("H_2_joint", "Proposition 4.7 b", "H_2(K1,K2) >= max H_2", "at least", "always"),
        say("H_1_sum", "Proposition 4.7 c", "H_1(K1,K2) <= H_1(K1) + H_1(K2)", "at most", "always",
            {"plain": "sum of entropies"}),
        say("H_2_sum", "Proposition 4.7 c at order 2", "H_2(K1,K2) <= H_2(K1) + H_2(K2)", "at most", "always",
            guaranteed=False),
        say("H_1_most", "Proposition 4.15", "H_1(K1), H_1(K2) <= log n", "at most", "others",
            {"plain": "log n", "sharp": "log rank"}),
        say("T_most", "Proposition 4.15", "T(K1), T(K2) <= n log(1+mu)", "at most", "others"),
        say("JS_most", "Definition C.2", "JS <= log 2", "at most", "divergence",
            {"plain": "log 2", "sharp": "T log 2, T the trace distance"}),
        say("JS_least", "Definition C.2", "JS >= 0", "at least", "divergence",
            {"plain": "zero", "sharp": "two coins at the trace distance"}),
        say("JS_spectra", "Appendix C.3", "eigenspace JS <= JS", "at most", "divergence"),
        say("H_1_gap", "Fannes-Audenaert", "H_1(K1), H_1(K2) differ by <= f(T)", "at most", "divergence", plain_sharp),
    ]  # fmt: skip


SCALES = {"code": "m = d/mu, as released", "paper": "m = mu, as printed"}


def masked_statements(scale: str) -> list[Statement]:
    """All statements about the coding rate of the features in one scale of mu."""

    def say(key: str, number: str, claim: str, side: str, forms: dict[str, str] | None = None, **options):
        forms = {"plain": ""} if forms is None else forms
        return Statement(f"{scale}/{key}", number, f"{claim} ({scale})", side, forms, **options)

    return [
        say("ratio", "Theorem 5.2, radius", "lambda_max/m <= 1: the series converges", "at most",
            {"plain": "radius of convergence"}, group="radius", guaranteed=False),
        say("expansion", "Theorem 5.2", "M-MAE + r = linear + U-MAE term", "equal"),
        say("remainder", "Theorem 5.2, remainder", "r <= f", "at most",
            {"plain": "next Taylor term", "sharp": "sum x^3/(3 + 2x)"}, group="remainder"),
        say("remainder_least", "Theorem 5.2, remainder", "r >= f", "at least",
            {"plain": "zero", "sharp": "2/3 of sum x^3/(3 + 2x)"}),
        say("share", "Theorem 5.2, remainder", "r/(U-MAE term) <= f", "at most",
            {"plain": "one", "sharp": "2 rho/(3 + 2 rho)"}, group="remainder"),
        say("rate_most", "Coding rate of features", "log det(I + G/m) <= f", "at most",
            {"plain": "linear term n/m", "sharp": "isotropic features"}, group="rate"),
        say("rate_least", "Coding rate of features", "log det(I + G/m) >= f", "at least",
            {"plain": "collapsed features", "sharp": "extremal spectrum of the same U-MAE loss"}, group="rate"),
    ]  # fmt: skip


def common_statements() -> list[Statement]:
    """Statements about the Gram matrix of the features, in no scale."""
    return [
        Statement("features/H_1_most", "Proposition 4.15", "H_1 <= log n", "at most",
                  {"plain": "log n", "sharp": "log min(n, d)"}),
        Statement("features/H_2", "Monotonicity", "H_2 <= H_1", "at most"),
        Statement("features/umae", "Proposition 4.12", "U-MAE loss = exp(-H_2)", "equal"),
    ]  # fmt: skip


OPERANDS_OF = {"barlow_twins": ("columns", "centred"), "spectral": ("rows",)}  # methods of two views
MASKED = ("mae", "umae", "mmae")
METHODS = (*OPERANDS_OF, *MASKED)


def statements_of(method: str) -> list[Statement]:
    """The statements that a run of a method is held against."""
    if method in MASKED:
        scales = [statement for scale in SCALES for statement in masked_statements(scale)]
        return [*scales, *common_statements()]
    return [statement for operand in OPERANDS_OF[method] for statement in two_view_statements(operand)]
