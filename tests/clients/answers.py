"""A script of somebody who has the released folder and nothing of this project: answers in four ways, as JSON.

``python answers.py FOLDER PROMPTS [TOKENS]``, where PROMPTS is a JSON list of questions, and an answer has at most
TOKENS tokens.
"""

import json
import sys
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

ANSWER_TOKENS = 12


def main(folder: str, questions: list[str], answer_tokens: int = ANSWER_TOKENS) -> dict[str, Any]:
    length: dict[str, Any] = {"max_new_tokens": answer_tokens}
    # The pipeline of transformers 4 samples unless this is said: its own default beats that of the folder.
    greedy = {**length, "do_sample": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)

    def prompt(question: str) -> str:
        message = {"role": "user", "content": question}
        return str(tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False))

    def answers(prompts: list[str]) -> list[str]:
        encoded = tokenizer(prompts, padding=True, return_tensors="pt")
        output = model.generate(**encoded, **length)
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in output[:, encoded["input_ids"].shape[1] :]]

    prompts = [prompt(question) for question in questions]
    piped = pipeline("text-generation", model=model, tokenizer=tokenizer)
    plain = piped(prompts, batch_size=len(prompts), return_full_text=False, **greedy)
    chats = [[{"role": "user", "content": question}] for question in questions]
    talked = piped(chats, batch_size=len(chats), **greedy)
    return {
        "version": transformers.__version__,
        "ids": [tokenizer(one)["input_ids"] for one in prompts],
        "single": [answers([one])[0] for one in prompts],
        "batched": answers(prompts),
        "pipeline": [one[0]["generated_text"] for one in plain],
        "chat pipeline": [one[0]["generated_text"][-1]["content"] for one in talked],
        "longest": len(tokenizer("water " * 5_000, truncation=True)["input_ids"]),
        "positions": model.config.max_position_embeddings,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]), *map(int, sys.argv[3:4]))))
