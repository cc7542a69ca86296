# Holdfast. `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.

SHELL := /bin/bash
CARGO := cargo
# One profile for everything: each further one would compile RocksDB's C++ again (8 to 10 minutes).
FLAGS := --release --locked
BIN   := $(CURDIR)/target/release
# The simulator and the tests of planted faults are built with them; nothing else may share them. They
# are chosen together: so they share RocksDB with what is shipped (-p storage alone would not).
SHIPPED := --workspace --exclude sim --exclude model
PLANTED := -p sim -p model -p dac -p mailbox -p storage --features mailbox/mutants,storage/mutants,dac/mutants
MARKER  := holdfast: planted faults are in here
SEED  ?= 1
N     ?= 200
MINUTES ?= 30
SECS  ?= 30

.PHONY: help
help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: prepare
prepare:
	@tools/prepare

.PHONY: build
build: prepare ## The daemon and the admin CLI: target/release/holdfastd, dagctl
	@[ -d target/release ] || echo "The first build compiles RocksDB: 8 to 10 minutes on two cores."
	$(CARGO) build $(FLAGS) $(SHIPPED) --bins

.PHONY: demo
demo: build ## A two-site DAG: mails in, its active node killed, every mail back (MAIL=folder)
	$(BIN)/dagctl demo $(if $(MAIL),--mail "$(MAIL)")

.PHONY: test
test: build ## Every test of one machine's code; no root, no network, no fixed port
	$(CARGO) test $(FLAGS) $(SHIPPED) --exclude cluster --lib --bins --test it --test planted --test process
	$(CARGO) test $(FLAGS) $(PLANTED) --test mutants --test parts --test schedules --test explored
	@grep -q "$(MARKER)" $(BIN)/sim || { echo "the mark of planted faults is not in sim: this proves nothing"; exit 1; }
	@! grep -l "$(MARKER)" $(BIN)/holdfastd $(BIN)/dagctl || { echo "built with planted faults: do not ship"; exit 1; }

.PHONY: fuzz
fuzz: prepare ## Inputs that nobody wrote, for every parser and frame: N=1000000 each
	HOLDFAST_FUZZ_INPUTS=$(if $(filter file,$(origin N)),1000000,$(N)) \
		$(CARGO) test $(FLAGS) $(SHIPPED) --exclude cluster --lib --bins --test it -- fuzz:: --nocapture

.PHONY: examples
examples: build ## The example front ends against a local cluster; the Python one where grpcio is
	$(CARGO) build $(FLAGS) $(SHIPPED) --bins --example front_end
	tools/examples $(BIN)

.PHONY: chaos
chaos: build ## Real processes under real faults
	$(CARGO) test $(FLAGS) $(PLANTED) --test power -- --nocapture
	HOLDFAST_BIN=$(BIN) $(CARGO) test $(FLAGS) -p cluster -- --test-threads 1

.PHONY: lint
lint: prepare ## Formatting, clippy, and the rules of ARCHITECTURE.md
	$(CARGO) fmt --all --check
	$(CARGO) run $(FLAGS) -q -p xtask -- deps
	$(CARGO) run $(FLAGS) -q -p xtask -- docs
	$(CARGO) run $(FLAGS) -q -p xtask -- logs
	$(CARGO) clippy $(FLAGS) --workspace --all-targets -- -D warnings

.PHONY: api
api: ## buf: the API's style, and nothing taken back that callers rely on (`tools/buf keep` renews)
	tools/buf check

.PHONY: sim
sim: prepare ## Simulated clusters from a seed: SEED=1 N=200
	$(CARGO) run $(FLAGS) -p sim -- run --seed $(SEED) --count $(N)

.PHONY: model
model: prepare ## The protocol, every order of events: MINUTES=5
	$(CARGO) run $(FLAGS) -p model -- check --minutes $(if $(filter file,$(origin MINUTES)),5,$(MINUTES))

.PHONY: soak
soak: prepare ## Simulated clusters until the time is up: MINUTES=30
	$(CARGO) run $(FLAGS) -p sim -- soak --minutes $(MINUTES) --seed $(SEED)

.PHONY: mutants
mutants: prepare ## Plants each fault in the simulator and writes docs/mutants.md's table: N=200 seeds each
	$(CARGO) run $(FLAGS) -p sim -- mutants --seeds $(N) --table target/mutants.md

.PHONY: bench
bench: build ## Deliveries a second, latency, gaps, memory, beside the disk's limit: SECS=30 a cell
	HOLDFAST_BIN=$(BIN) $(CARGO) run $(FLAGS) -p bench -- all --seconds $(SECS)
