"""Tasks of EleutherAI's lm-eval, run on a loaded model with its own template, tokens and end of an answer."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from galpaca.errors import InputError, Problems, first_line
from galpaca.inference.harness_contexts import Contexts
from galpaca.inference.loading import Loaded

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

_GENERATES = "generate_until"
# For figures whose error has no formula; the library's own number takes minutes.
_BOOTSTRAP_DRAWS = 1_000


@dataclass(frozen=True)
class FoundTask:
    """A task, or a group of them.

    Attributes:
        name: as it was requested.
        generates: the model writes answers in all of it; else, at least somewhere, given answers are scored.
    """

    name: str
    generates: bool


class Tasks:
    """The tasks that are to be had.

    Args:
        names: names of the requested tasks.
        include_path: folder with additional task files.

    Raises:
        InputError: lm-eval is not installed; a task file cannot be read.
    """

    def __init__(self, names: Sequence[str], include_path: Path | None) -> None:
        try:
            import lm_eval.tasks  # noqa: F401
        except ImportError as error:
            fix = "pip install 'galpaca[evaluate]'"
            raise InputError(f"lm-eval is not installed: {error}", where="--tasks", fix=fix) from None
        self._names = list(dict.fromkeys(names))
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        if include_path is not None and not include_path.is_dir():
            raise InputError("no such folder", where=include_path, fix="--include-path FOLDER of task files")
        try:
            self._manager = self._open(include_path, names)
        except Exception as error:  # whatever a task file provokes
            raise InputError(
                f"cannot read the task files: {first_line(error)}",
                where=include_path or "lm-eval",
                fix="fix the .yaml files in it",
            ) from None

    @staticmethod
    def _open(include_path: Path | None, names: Sequence[str]) -> TaskManager:
        """Without the thousands of tasks that ship with the library where the folder alone has all that are named."""
        from lm_eval.tasks import TaskManager

        if include_path is not None:
            own = TaskManager(include_path=str(include_path), include_defaults=False)
            if set(names) <= set(own.all_tasks):
                return own
        return TaskManager(include_path=str(include_path) if include_path else None)

    def find(self) -> list[FoundTask]:
        """Finds the tasks that are requested and loads their data.

        Raises:
            InputError: unknown tasks, or tasks whose data cannot be loaded; all reported at once.
        """
        problems = Problems()
        known = set(self._manager.all_tasks)
        for name in [name for name in self._names if name not in known]:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            problems.add(
                f"unknown task {name!r}",
                where="--tasks",
                fix=f"{' or '.join(near)}" if near else "lm-eval ls tasks shows all; --include-path FOLDER adds yours",
            )
        problems.raise_any()
        found = []
        for name in self._names:
            try:
                leaves = self._manager.load([name])["tasks"].values()
            except Exception as error:  # of the library, of datasets, of a task's own code
                problems.add(
                    f"cannot load the task: {first_line(error)}",
                    where=name,
                    why="its file is invalid, or its data is neither local nor available from the Hub or its cache",
                    fix="fix the file; without a network, download the data first or use local data_files in the task",
                )
                continue
            found.append(FoundTask(name, all(leaf.get_config("output_type") == _GENERATES for leaf in leaves)))
        problems.raise_any()
        return found

    def run(
        self,
        loaded: Loaded,
        names: Sequence[str],
        *,
        instruct: bool,
        batch_size: int,
        limit: int | None = None,
        num_fewshot: int | None = None,
    ) -> dict[str, Any]:
        """What ``lm_eval.simple_evaluate`` returns.

        Args:
            names: names of tasks that were found.
            instruct: use the model's prompt template.
            limit: most examples per task.
            num_fewshot: few-shot examples per prompt; None uses the task's default.

        Raises:
            InputError: the task and the model do not fit each other, such as a prompt beyond the model's positions.
        """
        import lm_eval

        try:
            results = lm_eval.simple_evaluate(
                model=harness_model(loaded, batch_size),
                tasks=list(names),
                num_fewshot=num_fewshot,
                limit=limit,
                apply_chat_template=instruct,
                fewshot_as_multiturn=False,
                task_manager=self._manager,
                bootstrap_iters=_BOOTSTRAP_DRAWS,
                log_samples=True,
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise InputError(
                f"lm-eval failed: {first_line(error)}",
                where=" and ".join(names),
                fix="a smaller max_gen_toks in the task, or --num-fewshot; or fix the task",
            ) from None
        return dict(results or {})


def harness_model(loaded: Loaded, batch_size: int) -> Any:
    """The model as lm-eval sees it: sequences split as in training, citations and molecules kept in answers.

    The model's own default length of an answer is gone afterwards: before a task's, it would count.
    """
    from lm_eval.models.huggingface import HFLM

    reader, ends = loaded.tokenizer, loaded.ends
    loaded.model.generation_config.max_new_tokens = None
    loaded.model.generation_config.eos_token_id = list(ends)
    contexts = Contexts(loaded)

    class HarnessModel(HFLM):
        tokenizer_name = "galpaca"

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,
            left_truncate_len: int | None = None,
            **kwargs: Any,
        ) -> list[int]:
            bare = None if add_special_tokens is None else not add_special_tokens
            return contexts.ids(string, bare)[-(left_truncate_len or 0) :]

        def tok_batch_encode(
            self,
            strings: Sequence[str],
            padding_side: str = "left",
            left_truncate_len: int | None = None,
            truncation: bool = False,
        ) -> tuple[Tensor, Tensor]:
            assert padding_side == "left", "answers begin on the right"
            return _padded(
                [self.tok_encode(one, left_truncate_len=left_truncate_len) for one in strings], reader.pad_id
            )

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            before, whole = reader.encode(contexts.pair(context, continuation), bare=contexts.begin_themselves(context))
            return before, whole[len(before) :]

        def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
            if not skip_special_tokens:
                return str(super().tok_decode(tokens, skip_special_tokens=False))
            found = [index for index, token in enumerate(tokens) if token in ends]
            return loaded.encoder.text_of(list(tokens)[: found[0] if found else None])

        def chat_template(self, chat_template: bool | str = False) -> str:
            return loaded.template.name

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
        ) -> str:
            """What comes before the answer: all that was said is the instruction."""
            ends_with_answer = not add_generation_prompt and chat_history[-1]["role"] == "assistant"
            turns, answer_start = chat_history, ""
            if ends_with_answer:
                turns, answer_start = chat_history[:-1], chat_history[-1]["content"]
            return contexts.add("\n\n".join(one["content"] for one in turns), answer_start)

    return HarnessModel(
        pretrained=loaded.model,
        tokenizer=reader.hf,  # type: ignore[attr-defined]
        batch_size=batch_size,
        max_length=loaded.positions,
        prefix_token_id=reader.boundary_id,
    )


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(N, T) ids and (N, T) which of them are none of the padding on the left."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows])
    return ids, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])


def task_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each task, a row for each: task, metric, filter, value, stderr, examples, shots, better."""
    rows = []
    for task, figures in results["results"].items():
        for key, value in figures.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{metric}_stderr,{filtered}")
            row = {
                "task": task,
                "metric": metric,
                "filter": None if filtered == "none" else filtered,
                "value": float(value),
                "stderr": float(error) if isinstance(error, int | float) else None,
                "examples": results.get("n-samples", {}).get(task, {}).get("effective"),
                "shots": results.get("n-shot", {}).get(task),
                "higher_is_better": results.get("higher_is_better", {}).get(task, {}).get(metric),
            }
            rows.append(row)
    return rows
