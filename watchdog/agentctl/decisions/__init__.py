"""What is decided, as pure functions: no clock, no file, no environment; tested as tables."""
