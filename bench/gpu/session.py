"""One measurement after the other: what fails or does not fit is kept with its reason, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import save

OUT_OF_TIME = "no time left"


class Session:
    """Runs measurements and keeps what they find, on disk after each.

    Args:
        minutes: after which nothing new is started.
        out: folder of results.
        name: of the file there.
    """

    def __init__(self, minutes: float, out: Path, name: str) -> None:
        self.out, self.name = out, name
        self.rows: list[dict[str, Any]] = []
        self.limits: dict[str, Any] = {}
        self.paths: dict[str, Any] = {}
        self.checks: dict[str, Any] = {}
        self.costs: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._begin, self._seconds = time.monotonic(), minutes * 60

    def run(
        self,
        name: str,
        measure: Callable[[], dict[str, Any]],
        place: Any,
        key: str | None = None,
        *,
        lack: str | None = None,
    ) -> None:
        """One measurement.

        Args:
            place: a list that gets what was found, or a mapping that gets it, under ``key`` if there is one.
            lack: why the machine cannot hold it.
        """
        begin = time.monotonic()
        if lack or begin - self._begin > self._seconds:
            self.left_out[name] = lack or OUT_OF_TIME
            print(f"{name}: left out, {self.left_out[name]}", flush=True)
            return
        try:
            found = measure()
        except Exception as error:  # whatever it was, the next measurement may do
            self.failures[name] = f"{type(error).__name__}: {error}"[:2_000]
            print(f"{name}: FAILED, {self.failures[name]}", flush=True)
            self.save()
            return
        if isinstance(place, list):
            place.append(found)
        elif key is not None:
            place[key] = found
        else:
            place.update(found)
        if found.get("passed") is False:
            self.failures[name] = f"{found}"
        print(f"{name}: {_short(found)} ({time.monotonic() - begin:.0f} s)", flush=True)
        self.save()  # a run that is cut off keeps what it found

    def save(self) -> Path:
        return save(self.name, self.figures(), self.out, program="gpu")

    def figures(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "limits": self.limits,
            "paths": self.paths,
            "invariants": self.checks,
            "largest_costs": self.costs,
            "ratio_to_trainer": self._ratio(),
            "failures": self.failures,
            "left_out": self.left_out,
            "seconds": time.monotonic() - self._begin,
        }

    def table(self) -> str:
        heading = f"{'':<26}{'shape':>6}{'precision':>12}{'tokens/s':>10}{'MFU':>7}{'GiB':>7}{'step s':>8}{'+-':>7}"
        lines = [heading + f"{'fwd+bwd':>9}{'update':>8}{'compile s':>11}{'warm-up s':>11}{'recompiled':>11}"]
        lines += [_table_row(row) for row in self.rows]
        for cost in self.costs:
            lines.append(f"{cost['share']:>6.1%} {cost['calls']:>6} x {cost['kernel']}")
        lines += [f"failed: {name}" for name in self.failures]
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
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


def _short(found: dict[str, Any]) -> str:
    parts = []
    for key, value in found.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif isinstance(value, int):
            parts.append(f"{key} {value}")
    return ", ".join(parts)
