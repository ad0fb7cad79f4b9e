# The study in one command each. `make help` lists them.
PROFILE ?= mini
PYTHON  ?= python3
CORES   ?= $(shell getconf _NPROCESSORS_ONLN)
VENV    := .venv
BIN     := $(CURDIR)/$(VENV)/bin
RUN     := env PATH="$(BIN):$$PATH" PYTHONHASHSEED=0 HF_HUB_OFFLINE=$(HF_HUB_OFFLINE) TOKENIZERS_PARALLELISM=false $(THREADS)
HF_HUB_OFFLINE ?= $(if $(filter paper,$(PROFILE)),0,1)
# One thread a job and as many jobs as cores: measured faster here than one job on all cores.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
SNAKE   := $(RUN) $(BIN)/snakemake --snakefile Snakefile --directory "$${VBG_HOME:-$(CURDIR)}" --config profile=$(PROFILE) \
           --cores $(CORES) --rerun-incomplete --rerun-triggers input params mtime --quiet rules progress host reason

.PHONY: help install reproduce recipe status export readme test test-notebooks test-pytest test-slow clean-runs
help:
	@echo "make reproduce [PROFILE=mini|smoke|paper]  run the study: data, training, tables and figures"
	@echo "make recipe    [PROFILE=mini]              the search on the validation split that chose the training settings"
	@echo "make status    [PROFILE=mini]              what a reproduce would still do"
	@echo "make test                                  notebooks, modules and study notebooks (profile smoke)"
	@echo "make test-slow                             the tests of size: 485,000 rows, the whole smoke study twice"
	@echo "make export | make readme                  after an edit of a notebook | of nbs/index.ipynb"

# ---- environment: one pinned set of versions, installed once
install: $(VENV)/.installed
$(VENV)/.installed: constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vbg needs Python 3.11 or newer; this is %s. Set PYTHON=..." % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

# ---- the study
reproduce: install
	@$(SNAKE) all
	@$(RUN) $(BIN)/python -m vbg.figures show --profile $(PROFILE)

recipe: install
	@$(SNAKE) recipe

status: install
	@$(SNAKE) --dry-run all

# ---- the notebooks are the source
export: install
	$(RUN) $(BIN)/nbdev_export
	$(RUN) $(BIN)/nbdev_clean

readme: install
	$(RUN) $(BIN)/python -m vbg.figures readme

# ---- tests
test: install
	$(RUN) $(BIN)/python tests/check_exports.py
	$(RUN) $(BIN)/nbdev_test --n_workers $(CORES)
	$(RUN) $(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(RUN) $(BIN)/python -m pytest -m slow
