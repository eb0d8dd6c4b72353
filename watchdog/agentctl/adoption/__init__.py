"""Making a repository an agent, and its units."""
