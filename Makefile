# Everything that is done with this repository. `make help` lists it.

SHELL := /bin/bash
BIN := .venv/bin
PYTEST := $(BIN)/pytest

# Modules that take minutes come first, so that nobody waits for one of them alone in the end.
LONGEST := tests/integration/test_postcopy.py tests/integration/test_table1.py

.DEFAULT_GOAL := help
.PHONY: help setup system system-tests bench-peer python images demo test check format test-unit test-integration test-fault test-faults bench bench-peers \
        bench-forecast docs docs-faults \
        lock lab-up lab-down clean

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do \
	    printf '  %-18s %s\n' "$$name" "$$what"; done

demo: setup images  ## set everything up, then move a busy database between two hosts, with figures
	$(BIN)/ldoms-bench demo

test: system-tests setup images check  ## set everything up, then run all tests
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder --durations 20 $(LONGEST) tests/fault tests/integration

check: python  ## format, lint, types, imports, unit tests
	$(BIN)/ruff format --check --quiet src tests
	$(BIN)/ruff check --quiet src tests
	$(BIN)/mypy
	$(PYTEST) -q -n 2 --dist loadfile tests/unit

test-integration: system-tests setup images  ## tests with real QEMU, ldmd and PostgreSQL
	$(PYTEST) tests/integration

test-fault: setup images  ## a sample of the fault matrix
	$(PYTEST) tests/fault

test-faults: setup images  ## the whole fault matrix, hours of it; goes on where it was; ARGS="qemu-hung source"
	PYTHONPATH=tests $(BIN)/python -m faults run $(ARGS)

docs-faults: python  ## write docs/reference/faults.md from build/faults.json
	PYTHONPATH=tests $(BIN)/python -m faults table

bench: bench-peer setup images  ## measure
	$(BIN)/ldoms-bench migrations
	$(BIN)/ldoms-bench promise
	$(BIN)/ldoms-bench reconfigure
	$(BIN)/ldoms-bench commands
	$(BIN)/ldoms-bench idle

bench-peers: bench-peer setup images  ## migrations beside virsh and QEMU alone; ARGS="--rounds 6 --scenario idle"
	$(BIN)/ldoms-bench peers $(ARGS)

bench-forecast: setup images  ## forecasts beside the moves that follow
	$(BIN)/ldoms-bench forecast

docs: python  ## write the table of commands, the manual pages and what shells read for completion below build
	$(BIN)/python -m ldoms.manual build/man
	PYTHONPATH=tests $(BIN)/python tests/commands.py
	mkdir -p build/completion
	$(BIN)/ldm --completion bash > build/completion/ldm
	$(BIN)/ldm --completion zsh > build/completion/_ldm

lab-up: setup images  ## two hosts to play with: ldoms-lab exec t4-1 -- ldm list
	$(BIN)/ldoms-lab up

lab-down: python  ## take them away again
	$(BIN)/ldoms-lab down -f

format: python  ## format the code
	$(BIN)/ruff format --quiet src tests
	$(BIN)/ruff check --quiet --fix src tests

setup: system python

system:
	@setup/system

system-tests: system
	@setup/system tests

bench-peer: system
	@setup/system bench || echo "bench: libvirt is not there; what is compared with it is left out" >&2

python: system
	@setup/python

images: setup
	@$(BIN)/ldoms-lab image build

lock:  ## choose newer versions of the Python packages
	.tools/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra dev \
	    --no-header --output-file requirements.lock pyproject.toml

clean:  ## remove what was built here; images stay in their cache (ldoms-lab image clean)
	rm -rf build .venv .tools .pytest_cache .mypy_cache .ruff_cache
