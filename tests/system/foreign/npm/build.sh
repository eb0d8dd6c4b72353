#!/bin/sh
# Nothing to build: the agent and its node are installed beside.
