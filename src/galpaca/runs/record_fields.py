"""The content of ``run.json`` as records. Every key may be absent: a run is read from its first moment on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from galpaca.runs.recipe import Recipe

Outcome = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a start ran on.

    Attributes:
        device: name of the GPU, or of the processor.
        memory_bytes: memory of one GPU, or of the machine.
    """

    device: str = ""
    processes: int = 1
    nodes: int = 1
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """How long phases of a start took.

    Attributes:
        until_first_step: from the command to the first step; None where the system does not say.
        load: loading weights or a checkpoint.
        samples: answering the questions once.
        release: exporting and verifying the model.
    """

    until_first_step: float | None = None
    load: float | None = None
    samples: float | None = None
    release: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class End:
    """How a start ended: ``complete``, ``stopped`` or ``failed``. One that was killed has none."""

    time: str = ""
    how: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class GitState:
    """Commit of the source checkout, and whether it had changes."""

    commit: str = ""
    dirty: bool = False


@dataclass(frozen=True, kw_only=True)
class Start:
    """One time that the run was started.

    Attributes:
        time: UTC.
        step: step of the checkpoint that it resumed from; 0 for the initial weights.
        setup: how it computed, as the terminal showed it.
        accepted_changes: differences of its recipe to the one before.
        lost_output: what of its output could not be written, and why.
    """

    time: str = ""
    command: tuple[str, ...] = ()
    step: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    git: GitState | None = None
    setup: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    slurm_job: str | None = None
    accepted_changes: tuple[str, ...] = ()
    lost_output: tuple[str, ...] = ()
    machine: Machine | None = None
    seconds: PhaseSeconds = field(default_factory=PhaseSeconds)
    ended: End | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExampleCounts:
    """Examples to train on, and held out.

    Attributes:
        test: held out from all of training.
        shared_prompts: held-out examples whose prompt is also trained on.
        near_duplicates: held-out examples that are trained on but for spaces, punctuation, capitals and tags.
    """

    train: int = 0
    validation: int = 0
    test: int | None = None
    shared_prompts: int | None = None
    near_duplicates: int | None = None


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """One of several sources of a run.

    Attributes:
        dataset: Hub id, or the names of its files.
        epochs: how often an epoch takes each record.
        license, terms: of its records, if known.
        receipt: what became of its records.
    """

    name: str
    dataset: str = ""
    epochs: float = 1.0
    license: str | None = None
    terms: str | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlanFigures:
    """The step plan in figures, as ``galpaca.data.plan.summarize`` computes them."""

    steps: int
    steps_per_epoch: int
    ranks: int = 1
    examples: int = 0
    tokens: int = 0
    target_tokens: int = 0
    micro_batches_per_rank: int = 0
    fullest_micro_batch_tokens: int = 0
    mean_imbalance: float = 0.0
    steps_without_target: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Training examples by length and by target tokens: bin ``i`` begins at ``i * bin_tokens``."""

    bin_tokens: int
    lengths: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """What a release needs besides a checkpoint and ``base/``.

    Attributes:
        base_model: Hub id of the weights it started from, or their folder's name; None for random weights.
        model_license, data_license: licences, if known.
        dataset: Hub id of the data, or its file's name.
        terms: further terms of the data.
        merge_into: which weights adapters are merged into: ``trained``, or ``original``.
        folders: what is released besides ``model``, or instead, by names in the run folder; none is ``model`` alone.
        checkpoint: which one is released: ``best``, or None for the last.
        question, question_input: of a record that was trained on, for the card's example; None where it shows none.
    """

    dtype: str = "float32"
    max_new_tokens: int = 512
    base_model: str | None = None
    model_license: str | None = None
    dataset: str = ""
    data_license: str | None = None
    terms: str | None = None
    merge_into: str | None = None
    folders: tuple[str, ...] = ()
    checkpoint: str | None = None
    question: str | None = None
    question_input: str | None = None


@dataclass(frozen=True, kw_only=True)
class MergedLosses:
    """Validation losses of adapters merged into the base as it was in training, and as it is in its files.

    Attributes:
        step: of the adapters; None for the last of the plan.
    """

    trained: float
    original: float
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class FinalFigures:
    """A run in a few figures, over all its starts.

    Attributes:
        first_loss, loss: of the first step that is recorded and the last.
        first_step: the first step that is recorded, where lines of those before were lost.
        lost_steps: steps up to the last that are not recorded, and in none of these figures; None for none.
        train_seconds: in steps, without validations and checkpoints.
        peak_memory_bytes: of a process, the maximum over ranks.
        validations: how many there were.
        val_loss: of the last one.
    """

    steps: int = 0
    first_step: int | None = None
    lost_steps: int | None = None
    first_loss: float | None = None
    loss: float | None = None
    train_seconds: float = 0.0
    tokens: int = 0
    target_tokens: int = 0
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    skipped_steps: int = 0
    validations: int = 0
    val_loss: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """Everything in ``run.json``.

    Attributes:
        id: also the W&B run's.
        created: UTC.
        recipe: what must not change when the run is resumed.
        former_recipes: those before each accepted change.
        weights: what identifies the initial weights.
        receipt: what became of the records, as ``galpaca.data.receipt`` counts it.
        sources: the sources of a mix; none where there is but one.
        whole_plan: plan of the run that a rehearsal stands for.
        parameters: number of the model's parameters.
        final: written when the run is complete.
        merged: of adapters, where there is validation.
        early_stop_step: the step after which training ended, where that was not the last of the plan.
        unreleased: training has begun or gone on since what is released was made; None where it has not, and in records
            from before there was this.
    """

    id: str = ""
    created: str = ""
    recipe: Recipe | None = None
    former_recipes: tuple[Recipe, ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)
    receipt: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[SourceFacts, ...] = ()
    examples: ExampleCounts | None = None
    plan: PlanFigures | None = None
    whole_plan: PlanFigures | None = None
    parameters: int | None = None
    histograms: Histograms | None = None
    starts: tuple[Start, ...] = ()
    release: ReleaseFacts | None = None
    final: FinalFigures | None = None
    merged: MergedLosses | None = None
    early_stop_step: int | None = None
    unreleased: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_steps(self) -> int | None:
        """Optimizer steps of the whole run, once they are planned."""
        return self.plan.steps if self.plan else None

    @property
    def last_step(self) -> int | None:
        """The step after which a complete run has ended."""
        return self.early_stop_step or self.num_steps

    @property
    def last_start(self) -> Start:
        return self.starts[-1] if self.starts else Start()

    @property
    def last_end(self) -> End:
        """How the last start ended; empty while it runs, and if it was killed."""
        return self.last_start.ended or End()
