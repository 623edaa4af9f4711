"""The losses, one named term per equation."""
