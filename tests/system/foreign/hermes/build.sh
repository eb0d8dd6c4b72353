#!/bin/sh
# Build the environment from the pins, from wheels that are here already.
set -e
set -- /opt/agent-wheels/pip-*.whl
python3 -m venv --without-pip --clear .venv
.venv/bin/python "$1/pip" install --isolated --quiet --no-index --no-cache-dir \
    --find-links=/opt/agent-wheels -r requirements.txt
