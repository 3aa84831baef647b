"""The project against sixty lines of plain PyTorch that pack nothing, shard nothing and know nothing of it."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import Train, read_jsonl
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM, get_cosine_schedule_with_warmup

from galpaca.data.plan import StepPlan

STEPS, EXAMPLES, SEED, LR, MAX_LENGTH = 50, 8, 11, 3e-3, 64
TOLERANCE = 1e-4  # relative

PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:"
)
PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def reference_run(model_folder: Path, tokenizer_folder: Path, records_file: Path) -> list[dict[str, float]]:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    model = OPTForCausalLM.from_pretrained(model_folder, dtype=torch.float32).train()
    examples = []
    for record in json.loads(records_file.read_text(encoding="utf-8")):
        prompt = (PROMPT_WITH_INPUT if record["input"] else PROMPT).format(**record)
        ids = torch.tensor(tokenizer(prompt + record["output"] + "</s>")["input_ids"][:MAX_LENGTH])
        labels = ids.clone()
        labels[: len(tokenizer(prompt)["input_ids"])] = -100
        examples.append((ids, labels))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2]
    vectors = [p for name, p in model.named_parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * STEPS), STEPS)
    # Which examples share a step is the plan's to say; nothing else is taken from the project.
    lengths = torch.tensor([len(ids) for ids, _ in examples]).numpy()
    plan = StepPlan(lengths, lengths, EXAMPLES, MAX_LENGTH, 1, SEED)
    lines = []
    for step in range(STEPS):
        chosen = [examples[i] for i in plan.step_examples(step)]
        num_targets = sum(int((labels[1:] != -100).sum()) for _, labels in chosen)
        optimizer.zero_grad()
        total = 0.0
        for ids, labels in chosen:
            logits = model(ids[None]).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
            (nll / num_targets).backward()
            total += float(nll.detach())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        lines.append({"loss": total / num_targets, "grad_norm": float(norm), "lr": optimizer.param_groups[0]["lr"]})
        optimizer.step()
        schedule.step()
    return lines


@pytest.fixture
def records_file(tmp_path: Path, demo_records: list[dict[str, str]]) -> Path:
    """Records without molecules and the like: their splitting has tests of its own."""
    plain = [record for record in demo_records if "[START_" not in json.dumps(record)]
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(plain[::12][:40]), encoding="utf-8")
    return path


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A small OPT model of GALACTICA's kind, its weights float16 on disk as GALACTICA's are."""
    torch.manual_seed(1)
    config = OPTConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tokenizer_folder)),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
    )
    OPTForCausalLM(config).half().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_losses_norms_and_rates_equal_those_of_an_independent_loop(
    train: Train, tmp_path: Path, tokenizer_folder: Path, records_file: Path, model_folder: Path
) -> None:
    done = train(
        f"model.path={model_folder}",
        "model.dropout=0.0",
        f"data.max_length={MAX_LENGTH}",
        f"batch.examples={EXAMPLES}",
        "batch.max_tokens=200",
        f"trainer.max_steps={STEPS}",
        "trainer.max_epochs=100",
        f"optim.lr={LR}",
        "optim.weight_decay=0.1",
        "optim.warmup_ratio=0.1",
        f"seed={SEED}",
    )
    assert done.returncode == 0, done.stderr
    ours = read_jsonl(tmp_path / "runs" / "test" / "metrics.jsonl")
    reference = reference_run(model_folder, tokenizer_folder, records_file)
    assert len(ours) == len(reference) == STEPS
    assert any(line["micro_batches"] > 1 for line in ours), "the run should have packed into several micro-batches"
    for line, expected in zip(ours, reference, strict=True):
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=TOLERANCE), f"{key} of step {line['step']}"
