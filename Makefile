# Two commands do everything, install step included:
#   make demo   build both images, boot them under QEMU, take mail through both firewalls
#   make test   every tier of the tests
# The rest: make bench (ratios against peers), make fuzz (FUZZ_SECONDS for each target), make tier-NAME (one tier of the
# tests), make fresh (the install steps in clean trees of Debian 12 and 13), make clean.

SHELL := /bin/bash
BUILD := build
TARGET := $(or $(CARGO_TARGET_DIR),target)
KEEP ?= 0
FUZZ_SECONDS ?= 60
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
	@python3 tests/bench/bench.py --relay $(TARGET)/release/postern-relay

fuzz:
	@.ci/install rust fuzz
	@tests/fuzz/run $(FUZZ_SECONDS)

fresh:
	@tests/run tier fresh

programs:
	@.ci/install rust
	@tests/run step "build the programs" programs cargo build --release --workspace --bins

images: programs
	@.ci/install images
	@tests/run step "build both node images" image-build images/build gateway internal

clean:
	rm -rf $(BUILD) $(TARGET)
