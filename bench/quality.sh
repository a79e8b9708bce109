#!/bin/sh
# All presets on VOC, Context, COCO and ADE20K: bench/quality.sh --help
folder=$(cd "$(dirname "$0")/.." && pwd)
exec "${PYTHON:-$folder/.venv/bin/python}" "$folder/bench/quality.py" "$@"
