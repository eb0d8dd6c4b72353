#!/bin/sh
# llm gives no sign of life, and an idle chat is well: alive is a process that is not stopped.
read -r _ _ state _ <"/proc/$AGENT_PID/stat"
case $state in T | t | Z | X) exit 1 ;; esac
