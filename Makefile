# make demo      three nodes, every province, a kill in the middle, read back and count
# make drill     the drill book on real clusters, with reports   (DRILL=leader-kill RESULTS=folder SOURCES=200 RATE=2000)
# make test      the tests            make verify  format, lints, docs, house rules (reads only)
# make fix       format and regenerate
# make sim       a group in simulation, seed by seed           (SEEDS=100 FROM=1)
# make bench     against the peers    make bench-short / test-long: see CONTRIBUTING.md
.DEFAULT_GOAL := test
.PHONY: demo drill test verify fix bench bench-short bench-micro fuzz test-long bootstrap build sim

CARGO_FLAGS := --release --locked
BIN := $(or $(CARGO_TARGET_DIR),target)/release

bootstrap:
	@ops/bootstrap.sh

# Always the whole workspace: with fewer packages cargo unifies other features and compiles RocksDB again.
build: bootstrap
	@[ -x "$(BIN)/dtm" ] || echo "First build: 15 to 25 minutes on two cores, most of it RocksDB; later builds take seconds."
	cargo build $(CARGO_FLAGS) --workspace

demo: build
	@DTM_BIN="$(BIN)/dtm" "$(BIN)/dtm-demo"

# Every drill of the book where DRILL names none; exit 0 only where all passed.
drill: build
	@ops/bootstrap.sh tests
	@"$(BIN)/dtm-drill" $(DRILL) --results "$(or $(RESULTS),chaos/results)" \
		$(if $(SOURCES),--sources $(SOURCES)) $(if $(RATE),--rate $(RATE))

# A seed that breaks a property is printed with its last events, and repeats.
sim: build
	@"$(BIN)/dtm-sim" --seeds $(or $(SEEDS),100) --from $(or $(FROM),1)

# Most tests wait rather than compute: more of them beside each other than there are processors.
# The micro benches run each step once, so that they do not rot.
test: build
	@ops/bootstrap.sh tests
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),4) cargo test $(CARGO_FLAGS) --workspace --no-fail-fast
	cargo test $(CARGO_FLAGS) --workspace --bench micro

# What is #[ignore]d stays so: processes of other tests, and a measurement that is run alone.
test-long: build
	@ops/bootstrap.sh tests
	DTM_LONG=1 cargo test $(CARGO_FLAGS) --workspace

# Every fuzz target for SECONDS, from another seed each time; the seed is printed.
fuzz: build
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) \
		cargo test $(CARGO_FLAGS) -p dtm-tests --test fuzz -- --nocapture

verify: build
	cargo fmt --all --check
	$(BIN)/dtm-xtask tidy
	$(BIN)/dtm-xtask codegen --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps
	$(BIN)/dtm config docs | diff -u docs/config.md -
	$(BIN)/dtm config docs --page metrics | diff -u docs/metrics.md -

fix: build
	$(BIN)/dtm-xtask codegen
	cargo fmt --all
	$(BIN)/dtm config docs > docs/config.md.next && mv docs/config.md.next docs/config.md
	$(BIN)/dtm config docs --page metrics > docs/metrics.md.next && mv docs/metrics.md.next docs/metrics.md

# make bench W=W3 runs one workload in full (W1 to W7).
W := W3
bench: build
	benches/peers/install.sh
	$(BIN)/dtm-bench full $(W)

bench-short: build
	benches/peers/install.sh
	$(BIN)/dtm-bench short

bench-micro: build
	cargo bench --profile release --locked --workspace --bench micro
