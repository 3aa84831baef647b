"""Where a run is: its ranks, the launcher, SLURM."""
