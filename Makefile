# Two commands do everything, install step included:
#   make demo   build both images, boot them under QEMU, take mail through both firewalls
#   make test   every tier of the tests
# The rest: make bench (ratios against peers), make tier-NAME (one tier of the tests), make clean.

SHELL := /bin/bash
BUILD := build
TARGET := $(or $(CARGO_TARGET_DIR),target)
KEEP ?= 0

.DELETE_ON_ERROR:
.PHONY: demo test bench programs images clean proof fuzz

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

programs:
	@.ci/install rust
	@tests/run step "build the programs" programs cargo build --release --workspace --bins

images: programs
	@.ci/install images
	@tests/run step "build both node images" image-build images/build gateway internal

clean:
	rm -rf $(BUILD) $(TARGET)
