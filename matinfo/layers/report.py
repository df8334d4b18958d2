"""What was found about the layers of one model, as numbers, table, file and picture."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from matinfo._conventions import describe_rows, set_table
from matinfo._extras import needs

if TYPE_CHECKING:
    import pandas

_TENSORS = ("entropies", "entropy", "effective_rank", "mutual_information", "matrix_js")


@dataclass(frozen=True, eq=False, repr=False)
class LayerReport:
    """What :func:`layerwise` found; L layers, entropies in nats.

    Attributes:
        names: Name of each layer, its index where it has no other.
        widths: Number of features of each layer.
        alpha: Order of the entropies and of the mutual information.
        pool: ``"tokens"`` if the rows are the tokens of each sentence, else how tokens became one row.
        entropies: ``(L, B)`` of each sentence for ``pool="tokens"``, else ``(L, 1)``.
        entropy: ``(L,)``, the mean of ``entropies``.
        effective_rank: ``(L,)``, exp of ``entropy``.
        mutual_information: ``(L, L)``, None without ``pairs``. The diagonal is ``2 H(K) - H(K o K)``.
        matrix_js: ``(L, L)``, between 0 and log 2, None without ``pairs``.
        quantities: ``(L,)`` of each of the other quantities, by name.
        model: Name of the model's class, empty if there was none.
        rows: n, the number of rows: of tokens of all sentences for ``pool="tokens"``, else of samples.
        center: Whether the mean row was subtracted; ``"first"`` if before the division.
        normalize: Whether rows were divided by their length.
        reference: The report of the reference model, None without one.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    alpha: float
    pool: str
    entropies: Tensor
    entropy: Tensor
    effective_rank: Tensor
    mutual_information: Tensor | None = None
    matrix_js: Tensor | None = None
    quantities: dict[str, Tensor] = field(default_factory=dict)
    model: str = ""
    rows: int = 0
    center: bool | str = False
    normalize: bool = True
    reference: LayerReport | None = None

    @property
    def rank_change(self) -> Tensor:
        """``(L,)``: effective rank less that of the first layer."""
        return self.effective_rank - self.effective_rank[0]

    @property
    def diff_erank(self) -> Tensor | None:
        """``(L,)``: effective rank of the reference less that of the model, Diff-eRank; None without a reference."""
        return None if self.reference is None else self.reference.effective_rank - self.effective_rank

    @property
    def description(self) -> str:
        """What was measured, that is model, pool, number and preparation of rows, order."""
        what = f"{self.model}, " if self.model else ""
        samples = "tokens of each sentence" if self.pool == "tokens" else f"pool={self.pool!r}"
        prepared = describe_rows(center=self.center, normalize=self.normalize)
        return f"{what}{samples}, n = {self.rows}, α = {self.alpha:g}, {prepared}"

    def columns(self) -> dict[str, Any]:
        """All that there is one number a layer of, ``(L,)`` by name; of pairs what each shares with the last one."""
        columns: dict[str, Any] = {
            "entropy": self.entropy,
            "effective_rank": self.effective_rank,
            "rank_change": self.rank_change,
            "diff_erank": self.diff_erank,
            **self.quantities,
            "mi_to_last": None if self.mutual_information is None else self.mutual_information[:, -1],
            "js_to_last": None if self.matrix_js is None else self.matrix_js[:, -1],
        }
        return {name: values for name, values in columns.items() if values is not None}

    def table(self) -> str:
        """One line a layer, as text; the last columns compare it with the last layer, the last line says of what."""
        titles = {"rank_change": "change", "diff_erank": "Diff-eRank", "mi_to_last": "MI to last"}
        columns = {
            titles.get(name, name.replace("js_", "JS ").replace("_", " ")): values.tolist()
            for name, values in self.columns().items()
        }
        lines = [["layer", "width", *columns]]
        for i, (name, width) in enumerate(zip(self.names, self.widths, strict=True)):
            lines.append([name, str(width), *(f"{values[i]:.3f}" for values in columns.values())])
        return f"{set_table(lines)}\n{self.description}"

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a data frame, a row for each layer, indexed by its name; the settings are in ``attrs``."""
        with needs("pandas", "to_pandas", "layers"):
            import pandas
        values = {name: plain(column) for name, column in self.columns().items()}
        index = pandas.Index(self.names, name="layer")
        frame = pandas.DataFrame({"width": self.widths, **values}, index=index)
        frame.attrs = {"alpha": self.alpha, "pool": self.pool, "rows": self.rows, "matrix": self.description}
        return frame

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain numbers, lists and strings, of which :meth:`from_dict` makes the report again."""
        result = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name in _TENSORS:
            result[name] = None if result[name] is None else plain(result[name]).tolist()
        result["quantities"] = {name: plain(values).tolist() for name, values in self.quantities.items()}
        result["reference"] = None if self.reference is None else self.reference.to_dict()
        dtype = str(self.entropy.dtype) if isinstance(self.entropy, Tensor) else "numpy"
        return {**result, "names": list(self.names), "widths": list(self.widths), "dtype": dtype}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LayerReport:
        """The report of which :meth:`to_dict` made values, through JSON too; on the CPU and without a graph."""
        values = dict(values)
        dtype = values.pop("dtype")

        def tensor(numbers: Any) -> Any:
            if dtype == "numpy" or numbers is None:
                return None if numbers is None else np.asarray(numbers, dtype=np.float64)
            return torch.tensor(numbers, dtype=getattr(torch, dtype.removeprefix("torch.")))

        values.update({name: tensor(values[name]) for name in _TENSORS})
        values["quantities"] = {name: tensor(numbers) for name, numbers in values["quantities"].items()}
        values["names"], values["widths"] = tuple(values["names"]), tuple(values["widths"])
        if values["reference"] is not None:
            values["reference"] = cls.from_dict(values["reference"])
        return cls(**values)

    def save(self, path: str | os.PathLike) -> None:
        """Write the report as JSON into a file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> LayerReport:
        """The report that :meth:`save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def plot(self, quantities: Sequence[str] | None = None, **options: Any) -> np.ndarray:
        """Draw quantities from layer to layer: :func:`matinfo.plot.layers` of this report, with its options."""
        from matinfo import plot

        return plot.layers(self, quantities, **options)

    def __repr__(self) -> str:
        """Number of layers, the range of effective ranks, and which matrix was measured."""
        ranks = self.effective_rank.tolist()
        sentences = f", {self.entropies.shape[1]} sentences" if self.pool == "tokens" else ""
        return (
            f"LayerReport({len(self.names)} layers{sentences}, pool={self.pool!r}, alpha={self.alpha:g}, "
            f"effective rank {min(ranks):.3g} to {max(ranks):.3g}; "
            f"{describe_rows(center=self.center, normalize=self.normalize)})"
        )


def plain(values: Any) -> np.ndarray:
    """Float64 on the CPU, without a graph."""
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
