#!/bin/sh
# Start the chat: its configuration comes from here, its sessions lie beside it in the state folder.
# The task, and once what was rolled back, are in what nanobot reads first.
set -e
home="$AGENT_STATE_DIR/nanobot"
mkdir -p "$home/workspace"
cp config.json "$home/config.json"
. ./migrate.sh
cat "$AGENT_TASK_FILE" ${AGENT_BRIEF_FILE:+"$AGENT_BRIEF_FILE"} >"$home/workspace/AGENTS.md"
[ -z "$AGENT_BRIEF_FILE" ] || rm "$AGENT_BRIEF_FILE"
exec .venv/bin/nanobot agent --classic --no-markdown --session cli:main --config "$home/config.json" \
    --workspace "$home/workspace"
