#!/bin/sh
# Makes a virtual environment and generates the client code from our contracts, beside this file or
# in the folder that is named. Safe to run again, and several times at once. Needs python3 with venv
# and a way to PyPI (or a mirror of it).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../..
mkdir -p "${1:-$here}"
out=$(cd "${1:-$here}" && pwd)
python=$out/.venv/bin/python

# One at a time: the others wait and find all of it there.
exec 9>"$out/.generate.lock"
flock -w 600 9

"$python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$out/.venv"
"$python" -c 'import grpc_tools' 2>/dev/null ||
    "$python" -m pip install --quiet 'grpcio>=1.70,<2' 'grpcio-tools>=1.70,<2'
set -- "$protos/dtm/format/v1/format.proto" "$protos/dtm/ingest/v1/ingest.proto" \
    "$protos/dtm/records/v1/records.proto"
made=$(cat "$@" | cksum)
if [ "$made" != "$(cat "$out/.generated" 2>/dev/null)" ]; then
    "$python" -m grpc_tools.protoc -I "$protos" --python_out="$out" --grpc_python_out="$out" "$@"
    echo "$made" >"$out/.generated"
fi
echo "generated; try: PYTHONPATH=$out $python $here/publish.py --help"
