"""Files that are whole or absent: replaced at once, built once, known by their checksums."""
