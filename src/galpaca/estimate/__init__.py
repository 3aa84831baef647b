"""What a run costs, by arithmetic alone."""
