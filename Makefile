# Everything a checkout needs: `make demo` and `make test` set themselves up in .venv; nothing else is touched.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := $(shell find engine -name '*.pyx' -o -name '*.pxd' -o -name '_sys_build.py') setup.py pyproject.toml

GCC ?= gcc
SANITIZED := build/sanitize/lib

# for `make test`: processes; most tests wait for something most of the time
JOBS ?= 4
# for `make fuzz`
SECONDS ?= 60

# tests start hundreds of routers: none of them compiles again what is compiled
export PYTHONDONTWRITEBYTECODE =

.PHONY: help build demo test sanitize fuzz lint bench clean

help:
	@echo "make demo      watch a stock host move between three routers during a download"
	@echo "make test      the whole test suite"
	@echo "make sanitize  the engine's tests, and more of its fuzzing, under AddressSanitizer and UBSan"
	@echo "make fuzz      what comes in from outside, fuzzed with atheris for SECONDS=$(SECONDS)"
	@echo "make bench     speed and memory, as ratios to the model in plain Python"
	@echo "make lint      ruff and mypy"
	@echo "make build     only the set-up: $(VENV), dependencies, compiled engine"

build: $(VENV)/ready

demo: build
	@$(PY) -m router demo $(ARGS)

# in namespaces and a directory of its own, so that it runs as any user, and nothing outlives it; 5: no such test
test: build
	@place=$$(mktemp -d -t openmar.XXXXXX); status=0; \
	for how in "-n $(JOBS) --dist worksteal -m 'not alone'" "-m alone"; do \
		eval $(PY) -m router.demo.lab --tun -- $(PY) -m pytest --basetemp=$$place/t $$how $(ARGS); \
		code=$$?; test $$code = 0 || test $$code = 5 || status=$$code; \
	done; rm -rf $$place; exit $$status

# Python's own allocator goes too, so that whoever reads past a bytes object is seen; what it never frees is no leak.
# Descriptors stay uncaptured: a report, and the seed before it, must outlive the process. The model is plain Python.
sanitize: build $(SANITIZED)/ready
	@place=$$(mktemp -d -t openmar.XXXXXX); \
	$(PY) -m router.demo.lab --tun -- env \
		LD_PRELOAD="$$($(GCC) -print-file-name=libasan.so) $$($(GCC) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(SANITIZED):$(CURDIR) \
		OPENMAR_SANITIZE=1 OPENMAR_FUZZ_SECONDS=$${OPENMAR_FUZZ_SECONDS:-45} \
		$(PY) -m pytest -n $(JOBS) --dist worksteal -o pythonpath= -p no:faulthandler --capture=sys --basetemp=$$place/t \
		$(or $(ARGS),tests/engine tests/fuzz/test_walk.py -k 'not [model'); \
	status=$$?; rm -rf $$place; exit $$status

# The project is there already: what this installs is its extra. Ready-made only, as it is made with a clang of its own.
fuzz: build
	@$(PY) -m pip install --disable-pip-version-check --only-binary atheris 'openmar[fuzz]' >$(VENV)/fuzz.log 2>&1 || { \
		echo "openmar: no atheris for $$($(PY) -V), see $(VENV)/fuzz.log: nothing was fuzzed" >&2; \
		test -z "$$CI"; exit; }; \
	$(PY) -m tests.fuzz.atheris_decode $(SECONDS)

lint: build
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench: build
	@$(PY) -m pytest bench --benchmark-only --benchmark-sort=name --benchmark-columns=median,iqr,ops,rounds \
		-o python_files='bench_*.py' -o addopts= $(ARGS)

$(VENV)/ready: $(SOURCES)
	@$(PYTHON) engine/_preflight.py
	@echo "setting up $(VENV): dependencies and the compiled engine (about a minute the first time)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --disable-pip-version-check --editable '.[test,lint]' >$(VENV)/build.log 2>&1 \
		|| { cat $(VENV)/build.log >&2; exit 1; }
	@touch $@

$(SANITIZED)/ready: $(SOURCES) $(shell find engine -name '*.py')
	@for name in libasan libubsan; do test -e "$$($(GCC) -print-file-name=$$name.so)" || { \
		echo "openmar: $(GCC) has no $$name: install it, or name a gcc that has it: make sanitize GCC=gcc-12" >&2; \
		exit 1; }; done
	@echo "building the engine with sanitizers in build/sanitize (about a minute)"
	@rm -rf $(SANITIZED); mkdir -p $(SANITIZED)
	@CC=$(GCC) OPENMAR_SANITIZE=1 $(PY) -m pip install --disable-pip-version-check --no-deps --target $(SANITIZED) . \
		>build/sanitize/build.log 2>&1 || { cat build/sanitize/build.log >&2; exit 1; }
	@rm -rf $(SANITIZED)/router $(SANITIZED)/signaling
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name '__pycache__' -prune -exec rm -rf {} +
	find engine -name '*.so' -delete
