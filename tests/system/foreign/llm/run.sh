#!/bin/sh
# Start the chat: its configuration comes from here, its conversations are in the state folder.
# With the first message go the task and, once, what was rolled back.
set -e
export LLM_USER_PATH="$AGENT_STATE_DIR/llm"
mkdir -p "$LLM_USER_PATH"
cp models.yaml "$LLM_USER_PATH/extra-openai-models.yaml"
. ./migrate.sh
if [ -n "$AGENT_BRIEF_FILE" ]; then
    mv "$AGENT_BRIEF_FILE" "$LLM_USER_PATH/brief.md"
    set -- -f "$LLM_USER_PATH/brief.md" "$@"
fi
exec .venv/bin/llm chat -m stand-in -f "$AGENT_TASK_FILE" "$@"
