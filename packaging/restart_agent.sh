#!/bin/sh
# Restart the agent: it saves first, and what does not hold is rolled back. For agents that expect this name;
# it only calls agentctl. AGENT_NAME picks the agent; arguments go to 'agentctl restart'.
exec agentctl restart "$@"
