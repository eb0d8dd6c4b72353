"""agentctl keeps a self-modifying agent alive. Importing the package alone imports nothing else."""

__version__ = "0.1.0"
