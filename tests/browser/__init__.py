"""Pages in a real browser. A package, so that its conftest and that of all tests do not share a name."""
