# What a fresh clone needs: Python 3.11-3.13 and make. `make help` lists the targets.
# Without make, on Windows too: docs/anywhere.md; the targets call the same commands.

PYTHON ?= python3
VENV   ?= .venv
# exact versions; `make setup LOCK=` takes the newest that pyproject.toml allows
LOCK   ?= requirements.lock
# words for `allkit run`: make run ARGS="--profile honest --data PATH"
ARGS   ?=
# genuine C-NMC for `make twin-report` and `make results`, and smears in one folder per class
DATA   ?=
SMEARS ?=
# a run whose notebooks the book shows, in place of the committed ones: make book RUN=latest
RUN    ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
# keeps library chatter out of the outputs
QUIET := TF_CPP_MIN_LOG_LEVEL=3 PYDEVD_DISABLE_FILE_VALIDATION=1 ALLKIT_HEADLESS=1
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))

.DEFAULT_GOAL := help
.PHONY: help setup run test verify bench twin-report weights results book slides lab notebooks times lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## a virtual environment in .venv with everything installed

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); ok or sys.exit("Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 " + "$(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(if $(LOCK),--constraint $(LOCK)) --editable '.[dev,book]'
	@touch $@

run: setup ## run all notebooks and publish runs/latest/report/index.html
	$(BIN)/allkit run $(ARGS)

test: setup ## lint, every notebook with nbval, then the unit tests (which use the models of the notebooks)
	$(BIN)/allkit test

verify: setup ## the long checks: every hostile file with its time and memory, mutated cells, killed at every write, genuine cells
	$(QUIET) ALLKIT_VERIFY=1 $(BIN)/pytest -s tests/test_hostile.py tests/test_classify.py tests/test_killed.py tests/test_genuine.py

bench: setup ## speed and memory, as ratios in one run (ARGS=--small: quicker); writes bench/*.json
	@for script in bench/bench_*.py; do $(QUIET) $(BIN)/python $$script $(ARGS) || exit 1; done

twin-report: setup ## the synthetic cells beside genuine ones (DATA=PATH); publishes runs/twin-report/report
	@test -n "$(DATA)" || { echo "genuine cells are needed: make twin-report DATA=PATH, the folder of C-NMC 2019"; exit 1; }
	$(BIN)/allkit run --notebook notebooks/extra/twin_report.ipynb --data "$(DATA)" --out twin-report $(ARGS)

weights: setup ## train the weights in data/weights anew, from drawn cells: an hour or two, and goes on where it was stopped
	$(QUIET) $(BIN)/python -m allkit.synthetic.pretraining mobilenet efficientnetb3

results: setup ## all recipes on genuine images (DATA=PATH, SMEARS=PATH): hours, resumable; writes docs/results
	@test -n "$(DATA)" || { echo "genuine cells are needed: make results DATA=PATH, the folder of C-NMC 2019"; exit 1; }
	$(QUIET) $(BIN)/python docs/make_results.py "$(DATA)" $(if $(SMEARS),--smears "$(SMEARS)")
# the learning curves of notebook 04, an hour: delete the file to measure them anew
	@test -s docs/results/learning-curve.csv || $(QUIET) $(BIN)/python docs/make_learning_curve.py

book: setup ## the notebooks as a book, offline: build/book/index.html (RUN=latest: as that run executed them)
	$(QUIET) $(BIN)/python docs/book.py $(if $(RUN),--run "$(RUN)")

slides: setup ## notebooks 01, 03 and 09 as slides, offline: build/slides/*.html
	$(BIN)/allkit slides

lab: setup ## JupyterLab on your own copy of the notebooks, in my-notebooks/
	$(BIN)/allkit lab

notebooks: setup ## execute the notebooks again and save them with their outputs
	rm -rf build/notebook-runs
	$(QUIET) ALLKIT_RUNS='$(CURDIR)/build/notebook-runs' \
	  $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=1800 \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	    $(NOTEBOOKS)

times: ## note how long the last `make run` took, and how fast this machine is, for notebook 00
	$(BIN)/python -m allkit.course.times

lock: ## solve the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --extra dev --extra book pyproject.toml --upgrade \
	  --no-emit-index-url --no-annotate --no-header -o requirements.lock

clean: ## remove the environment and everything that can be made again, except runs/
	rm -rf $(VENV) build data/synthetic data/cache *.egg-info .pytest_cache .ruff_cache
