#!/bin/sh
# Start the chat: configuration from here, conversations in the state folder. It is told its task,
# and after a rollback what happened.
set -e
export LLM_USER_PATH="$AGENT_STATE_DIR/llm"
mkdir -p "$LLM_USER_PATH"
cp models.yaml "$LLM_USER_PATH/extra-openai-models.yaml"
told=$(cat "$AGENT_TASK_FILE" ${AGENT_BRIEF_FILE:+"$AGENT_BRIEF_FILE"})
exec .venv/bin/llm chat -m stand-in --system "$told" "$@"
