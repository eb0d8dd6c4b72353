"""From a failure to the decision, and back to a good generation."""
