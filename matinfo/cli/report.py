"""The numbers of a report, with the call of the library that gives each."""

from __future__ import annotations

from dataclasses import dataclass, field

from matinfo import effective_rank, participation_ratio, renyi_entropy
from matinfo.cli.arguments import Options
from matinfo.cli.files import open_files
from matinfo.cli.measure import Measured, measure
from matinfo.cli.pair import pair_values
from matinfo.cli.value import Value, order_name
from matinfo.plot.profile import unit_name


@dataclass(frozen=True)
class ArrayReport:
    """What one array was found to be."""

    measured: Measured
    values: list[Value]


@dataclass(frozen=True)
class Report:
    """All arrays, the pair if there are two files, and what the reader should know."""

    arrays: list[ArrayReport]
    pair: list[Value] | None = None
    notes: list[str] = field(default_factory=list)


def make_report(options: Options) -> Report:
    """Read the files and compute."""
    files, notes = open_files(options)
    arrays = [_array_report(measure(source, options), options) for sources in files for source in sources]
    notes = notes + [note for array in arrays for note in _notes(array.measured)]
    if len(files) != 2:
        return Report(arrays, None, notes)
    if any(len(sources) > 1 for sources in files):
        notes.append(
            "No report of the pair: a file holds several arrays. Choose one of each with --key, twice."
        )
        return Report(arrays, None, notes)
    pair = pair_values(arrays[0].measured, arrays[1].measured, options)
    if not options.normalize and options.kind == "features":
        notes.append(
            "Rows are not of one length (--no-normalize), so that mutual information may be negative."
        )
    return Report(arrays, pair, notes)


def _notes(measured: Measured) -> list[str]:
    if not measured.skipped:
        return measured.notes
    total = measured.rows + measured.skipped
    return [
        f"{measured.source.name}: {measured.skipped} of {total} rows hold NaN or infinity and were left out.",
        *measured.notes,
    ]


def _array_report(measured: Measured, options: Options) -> ArrayReport:
    unit, name = options.unit, unit_name(options.base)
    S = measured.spectrum
    suffix = "" if unit == 1 else f", base={options.base:g}"
    values = []
    for a in options.alphas:
        call = f"renyi_entropy(K, {order_name(a)}{suffix})"
        values.append(Value("renyi_entropy", float(renyi_entropy(S, a)) / unit, name, call, alpha=a))
    values.append(Value("effective_rank", float(effective_rank(S)), "dimensions", "effective_rank(K)"))
    values.append(
        Value("participation_ratio", float(participation_ratio(S)), "dimensions", "participation_ratio(K)")
    )
    reason = "" if measured.rankme is not None else "is defined for features only"
    values.append(Value("rankme", measured.rankme, "dimensions", "rankme(Z)", reason=reason))
    divided = "" if unit == 1 else f" / log({options.base:g})"
    call = f"tcr(Z, {options.mu:g})" if options.kind == "features" else f"matrix_tcr(K, {options.mu:g})"
    values.append(Value(call.split("(")[0], measured.coding_rate / unit, name, call + divided))
    return ArrayReport(measured, values)
