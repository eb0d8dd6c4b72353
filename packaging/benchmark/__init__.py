"""The benchmark: `host` makes the machine and the report, `inside` measures in it. Knows nothing of agentctl's code."""
