"""A stand-in for model APIs on loopback; `python3 -m model_api --port N --folder F` runs it (see `server.py`)."""
