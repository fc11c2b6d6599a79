# `make help` lists everything. What a target needs is installed into .venv and .tools, never outside the checkout.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
LOCK := pyproject.toml uv.lock tools/setup.sh
# Two processes: what a small machine has; more make the tests of a server's timing less certain, not faster.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
FILES ?=
BENCH ?=
PARTS ?=
PEERS ?=
ENGINE ?=
FOLDER ?=
KEEP ?=
export PYTHON

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.setup-demo: $(LOCK)
	@tools/setup.sh demo
.venv/.setup-engines: $(LOCK)
	@tools/setup.sh engines
.venv/.setup-test: $(LOCK)
	@tools/setup.sh test
.venv/.setup-dev: $(LOCK)
	@tools/setup.sh dev

.PHONY: setup
setup: .venv/.setup-demo ## Install the server, the CLI and the embedding weights into .venv

.PHONY: setup-dev
setup-dev: .venv/.setup-dev ## Install what developing needs as well

.PHONY: demo
demo: $(if $(ENGINE),.venv/.setup-engines,.venv/.setup-demo) ## Show the main job on real text; FILES="a.md b.md" chooses it, ENGINE=neo4j+weaviate+s3 runs it over engines
	@$(if $(ENGINE),$(BIN)/python -m tools.engines run $(ENGINE) -- )$(BIN)/memos demo $(if $(ENGINE),--config {config} )$(FILES)

.PHONY: engines
engines: .venv/.setup-engines ## Start Neo4j, Weaviate and an S3 store on loopback (needs Go, Maven and a JDK); ENGINE= chooses, FOLDER= keeps
	@$(BIN)/python -m tools.engines build $(if $(ENGINE),$(subst +, ,$(ENGINE)))
	@$(BIN)/python -m tools.engines start $(ENGINE) $(if $(FOLDER),--folder "$(FOLDER)")

.PHONY: engines-stop
engines-stop: .venv/.setup-engines ## Stop them and remove their data; KEEP=1 keeps it
	@$(BIN)/python -m tools.engines stop $(if $(FOLDER),--folder "$(FOLDER)") $(if $(KEEP),--keep)

.PHONY: test
test: .venv/.setup-test ## Run the tests (at most 8 minutes; needs Python alone)
	@PATH="$(CURDIR)/.tools/bin:$$PATH" $(PYTEST) -m "not long and not engines"

.PHONY: test-engines
test-engines: .venv/.setup-test ## Build the engines and run the tests over them (16 minutes on two cores; needs Go, Maven and a JDK)
	@$(BIN)/python -m tools.engines build
	@PATH="$(CURDIR)/.tools/bin:$$PATH" MEMOS_REQUIRE_TOOLS=1 MEMOS_TEST_PATIENCE="$${MEMOS_TEST_PATIENCE:-2}" $(PYTEST) -m "engines and not long"

.PHONY: test-all
test-all: .venv/.setup-test ## Run all tests, also the long ones and those over engines, and every mutant against the whole suite (hours)
	@$(BIN)/python -m tools.engines build
	@PATH="$(CURDIR)/.tools/bin:$$PATH" $(PYTEST)
	@$(BIN)/python -m conformance.mutants.run --all

.PHONY: conformance
conformance: .venv/.setup-dev ## Run the conformance suite on the reference server and the Go server, and judge it by its mutants
	@conformance/check.sh $(PARTS)

.PHONY: conformance-peers
conformance-peers: .venv/.setup-dev ## Run the conformance suite on the shims of MemOS and mem0 (installs them into .tools/peers)
	@conformance/peers/report.sh $(PEERS)

.PHONY: lint
lint: .venv/.setup-dev ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: .venv/.setup-dev ## Bring the code into the format that `make lint` checks
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: .venv/.setup-dev ## Check the types (mypy, strict)
	@$(BIN)/mypy

.PHONY: lint-imports
lint-imports: .venv/.setup-dev ## Check which part imports which (.importlinter)
	@$(BIN)/lint-imports --no-logo

.PHONY: proto
proto: .venv/.setup-dev ## Generate code and tables from protos/ (needs npm)
	@tools/gen.sh
	@$(BIN)/python tools/gen_error_docs.py
	@$(BIN)/python tools/gen_requirements.py
	@$(BIN)/python tools/gen_sync_client.py

.PHONY: check-proto
check-proto: .venv/.setup-dev ## Check that generating again changes no byte (needs npm)
	@tools/gen.sh --check
	@$(BIN)/python tools/gen_error_docs.py --check
	@$(BIN)/python tools/gen_requirements.py --check
	@$(BIN)/python tools/gen_sync_client.py --check

.PHONY: foreign-clients
foreign-clients: .venv/.setup-test ## Run the core flow through grpcurl and generated Go and TypeScript stubs (needs Go and npm)
	@PATH="$(CURDIR)/.tools/bin:$$PATH" conformance/clients/build.sh
	@PATH="$(CURDIR)/.tools/bin:$$PATH" MEMOS_FOREIGN_CLIENTS=1 $(BIN)/pytest tests/e2e/test_foreign_clients.py

.PHONY: bench
bench: .venv/.setup-dev ## Measure speed beside limits and rivals (15 minutes); BENCH="--only get --quick --data DIR"
	@mkdir -p build
	@$(BIN)/python benches/bench.py --json build/bench.json $(BENCH)

.PHONY: bench-engines
bench-engines: .venv/.setup-dev ## Measure a server over Neo4j and Weaviate beside their drivers (20 minutes; goes on where it was ended); BENCH="--quick"
	@$(BIN)/python -m tools.engines build neo4j weaviate
	@$(BIN)/python benches/engines/bench.py --json build/bench-engines.json --plot docs/img/engines.svg $(BENCH)

.PHONY: soak
soak: .venv/.setup-dev ## Load a server for an hour at 80% of its peak, and watch its memory; SOAK="--minutes 10"
	@$(BIN)/python benches/soak.py --json soak.json --plot soak.png $(SOAK)

.PHONY: ci
ci: ## Run everything that a change must pass (about 35 minutes on two cores)
	@.ci/run

.PHONY: clean
clean: ## Remove caches and build output; .venv and .tools stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .demo
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv and .tools too
	@[[ ! -e .tools/engines/run/engines.json ]] || $(BIN)/python -m tools.engines stop
	@rm -rf .venv .tools
