# SPDX-License-Identifier: GPL-2.0-or-later
# `make demo` shows the main job, `make demo-tor` Tor and a VPN; `make test` (= `make check`, = CI) tests all of it.
BIN := .venv/bin
PREFIX := /usr

.PHONY: demo demo-tor test check setup lint types contracts guest beside suite bench fuzz install uninstall clean

demo: setup
	/usr/bin/python3 -I . controller demo examples/home.toml

demo-tor: setup
	/usr/bin/python3 -I . controller demo examples/tor-and-vpn.toml

test: check

# Tests of the kernel wait most of the time; what only computes is done beside them.
check: setup lint contracts
	$(MAKE) --jobs=2 beside suite

setup:
	@tools/setup

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy
	MYPYPATH=.:examples/personality-upstream-proxy $(BIN)/mypy -p upstream_proxy

contracts:
	$(BIN)/lint-imports

# The machine that tests/guest emulates.
guest:
	flock .cache/guest.lock tests/guest/make .cache/guest

beside: guest
	$(MAKE) types
	tools/reachable $(BIN)/python -m pytest -q -m 'not kernel'

suite:
	tools/reachable $(BIN)/python -m pytest -q -m kernel --timeout 600

# The machine of the prover against the kernel, for some 20 minutes, elsewhere each time.
fuzz: setup
	FUZZ=20 FUZZ_SEED=$$(date +%s) tools/reachable $(BIN)/python -m pytest -q tests/kernel/test_proof_machine_fuzz.py

bench: setup
	tools/reachable $(BIN)/python -m tests.bench --write

install uninstall:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" packaging/install $@

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
