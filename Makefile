# Every target is one line over one module; `python -m MODULE --help` shows its options.

PYTHON = python3
RUN := .venv/bin/python
OUTPUT =
ARGS =
DATA = data/imagenet
MODEL =
MODELS = $(wildcard runs/*)
SCALE = 2

# One word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
# A model as make train names it: the run of that name, where there is one.
run_of = $(if $(filter 1,$(words $(1))),$(if $(wildcard runs/$(1)/.),runs/$(1),$(1)),$(1))
# A prerequisite, before the environment is made: need-IMAGE where IMAGE is not given.
need = $(if $($(1)),,need-$(1))
such_as_IMAGE = in.jpg
such_as_PHOTOS = folder of real JPEGs

.DEFAULT_GOAL := help
PHOTOS =

.PHONY: help env demo test test-quick test-newest test-gpu data verify show train evaluate report benchmark upscale deploy-check lint docs docs-check release-check bench clean

need-%:
	@echo '$* is needed: make $(MAKECMDGOALS) $*="$(such_as_$*)"' >&2; exit 2

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

env: .venv/ready  ## make the environment .venv (any target that needs it does): [PYTHON=python3.13]
	@echo ".venv has $$(.venv/bin/python --version) (for another: make clean env PYTHON=…)"

.venv-newest/ready: PYTHON = python3.13
.venv/ready .venv-newest/ready: setup.py pipelines/pictures/_pixels.c
	@$(call quoted,$(PYTHON)) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: make env PYTHON=…" % sys.version_info[:2])'
	@echo 'making $(@D): 3 GB on disk, one to five minutes'
	if uv --version >/dev/null 2>&1; then uv venv --clear --seed --python $(call quoted,$(PYTHON)) $(@D) && uv pip install --compile-bytecode --python $(@D)/bin/python -e '.[train,aws,dev]'; \
	else $(call quoted,$(PYTHON)) -m venv --clear $(@D) && $(@D)/bin/python -m pip install -e '.[train,aws,dev]'; fi
	touch $@

demo: .venv/ready  ## the whole loop on a few shipped photos, under 5 minutes: dataset, SRCNN and FSRCNN, PSNR table, report
	$(RUN) -m demo

# More processes than two cores: tests that wait run beside tests that compute; most that wait are
# slow ones. A module stays in one, which makes what its tests share once. ARGS='-n 0' for one
# process, as --pdb needs.
PYTEST = -m pytest --dist loadfile --no-loadscope-reorder
# Each of the tests' many processes would compile the same modules.
unexport PYTHONDONTWRITEBYTECODE
# There are more of them than cores already: numpy's threads would only wait, and take a core for it.
test test-quick test-newest: export OPENBLAS_NUM_THREADS = 1

test: .venv/ready  ## all tests
	$(RUN) $(PYTEST) -n 4 $(ARGS)

test-quick: .venv/ready  ## the tests without the slow ones
	$(RUN) $(PYTEST) -n 3 -m 'not slow' $(ARGS)

test-newest: .venv-newest/ready  ## all tests on the newest Python and TensorFlow, which has no tensorflow-io
	.venv-newest/bin/python $(PYTEST) -n 3 $(ARGS)

test-gpu: .venv/ready  ## the tests that need one GPU or several (TensorFlow with CUDA: pip install 'tensorflow[and-cuda]')
	$(RUN) -m pytest tests/trainer/test_gpu.py -s $(ARGS)

data: .venv/ready  ## build a dataset: URLS=list or IMAGES=folder [OUTPUT=data/imagenet] [RUNNER=flink] [ARGS=…]
	$(RUN) -m pipelines $(if $(URLS),--urls $(call quoted,$(URLS))) $(if $(IMAGES),--images $(call quoted,$(IMAGES))) --output $(call quoted,$(or $(OUTPUT),data/imagenet)) $(if $(RUNNER),--runner $(call quoted,$(RUNNER))) $(ARGS)

verify: .venv/ready  ## check a dataset, every byte and picture: [DATA=data/imagenet] [ARGS=--quick]
	$(RUN) -m pipelines.verify $(call quoted,$(DATA)) $(ARGS)

show: .venv/ready  ## a dataset as a page; while it is built, how far it is: [DATA=data/imagenet] [OUTPUT=dataset.html]
	$(RUN) -m pipelines.show $(call quoted,$(DATA)) --output $(call quoted,$(or $(OUTPUT),dataset.html)) $(ARGS)

train: .venv/ready  ## train: [MODEL=srcnn|vdsr|fsrcnn|…] [DATA=data/imagenet] [OUTPUT=runs/MODEL] [ARGS=…]
	$(RUN) -m trainer --model $(call quoted,$(or $(MODEL),srcnn)) --data $(call quoted,$(DATA)) --output $(call quoted,$(or $(OUTPUT),runs/$(or $(MODEL),srcnn))) $(ARGS)

evaluate: .venv/ready  ## PSNR per scale to CSV: [DATA=data/imagenet] [MODELS="runs/srcnn runs/vdsr"] [ARGS=…]
	$(RUN) -m evaluation --data $(call quoted,$(DATA)) --models bicubic $(foreach model,$(MODELS),$(call quoted,$(model))) --output $(call quoted,$(or $(OUTPUT),results.csv)) $(ARGS)

report: .venv/ready  ## results.csv as a page, with pictures: [DATA=data/imagenet] [MODELS=…] [OUTPUT=report.html] [ARGS=…]
	$(RUN) -m evaluation.report --results results.csv --data $(call quoted,$(DATA)) --models bicubic $(foreach model,$(MODELS),$(call quoted,$(model))) --output $(call quoted,$(or $(OUTPUT),report.html)) $(ARGS)

benchmark: .venv/ready  ## how good models are, tonight against a baseline (speed is make bench): [BENCHMARKS=dir] [MODELS=…] [OUTPUT=nightly] [ARGS=…]
	$(RUN) -m evaluation.benchmark $(if $(BENCHMARKS),--benchmarks $(call quoted,$(BENCHMARKS)),--data $(call quoted,$(DATA))) --models bicubic $(foreach model,$(MODELS),$(call quoted,$(model))) --output $(call quoted,$(or $(OUTPUT),nightly)) $(ARGS)

upscale: $(call need,IMAGE) .venv/ready  ## a picture or folder: IMAGE=in.jpg [MODEL=vdsr, as in train, or a shipped model] [SCALE=2] [OUTPUT=upscaled.png] [ARGS=--overwrite]
	$(RUN) -m evaluation.upscale $(call quoted,$(IMAGE)) $(call quoted,$(or $(OUTPUT),upscaled.png)) $(if $(MODEL),--model $(call quoted,$(call run_of,$(MODEL)))) --scale $(call quoted,$(SCALE)) $(ARGS)

deploy-check: .venv/ready  ## look over deploy/: manifests, commands, scripts; says what it skips for want of a tool
	$(RUN) -m pytest -q tests/test_deploy.py tests/test_docs.py $(ARGS)

lint: .venv/ready  ## ruff, mypy and the direction of imports
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

docs: .venv/ready  ## these pages as a site: site/index.html (the search wants a server: python -m http.server -d site)
	@$(RUN) -c 'import mkdocs' 2>/dev/null || $(RUN) -m pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --site-dir site

docs-check: docs  ## the site, its links, and every command of a page
	$(RUN) -m pytest tests/test_docs.py

release-check: .venv/ready  ## wheel and sdist: built, checked, installed in an environment of its own and run
	rm -rf dist
	$(RUN) -m build --outdir dist
	@$(RUN) -c 'import twine' 2>/dev/null || $(RUN) -m pip install --quiet -e '.[docs]'
	$(RUN) -m twine check --strict dist/*
	$(RUN) -m pytest tests/integration/test_wheel.py

bench: $(call need,PHOTOS) .venv/ready  ## how fast the crawl is (PSNR is make benchmark); benchmarks/ has what else is timed: PHOTOS=dir of real JPEGs [ARGS='--peer PYTHON with img2dataset']
	$(RUN) benchmarks/crawl.py --photos $(call quoted,$(PHOTOS)) $(ARGS)

clean:  ## remove the environment, the demo's results and caches
	rm -rf .venv .venv-newest site dist demo/dataset demo/runs demo/results.csv demo/report.html .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info build
