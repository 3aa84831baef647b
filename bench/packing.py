"""``python -m bench.packing``: what the step plan makes of lengths like Alpaca's, against its bars."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.results import REPOSITORY, RESULTS, save
from galpaca.data.plan import StepPlan, summarize
from galpaca.data.sizes import choose_sizes

_LENGTHS = REPOSITORY.parent / "shared" / "data" / "alpaca_lengths.csv"
# (examples a step, ranks, tokens a micro-batch) to (what is bounded, its bar).
CASES: dict[tuple[int, int, int], tuple[str, float] | None] = {
    (128, 1, 4_096): None,
    (128, 1, 8_192): None,
    (128, 4, 4_096): ("mean_imbalance", 0.003),
    (128, 8, 4_096): ("mean_imbalance", 0.01),
    (1_024, 16, 3_072): None,
    (1_024, 64, 4_096): ("mean_imbalance", 0.015),
    (128, 64, 4_096): ("over_the_forced", 0.01),
}
# Where ranks have at least a thousand tokens each; with two examples a rank there is little to fill up with.
LEAST_REAL_TOKEN_SHARE = 0.99
_FEWEST_TOKENS = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.packing", description=__doc__)
    parser.add_argument("--lengths", type=Path, default=_LENGTHS, help="num_tokens,num_target_tokens (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results (%(default)s)")
    given = parser.parse_args()
    if not given.lengths.is_file():
        parser.error(f"{given.lengths}: there is no such file; --lengths FILE")
    lengths, targets = np.loadtxt(given.lengths, delimiter=",", skiprows=1, dtype=np.int64).T
    rows, passed = [], True
    for (examples, ranks, max_tokens), bar in CASES.items():
        row = _row(StepPlan(lengths, targets, examples, max_tokens, ranks, seed=0))
        ok = bar is None or row[bar[0]] <= bar[1]
        if row["tokens_per_rank"] >= _FEWEST_TOKENS:
            ok = ok and row["non_padding_fraction"] >= LEAST_REAL_TOKEN_SHARE
        passed = passed and ok
        rows.append(row)
        print(
            f"{examples:>5} examples {ranks:>3} ranks {max_tokens:>6,} tokens: "
            f"imbalance {row['mean_imbalance']:.3%}, over what is forced {row['over_the_forced']:.3%}, "
            f"real tokens {row['non_padding_fraction']:.2%} in {row['distinct_sizes']} sizes, "
            f"{row['micro_batches_beyond_the_bound']} steps beyond the bound  {'ok' if ok else 'MISSED'}"
        )
    print(f"written: {save('packing', {'rows': rows}, given.out)}")
    return 0 if passed else 1


def _row(plan: StepPlan) -> dict[str, Any]:
    sizes = choose_sizes(plan)
    over, beyond, real, padded, distinct = 0.0, 0, 0, 0, set()
    for index in range(plan.steps_per_epoch):
        step = plan.step(index)
        loads = np.array([[plan.lengths[list(m)].sum() for m in rank] for rank in step.micro_batches])
        even = step.num_tokens / plan.num_ranks
        longest = plan.lengths[plan.step_examples(index)].max()
        # No plan can end sooner than the mean rank, nor than its longest example.
        over += loads.max(axis=0).sum() / max(even, longest) - 1
        beyond += loads.shape[1] > max(1, -(-step.num_tokens // (plan.num_ranks * plan.max_tokens)))
        found = [sizes.padded(max(1, int(load))) for load in loads.flatten()]
        distinct.update(found)
        real, padded = real + step.num_tokens, padded + sum(found)
    return {
        "examples": plan.examples,
        "ranks": plan.num_ranks,
        "max_tokens": plan.max_tokens,
        "tokens_per_rank": plan.lengths.sum() / plan.steps_per_epoch / plan.num_ranks,
        "mean_imbalance": summarize(plan, plan.steps_per_epoch)["mean_imbalance"],
        "over_the_forced": over / plan.steps_per_epoch,
        "non_padding_fraction": real / padded,
        "multiple_tokens": sizes.multiple_tokens,
        "distinct_sizes": len(distinct),
        "micro_batches_beyond_the_bound": int(beyond),
    }


if __name__ == "__main__":
    sys.exit(main())
