"""What of the past may go, and the proof that nothing else goes."""
