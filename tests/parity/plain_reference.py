"""The reference recipe's encoding in plain ``transformers``, written a second time: it imports nothing of galpaca.

As Stanford Alpaca's train.py does it: prompt + answer + ``</s>`` is tokenized as one text and cut, and as many leading
tokens carry no loss as the prompt alone has. Sequences between GALACTICA's tags are escaped as galai does.

    python tests/parity/plain_reference.py RECORDS.json TOKENIZER MAX_LENGTH > REFERENCE.jsonl
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
SEQUENCE = re.compile(r"(\[START_(DNA|SMILES|I_SMILES|AMINO)])(.*?)(\[END_\2])")


def escape(text: str) -> str:
    mark = "SPL1T-TH1S-Pl3A5E"
    return SEQUENCE.sub(lambda m: m[1] + "".join(mark + character for character in m[3]) + mark + m[4], text)


def reference(records: list[dict[str, str]], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
    """What each record becomes: its number of tokens, those without loss, and a digest of its ids."""
    for index, record in enumerate(records):
        prompt = (WITH_INPUT if record.get("input") else WITHOUT_INPUT).format_map(record)
        ids = tokenizer(escape(prompt + record["output"] + "</s>"))["input_ids"][:max_length]
        ignored = min(len(tokenizer(escape(prompt))["input_ids"]), len(ids))
        sha1 = hashlib.sha1(" ".join(map(str, ids)).encode()).hexdigest()
        yield {"index": index, "num_tokens": len(ids), "num_ignored": ignored, "ids_sha1": sha1}


if __name__ == "__main__":
    from transformers import AutoTokenizer

    path, folder, limit = sys.argv[1:]
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    for line in reference(content, AutoTokenizer.from_pretrained(folder), int(limit)):
        print(json.dumps(line))
