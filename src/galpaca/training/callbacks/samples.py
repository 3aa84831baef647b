"""The same few questions, answered at fixed steps: how a model changes, in words."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch

from galpaca.data.collate import StepBatch, collate_prompts
from galpaca.data.questions import EncodedQuestions
from galpaca.model.loss import target_logits
from galpaca.training.callbacks.metrics import StepMetrics
from galpaca.training.module import InstructionTuner
from galpaca.training.specs import SamplesSpec


@dataclass(eq=False)
class SampleAnswers(L.Callback):
    """Answers greedily, on all ranks together, since each holds a part of the model.

    Every token takes a forward pass over all questions and what has been answered so far: without a cache, in the
    packed form in which the model is trained, under any strategy.

    Attributes:
        questions: those of each sample.
        spec: when, and how long an answer may be; ``every_steps`` is set.
        known: steps whose answers are on disk already.
        metrics: step metrics, whose clock excludes the time this takes.
        write: receives the step and each question's answer, on rank 0.
        seconds: what the last time took.
    """

    questions: EncodedQuestions
    spec: SamplesSpec
    known: Collection[int]
    metrics: StepMetrics
    write: Callable[[int, list[list[int]]], None]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._answered = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        # A kill between a step's checkpoint and its answers must not lose them.
        if self._is_due(step) and trainer.strategy.broadcast(step not in self.known):
            self._answer(trainer, step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        if self._is_due(batch.index + 1):
            self._answer(trainer, batch.index + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if step != self._answered and trainer.strategy.broadcast(step not in self.known):
            self._answer(trainer, step)

    def _is_due(self, step: int) -> bool:
        assert self.spec.every_steps is not None
        return step % self.spec.every_steps == 0

    def _answer(self, trainer: L.Trainer, step: int) -> None:
        self.metrics.flush(trainer)
        started = time.perf_counter()
        tuner = cast(InstructionTuner, trainer.lightning_module)
        tuner.eval()
        try:
            answers = self._continued(tuner)
        finally:
            tuner.train()
        if trainer.is_global_zero:
            self.write(step, answers)
        self._answered = step
        self.seconds = time.perf_counter() - started
        self.metrics.restart_clock(trainer)

    @torch.no_grad()
    def _continued(self, tuner: InstructionTuner) -> list[list[int]]:
        prompts, most = self.questions.prompts, self.questions.max_positions
        answers: list[list[int]] = [[] for _ in prompts]
        open_ = list(range(len(prompts)))
        for _ in range(self.spec.max_new_tokens):
            open_ = [n for n in open_ if len(prompts[n]) + len(answers[n]) < most]
            if not open_:
                break
            texts = collate_prompts([[*prompts[n], *answers[n]] for n in open_]).to(tuner.device)
            with torch.compiler.set_stance("force_eager"):
                logits = tuner.strategy.run_micro_batch(texts, target_logits)
            # Ranks may round differently, and would continue with different questions.
            for n, chosen in zip(open_, tuner.strategy.from_rank_0(logits.argmax(dim=-1)).tolist(), strict=True):
                answers[n].append(chosen)
            open_ = [n for n in open_ if answers[n][-1] not in self.questions.end_ids]
        return answers
