# Two commands do everything on a fresh machine with Rust: `make demo` and `make test`.

CARGO ?= cargo
# The points at which tests stop the process are compiled in for tests only.
TEST_FEATURES = --features crash-points

# The benches as what the tests are built with: shows that they run, and nothing of their figures.
SMALL_BENCH = $(CARGO) bench --profile dev $(TEST_FEATURES)

# Seconds that schemathesis takes.
CONTRACT_SECS ?= 1200

# Seconds for each fuzz target.
FUZZ_SECS ?= 60

.PHONY: demo test engines matrix fuzz mutants sdk browser contract bench ci lint servers tools objects clean help

help:
	@echo "make demo    build, take a backup of sample data, prove it, clean up"
	@echo "make test    build and run every test"
	@echo "make engines fetch real servers of five kinds into target/engines, for the tests that want every engine"
	@echo "make matrix  a backup, restored and compared, for every engine, topology and framing; MATRIX_FILE=table.md writes the table"
	@echo "make sdk     the official Python and Node SDKs, unmodified, over TLS"
	@echo "make browser a browser's fetch through gRPC-Web, from an allowed page and from a foreign one"
	@echo "make contract schemathesis against /openapi.json (20 minutes; CONTRACT_SECS=120 for two)"
	@echo "make fuzz    cargo fuzz on framing, walk and manifest, a minute each (FUZZ_SECS=3600 for an hour)"
	@echo "make mutants 100,000 spoiled dumps, walked and loaded by real servers (MUTANTS=1000 for fewer)"
	@echo "make bench   backups against redis-cli, zstd and age; restores against a load at start; readers of the source; requests against bare servers; walks (about 40 minutes)"
	@echo "make ci      what a change must pass: lint, documentation, tests twice, clients of others, small benches"

# A Redis server and the tools that tests use as outside judges; nothing happens where they are there already.
servers:
	@tests/engines/install-servers

# Real servers of five kinds below target/engines, without touching what is installed; nothing happens where they are there already.
engines:
	@tests/engines/fetch-engines

# grpcurl, where Go is; tests that need it are skipped loudly elsewhere.
tools: servers
	@tests/engines/install-tools

# Servers that speak as S3 and Azure Blob Storage do, below target/objects; where they cannot be, tests with them are skipped loudly.
objects: servers
	@tests/engines/install-objects --if-possible

demo: servers
	$(CARGO) build --release
	target/release/redkeep demo

test: objects
	$(CARGO) test $(TEST_FEATURES)

# The whole table; a cell that fails fails the run. At most ten minutes.
matrix: servers engines
	REDKEEP_MATRIX_FILE=$(abspath $(MATRIX_FILE)) $(CARGO) test $(TEST_FEATURES) --test it -- --ignored --exact engines::matrix::the_whole_table --nocapture

# Clients of other people, against the program as it is released.
sdk: servers
	@tests/engines/install-outside
	$(CARGO) build --release
	REDKEEP_BIN=target/release/redkeep tests/outside/sdk/run

browser: servers
	@tests/engines/install-outside
	$(CARGO) build --release
	REDKEEP_BIN=target/release/redkeep tests/outside/browser/run

contract: servers
	@tests/engines/install-outside
	$(CARGO) build --release
	REDKEEP_BIN=target/release/redkeep REDKEEP_CONTRACT_SECS=$(CONTRACT_SECS) tests/outside/contract/run

# Builds the program once more, with counters in it.
fuzz:
	FUZZ_SECS=$(FUZZ_SECS) fuzz/run

mutants: engines
	REDKEEP_MUTANTS=$(or $(MUTANTS),100000) $(CARGO) test $(TEST_FEATURES) --test it -- --nocapture mutants::mutants_are_walked_and_loaded

bench: servers
	$(CARGO) bench --bench backup
	$(CARGO) bench --bench keys
	$(CARGO) bench --bench latency
	$(CARGO) bench --bench requests
	$(CARGO) bench --bench restore
	$(CARGO) bench --bench walk

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets $(TEST_FEATURES) -- -D warnings
	$(CARGO) clippy --lib --features fuzzing -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# Twice, because a test that passes once may pass by luck.
ci: tools engines objects lint
	$(CARGO) test $(TEST_FEATURES)
	$(CARGO) test $(TEST_FEATURES)
	$(CARGO) build --release
	target/release/redkeep demo
	$(MAKE) matrix
	$(MAKE) sdk
	CI=true $(MAKE) browser
	$(MAKE) contract CONTRACT_SECS=120
	$(MAKE) fuzz
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench backup
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench keys
	REDKEEP_BENCH_SECS=1 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench requests
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench restore
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench walk
	REDKEEP_BENCH_BYTES=67108864 REDKEEP_BENCH_ROUNDS=1 $(SMALL_BENCH) --bench latency

clean:
	$(CARGO) clean
