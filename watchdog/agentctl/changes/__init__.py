"""The change workflow: from an idea to a promoted commit."""
