"""Makes the demo's tokenizer: GALACTICA's pipeline and special ids, a small vocabulary of the demo's own.

The same records, template and options give the same bytes. The held-out questions are not read: their words are as
new to the tokenizer as to the model.

    python scripts/make_demo_tokenizer.py
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from galpaca.data.prompts import Template, load_template
from galpaca.data.sequences import SPLIT_MARKER, mark_sequences

DEMO = Path(__file__).resolve().parents[1] / "src" / "galpaca" / "demo"

# GALACTICA's ids 0 to 22, in order.
SPECIAL_TOKENS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "[START_REF]",
    "[END_REF]",
    "[IMAGE]",
    "<fragments>",
    "</fragments>",
    "<work>",
    "</work>",
    "[START_SUP]",
    "[END_SUP]",
    "[START_SUB]",
    "[END_SUB]",
    "[START_DNA]",
    "[END_DNA]",
    "[START_AMINO]",
    "[END_AMINO]",
    "[START_SMILES]",
    "[END_SMILES]",
    "[START_I_SMILES]",
    "[END_I_SMILES]",
]

# Brackets one by one, other punctuation in runs of one character: GALACTICA's own expression.
PUNCTUATION = r"""[\(\)\[\]\{\}]|([!"\#\$%\&'\*\+,\-\./:;<=>\?\\\^_`\|\~])\1*"""


def build_pipeline() -> Tokenizer:
    """GALACTICA's tokenizer without its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT_MARKER, "removed"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(PUNCTUATION), "isolated"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def training_texts(records: Iterable[dict[str, str]], template: Template) -> Iterator[str]:
    """Each record as the model sees it, cut at the special tokens.

    The trainer does not know the special tokens: uncut, their letters would be learned as words. The sequences
    between them are split into characters, so nothing is learned from those either.
    """
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    for record in records:
        instruction, given, output = (mark_sequences(record[name]) for name in ("instruction", "input", "output"))
        yield from special.split(template.prompt(instruction, given) + output)


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns byte-pair merges until the vocabulary has ``vocab_size`` entries."""
    tokenizer = build_pipeline()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        # A pair that occurs once would make a token that a single record teaches the model.
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        # All 256 bytes, so that every text can be encoded.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached != vocab_size:
        raise SystemExit(f"the records give {reached} tokens, not {vocab_size}: choose another --vocab-size")
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--records", type=Path, default=DEMO / "records.json", help="Alpaca-format file")
    parser.add_argument("--template", default="alpaca", help="the prompts around the records")
    parser.add_argument("--vocab-size", type=int, default=1792, help="tokens, special ones and bytes included")
    parser.add_argument("--output", type=Path, default=DEMO / "tokenizer", help="folder to write")
    args = parser.parse_args()

    records = json.loads(args.records.read_text(encoding="utf-8"))
    tokenizer = train(training_texts(records, load_template(args.template)), args.vocab_size)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.output / "tokenizer.json"))
    # Like the original, it names no special token: whatever loads the one can load the other.
    config = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}, indent=1)
    (args.output / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} tokens from {len(records)} records: {args.output}")


if __name__ == "__main__":
    main()
