"""What ``examples/flat_loop.py`` makes of each record, a line each, to compare encodings with.

python tests/parity/plain_reference.py RECORDS.json TOKENIZER MAX_LENGTH > REFERENCE.jsonl
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, it has its own folder only
from examples.flat_loop import NO_TARGET, encode


def reference(records: list[dict[str, str]], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
    """What each record becomes: its number of tokens, those without loss, and a digest of its ids."""
    for index, record in enumerate(records):
        ids, labels = encode(record, tokenizer, max_length)
        sha1 = hashlib.sha1(" ".join(map(str, ids)).encode()).hexdigest()
        yield {"index": index, "num_tokens": len(ids), "num_ignored": labels.count(NO_TARGET), "ids_sha1": sha1}


if __name__ == "__main__":
    from transformers import AutoTokenizer

    path, folder, limit = sys.argv[1:]
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    for line in reference(content, AutoTokenizer.from_pretrained(folder), int(limit)):
        print(json.dumps(line))
