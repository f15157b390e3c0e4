# Every target creates .venv by itself when it is missing or out of date.
.DEFAULT_GOAL := help
.PHONY: help book test exercises notebooks serve lint browser bench links address
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

BIN := .venv/bin
INSTALLED := .venv/.installed
PORT ?= 8000
# make notebooks executes all chapters; make notebooks NB=02_autoencoders one of them
NB ?=
# one thread each: small networks gain nothing from a second one, and two tests run side by side
QUICK := OMP_NUM_THREADS=1 COURSE_PROFILE=quick COURSE_UNATTENDED=1

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

$(INSTALLED): requirements.txt pyproject.toml .ci/install
	@.ci/install

book: $(INSTALLED)  ## render the site
	@rm -rf _build/html  # pages of chapters that are gone must not stay
	@$(BIN)/jupyter-book build . -W --keep-going
	@echo "The book is at _build/html/index.html"

test: $(INSTALLED)  ## unit tests, doctests, pairs, and every notebook in the quick profile
	@$(QUICK) $(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules tests course_lib --ignore=tests/book --ignore=tests/benchmarks
	@$(BIN)/python -m course_lib.pairs check notebooks
	@$(BIN)/python -m course_lib.grading release --verify notebooks/solutions
	@$(QUICK) $(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=600 notebooks --ignore=notebooks/exercises

exercises: $(INSTALLED)  ## gate the solutions and write what students receive (NB=name for one)
	@$(BIN)/python -m course_lib.grading release $(if $(NB),notebooks/solutions/$(NB).py,notebooks/solutions)

notebooks: $(INSTALLED)  ## execute the chapters in the full profile and store their outputs (NB=name for one)
	@COURSE_PROFILE=full $(BIN)/python -m course_lib.pairs execute $(if $(NB),notebooks/$(NB).py,notebooks)

serve: $(INSTALLED)  ## render the site if it is not there, and serve it on this machine (PORT=8000)
	@test -f _build/html/index.html || $(MAKE) --no-print-directory book
	@echo "http://localhost:$(PORT)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: $(INSTALLED)  ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

browser: $(INSTALLED)  ## open the rendered site in headless Chromium and test it
	@test -f _build/html/index.html || $(MAKE) --no-print-directory book
	@$(BIN)/python -m pytest tests/book

bench: $(INSTALLED)  ## compare speeds, side by side in one run
	@for script in tests/benchmarks/{speed,toys}_*.py; do $(BIN)/python "$$script"; done

links: $(INSTALLED)  ## follow every link to other sites (needs the internet)
	@$(BIN)/jupyter-book build . --builder linkcheck

address: $(INSTALLED)  ## put the repository's address everywhere (URL=https://github.com/owner/name)
	@$(BIN)/python .ci/address.py "$(URL)"
