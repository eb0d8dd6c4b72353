"""The one-shot: what went wrong, back to a good generation, and the note about it."""
