#!/bin/sh
# Roll the agent back to the last good version: roll_back.sh [GENERATION|undo] [--reason TEXT]. For agents that
# expect this name; it only calls agentctl, which writes the request down before anything stops.
exec agentctl rollback --yes "$@"
