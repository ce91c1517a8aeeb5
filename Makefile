# `make help` lists the targets. `.ci/run` is `make test` on a fresh machine.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Foreign programs (Tailscale, Headscale, derper) are built once into this folder.
TOWPATH_FOREIGN ?= $(CURDIR)/.foreign
TOWPATH_RELAY ?= $(CURDIR)/target/release/towpath-relay
# `dev` does not get these variables: the relay would report them as unknown settings.
budgets foreign peers interop e2e lab bench compare docs: export TOWPATH_FOREIGN := $(TOWPATH_FOREIGN)
budgets foreign peers interop e2e lab bench compare docs: export TOWPATH_RELAY := $(TOWPATH_RELAY)
# derper and the client library need a newer Go than the one that is asked for, which the go command then fetches.
foreign peers interop e2e lab: export GOTOOLCHAIN := auto

# Where `make compare` keeps its reports, and how many runs it makes of each load.
REPORTS ?= $(CURDIR)/target/comparison
RUNS ?= 7

# How many runs `make nat-report` makes of each pair.
SEEDS ?= 2000

# How many runs `make lab` makes of each pair, and of each thing that breaks a path.
LAB_RUNS ?= 30
# How many of each tunnel of WireGuard, beside one of Tailscale's.
TUNNEL_RUNS ?= 15

# How long `make fuzz` takes for each target, and which ones; all unless given.
SECONDS ?= 60
TARGETS ?=

# Which mutants `make mutants` runs, such as "own/* login/*"; all unless given.
MUTANTS ?=

# The pure crates: no clock, no thread, no socket.
PURE := towpath-wire towpath-derpmap towpath-stun-proto towpath-disco towpath-relay-proto towpath-websocket
# Their folders. Each has the same clippy.toml.
PURE_FOLDERS := wire derpmap stun/proto disco/proto relay/proto net/websocket

.PHONY: lab e2e nat-report peer-flood proxy-cost figures help demo dev test check unit budgets loom foreign peers interop bench compare build docs fuzz mutants shape

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## Show what a peer does: two of them become direct behind simulated NATs
	cargo run --release --bin towpath -- demo

dev: ## Run a relay on this machine and print a DERP map to try it with
	cargo run --release --bin towpath-relay -- --dev

# What `make test` does, one after the other.
STAGES := check unit loom build docs budgets interop e2e

test: ## Everything that a change must pass (root, for network namespaces)
	+@.ci/stages $(STAGES)
	@echo
	@echo "All passed. Skipped: the database of advisories on dependencies, which the hosted checks look into."

build: ## Build the programs for release
	cargo build --locked --release --bins

check: ## Format, lints, documentation, dependencies, and the pure crates for wasm32
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --no-deps --document-private-items --quiet
	cargo check --locked --target wasm32-unknown-unknown $(PURE:%=-p %)
	@for folder in $(PURE_FOLDERS); do cmp wire/clippy.toml $$folder/clippy.toml; done
	tools/imports --self-test
	tools/imports
	tests/mutants/run --check-apply
	tools/deny --self-test
	tools/deny

docs: build ## Check the documents against the program
	docs/check

unit: ## Run the unit, property, golden and loopback tests
	cargo test --locked

e2e: build foreign ## Test peers behind real NATs in network namespaces, beside stock magicsock and derper (root, nftables)
	cargo test --locked -p towpath-lab -p towpath-e2e -- --show-output

lab: build foreign ## Measure pairs behind NATs of nftables and what breaks a path, LAB_RUNS=30 runs each, and write docs/nat.md (three hours; root)
	LAB_FLOW=20 cargo test --locked --release -p towpath-e2e --test pairs no_packet -- --nocapture
	LAB_RUNS=$(LAB_RUNS) cargo test --locked --release -p towpath-e2e --test lab -- --ignored --nocapture --test-threads 1
	LAB_RUNS=$(TUNNEL_RUNS) cargo test --locked --release -p towpath-e2e --test failures --test beside_tailscale -- --ignored --nocapture --test-threads 1

loom: ## Test every interleaving of the state that data-plane threads share
	RUSTFLAGS="--cfg loom" cargo test --locked --release -p towpath-relay-proto --test loom --target-dir target/loom

budgets: build ## Test the budgets on the release build: instructions, memory, a storm of logins
	cargo test --locked --release --workspace --test instructions --test loadtest

foreign: ## Build and install the foreign programs of the tests
	tests/interop/foreign/install

peers: foreign ## Build and install the servers that the relay is compared with
	bench/install

interop: build foreign ## Test the relay against Tailscale's, Headscale's and ts_derp's own code
	cargo test --locked -p towpath-interop
	cd tests/interop/go && go vet ./... && go test -count=1 ./...
	cd tests/interop/foreign/headscale && go vet ./... && go test -count=1 ./...

figures: ## Measure what attackers cost in milliseconds and bytes, against the goals (root; an idle machine)
	cargo test --locked --release --workspace --test adversary -- --ignored --nocapture --test-threads 1

bench: build ## Measure the cost of a packet and of an idle connection (root; two idle cores)
	bench/run

compare: build peers ## Compare the relay with its peers for docs/performance.md (root; hours; resumes where it stopped)
	bench/compare $(REPORTS) $(RUNS)
	bench/report $(REPORTS)

nat-report: ## Run the pairs of NATs in the simulated internet and write docs/nat.md, SEEDS=2000 runs each (ten minutes)
	TOWPATH_SIM_SEEDS=$(SEEDS) cargo test --locked --release -p towpath-sim --test node nat_report -- --ignored --nocapture

proxy-cost: build foreign ## Measure what the proxy for WireGuard costs beside wireguard-go (root; two idle cores)
	bench/proxy

peer-flood: ## Measure the CPU of a packet between two direct endpoints beside a bare loop of GSO (two idle cores)
	cargo test --locked --release -p towpath --test flood -- --ignored --nocapture

fuzz: ## Run the fuzz targets under libFuzzer, SECONDS=60 each, all or TARGETS="..." (needs a C++ compiler)
	fuzz/run $(SECONDS) $(TARGETS)

mutants: ## Break the guards one by one and see the tests fail, all or MUTANTS="own/* login/*" (an hour; needs Python 3)
	@set -f; tests/mutants/run $(MUTANTS)

shape: ## Measure file and function sizes, module circles, type names and words (needs Python 3)
	tools/shape
