"""My habits: what I do each time before I start to work."""


def before_start(state):
    """So far I have none."""
