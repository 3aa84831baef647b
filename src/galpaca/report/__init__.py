"""A run, or several, as one page that needs no network."""
