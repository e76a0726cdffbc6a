# Give variables on the command line: make -e NAME=value <target>
#
#   ECR_REGISTRY     the ECR registry behind dray, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com
#   REGISTRY         the name under which clients reach dray, host or host:port
#   REGION           the AWS region that CloudWatch metrics are published to
#   PORT             the port dray listens on
#   TLS_CERTIFICATE  the file with the certificate that dray shows to clients
#   TLS_PRIVATE_KEY  the file with the private key of that certificate
#   PUBLISHED        the address at which a release is published, a host that serves images and files
#   KEY              the file with the private key that signs a release
#
# For `dockerRun`, the two files are paths in the container. ./credentials is mounted there as /credentials.
# `run` and `dockerRun` pass these variables to dray, with all variables whose names begin with DRAY_, and
# with those from which the AWS SDK gets credentials and a region. `dockerRun` leaves out
# DRAY_CACHE_DIRECTORY, because the cache is in the volume VOLUME.

.DEFAULT_GOAL := help
SHELL         := /bin/bash
MAKEFLAGS     += --no-print-directory

PORT          ?= 5000
IMAGE         ?= dray
CONTAINER     ?= dray
VOLUME        ?= dray-make-cache
FUZZTIME      ?= 10s
SOAKTIME      ?= 2m
FLEET         ?= 1
FLEETPULLS    ?= 200
ROUNDS        ?= 200
PREFIX        ?= /usr/local

# The address at which images and packages are published. The README and the documents name the same, and
# a release names the one that it is made with.
PUBLISHED     ?= get.dray.example
RELEASE       ?= bin/release

VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD       := CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -buildvcs=false -ldflags "-s -w -X dray/cmd/dray/program.version=$(VERSION)"

# make keeps test tools here, and root file systems that it has made. You may delete this directory.
CACHE_HOME    := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export DRAY_TEST_CACHE ?= $(CACHE_HOME)/dray-test
export PORT

# The certificate has another path in a container than on the host, so run and dockerRun have different
# defaults.
on-host       = TLS_CERTIFICATE="$(or $(TLS_CERTIFICATE),credentials/cert.pem)" TLS_PRIVATE_KEY="$(or $(TLS_PRIVATE_KEY),credentials/privkey.pem)"
in-container  = -e TLS_CERTIFICATE="$(or $(TLS_CERTIFICATE),/credentials/cert.pem)" -e TLS_PRIVATE_KEY="$(or $(TLS_PRIVATE_KEY),/credentials/privkey.pem)"
# must-exist fails if the certificate or the key is missing on the host. $(1) is / for dockerRun, and empty
# for run. For dockerRun, a file outside /credentials belongs to the image and is not checked.
must-exist    = @for file in "$(or $(TLS_CERTIFICATE),$(1)credentials/cert.pem)" "$(or $(TLS_PRIVATE_KEY),$(1)credentials/privkey.pem)"; do \
	  case "$(1)$$file" in //credentials/*) file=".$$file" ;; //*) continue ;; esac; \
	  [ -r "$$file" ] || { echo "cannot read $$file: make -e REGISTRY=$(REGISTRY) genSelfsigned puts a certificate and its key into ./credentials" >&2; exit 1; }; \
	done
settings      = $(sort $(filter-out DRAY_TEST_% DRAY_CACHE_DIRECTORY,$(filter DRAY_%,$(.VARIABLES))) \
                  $(foreach name,PROFILE REGION DEFAULT_REGION ROLE_ARN ACCESS_KEY_ID SECRET_ACCESS_KEY SESSION_TOKEN ENDPOINT_URL EC2_METADATA_DISABLED,$(if $(AWS_$(name)),AWS_$(name))))
pass-on       = $(foreach name,$(settings),-e $(name))

# The host in REGISTRY, without scheme, port and path.
reached-as    = $(firstword $(subst :, ,$(subst /, ,$(patsubst http://%,%,$(patsubst https://%,%,$(REGISTRY))))))

.PHONY: help release bench screenshots first-pull playtest genSelfsigned build run dockerBuild dockerRun variables check test test-clients install-test-tools lint fuzz soak test-fleet fleet-clients crashloop clean install

help: ## list the targets
	@awk 'NR == 1, !/^#/ { if (/^#/) print substr($$0, 3) } \
	      /^[a-zA-Z-]+:.*## / { split($$0, t, /:.*## /); printf "  make %-20s %s\n", t[1], t[2] }' Makefile

playtest: ## try dray with a stand-in for ECR, or with ECR itself if ECR_REGISTRY is set
	@go build -o bin/playtest/ ./cmd/playtest && exec bin/playtest/playtest # go run would fail at Ctrl-C

genSelfsigned: ## write a certificate for REGISTRY and localhost to ./credentials; FORCE=1 replaces an old one
	@mkdir -p -m 0700 credentials
	go run ./cmd/dray cert $(if $(FORCE),--force) $(foreach host,$(sort $(reached-as) localhost 127.0.0.1),--host $(host)) --out-cert credentials/cert.pem --out-key credentials/privkey.pem

build: ## build bin/dray and bin/fakeecr, the stand-in for ECR
	$(GOBUILD) -o bin/dray ./cmd/dray
	$(GOBUILD) -o bin/fakeecr ./cmd/fakeecr

install: build ## copy bin/dray to PREFIX/bin
	install -D -m 0755 bin/dray $(DESTDIR)$(PREFIX)/bin/dray

release: ## write programs, packages and images to RELEASE, for PUBLISHED, signed with KEY if that is set
	go run ./deploy/release -out "$(RELEASE)" -version "$(VERSION)" -published "$(PUBLISHED)" $(if $(KEY),-key "$(KEY)")

run: variables ## run dray from source
	$(call must-exist,)
	$(on-host) ECR_REGISTRY="$(ECR_REGISTRY)" REGISTRY="$(REGISTRY)" REGION="$(REGION)" go run ./cmd/dray serve

# This target does the work of the first stage of the Dockerfile on the host. So the build needs no base
# image, and the image contains the certificate authorities that the host trusts.
dockerBuild: ## build the container image; needs a Docker daemon but no network
	@rm -rf bin/context && mkdir -p bin/context
	$(GOBUILD) -o bin/context/image/bin/dray ./cmd/dray
	@install -D -m 0644 -t bin/context/image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt
	@install -d -m 1777 bin/context/image/cache bin/context/image/tmp
	@sed -n 's/--from=build //; /^FROM scratch$$/,$$ p' Dockerfile > bin/context/Dockerfile
	docker build -t $(IMAGE) bin/context
	@rm -rf bin/context

# The container runs without any capability, as the user who runs make: only that user can read the private
# key and ~/.aws. Port 6060 lets everybody operate dray, and a profile can contain data that passes through
# dray, so the port is published to this host alone.
dockerRun: variables ## run the container image
	$(call must-exist,/)
	@mkdir -p -m 0700 credentials # otherwise Docker creates it for root
	docker run --rm --name $(CONTAINER) --stop-timeout 45 $(if $(CI),,-it) \
	  --user "$$(id -u):$$(id -g)" --cap-drop ALL --security-opt no-new-privileges --read-only \
	  -p $(PORT):$(PORT) -p 127.0.0.1:6060:6060 \
	  -v "$$PWD/credentials:/credentials:ro" $(if $(wildcard $(HOME)/.aws),-v "$$HOME/.aws:/.aws:ro") -v $(VOLUME):/cache \
	  $(in-container) -e REGION="$(REGION)" -e REGISTRY="$(REGISTRY)" -e ECR_REGISTRY="$(ECR_REGISTRY)" -e PORT=$(PORT) \
	  -e DRAY_ADMIN_ADDRESS=0.0.0.0:6060 -e DRAY_ADMIN_ALLOW_ANONYMOUS=true $(pass-on) $(IMAGE)

variables: ## fail if a variable is missing that `run` and `dockerRun` need
	@missing="$(strip $(foreach name,REGION REGISTRY ECR_REGISTRY,$(if $($(name)),,$(name))))"; \
	if [ -n "$$missing" ]; then \
	  echo "not set: $$missing. Give them as in: make -e$$(printf ' %s=...' $$missing) $(firstword $(MAKECMDGOALS))" >&2; exit 1; \
	fi

check: ## two minutes: gofmt, prose, vet, house rules and the quick tests
	@.ci/check

test: install-test-tools ## run all tests with the race detector, and the tests with real clients
	@.ci/test

test-clients: ## build every client, some for many minutes, and run the tests with real clients
	@.ci/install-test-tools all || test $$? -eq 3
	@.ci/test clients

install-test-tools: ## install the clients that the tests use (needs Debian, and root or sudo)
	@.ci/install-test-tools || test $$? -eq 3 # 3: it could not install everything, and has printed what is missing

lint: ## gofmt, prose, vet, staticcheck, govulncheck, imports, binary size
	@.ci/lint

fuzz: ## run each fuzz target for FUZZTIME
	@.ci/fuzz $(FUZZTIME)

soak: ## pull, push, purge and kill -9 dray, or a fleet of FLEET, for SOAKTIME; SOAKSEED repeats a run
	SOAKTIME=$(SOAKTIME) FLEET=$(FLEET) go test ./cmd/e2e -run '^TestSoak$$' -count=1 -v -timeout 0

test-fleet: ## FLEETPULLS pulls for each failure that a fleet survives, and each without what it survives by
	FLEETPULLS=$(FLEETPULLS) go test ./cmd/e2e -run '^TestFleet' -count=1 -v -timeout 0 | grep -v '^=== '

fleet-clients: ROUNDS = 3
fleet-clients: ## have each client push through a fleet ROUNDS times, with members killed in half of the rounds
	DRAY_FLEET_ROUNDS=$(ROUNDS) go test ./cmd/e2e -run '^TestFleetClients$$' -count=1 -v -timeout 0

crashloop: ## kill dray ROUNDS times during pushes, with acknowledge: upstream and with acknowledge: local
	go test -count=1 -v -timeout 60m ./cmd/dray -run '^TestCrashLoop$$' -crash-rounds $(ROUNDS)

first-pull: ## time the steps from the package to the first cached pull, on a Debian that is booted for it
	DRAY_REQUIRE_CLIENTS=1 go test ./cmd/e2e -count=1 -v -run 'TestRelease/first_pull' | grep -v '^=== '

screenshots: ## write the pictures of pages to docs; needs Chromium
	DRAY_REQUIRE_CLIENTS=1 go test ./cmd/e2e -count=1 -run '^Test(Page|Report)InBrowser$$/^pictures$$' -args -screenshots "$(CURDIR)/docs"

bench: ## compare dray with nginx, distribution and no cache, and write docs/benchmarks.md; use an idle machine
	go run ./cmd/draybench -install -out docs/benchmarks.md

clean: ## remove the files that make built here, but no certificate
	rm -rf bin
