# Two commands do everything, install step included:
#   make demo   build both images, boot them under QEMU, take mail through both firewalls
#   make test   every tier of the tests
# The rest: make bench (speed and memory next to peers, docs/performance.md; ONLY=NAME,... for some lines), make proof (power
# cuts, docs/durability.md), make fuzz (FUZZ_SECONDS for each target), make tier-NAME (one tier of the tests), make fresh
# (the install steps in clean trees of Debian 12 and 13), make clean.

SHELL := /bin/bash
BUILD := build
TARGET := $(or $(CARGO_TARGET_DIR),target)
KEEP ?= 0
FUZZ_SECONDS ?= 60
PROOF_POINTS ?= 10000
ONLY ?=
SCALE ?= 1
# A root shell made by plain su has no sbin on its PATH; ip, nft and knotd live there.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DELETE_ON_ERROR:
.PHONY: demo test bench programs images clean proof fresh fuzz

demo: images
	@.ci/install machine
	@KEEP=$(KEEP) PYTHONUNBUFFERED=1 build/venv/bin/python tests/machine/demo.py

test:
	@tests/run all

tier-%:
	@tests/run tier $*

bench:
	@.ci/install rust bench
	@tests/run step "build the programs" programs cargo build --release --workspace --bins
	@python3 tests/bench/bench.py --relay $(TARGET)/release/postern-relay --only "$(ONLY)" --scale $(SCALE)

fuzz:
	@.ci/install rust fuzz
	@tests/fuzz/run $(FUZZ_SECONDS)

fresh:
	@tests/run tier fresh

proof:
	@.ci/install rust
	@PROOF_POINTS=$(PROOF_POINTS) tests/run step "cut the power at $(PROOF_POINTS) points of the spool's operations" proof \
	  cargo test --release --workspace --test durability -- --nocapture --test-threads 1
	@grep '^proof:' build/logs/proof.log

programs:
	@.ci/install rust
	@tests/run step "build the programs" programs cargo build --release --workspace --bins

images: programs
	@.ci/install images
	@tests/run step "build both node images" image-build images/build gateway internal

clean:
	rm -rf $(BUILD) $(TARGET)
