# pgpool-go. What a newcomer needs is `make demo` and `make test`; see README.md.

SHELL  := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO     ?= go
PREFIX ?= /usr/local
DESTDIR ?=

# for `make test`: TESTFLAGS=-short leaves out what needs PostgreSQL, PKG=./parser one room only
TESTFLAGS ?=
PKG ?= ./...
# pool_hba.conf's method pam needs the headers of PAM (libpam0g-dev); without them it is left out.
ifndef TAGS
TAGS := $(shell $$($(GO) env CC) -include security/pam_appl.h -E -x c /dev/null >/dev/null 2>&1 && echo pam)
endif
# for `make bench`: e.g. BENCHFLAGS=-quick, or '-rounds 5 -modes simple,latency -targets pgbouncer,pgpool-go -clients 16'
BENCHFLAGS ?=
# for `make demo`: the port to listen on; empty: 9999 if it is free
PORT ?=

.PHONY: all build test lint imports bench bench-go bench-pgbench pgo drivers pgx-suite scenarios demo install testdeps clean

all: build

# One binary; it knows the names it answers to.
build:
	@mkdir -p bin
	@$(if $(filter pam,$(TAGS)),,echo "built without PAM: there is no security/pam_appl.h")
	$(GO) build -trimpath -tags '$(TAGS)' -o bin/pgpool ./tools/pgpool
	@for tool in $$(bin/pgpool --tool-names); do [ $$tool = pgpool ] || ln -sf pgpool bin/$$tool; done

test: testdeps build
	$(GO) test -pgo=off -tags '$(TAGS)' -race -shuffle=on -timeout 40m $(TESTFLAGS) $(PKG)

lint: imports
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); [ -z "$$bad" ] || { echo "not gofmt-ed:"; echo "$$bad"; exit 1; }
	$(GO) vet -pgo=off -tags '$(TAGS)' ./...
	$(GO) mod tidy -diff

# Who may import whom.
imports:
	$(GO) test -run 'Import|Table|Fault' ./tools/

# What tests and benchmark need: Debian packages where root and missing (their
# services do not run), and PostgreSQL 17 and 18 and node-postgres in the user's cache folder.
testdeps:
	@.ci/deps test
	@$(GO) test -run '^TestNpm' ./tools/testcluster >/dev/null || $(GO) test -count=1 -v -run '^TestNpm' ./tools/testcluster

bench: bench-go bench-pgbench

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-pgbench: testdeps build
	$(GO) build -o bin/pgpool-bench ./tools/bench
	bin/pgpool-bench -pgpool bin/pgpool $(BENCHFLAGS)

# The profile that the compiler optimises the program by: to be made anew, on a quiet
# machine, when the hot path has changed much.
pgo: testdeps
	@dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	$(GO) build -trimpath -pgo=off -tags '$(TAGS) profile' -o $$dir/pgpool ./tools/pgpool; \
	$(GO) build -o bin/pgpool-bench ./tools/bench; \
	CPU_PROFILES=$$dir bin/pgpool-bench -pgpool $$dir/pgpool -rounds 1 -seconds 6 -clients 16,64 -many 1000 \
		-modes simple,extended,prepared,connect,writes,many,cached,tls -targets pgpool-go,pgpool-go-lb,pgpool-go-tx,pgpool-go-cache,pgpool-go-tls; \
	find $$dir -name '*.prof' -size -1k -delete; \
	$(GO) tool pprof -symbolize=none -proto $$dir/*.prof > tools/pgpool/default.pgo

# Logins by the drivers of several languages, that of Java, for which a JDK is
# installed, included.
drivers: testdeps
	@.ci/deps drivers
	$(GO) test -count=1 -v -run '^TestDrivers$$' ./pgpool

# pgx's own tests, directly and through pgpool: some minutes. Its modules come by
# the Go module proxy.
pgx-suite: testdeps build
	$(GO) run ./tools/pgxsuite -pgpool bin/pgpool

# What can happen to a cluster made by pgpool_setup, under load: half an hour.
# SCENARIOS='-scenarios 1 -scenario switchover' for less.
SCENARIOS ?= -scenarios 10
scenarios: testdeps build
	$(GO) test -count=1 -v -timeout 3h -run '^TestScenarios$$' ./tools/pgpool $(SCENARIOS)

demo: build
	@.ci/deps demo
	@$(GO) build -o bin/pgpool-demo ./tools/demo
	@exec bin/pgpool-demo -pgpool bin/pgpool $(if $(PORT),-port $(PORT))

# As the original's install does: programs, sample files and what goes with them.
install: build
	install -d $(DESTDIR)$(PREFIX)/{bin,etc,share/pgpool-II}
	install -m 755 bin/pgpool $(DESTDIR)$(PREFIX)/bin/pgpool
	for tool in $$(bin/pgpool --tool-names); do [ $$tool = pgpool ] || ln -sf pgpool $(DESTDIR)$(PREFIX)/bin/$$tool; done
	install -m 644 share/*.conf.sample $(DESTDIR)$(PREFIX)/etc/
	install -m 755 share/scripts/*.sample $(DESTDIR)$(PREFIX)/etc/
	[ -e $(DESTDIR)$(PREFIX)/etc/pool_passwd ] || install -m 600 /dev/null $(DESTDIR)$(PREFIX)/etc/pool_passwd
	install -m 644 share/insert_lock.sql share/pgpool.pam LICENSE $(DESTDIR)$(PREFIX)/share/pgpool-II/
	sed 's|@PREFIX@|$(PREFIX)|g' share/pgpool.service.in > $(DESTDIR)$(PREFIX)/share/pgpool-II/pgpool.service

clean:
	rm -rf bin
