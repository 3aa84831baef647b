"""What acts at the events of training, one file for each: metrics, samples, validation, hangs, preemption."""
