# make demo      three nodes, every province, a kill in the middle, read back and count
# make test      the tests            make verify  format, lints, docs, house rules (reads only)
# make fix       format and regenerate
# make bench     against the peers    make bench-short / test-long: see CONTRIBUTING.md
.DEFAULT_GOAL := test
.PHONY: demo test verify fix bench bench-short test-long bootstrap

CARGO_FLAGS := --release --locked

bootstrap:
	@ops/bootstrap.sh

demo: bootstrap
	@[ -x "$${CARGO_TARGET_DIR:-target}/release/dtm" ] || echo "First build: RocksDB alone takes about 15 minutes on two cores; later builds take seconds."
	cargo build $(CARGO_FLAGS) -p dtm
	@DTM_BIN="$${CARGO_TARGET_DIR:-target}/release/dtm" ops/demo.sh

test: bootstrap
	cargo test $(CARGO_FLAGS) --workspace

test-long: bootstrap
	cargo test $(CARGO_FLAGS) --workspace -- --include-ignored

verify: bootstrap
	cargo fmt --all --check
	cargo xtask tidy
	cargo xtask codegen --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps
	cargo run $(CARGO_FLAGS) --quiet -p dtm -- config docs | diff -u docs/config.md -
	cargo run $(CARGO_FLAGS) --quiet -p dtm -- config docs --page metrics | diff -u docs/metrics.md -

fix: bootstrap
	cargo xtask codegen
	cargo fmt --all
	cargo run $(CARGO_FLAGS) --quiet -p dtm -- config docs > docs/config.md.next && mv docs/config.md.next docs/config.md
	cargo run $(CARGO_FLAGS) --quiet -p dtm -- config docs --page metrics > docs/metrics.md.next && mv docs/metrics.md.next docs/metrics.md

bench: bootstrap
	cargo run $(CARGO_FLAGS) -p dtm-benches -- full

bench-short: bootstrap
	cargo run $(CARGO_FLAGS) -p dtm-benches -- short
