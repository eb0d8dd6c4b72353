"""What may go, and the proof that nothing else goes."""
