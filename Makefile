# `make serve`, `make check` while you work, `make test` before you commit. Each installs what it
# needs, once.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
CLIENTS ?= .venv-clients
JUPYTER ?= .venv-jupyter
ONNX ?= .venv-onnx
DEPLOY ?= .venv-deploy
# Of foreign runtimes, for `make exports`:
TORCHSERVE ?= .venv-torchserve
TRITON ?= .venv-triton
EXECUTORCH ?= .venv-executorch
# Of deploy/ray, for `make ray` and `make scale`:
RAY ?= .venv-ray
# Of other projects' servers, for `make bench-peers`:
PEERS ?= .venv-peers
HOST ?= 127.0.0.1
PORT ?= 5000
BIN := $(VENV)/bin

# Tests run in parts, each in one process. The first three mostly wait for servers and browsers, so
# four at a time keep two processors busy. The output of a part follows at its end. test-rest is all
# tests that no other part names. mypy runs beside them: without its cache it takes a minute.
AT_A_TIME = $(MAKE) --no-print-directory --keep-going --output-sync=target --jobs
CORE := tests/images tests/models tests/engine
PROGRAMS := $(addprefix tests/,clients tools test_benchmarks.py test_notebook.py test_wheel.py)
WITHOUT_TORCH := tests/test_without_torch.py
RUNTIMES := tests/runtimes
# By targets of their own: with runtimes of other projects, and tools for deployments.
MANIFESTS := tests/kubernetes
CONTAINERS := tests/containers
ON_RAY := tests/ray
ELSEWHERE := $(RUNTIMES) $(MANIFESTS) $(CONTAINERS) $(ON_RAY)
PARTS := test-server test-programs test-browser test-core test-rest test-onnx
# Ray listens on all interfaces. Root can run it where there is only `lo`, and nothing is left behind.
ALONE := $(if $(filter 0,$(shell id -u)),unshare --net --pid --mount-proc --fork --kill-child \
  sh -c 'ip link set lo up && exec "$$@"' alone)

.PHONY: serve lint style types check check-core check-rest test $(PARTS)
.PHONY: exports exports-built exports-served manifests containers images ray scale
.PHONY: bench bench-peers fuzz soak format
export HOST PORT CLIENTS JUPYTER ONNX DEPLOY TORCHSERVE TRITON EXECUTORCH RAY
unexport PYTHONDONTWRITEBYTECODE # or each of the tests' many servers compiles the app again

# If VGG16's weights cannot be downloaded, a small model replaces it, and the log says so. A
# production server never replaces the model.
serve: export PREDICTOR_FALLBACK_MODEL ?= efficientnet_lite0
serve: $(VENV)/requirements.stamp
	exec $(BIN)/gunicorn wsgi:app

lint: style types

style: $(VENV)/requirements-dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/requirements-dev.stamp
	$(BIN)/mypy

# All that is fast: no test that starts a server or takes seconds.
check: lint
	$(AT_A_TIME)=2 check-core check-rest

check-core: PART := $(CORE)
check-rest: PART := $(CORE:%=--ignore=%)
check-core check-rest:
	$(BIN)/pytest -q -m "not server and not slow" $(PART) $(PYTEST)

test: style $(CLIENTS)/requirements-clients.stamp $(CLIENTS)/npm.stamp
test: $(JUPYTER)/requirements-jupyter.stamp
	$(AT_A_TIME)=4 types $(PARTS)

test-server: PART := tests/server
test-programs: PART := $(PROGRAMS)
test-browser: PART := tests/browser
test-core: PART := $(CORE)
test-rest: PART := $(addprefix --ignore=,tests/server tests/browser $(PROGRAMS) $(CORE))
test-rest: PART += $(addprefix --ignore=,$(WITHOUT_TORCH) $(ELSEWHERE))
test-onnx: PART := $(WITHOUT_TORCH)
test-onnx: $(ONNX)/package.stamp
$(PARTS):
	$(BIN)/pytest $(PART) $(PYTEST)

# Exports, run by other projects' servers and compilers. Programs that are missing skip their tests.
exports: $(VENV)/requirements-dev.stamp $(EXECUTORCH)/packages.stamp $(TRITON)/bin/tritonserver
	$(AT_A_TIME)=2 exports-built exports-served

# The tests with the C++ program are all in the first part, which builds it once.
SERVERS := $(addprefix $(RUNTIMES)/test_,torchserve_runtime.py triton.py phones.py)
exports-built: PART := $(RUNTIMES) $(SERVERS:%=--ignore=%)
exports-served: PART := $(SERVERS)
exports-built exports-served:
	PATH="$$PATH:$(abspath $(TORCHSERVE)/bin):$(abspath $(TRITON)/bin)" \
	  $(EXECUTORCH)/bin/python -m pytest $(PART) $(PYTEST)

# The files for Kubernetes and EC2, without a cluster.
manifests: $(VENV)/requirements-dev.stamp $(DEPLOY)/requirements-deploy.stamp
manifests: $(DEPLOY)/cloud-init.stamp
	$(DEPLOY)/bin/python -m pytest $(MANIFESTS) $(PYTEST)

# The Dockerfile and the files for docker compose; the image "onnx", built and run, where buildah,
# podman, runc and debootstrap are installed.
containers: $(VENV)/requirements-dev.stamp $(DEPLOY)/requirements-deploy.stamp $(DEPLOY)/base.tar
	$(BIN)/pytest $(CONTAINERS) $(PYTEST)

# The image "cpu", once: gigabytes. make images IMAGES="--build-arg TORCH_INDEX="
images: BASE ?= python:3.12-slim
images:
	buildah build --isolation chroot --format docker --build-arg BASE=$(BASE) $(IMAGES) \
	  -f deploy/containers/Dockerfile --target cpu -t photo-predictor:cpu .

# deploy/ray, with Ray. The tests are skipped without root.
ray: $(RAY)/requirements-ray.stamp
	$(ALONE) $(RAY)/bin/python -m pytest $(ON_RAY) $(PYTEST)

# How much faster a second machine makes it, and what is lost while machines come and go; 7 minutes.
scale: $(RAY)/requirements-ray.stamp
	$(ALONE) $(RAY)/bin/python -m tools.scale $(SCALE)

# For the options: make bench BENCH="--help"
bench: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m benchmarks $(BENCH)

# This app beside other projects' servers, in turns. Ray Serve is left out without root, TorchServe
# without Java or `make exports`, which installs it.
bench-peers: $(PEERS)/requirements-peers.stamp
	$(ALONE) env PATH="$$PATH:$(abspath $(TORCHSERVE)/bin)" $(PEERS)/bin/python -m benchmarks \
	  --peers $(BENCH)

# make fuzz FUZZ="--images 100000"; it prints its seed, and `--seed` repeats a run.
fuzz: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m tools.fuzz $(FUZZ)

# make soak SOAK="--minutes 15"
soak: $(VENV)/requirements-dev.stamp
	$(BIN)/python -m tools.soak $(SOAK)

format: $(VENV)/requirements-dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/requirements-dev.stamp: requirements.txt requirements-heif.txt requirements-onnx.txt
$(VENV)/requirements-dev.stamp: requirements-timm.txt requirements-export.txt
$(VENV)/requirements.stamp $(VENV)/requirements-dev.stamp: requirements-torch.txt

$(VENV)/%.stamp: %.txt $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -r $< -c $(CONSTRAINTS)
	touch $@

# Programs of other projects, for the tests. The files pin all their versions.
$(CLIENTS)/%.stamp: %.txt | $(CLIENTS)/bin/python
	$(CLIENTS)/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

# Without npm, the tests with these programs are skipped.
$(CLIENTS)/npm.stamp: tests/clients/package-lock.json | $(CLIENTS)/bin/python
	if command -v npm >/dev/null; then \
	  cp tests/clients/package.json $< $(CLIENTS) && \
	  npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; \
	fi

$(JUPYTER)/%.stamp: %.txt | $(JUPYTER)/bin/python
	$(JUPYTER)/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

# A base image of Debian's packages, because images of a registry may be out of reach. Like
# python:3.12-slim, it leaves out translations and manuals. debootstrap keeps /proc mounted.
LEFT_OUT := ./var/cache/apt/* ./var/lib/apt/lists/* ./usr/share/locale/* ./usr/share/doc/*
LEFT_OUT += ./usr/share/man/*
$(DEPLOY)/base.tar: | $(DEPLOY)/layer.stamp
	if command -v debootstrap >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  folder=$$(mktemp -d) && chmod 755 $$folder && \
	  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm \
	    $$folder >$(DEPLOY)/base.log && \
	  tar -C $$folder --one-file-system $(LEFT_OUT:%=--exclude='%') -cf $@.part . && \
	  { umount $$folder/proc 2>/dev/null || true; } && \
	  rm -r --one-file-system $$folder && mv $@.part $@; \
	fi

# The package with the extra "onnx", so without torch. It runs the code of this folder.
$(ONNX)/package.stamp: pyproject.toml requirements.txt requirements-onnx.txt $(CONSTRAINTS)
$(ONNX)/package.stamp: | $(ONNX)/bin/python
	$(ONNX)/bin/python -m pip install --disable-pip-version-check -q -e '.[onnx]' -c $(CONSTRAINTS)
	touch $@

# The environments of foreign runtimes and of tools for deployments see the packages of $(VENV), and
# prefer their own. Each gets a rule with its packages.
PLACE := import sysconfig; print(sysconfig.get_path("purelib"))
LAYERS := $(TORCHSERVE) $(TRITON) $(EXECUTORCH) $(DEPLOY) $(RAY) $(PEERS)
$(LAYERS:%=%/layer.stamp): %/layer.stamp: | $(BIN)/python
	$(BIN)/python -m venv $*
	$(BIN)/python -c '$(PLACE)' > "$$($*/bin/python -c '$(PLACE)')/layer.pth"
	touch $@

$(RAY)/requirements-ray.stamp: requirements-ray.txt $(VENV)/requirements-dev.stamp
$(RAY)/requirements-ray.stamp: | $(RAY)/layer.stamp
	$(RAY)/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

$(PEERS)/requirements-peers.stamp: requirements-peers.txt $(VENV)/requirements-dev.stamp
$(PEERS)/requirements-peers.stamp: | $(PEERS)/layer.stamp
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -q -r $<
	touch $@

exports: $(TORCHSERVE)/torchserve.stamp
$(TORCHSERVE)/torchserve.stamp: | $(TORCHSERVE)/layer.stamp
	$(TORCHSERVE)/bin/python -m pip install --disable-pip-version-check -q torchserve==0.12.0 \
	  torch-model-archiver==0.12.0 captum==0.9.0 pyyaml
	touch $@

# The tests run in here. tritonclient asks Triton.
$(EXECUTORCH)/packages.stamp: requirements-executorch.txt | $(EXECUTORCH)/layer.stamp
	$(EXECUTORCH)/bin/python -m pip install --disable-pip-version-check -q -r $< \
	  'tritonclient[grpc,http]==2.73.0'
	touch $@

# Triton, with its python backend and what a model in it imports. It needs another NumPy.
$(TRITON)/bin/tritonserver: tests/runtimes/tritonserver.sh | $(TRITON)/layer.stamp
	$(TRITON)/bin/python -m pip install --disable-pip-version-check -q \
	  nvidia-pytriton==0.7.0 'numpy<2' onnxruntime pillow
	install -m 755 $< $@

# Of KServe's package, only the descriptions of its kinds are read: it needs many others to run.
$(DEPLOY)/requirements-deploy.stamp: requirements-deploy.txt | $(DEPLOY)/layer.stamp
	$(DEPLOY)/bin/python -m pip install --disable-pip-version-check -q -r $<
	$(DEPLOY)/bin/python -m pip install --disable-pip-version-check -q --no-deps kserve==0.21.0
	touch $@

# Debian's cloud-init is unpacked and not installed: installed, it would run at each boot. Without
# apt-get, its tests are skipped.
$(DEPLOY)/cloud-init.stamp: | $(DEPLOY)/layer.stamp
	if command -v apt-get >/dev/null; then \
	  cd $(DEPLOY) && apt-get download -q cloud-init && \
	  dpkg -x cloud-init_*.deb cloud-init && rm cloud-init_*.deb; \
	fi
	touch $@

$(BIN)/python $(CLIENTS)/bin/python $(JUPYTER)/bin/python $(ONNX)/bin/python: %/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is required: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $*
