# Every target does all of its own set-up in .venv; it needs Python 3.11, pip, git and make.
#   make demo    train, evaluate and predict on a drawn sample, and show a picture
#   make test    ruff, mypy and the tests
# Another Python:  make test PYTHON=/path/to/python3.12

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
CODE   := src tests benchmarks examples docs/scripts

.PHONY: demo test lint format bench docs clean

demo: $(VENV)/.installed
	rm -rf keepmap-demo
	$(BIN)/keepmap demo keepmap-demo

test: lint
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# Needs the folder with the fixed splits: make bench DATA=/path/to/data [BASELINE=/path/to/plain_recipe.py]
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/damage.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/survival.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/accuracy.py $(DATA) nuclei camvid $(if $(BASELINE),--baseline $(BASELINE))
	$(BIN)/python benchmarks/planning.py $(DATA)
	$(BIN)/python benchmarks/assemble.py

# The two pages that scripts write; the second trains small networks for a quarter of an hour.
docs: $(VENV)/.installed-dev
	$(PIP) --editable '.[pretrained,docs]'
	$(BIN)/python docs/scripts/draw_networks.py
	$(BIN)/python docs/scripts/draw_how_it_works.py

clean:
	rm -rf $(VENV) keepmap-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "keepmap needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "Installing keepmap into $(VENV); the first time this takes some minutes."
	$(PIP) --editable '.[pretrained,report]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[pretrained,timm,zarr,onnx,openvino,tensorboard,serve,dev]'
	touch $@
