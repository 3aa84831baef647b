"""What a run finds ready on this machine: weights, tokenizers and records, fetched or converted once and verified."""
