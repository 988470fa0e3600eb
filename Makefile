# The commands of the project: CI runs the same ones as a person. Recipes are a few lines or a script in scripts/.
# Every variable can be given on the command line: make run ARGS="--port 8080".

.DEFAULT_GOAL := help

# The flags of the server (run, dev), or of the test program (test).
ARGS ?=
# The features to build with: `full` is every engine.
FEATURES ?=
# One package instead of both, for test, lint and typecheck: the app is called as Cargo.toml says, `server` here.
PACKAGE ?=
# CI sets it to `--locked`: then a Cargo.lock that does not fit is an error. Otherwise cargo brings it up to date.
LOCKED ?=
# The example to remove.
NAME ?=
CARGO ?= cargo
# How benches are built; `dev` is quick to build and only tells that they run.
BENCH_PROFILE ?= bench
# Where cargo puts what it builds; only for the messages, cargo reads the same variable itself.
TARGET = $(or $(CARGO_TARGET_DIR),target)
FLAGS = $(LOCKED) $(if $(FEATURES),--features "$(FEATURES)")
SCOPE = $(if $(PACKAGE),--package "$(PACKAGE)",--workspace)
# For the scripts.
export CARGO FEATURES LOCKED

.PHONY: help
help: ## Print this help
	@echo 'Usage: make TARGET [ARGS="…"] [FEATURES=…], for example: make run FEATURES=full ARGS="--port 8080"'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

# Run

.PHONY: prepare
prepare: ## Get all that building and running need (safe to repeat)
	@scripts/prepare

.PHONY: tools
tools:
	@scripts/prepare --check

# The key of cookies on this machine; it is made at the first start. # example: accounts
run dev: export SERVER__AUTH__KEY_FILE ?= keys/auth.key # example: accounts

.PHONY: run
run: tools ## Build what is missing and start the server
	@$(CARGO) run $(FLAGS) -- $(ARGS)

.PHONY: dev
dev: tools ## Start the server; rebuild and restart it on every change
	@scripts/dev.sh $(ARGS)

.PHONY: keys
keys: tools ## Write a certificate and its key for HTTPS on this machine, for development (then: make run ARGS=--ssl)
	@$(CARGO) run --quiet $(FLAGS) -- keys $(ARGS)

.PHONY: release
release: tools ## Build the optimised program, with every engine unless FEATURES says otherwise
	$(CARGO) build --release $(LOCKED) --features "$(or $(FEATURES),full)"
	@ls -lh "$(TARGET)/release/server"

# Check

.PHONY: test
test: tools ## Run all tests of both crates (ARGS="a_part_of_a_name" runs some)
	$(CARGO) test $(SCOPE) $(FLAGS) $(ARGS)

.PHONY: check-all
check-all: ## Run all that CI runs, and what needs containers, optimised builds or many rounds (CI alone: .ci/run)
	@CI_LONG=1 .ci/run

.PHONY: test-all
test-all: tools ## Run all tests with every engine; starts the servers that some need
	@CARGO="$(CARGO)" LOCKED="$(LOCKED)" scripts/test-all $(ARGS)

.PHONY: test-long
test-long: tools ## Run the long proofs: crashes, power cuts, full disks, pauses, jobs, reloads, random operations (minutes)
	@CARGO="$(CARGO)" LOCKED="$(LOCKED)" TEST_LONG=1 scripts/test-all $(ARGS)

.PHONY: chaos
chaos: tools ## Show what survives: workers killed and hung, the store frozen, a reload (half a minute; needs PostgreSQL)
	@CARGO="$(CARGO)" LOCKED="$(LOCKED)" scripts/chaos

.PHONY: matrix
matrix: ## Write into README.md what the last `make test-all` has proven
	@scripts/matrix

.PHONY: services
services: ## Start the servers that some tests need, and print their variables (scripts/services stop)
	@scripts/services start $(ARGS)

.PHONY: test-scripts
test-scripts: ## Test the scripts behind these targets (shellcheck too, where there is one)
	scripts/test-remove-example
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/* && echo 'shellcheck: passed'; \
	else echo 'shellcheck: NOT RUN, it is not installed'; fi

.PHONY: lint
lint: tools ## Check the format and every lint, with the features by default, with all and with none
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(SCOPE) --all-targets $(FLAGS) -- -D warnings
	$(CARGO) clippy $(SCOPE) --all-targets $(LOCKED) --features full -- -D warnings
# The tests switch on features of the platform: libraries and programs also as they are built without tests.
	$(CARGO) clippy $(SCOPE) --lib --bins $(FLAGS) -- -D warnings
	$(CARGO) clippy $(SCOPE) --lib --bins $(LOCKED) --no-default-features -- -D warnings

.PHONY: typecheck
typecheck: tools ## Check that everything compiles, without building it
	$(CARGO) check $(SCOPE) --all-targets $(FLAGS)

.PHONY: coverage
coverage: tools ## Run the tests and print how much of each file they reach
	@scripts/coverage

.PHONY: bench-stores
bench-stores: tools ## Compare the stores with their bare drivers, and large collections with small ones (BENCH_DOCUMENTS)
	@scripts/bench-stores

# Of the app alone: the tests of the platform turn on features of axum that are not in what is released.
.PHONY: bench
bench: tools ## Compare the server with a bare axum server (BENCH_REQUESTS, BENCH_ROUNDS, BENCH_RATE)
	$(CARGO) bench $(FLAGS) --profile $(BENCH_PROFILE) --bench http

.PHONY: bench-overload
bench-overload: tools ## Ask the server more than it can answer, and count what it does (BENCH_ROUNDS, BENCH_SECONDS)
	$(CARGO) bench $(FLAGS) --profile $(BENCH_PROFILE) --bench overload

.PHONY: instructions
instructions: tools ## Count the instructions of one request (BENCH_REQUESTS; needs valgrind)
	$(CARGO) bench $(FLAGS) --profile $(BENCH_PROFILE) --bench instructions

.PHONY: measure
measure: tools ## Measure builds, size, start and memory (minutes; ARGS=builds or ARGS=server: only these)
	@scripts/measure $(ARGS)

# Write

.PHONY: format
format: tools ## Format the source
	$(CARGO) fmt --all

.PHONY: docs
docs: tools ## Build the reference of both crates
	$(CARGO) doc --workspace --no-deps --all-features $(LOCKED)
	@echo "Open $(TARGET)/doc/platform/index.html or $(TARGET)/doc/server/index.html"

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
