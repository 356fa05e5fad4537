#!/bin/sh
# Makes a virtual environment beside this file and generates the client code from our contracts.
# Safe to run again. Needs python3 with venv and a way to PyPI (or a mirror of it).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../..
[ -x "$here/.venv/bin/python" ] || python3 -m venv "$here/.venv"
"$here/.venv/bin/python" -c 'import grpc_tools' 2>/dev/null ||
    "$here/.venv/bin/pip" install --quiet 'grpcio>=1.70,<2' 'grpcio-tools>=1.70,<2'
"$here/.venv/bin/python" -m grpc_tools.protoc -I "$protos" \
    --python_out="$here" --grpc_python_out="$here" \
    "$protos/dtm/format/v1/format.proto" "$protos/dtm/ingest/v1/ingest.proto"
echo "generated; try: $here/.venv/bin/python $here/publish.py --help"
