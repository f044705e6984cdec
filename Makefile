# Every target works in a fresh clone: it makes .venv and installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXP ?= beta_vae
ARGS ?=
# Raw MNIST and Fashion-MNIST are looked for here; override with your own folder.
export VAE_JAX_DATA ?= $(abspath $(CURDIR)/../shared/data)
export VAE_JAX_PEERS ?= $(abspath $(CURDIR)/../shared/peers)

.PHONY: help install train test test-fast test-slow test-newest lint format bench collapse reproduce notebooks smoke clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## make .venv with the package and its test tools

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

train: $(VENV)/.installed ## train one experiment: make train EXP=vae_mnist ARGS="--steps 500"
	$(BIN)/vae-jax train $(EXP) $(ARGS)

test: $(VENV)/.installed ## the test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=5

test-fast: $(VENV)/.installed ## stop at the first failure
	$(BIN)/python -m pytest -n 2 --dist loadfile -x

test-slow: $(VENV)/.installed ## the tests marked slow (minutes each)
	$(BIN)/python -m pytest -m slow -n 0 --timeout 0 -o faulthandler_timeout=0

test-newest: ## part of the suite on the newest jax, flax and orbax; NEWEST_PYTHON=PATH picks the Python
	.ci/test-newest

lint: $(VENV)/.installed ## ruff and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.installed ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed ## speed against PyTorch peers, ratios in one run
	$(BIN)/python -c "import torch, vector_quantize_pytorch" 2>/dev/null || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

collapse: $(VENV)/.installed ## posterior collapse, and what is done against it: a table and a picture
	$(BIN)/python -m benchmarks.collapse $(ARGS)

reproduce: $(VENV)/.installed ## results/README.md: papers against what was obtained; ARGS="EXP --seeds 0:3" trains
	$(BIN)/python -m benchmarks.reproduce $(ARGS)

notebooks: $(VENV)/.installed ## execute every notebook
	$(BIN)/python -m pytest tests/test_notebooks.py -n 0

smoke: $(VENV)/.installed ## two steps of every experiment
	$(BIN)/python -m pytest tests/test_experiments.py -n 2

clean: ## remove .venv and caches (never runs/)
	rm -rf $(VENV) .venv-newest .pytest_cache .ruff_cache build *.egg-info
