"""One launch while it lives: the runner, its loop, its jobs, signs of life."""
