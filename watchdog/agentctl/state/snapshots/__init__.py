"""Snapshots of the state folder: take, verify, list, read, restore."""
