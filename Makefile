# Two commands do everything on a fresh machine with Rust: `make demo` and `make test`.

CARGO ?= cargo
# The points at which tests stop the process are compiled in for tests only.
TEST_FEATURES = --features crash-points

.PHONY: demo test bench ci lint servers tools clean help

help:
	@echo "make demo    build, take a backup of sample data, prove it, clean up"
	@echo "make test    build and run every test"
	@echo "make bench   measure a backup against redis-cli and zstd (about ten minutes)"
	@echo "make ci      what a change must pass: lint, documentation, tests twice"

# A Redis server and the tools that tests use as outside judges; nothing happens where they are there already.
servers:
	@tests/engines/install-servers

# grpcurl, where Go is; tests that need it are skipped loudly elsewhere.
tools: servers
	@tests/engines/install-tools

demo: servers
	$(CARGO) build --release
	target/release/redkeep demo

test: servers
	$(CARGO) test $(TEST_FEATURES)

bench: servers
	$(CARGO) bench --bench backup

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets $(TEST_FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# Twice, because a test that passes once may pass by luck.
ci: tools lint
	$(CARGO) test $(TEST_FEATURES)
	$(CARGO) test $(TEST_FEATURES)
	$(CARGO) build --release
	target/release/redkeep demo
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(CARGO) bench --bench backup

clean:
	$(CARGO) clean
