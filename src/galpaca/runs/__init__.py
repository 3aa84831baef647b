"""The run folder: the contract between training, watching, reporting and releasing. Standard library only."""
