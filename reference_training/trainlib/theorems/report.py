"""The report on runs whose logs hold every statement's numbers: a table, pictures, and all of it for machines."""

from __future__ import annotations

from pathlib import Path

from trainlib.errors import UsageError
from trainlib.files import write_atomic, write_json
from trainlib.theorems.pictures import draw
from trainlib.theorems.verdict import Record, conclusion, judge, read_run, summary, table, violations

RESULT, TABLE = "theorems.json", "table.md"


def report(folders: list[Path], out: Path) -> tuple[str, list[Record]]:
    """Write ``theorems.json``, ``table.md`` and the pictures; give the table and what was violated."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("RUN", "a folder is named twice", "name each run once")
    runs = [read_run(folder) for folder in folders]
    verdicts = judge(runs)
    text = f"{table(verdicts)}\n\n{conclusion(verdicts)}"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT, summary(runs, verdicts))
    write_atomic(out / TABLE, (text + "\n").encode())
    draw(runs, out)
    return text, violations(verdicts)
