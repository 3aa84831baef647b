"""What is known of each architecture: its names, its layers, its sizes. One file for each family."""
