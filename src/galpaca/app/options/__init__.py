"""Options that several commands have: their names in messages, and what becomes of them."""
