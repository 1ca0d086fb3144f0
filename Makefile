# make demo           attack a small network on synthetic scenes and write a report
# make test           everything that continuous integration checks
# make test-extended  every law on every pair of network and interpreter, shapes checked in all tests
# make lint           the checks that run no test
# make docs           build the documentation into site/
# make bench          time start-up and one attack step, and what MASK and RTS cost
# make clean          remove caches and built packages; run folders and .venv stay

BIN := .venv/bin
INSTALLED := .venv/.installed

# install compiles nothing: what is imported is, once, unless the environment forbids it
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-extended lint docs bench clean

demo: $(INSTALLED)
	$(BIN)/underfire demo

test: lint
	$(PYTEST) -m "not extended" tests/unit
	JAXTYPING_DISABLE=1 $(PYTEST) -m "not extended" tests/contracts tests/end_to_end

test-extended: lint
	$(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/mask.py

clean:
	rm -rf dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/pip || python3 -m venv .venv
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e '.[dev]'
	touch $@
