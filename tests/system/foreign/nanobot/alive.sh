#!/bin/sh
# nanobot gives no sign of life, and an idle chat is well: alive is that its process is there.
kill -0 "$AGENT_PID"
