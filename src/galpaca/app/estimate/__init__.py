"""What a run will need, before it is queued: memory, hours, and the lines of its job."""
