# What a person types. Everything that has steps is in scripts/.
.POSIX:
.PHONY: help demo build test lint bench-oracle simulate guest venv install-deps clean

# In CI the lock file is the law.
CARGO_LOCKED = $$( [ "$$CI" != true ] || echo --locked )
ROUNDS = 200
RUNS = 100000

help:
	@echo "make demo          build, then snapshot a ring of three guests at one instant"
	@echo "make build         build target/release/isochron"
	@echo "make test          all tests, with real QEMU and real CIM clients"
	@echo "make lint          formatting, clippy, licences"
	@echo "make bench-oracle  ROUNDS=$(ROUNDS) snapshots under load, each judged by the oracle"
	@echo "make simulate      RUNS=$(RUNS) random histories of the engine in its simulator"
	@echo "make guest         prepare the guests (target/lab): kernel and images"
	@echo "make install-deps  install the packages that are missing (Debian, Ubuntu)"
	@echo "make clean         remove everything that was built"

demo: install-deps guest venv build
	target/release/isochron demo

build: install-deps
	cargo build $(CARGO_LOCKED) --release -p isochron

test: install-deps guest venv
	sh scripts/test.sh

lint:
	sh scripts/lint.sh

bench-oracle: install-deps guest build
	target/release/isochron bench oracle --rounds $(ROUNDS)

simulate: install-deps
	ISOCHRON_RUNS=$(RUNS) cargo test $(CARGO_LOCKED) --release -p isochron-engine --test engine \
		random_histories -- --nocapture

guest: install-deps
	sh scripts/guest.sh

venv: install-deps
	sh scripts/venv.sh

install-deps:
	@sh scripts/prereqs.sh

clean:
	cargo clean
