"""From files of records to the micro-batches of a step."""
