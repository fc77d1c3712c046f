# bittern: what one types. Needs make and Python 3.11 or later; everything else is installed into
# the environment in $(VENV).
#
#   make demo      a whole swarm on this machine: tracker, seed, downloader
#   make test      the suite, with the programs it needs (INTEROP=0 leaves those out)
#   make pythons   the suite without other programs on each of PYTHONS
#   make lint      style, types, architecture
#   make bench     beside other clients, as ratios
#   make interop   the matrix against every other client
#   make fuzz      random input, RUNS inputs for each decoder
#   make soak      the long tests
#   make wheel     dist/*.whl
#   make clean     remove what was made here, except the environment

VENV ?= .venv
PYTHON ?= python3
INTEROP ?= 1
# Twice as many as the smallest machine has cores: many tests wait for other programs.
JOBS ?= 4
RUNS ?= 100000
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
# Options for the program that a target runs, as `make test ARGS="-k picker --seed 7"`.
ARGS ?=

BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Some machines set them. With the one every program that a test starts compiles bittern anew; with
# the other no test sees what happens to what waits in a stream.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.PHONY: demo test pythons lint format bench interop fuzz soak wheel clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/bittern demo $(ARGS)

ifeq ($(INTEROP),0)
SELECT = -m "not interop"
else
SELECT =
endif

test: $(VENV)/.installed-dev
ifneq ($(INTEROP),0)
	sh tests/interop/setup.sh --core || { \
	    echo "make: without these programs: make test INTEROP=0" >&2; exit 1; }
endif
	$(PYTEST) -n $(JOBS) $(SELECT) $(ARGS)

pythons:
	@for python in $(PYTHONS); do \
	    command -v "$$python" >/dev/null || { \
	        echo "make: no $$python here; name those that are with PYTHONS=..." >&2; exit 1; }; \
	    $(MAKE) test PYTHON="$$python" VENV="$(VENV)-$$python" INTEROP=0 || exit 1; \
	done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	for system in win32 darwin; do $(BIN)/mypy --strict --platform $$system \
	    --python-version 3.14 --cache-dir .mypy_cache/$$system src || exit; done
	$(PYTEST) -q tests/test_architecture.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tests.library_page

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench $(ARGS)

interop: $(VENV)/.installed-dev
	sh tests/interop/setup.sh
	$(BIN)/python -m tests.interop.matrix $(ARGS)
	$(BIN)/python -m tests.interop.matrix --only clients --version hybrid
	$(BIN)/python -m tests.interop.matrix --only clients --version hybrid --magnet
	$(BIN)/python -m tests.interop.matrix --only clients --version 2
	$(BIN)/python -m tests.interop.matrix --only clients --version 2 --magnet
	$(BIN)/python -m tests.interop.mixed

fuzz: $(VENV)/.installed-dev
	BITTERN_FUZZ_RUNS=$(RUNS) $(PYTEST) -n $(JOBS) -m fuzz --timeout 0 $(ARGS)

soak: $(VENV)/.installed-dev
	sh tests/interop/setup.sh
	$(PYTEST) -m soak --timeout 0 $(ARGS)

wheel: $(VENV)/.made
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist htmlcov .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find bench src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---------------------------------------------------------------------------

# A stamp for each step, since `python -m venv` leaves half an environment when it fails.
$(VENV)/.made:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        "$$python" -m venv $(VENV) && touch $@ && exit 0; \
	        echo "make: $$python cannot make an environment; on Debian: apt install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "make: Python 3.11 or later is needed; name it with PYTHON=..." >&2; exit 1

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@ $(VENV)/.installed
