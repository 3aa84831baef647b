"""What a session on a GPU has found, as a file and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.session import Session


class GpuSession(Session):
    """A session's rows, limits and checks.

    Args:
        minutes: after which nothing new is started.
        out: folder of results.
        name: of the file there.
    """

    def __init__(self, minutes: float, out: Path, name: str) -> None:
        super().__init__(minutes, out, name, program="gpu")
        self.rows: list[dict[str, Any]] = []
        self.limits: dict[str, Any] = {}
        self.paths: dict[str, Any] = {}
        self.checks: dict[str, Any] = {}
        self.costs: list[dict[str, Any]] = []

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "limits": self.limits,
            "paths": self.paths,
            "invariants": self.checks,
            "largest_costs": self.costs,
            "ratio_to_trainer": self._ratio(),
            **super().figures(),
        }

    def table(self) -> str:
        heading = f"{'':<26}{'shape':>6}{'precision':>12}{'tokens/s':>10}{'MFU':>7}{'GiB':>7}{'step s':>8}{'+-':>7}"
        lines = [heading + f"{'fwd+bwd':>9}{'update':>8}{'compile s':>11}{'warm-up s':>11}{'recompiled':>11}"]
        lines += [_table_row(row) for row in self.rows]
        for cost in self.costs:
            lines.append(f"{cost['share']:>6.1%} {cost['calls']:>6} x {cost['kernel']}")
        lines += self.problems()
        if ratio := self._ratio():
            lines.append(f"galpaca to transformers.Trainer at 1.3b: {ratio:.2f}x")
        return "\n".join(lines)

    def _ratio(self) -> float | None:
        speeds = {
            row["name"]: row["tokens_per_second"]
            for row in self.rows
            if row["shape"] == "1.3b" and row["precision"] == "bf16-mixed"
        }
        if not {"1.3b", "transformers.Trainer"} <= speeds.keys():
            return None
        return float(speeds["1.3b"] / speeds["transformers.Trainer"])


def _table_row(row: dict[str, Any]) -> str:
    mfu = f"{row['mfu']:.1%}" if row["mfu"] else ""
    line = f"{row['name']:<26}{row['shape']:>6}{row['precision']:>12}{row['tokens_per_second']:>10,.0f}{mfu:>7}"
    line += f"{row['peak_memory_bytes'] / 2**30:>7.1f}{row['step_seconds']:>8.3f}{row['step_seconds_deviation']:>7.3f}"
    if "warm_up_seconds" in row:
        compiled = row["compile_seconds"]
        line += f"{row['forward_backward_seconds']:>9.3f}{row['optimizer_seconds']:>8.3f}"
        line += f"{'' if compiled is None else f'{compiled:.1f}':>11}{row['warm_up_seconds']:>11.1f}"
        line += f"{row['recompilations']:>11}"
    return line
