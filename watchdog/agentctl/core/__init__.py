"""Paths, errors, files that survive a power cut, text: what everything else stands on."""
