# The only way in: what CI runs is what a person runs. Recipes are one line or a script in scripts/.
# Every variable can be given on the command line: make run ARGS="--port 8080".

.DEFAULT_GOAL := help

# The flags of the server (run, dev), or of the test program (test).
ARGS ?=
# The example to remove.
NAME ?=
CARGO ?= cargo
# How benches are built; `dev` is quick to build and only tells that they run.
BENCH_PROFILE ?= bench
# Where cargo puts what it builds; only for the messages, cargo reads the same variable itself.
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: help
help: ## Print this help
	@echo 'Usage: make TARGET [ARGS="…"], for example: make run ARGS="--port 8080"'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

# Run

.PHONY: prepare
prepare: ## Get all that building and running need (safe to repeat)
	@CARGO="$(CARGO)" scripts/prepare

.PHONY: tools
tools:
	@CARGO="$(CARGO)" scripts/prepare --check

.PHONY: run
run: tools ## Build what is missing and start the server
	@$(CARGO) run --locked -- $(ARGS)

.PHONY: dev
dev: tools ## Start the server; rebuild and restart it on every change
	@CARGO="$(CARGO)" scripts/dev.sh $(ARGS)

.PHONY: release
release: tools ## Build the optimised program
	$(CARGO) build --release --locked
	@ls -lh "$(TARGET)/release/server"

# Check

.PHONY: test
test: tools ## Run all tests (ARGS="a_part_of_a_name" runs some)
	$(CARGO) test --locked $(ARGS)

.PHONY: test-scripts
test-scripts: ## Test the scripts behind these targets (shellcheck too, where there is one)
	scripts/test-remove-example
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/* && echo 'shellcheck: passed'; \
	else echo 'shellcheck: NOT RUN, it is not installed'; fi

.PHONY: lint
lint: tools ## Check the format and every lint, with all features and with none
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --all-targets --locked --no-default-features -- -D warnings

.PHONY: typecheck
typecheck: tools ## Check that everything compiles, without building it
	$(CARGO) check --all-targets --locked

.PHONY: coverage
coverage: tools ## Run the tests and print how much of each file they reach
	@CARGO="$(CARGO)" scripts/coverage

.PHONY: bench
bench: tools ## Compare the server with a bare axum server (BENCH_REQUESTS, BENCH_ROUNDS, BENCH_RATE)
	$(CARGO) bench --locked --profile $(BENCH_PROFILE) --bench http

.PHONY: instructions
instructions: tools ## Count the instructions of one request (needs valgrind)
	$(CARGO) bench --locked --profile $(BENCH_PROFILE) --bench instructions

.PHONY: measure
measure: tools ## Measure builds, size, start and memory (minutes)
	@scripts/measure

# Write

.PHONY: format
format: tools ## Format the source
	$(CARGO) fmt

.PHONY: docs
docs: tools ## Build the reference of the source
	$(CARGO) doc --no-deps --locked
	@echo "Open $(TARGET)/doc/server/index.html"

.PHONY: clean
clean: ## Delete what was built (never var/, logs/ or keys/)
	$(CARGO) clean

# Fork

.PHONY: remove-example
remove-example: ## Remove one example (NAME=its_name)
	@scripts/remove-example "$(NAME)"

.PHONY: remove-examples
remove-examples: ## Remove all examples
	@scripts/remove-example --all
