"""Texts of agent.toml that several tests begin with."""

MINIMAL = '[agent]\ncode = "/srv/agent"\ncommand = ["python3", "agent.py"]\n'
COMMENTED = """\
# ours

[agent]   # the program
name = "bob"                 # short
code = "/srv/agent"
command = [                  # how it starts
    "python3",
    "agent.py",              # the loop
]

# ---- life ----
[heartbeat]
timeout = "30s"    # "60s" was # too long
# progress = "required"

[state]
keep = ["history.jsonl", "a#b"]  # stays
"""
