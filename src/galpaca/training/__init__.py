"""Lightning's side: module, data module, strategies, checkpoints, callbacks."""
