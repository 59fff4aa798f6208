# The development commands of DistTrain. `make` without a target lists them.

SHELL := /bin/bash
CONFIGURATION := release
BINARY := .build/$(CONFIGURATION)/disttrain
# Tests only use the public API. Without this flag `swift test` would recompile everything with internal symbols
# exported, and the next build would recompile everything without them.
SWIFT_TEST := swift test -c $(CONFIGURATION) --disable-testable-imports
# The x86-64 levels in the terms of oneDNN and OpenBLAS.
AT_LEVEL2 := ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem
AT_LEVEL3 := ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell
SWIFT_SOURCES := Package.swift Sources Tests Fuzzing/Sources

.PHONY: help deps build demo test test-unit test-integration test-faults test-address test-cluster soak test-python fuzz bench lint format clean
.NOTPARALLEL:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

deps: ## Install the Debian packages that are missing
	@scripts/deps.sh

build: deps ## Build the program: .build/release/disttrain
	swift build -c $(CONFIGURATION) --product disttrain
	@echo "built $(BINARY)"

demo: build ## Train on synthetic faces with two ranks and sample a grid of them
	scripts/demo.sh

test: test-unit test-integration ## Run every test
	@echo "all tests passed"

test-unit: build ## Run the tests of one process; FILTER=NAME for some, LEVEL=3 as on a processor with AVX2, 2 without
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(AT_LEVEL$(LEVEL)) $(SWIFT_TEST) $(if $(FILTER),--filter "$(FILTER)") \
	    $(if $(LEVEL),--scratch-path .build/level-$(LEVEL) -Xcc -DCK_LEVEL=$(LEVEL))

test-integration: build ## Run the tests under mpirun; NAMES="launch ..." for some of them
	Tests/Integration/run.sh $(NAMES)

test-faults: build ## Inject every fault (opt-in, an hour); ARGS="--only power --seed 1", see Tests/Faults/run.py
	Tests/Faults/run.py --kills 200 --every 1 $(ARGS)

ADDRESS := .build/address
test-address: build ## Errors during a save under AddressSanitizer, which needs a build of its own (opt-in); ARGS="--seed 1"
	swift build -c $(CONFIGURATION) --sanitize=address --scratch-path $(ADDRESS) --product disttrain
	Tests/Faults/run.py --only sanitizer --sanitized $(ADDRESS)/$(CONFIGURATION)/disttrain $(ARGS)

test-cluster: build ## Inject faults of hosts, networks and Slurm on one machine (opt-in, as root); ARGS="--only cut"
	cluster/testbed/deps.sh
	Tests/Cluster/run.py $(ARGS)

soak: build ## Disturb trainings with random faults (opt-in, as root); ARGS="--minutes 90 --seed 1 --output FOLDER"
	cluster/testbed/deps.sh
	Tests/Cluster/soak.py $(ARGS)

VENV := .venv-python
test-python: build ## Cross-check against PyTorch and diffusers (opt-in); FILTER=NAME, VENV=FOLDER, ARGS="--seed 1"
	Tests/Python/run.sh $(VENV) $(if $(FILTER),-k "$(FILTER)") $(ARGS)

fuzz: deps ## Fuzz the readers of weight folders and the watcher's protocol for SECONDS=600 on one core
	Fuzzing/run.sh $(or $(SECONDS),600)

bench: build ## Measure beside PyTorch; ROWS="train sample vae models checkpoint" ROUNDS=3
	scripts/bench.sh

lint: deps ## Check format and scripts
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	scripts/lint.sh

format: ## Format the Swift sources in place
	swift format --in-place --recursive $(SWIFT_SOURCES)

clean: ## Remove everything that was built
	swift package clean
