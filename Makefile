# make demo    align a small set of movies through Scipion and show what came out
# make demo-particles  align simulated particles of a real map and compare with the truth
# make show    open the demo project in Scipion's window
# make test    style, types and all tests
# make fuzz    damaged files of every kind for 10 minutes; for an hour: make fuzz FUZZ_ARGS="--minutes 60"
# make format  let ruff lay out the code
# Each makes its own environment in .venv/ the first time. Another Python: make test PYTHON=python3.12
SHELL := /bin/bash
PYTHON ?=

FUZZ_ARGS ?= --minutes 10

.PHONY: demo demo-particles show test fuzz format clean

demo:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); \
	PATH="$$venv/bin:$$PATH" "$$venv/bin/python" -u benchmarks/demo.py

demo-particles:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); \
	PATH="$$venv/bin:$$PATH" "$$venv/bin/python" -u benchmarks/demo_particles.py

show:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); \
	PATH="$$venv/bin:$$PATH" "$$venv/bin/python" benchmarks/demo.py --show

test:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); export PATH="$$venv/bin:$$PATH"; \
	echo "[1/3] ruff: style";  ruff check .; ruff format --check .; \
	echo "[2/3] mypy: types";  mypy; \
	echo "[3/3] pytest: all tests"; python -m pytest $(PYTEST_ARGS)

fuzz:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); \
	"$$venv/bin/python" -m flexalign_plugin.tests.fuzz $(FUZZ_ARGS)

format:
	@set -e -o pipefail; venv=$$(bash .ci/environment $(PYTHON)); \
	"$$venv/bin/ruff" format . && "$$venv/bin/ruff" check --fix .

clean:
	rm -rf .venv demo build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
