# Stage Lite: every command of the project. `make help` lists them.
# They make .venv and install the tested versions first, so each works in a fresh clone.

PY         ?= python3
# Extra words for pip when it installs torch, for example a CPU wheel's address (README.md, "Install").
TORCH_ARGS ?=
# Test processes at the same time.
JOBS       ?= 2

VENV  := .venv
# Windows keeps the programs of an environment in Scripts/.
BIN   := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN   := $(BIN)/python
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)

# Wheels beside the project (`make wheelhouse`) are all that is needed: then no network is asked.
ifneq ($(wildcard wheels/*.whl),)
export PIP_NO_INDEX = 1
export PIP_FIND_LINKS = $(CURDIR)/wheels
endif

NOTEBOOKS  := $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb)
NBVAL_ARGS := --nbval-lax --nbval-current-env --nbval-cell-timeout=120 \
              --nbval-sanitize-with tests/nbval_sanitize.cfg

# What `make data` and `make train-nano` write; neither touches the shipped files.
DATA ?= work/corpus
TOK  ?= work/tokens
RUNS ?= work/runs
HOURS ?= 16

.DEFAULT_GOAL := help
.PHONY: help install demo test lint unit notebooks lab data train-nano bench evidence site wheelhouse doctor clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

install: $(STAMP)  ## make .venv with the tested versions

# torch alone and first: its build (CPU or CUDA) is the one choice; all the rest follows from requirements.txt.
$(STAMP): requirements.txt requirements-nodeps.txt pyproject.toml
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Stage Lite needs Python 3.11 to 3.13, $(PY) is another: try  make PY=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(RUN) || $(PY) -m venv $(VENV)
	$(RUN) -m pip install --quiet "$(TORCH)" $(TORCH_ARGS)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps -r requirements-nodeps.txt
	$(RUN) -m pip install --quiet --no-deps -e .
	touch $(STAMP)

demo: $(STAMP)  ## generate drums and bass for a shipped mix into out/ (at most a minute)
	$(RUN) -m stage_lite demo

test: lint unit notebooks  ## everything: lint, unit tests, notebooks

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

unit: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) tests

notebooks: $(STAMP)
ifeq ($(NOTEBOOKS),)
	@echo "notebooks: none here"
else
	$(RUN) -m pytest -p no:cacheprovider $(NBVAL_ARGS) $(NOTEBOOKS)
endif

lab: $(STAMP)  ## open JupyterLab on the quickstart
	$(RUN) -m jupyterlab notebooks/00_quickstart.ipynb

data: $(STAMP)  ## make the music from nothing (needs mma, fluidsynth and fluid-soundfont-gm)
	$(RUN) data_samples/make/make_songs.py --out $(DATA) --hours $(HOURS)

train-nano: $(STAMP)  ## train codec, nano-base, nano and nano-stage from nothing (after make data; many hours; resumes)
	$(RUN) pretraining/train_codec.py --corpus $(DATA) --out $(RUNS)/codec
	$(RUN) pretraining/tokenize_corpus.py --corpus $(DATA) --codec $(RUNS)/codec/codec --train-seconds 20 --out $(TOK)
	$(RUN) pretraining/train_lm.py base --tokens $(TOK) --codec $(RUNS)/codec/codec --out $(RUNS)/nano-base
	$(RUN) pretraining/train_lm.py click --tokens $(TOK) --start $(RUNS)/nano-base/model --out $(RUNS)/click
	$(RUN) pretraining/train_lm.py nano --tokens $(TOK) --start $(RUNS)/click/model --out $(RUNS)/nano
	$(RUN) pretraining/train_lm.py follow --tokens $(TOK) --start $(RUNS)/nano/model --out $(RUNS)/follow
	$(RUN) pretraining/train_context_encoder.py --tokens $(TOK) --model $(RUNS)/follow/model --out $(RUNS)/encoder
	$(RUN) pretraining/train_lm.py hear --tokens $(TOK) --start $(RUNS)/follow/model --encoder $(RUNS)/encoder/encoder.safetensors --out $(RUNS)/hear
	$(RUN) pretraining/train_lm.py stage --tokens $(TOK) --start $(RUNS)/nano-base/model --out $(RUNS)/stage

bench: $(STAMP)  ## speed and memory, side by side with audiocraft's own loops
	$(RUN) -m benchmarks

evidence: $(STAMP)  ## STAGE's claims re-tested, into docs/evidence.md (hours; resumes)
	$(RUN) -m evidence

site: $(STAMP)  ## the lessons, run, and a page per function as static pages into out/site
	$(RUN) docs/site/build.py

wheelhouse: $(STAMP)  ## a zip that installs and runs without network, for a classroom; tries it, too
	$(RUN) dev/wheelhouse.py --torch-args "$(TORCH_ARGS)"

doctor: $(STAMP)  ## what is installed, what is missing, how to mend it
	$(RUN) -m stage_lite doctor

clean:  ## remove what the commands wrote (never .venv, data or weights)
	rm -rf out build dist .pytest_cache .ruff_cache *.egg-info
	find stage_lite tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
