# The only door: everything that is done to this project is a target here, and CI calls the same ones. `make` lists them.

NPM_TESTS := crates/graphql-transport/tests/js crates/tandem/tests/js examples
NPM_CHECKS := schema/compose web/graphiql examples

.PHONY: help run prove bench microbench up down compose-test test check fmt lint schema screenshots web

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## start everything in one process: http://127.0.0.1:8000
	cargo run

prove: ## kill it under load ten times and show that nothing is lost or doubled
	cargo run -- prove

bench: ## measure the eleven figures of docs/PERFORMANCE.md: about half an hour, starts what it needs
	cargo run --release --locked --features kafka -- bench

microbench: ## measure planning, executing and deciding alone, without servers
	cargo bench --locked -p gateway -p payment-service

up: ## start the cluster without Docker: PostgreSQL, Kafka, two replicas of each service
	@scripts/cluster up

down: ## stop it; the data stays
	@scripts/cluster down

compose-test: ## run docker-compose.yml for real, kill replicas, and clean up
	@scripts/compose-test

test: ## install what the tests need, run all of them, and sum up
	@scripts/test $(NPM_TESTS)

check: fmt lint ## formatting, lints, and whether the generated files are up to date
	@scripts/check-generated $(NPM_CHECKS)

fmt: ## formatting
	cargo fmt --all --check

lint: ## clippy, warnings are errors: everything, tandem with Kafka, and what `cargo run` builds
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p tandem --all-targets --features kafka --locked -- -D warnings
	cargo clippy -p tandem --locked -- -D warnings

schema: schema/compose/node_modules examples/node_modules ## regenerate schema/: subgraphs, supergraph, public schema, events
	@scripts/generate-schema

screenshots: crates/tandem/tests/js/node_modules ## make the pictures of docs/images again
	npm run --silent --prefix crates/tandem/tests/js screenshot

web: web/graphiql/node_modules ## rebuild the pages that the binaries embed
	npm run --silent --prefix web/graphiql build

%/node_modules: %/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix $*
	@touch $@
