# make demo   attack a small network on synthetic scenes and write a report
# make test   everything that continuous integration checks
# make lint   the checks that run no test
# make docs   build the documentation into site/
# make bench  time one attack step, and what MASK and RTS cost
# make clean  remove caches and built packages; run folders and .venv stay

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint docs bench clean

demo: $(INSTALLED)
	$(BIN)/underfire demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/mask.py

clean:
	rm -rf dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/pip || python3 -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@
