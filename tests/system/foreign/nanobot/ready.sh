#!/bin/sh
# nanobot does not say when it is ready: it is when it has loaded all it needs and waits for its person.
look() { cut -d' ' -f2,3,14,15 "/proc/$AGENT_PID/stat"; }
before=$(look)
sleep 0.5
case $before in "(nanobot"*" S "*) [ "$before" = "$(look)" ] ;; *) exit 1 ;; esac
