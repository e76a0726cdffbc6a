package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// allowance lets a package import what begins with path, and says why it needs to.
type allowance struct{ path, why string }

// Reasons that many packages share.
const (
	measures  = "its own metrics, registered by the composition root"
	addresses = "names content by digest"
	judges    = "shows differences"
)

const (
	prometheusClient   = "github.com/prometheus/client_golang/prometheus"
	goDigest           = "github.com/opencontainers/go-digest"
	goCmp              = "github.com/google/go-cmp/cmp"
	imageSpec          = "github.com/opencontainers/image-spec/specs-go/v1"
	awsSDK             = "github.com/aws/aws-sdk-go-v2"
	containerPlatforms = "github.com/containerd/platforms"
	buildkitParser     = "github.com/moby/buildkit/frontend/dockerfile"
	openTelemetry      = "go.opentelemetry.io/otel"
	templLibrary       = "github.com/a-h/templ"
	craneLibrary       = "github.com/google/go-containerregistry/pkg"
)

// importable lists the packages that each package of the module may import besides the standard
// library. cache knows nothing of OCI or registries; upstream knows nothing of the cache; mirror
// connects them; cmd/dray chooses the implementations. The test refuses imports that are not in the
// list, and entries that no package needs.
var importable = map[string][]allowance{
	"dray/cache": {
		{"dray/cache/disk", "stores blobs on disk"}, {"dray/cache/memory", "stores small objects in memory"},
		{"github.com/hashicorp/golang-lru/v2/simplelru", "recent counts, bounded"},
		{goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/cachetest": {
		{"dray/cache", "the readers that the suite tests"}, {"dray/cache/disk", "a real directory to read from"}, {goDigest, addresses}, {goCmp, judges},
	},
	"dray/cache/disk": {
		{goDigest, addresses}, {prometheusClient, measures},
		{"golang.org/x/sys/unix", "fallocate, linkat and the other calls that make a blob appear whole"},
	},
	"dray/cache/fleet": {
		{"dray/cache", "blobs that members exchange"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/fleet/fleettest": {{"dray/cache/fleet", "the leases that the suite tests"}, {goDigest, addresses}},
	"dray/cache/s3": {
		{"dray/cache", "the interface that it implements"}, {awsSDK, "the API of S3"}, {"github.com/aws/smithy-go/transport/http", "the status of its answers"},
		{"github.com/hashicorp/golang-lru/v2/simplelru", "recent knowledge about the bucket, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/s3/s3test": {}, // nothing of dray: it judges dray
	"dray/cache/memory": {
		{"github.com/hashicorp/golang-lru/v2/simplelru", "the order of use"}, {goDigest, addresses},
	},
	"dray/cache/meta": {
		{"github.com/hashicorp/golang-lru/v2", "an LRU in front of every store"}, {goDigest, "facts are about digests"}, {prometheusClient, measures},
	},
	"dray/cache/meta/bolt": {
		{"dray/cache/meta", "the interface that it implements"}, {"go.etcd.io/bbolt", "the embedded database; no other package uses it"}, {prometheusClient, measures},
	},
	"dray/cache/meta/metatest": {{"dray/cache/meta", "the stores that the suite tests"}, {goCmp, judges}},
	"dray/cache/meta/redis": {
		{"dray/cache/meta", "the interface that it implements"}, {"dray/cache/fleet", "the interface of leases"}, {goDigest, addresses}, {"github.com/redis/go-redis/v9", "the shared database; no other package uses it"},
	},
	"dray/upstream/oci": {
		{"github.com/distribution/distribution/v3/manifest/manifestlist", "a manifest type of Docker"},
		{"github.com/distribution/distribution/v3/manifest/schema2", "a manifest type of Docker"},
		{"github.com/distribution/distribution/v3/registry/api/errcode", "the error codes of the specification"},
		{"github.com/distribution/distribution/v3/registry/api/v2", "the routes of the specification"},
		{"github.com/distribution/reference", "the grammar of names and tags"}, {goDigest, addresses}, {imageSpec, "the manifest types of OCI"},
	},
	"dray/upstream/auth": {{"dray/upstream/oci", "refuses requests by errors of the protocol"}},
	"dray/upstream": {
		{openTelemetry, "spans of a trace"}, {"dray/upstream/auth", "requests carry credentials"}, {"dray/upstream/oci", "the protocol of registries"}, {"dray/upstream/turns", "the order of waiting requests"}, {goDigest, addresses}, {prometheusClient, measures},
		{"golang.org/x/time/rate", "token buckets"},
	},
	"dray/upstream/turns":    {},
	"dray/upstream/ecr/host": {},
	"dray/upstream/ecr": {
		{"dray/upstream/ecr/host", "names of registries"}, {"dray/upstream", "the client of any registry"}, {"dray/upstream/auth", "the interface of credentials"}, {"dray/upstream/oci", "errors of the protocol"},
		{awsSDK, "the API of ECR"}, {"github.com/aws/smithy-go", "the errors of that API"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/upstream/ecrtest": { // nothing of dray: it judges dray
		{"github.com/distribution/reference", "the grammar of names and tags"}, {"github.com/fxamacker/cbor/v2", "the wire format of CloudWatch"},
		{goDigest, addresses}, {imageSpec, "the manifest types of OCI"},
	},
	"dray/upstream/upstreamtest": {
		{"dray/upstream", "the sources and sinks that the suite tests"}, {"dray/upstream/oci", "the protocol of registries"},
		{craneLibrary, "an independent registry"}, {goDigest, addresses}, {goCmp, judges},
	},
	"dray/mirror/pattern": {},
	"dray/mirror/pipeline": { // nothing of cache or upstreams: it judges what it is given, also without a mirror
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/upstream/oci", "manifests"}, {"github.com/klauspost/compress/gzip", "layers, a third faster than the standard library"},
		{"github.com/klauspost/compress/zstd", "layers, which the standard library cannot read"}, {goDigest, addresses}, {imageSpec, "configurations of images"},
		{prometheusClient, measures}, {"golang.org/x/sync/errgroup", "reads layers at the same time"},
	},
	"dray/mirror/notify": {
		{"dray/mirror/pipeline/webhook", "signs requests in the same way"}, {"dray/upstream/oci", "addresses of manifests"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/flight":  {{openTelemetry, "links between callers that share a call"}}, // it knows nothing of what is done
	"dray/mirror/reread":  {},
	"dray/mirror/proxied": {{"github.com/pires/go-proxyproto", "the header of the PROXY protocol"}, {prometheusClient, measures}},
	"dray/mirror/wire":    {{"dray/mirror/reread", "certificates that change"}, {"dray/mirror/proxied", "connections that proxies make for clients"}, {"dray/upstream/oci", "ranges of bodies, and their errors"}, {"golang.org/x/sys/unix", "splice"}, {prometheusClient, measures}},
	"dray/mirror/route":   {{"dray/mirror/pattern", "patterns of repositories"}, {"dray/upstream/oci", "requests and references as values"}},
	"dray/mirror/identity": {
		{"dray/mirror/proxied", "clients behind proxies"}, {"dray/mirror/flight", "hashes equal credentials only once"}, {"dray/mirror/reread", "passwords and keys that change"}, {prometheusClient, measures},
		{"dray/mirror/pattern", "patterns of repositories in rules"}, {"dray/upstream/oci", "refuses requests by errors of the protocol"},
		{"github.com/distribution/distribution/v3/registry/auth", "recognises clients by tokens"},
		{"github.com/hashicorp/golang-lru/v2", "wrong passwords, bounded"}, {"golang.org/x/crypto/bcrypt", "compares passwords with hashes"},
	},
	"dray/mirror/repository": {
		{openTelemetry, "spans of a trace"}, {"dray/cache", "finds bytes"}, {"dray/cache/fleet", "bytes that other members have"}, {"dray/cache/meta", "stores facts"}, {"dray/mirror/queue", "content that is not forwarded yet"},
		{"dray/mirror/flight", "one question for all callers that wait"}, {"dray/upstream", "confirms and sends content"},
		{"dray/upstream/oci", "the children of manifests"},
		{"github.com/hashicorp/golang-lru/v2", "recent results, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/gate": {
		{"dray/mirror/flight", "one verdict for all pushes that wait"}, {"dray/mirror/pipeline", "runs the checks"}, {"dray/mirror/notify", "events"}, {"dray/mirror/pattern", "patterns of names"},
		{"dray/mirror/repository", "names of repositories"}, {"dray/upstream/oci", "manifests and references"},
		{"github.com/hashicorp/golang-lru/v2", "the newest reports, bounded"}, {goDigest, addresses},
	},
	"dray/mirror/jobs": {
		{"dray/mirror/flight", "bounded work in the background"}, {"dray/mirror/repository", "images and their places"}, {"dray/mirror/pipeline", "verdicts"},
		{"dray/cache", "cached configurations of images"}, {"dray/cache/meta", "facts about base images and pulls"}, {"dray/upstream", "requests in the background"},
		{"dray/upstream/oci", "manifests"}, {"github.com/hashicorp/golang-lru/v2", "recent base images, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/live": {
		{"dray/mirror/admin/api", "types of the API for operators"}, {"dray/upstream/oci", "the children of manifests"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/past": {
		{"dray/mirror/admin/api", "types of the API for operators"}, {"dray/upstream", "requests to upstreams"}, {goDigest, addresses},
		{"github.com/hashicorp/golang-lru/v2", "the last pulls, bounded"},
	},
	"dray/mirror/request": {
		{"dray/mirror/past", "records why a request is no cache hit"},
		{"dray/mirror/live", "shows the pull or push of a request"},
		{"dray/mirror/notify", "events about requests"}, {"dray/mirror/identity", "callers"},
		{"dray/mirror/repository", "repositories"}, {"dray/mirror/route", "finds the repository of a request"}, {"dray/mirror/wire", "answers"},
		{"dray/upstream/oci", "parsed requests"}, {goDigest, addresses},
	},
	"dray/mirror/ceilings": {
		{"dray/cache/fleet", "members, and shares of ceilings"}, {"dray/upstream", "the limiter of requests"}, {prometheusClient, measures},
	},
	"dray/mirror/fallback": {
		{"dray/mirror/request", "requests to answer"}, {"dray/mirror/repository", "upstreams that have the content"}, {"dray/mirror/identity", "the right to push"},
		{"dray/upstream/oci", "the children of manifests"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/delegate": {{"dray/cache/fleet", "members, and requests to them"}, {goDigest, addresses}, {prometheusClient, measures}},
	"dray/mirror/pull": {
		{"dray/mirror/past", "records why a request is no cache hit"}, {"dray/mirror/admin/api", "types of the API for operators"}, {"dray/cache/disk", "reasons why content was evicted"},
		{openTelemetry, "spans of a trace"}, {"dray/mirror/fallback", "lets fallbacks answer"}, {"dray/mirror/delegate", "passes questions to another member"}, {"dray/cache/fleet", "the fleet, for mirror/delegate"},
		{"dray/mirror/request", "requests to answer"}, {"dray/mirror/repository", "finds content"}, {"dray/mirror/jobs", "observers of pulls"}, {"dray/mirror/identity", "the right to push"},
		{"dray/mirror/flight", "one question for all callers that wait"}, {"dray/mirror/wire", "bodies"}, {"dray/cache", "bytes to send"},
		{"dray/cache/meta", "facts about tags"}, {"dray/upstream", "manifests and lists from registries"}, {"dray/upstream/oci", "the protocol of clients"},
		{"github.com/hashicorp/golang-lru/v2", "repeated answers, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/writer": {
		{openTelemetry, "traces that span members"},
		{"dray/cache/fleet", "members and leases"}, {"dray/mirror/request", "requests to pass on"}, {"dray/mirror/identity", "callers whom another member has recognised"},
		{"dray/mirror/proxied", "the proxies before another member"}, {"dray/mirror/repository", "repositories to which clients push"}, {"dray/mirror/wire", "bodies that are passed on"},
		{"dray/upstream/oci", "refusals, and kinds of requests"}, {goDigest, "leases are named by digest"}, {prometheusClient, measures},
	},
	"dray/mirror/warming": {
		{"dray/mirror/pull", "finds and fetches images as pulls do"}, {"dray/mirror/repository", "finds content"}, {"dray/mirror/admin/api", "types of the API for operators"},
		{"dray/cache", "checks the cache at the end"}, {"dray/upstream/oci", "the children of manifests"},
		{containerPlatforms, "chooses the manifest of a platform"}, {imageSpec, "platforms"}, {goDigest, addresses}, {"golang.org/x/sync/errgroup", "moves the blobs of an image at the same time"},
	},
	"dray/mirror/explain": { // what pulls do, told beforehand by the parts that do it
		{"dray/mirror/past", "past pulls and cache misses"}, {"dray/mirror/live", "pulls under way"}, {"dray/mirror/pipeline", "verdicts on pushes"}, {"dray/mirror/notify", "addresses of reports"},
		{"dray/mirror/pull", "predicts pulls"}, {"dray/mirror/repository", "finds content"}, {"dray/mirror/warming", "chooses the manifest of a platform"},
		{"dray/mirror/route", "finds the repository of a name"}, {"dray/mirror/identity", "rights of callers"}, {"dray/mirror/request", "listeners"}, {"dray/mirror/inventory", "blobs as operators see them"}, {"dray/mirror/admin/api", "types of the API for operators"},
		{"dray/cache", "finds bytes"}, {"dray/upstream", "the limiter and breaker of an upstream"}, {"dray/upstream/oci", "names and manifests"},
		{containerPlatforms, "platforms as operators write them"}, {imageSpec, "platforms"}, {goDigest, addresses},
	},
	"dray/mirror/report": {{"dray/mirror/pipeline", "values that it shows"}, {templLibrary, "a page whose every text is escaped"}},
	"dray/mirror/push": {
		{"dray/mirror/report", "reports for browsers"},
		{"dray/mirror/live", "pushes that operators see"},
		{"dray/mirror/request", "requests to answer"}, {"dray/mirror/repository", "finds content"}, {"dray/mirror/gate", "the checks that a push must pass"},
		{"dray/mirror/pipeline", "pushed content for the checks"}, {"dray/mirror/jobs", "observers of pushes"}, {"dray/mirror/pull", "manifests of an index under check, and upstreams that do not answer"},
		{"dray/mirror/queue", "pushes that are forwarded later"}, {"dray/mirror/flight", "one push for all clients with the same content"}, {"dray/mirror/notify", "events"},
		{"dray/cache", "stores uploads"}, {"dray/cache/meta", "tags that other members have pushed"}, {"dray/upstream", "registries to push to"}, {"dray/upstream/oci", "the protocol of clients"},
		{"github.com/hashicorp/golang-lru/v2", "refused mounts, bounded"}, {"golang.org/x/sync/errgroup", "moves the blobs of an image at the same time"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror": { // the front door, and where its rooms are put together
		{"dray/mirror/past", "records requests"}, {"dray/mirror/admin/api", "types of the API for operators"},
		{openTelemetry, "spans of a trace"}, {"dray/mirror/repository", "built here"}, {"dray/mirror/gate", "built here"}, {"dray/mirror/jobs", "built here"},
		{"dray/mirror/pull", "built here"}, {"dray/mirror/warming", "built here"}, {"dray/mirror/push", "built here"}, {"dray/mirror/writer", "built here"}, {"dray/mirror/live", "records requests"}, {"dray/mirror/explain", "built here"}, {"dray/mirror/flight", "tasks that end with it"},
		{"dray/mirror/request", "requests"}, {"dray/mirror/identity", "rights of callers"}, {"dray/mirror/wire", "answers"},
		{"dray/mirror/proxied", "proxies, for the log"}, {"dray/mirror/notify", "events"}, {"dray/mirror/pipeline", "reports"}, {"dray/mirror/queue", "pushes that are forwarded later"},
		{"dray/cache", "passed to the rooms"}, {"dray/cache/fleet", "passed to the rooms"}, {"dray/cache/meta", "passed to the rooms"}, {"dray/upstream/oci", "kinds of requests"}, {prometheusClient, measures},
	},
	"dray/mirror/fixture": {},
	"dray/mirror/mirrortest": {
		{"dray/mirror", "tests call rooms through the mirror"}, {"dray/mirror/identity", "a listener that accepts all pushes"},
		{"dray/mirror/repository", "an upstream"}, {"dray/mirror/request", "a listener"}, {"dray/mirror/route", "a listener of one route"},
		{"dray/cache", "bytes"}, {"dray/cache/disk", "a directory that fails"}, {"dray/cache/meta", "facts"}, {"dray/cache/meta/metatest", "facts in memory, which fail"},
		{"dray/upstream", "the interfaces that the registry in memory implements"}, {"dray/upstream/oci", "images"}, {goDigest, addresses}, {prometheusClient, "counters"},
	},
	"dray/mirror/hosted": {
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/cache", "stores blobs"}, {"dray/upstream", "the interfaces that it implements"}, {"dray/upstream/oci", "pushed manifests"},
		{goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/admin/api": {{goDigest, addresses}},
	"dray/mirror/admin": { // everything else through views of its own
		{"dray/mirror/admin/api", "errors and types of the API"}, {"dray/mirror/identity", "rights of operators, and allowed Host headers"}, {"dray/upstream/oci", "reasons of refusals"}, {prometheusClient, "serves metrics"},
	},
	"dray/mirror/admin/page": { // the values of the API, and nothing of what it shows
		{"dray/mirror/admin/api", "types of the API for operators"}, {templLibrary, "pages whose every text is escaped"}, {goDigest, addresses},
	},
	"dray/mirror/inventory": {
		{"dray/mirror/admin/api", "types of the API for operators"},
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/cache", "the cache that it lists"}, {"dray/cache/disk", "blobs on disk"}, {"dray/cache/meta", "facts about repositories"},
		{"dray/upstream/oci", "the children of manifests"}, {goDigest, addresses},
	},
	"dray/mirror/savings": {{"dray/mirror/admin/api", "types of the API for operators"}, {prometheusClient, measures}}, // arithmetic on values
	"dray/mirror/history": {
		{"dray/mirror/admin/api", "types of the API for operators"}, {"github.com/prometheus/client_model", "reads gathered metrics"}, {prometheusClient, "gathers metrics"},
	},
	"dray/mirror/ledger": {
		{"dray/mirror/savings", "the counts that it stores"}, {"dray/mirror/history", "increases of counters"}, {"dray/cache", "names of its sources"}, {"github.com/prometheus/client_model", "reads gathered metrics"}, {prometheusClient, "gathers metrics"},
	},
	"dray/mirror/pipeline/metadata":     {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/names":        {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}, {"dray/upstream/oci", "tags that tools derive from a digest"}},
	"dray/mirror/pipeline/runtime":      {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/shape":        {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/attestations": {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/base": {
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/mirror/pipeline", "a stage"}, {"dray/mirror/pipeline/attestations", "base images in provenance"},
		{"github.com/distribution/reference", "full names of images"}, {goDigest, addresses}, {imageSpec, "annotations"},
	},
	"dray/mirror/pipeline/clamd": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/local": {
		{"dray/mirror/pipeline", "runs the checks"}, {"dray/upstream/oci", "manifests"}, {goDigest, addresses}, {imageSpec, "the image layout"},
		{"github.com/opencontainers/image-spec/specs-go", "the version of a manifest"},
	},
	"dray/mirror/pipeline/rules": {
		{"dray/mirror/pipeline", "a stage"},
		{"cel.dev/cel-go/cel", "the language of rules, whose cost is bounded"}, {"cel.dev/cel-go/ext", "its functions on texts and lists"},
	},
	"dray/mirror/pipeline/scanner": {
		{"dray/mirror/pipeline", "a stage"}, {"dray/upstream/oci", "descriptors"}, {goDigest, addresses}, {imageSpec, "the image layout"},
		{"golang.org/x/sys/unix", "ends the processes of a program, and isolates them"},
	},
	"dray/mirror/pipeline/secrets": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/webhook": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pulls":            {{prometheusClient, measures}},
	"dray/mirror/queue":            {{goDigest, addresses}, {prometheusClient, measures}},
	"dray/mirror/cloudwatch": {
		{"dray/mirror/pulls", "the counts it publishes"}, {awsSDK, "the API of CloudWatch"},
		{prometheusClient, measures}, {"github.com/prometheus/client_model", "reads gathered metrics"},
	},
	"dray/cmd/dray/config": { // none of the parts that it configures
		{"dray/upstream/ecr/host", "the kind of an upstream by its host name"}, {"dray/upstream/oci", "joins prefixes and repositories as requests do"},
		{"dray/upstream/auth", "secrets that no output shows"}, {"dray/cmd/dray/certificates", "files of certificates, and their problems"}, {"dray/mirror/reread", "files that change"},
		{"github.com/caarlos0/env/v11", "configuration from the environment"}, {"go.yaml.in/yaml/v3", "configuration from a file"},
	},
	"dray/cmd/dray/certificates": {
		{"dray/cmd/dray/replace", "a failed write keeps the old files"}, {"dray/cmd/dray/usage", "refuses wrong arguments"}, {"dray/mirror/reread", "files that change"}, {"github.com/spf13/cobra", "a subcommand"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/clients": {
		{"dray/cmd/dray/config", "auth entries of the configuration"}, {"dray/cmd/dray/watched", "a token that changes"}, {"dray/mirror/identity", "recognises clients"}, {"dray/mirror/proxied", "trusted proxies"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/cgroup":         {},
	"dray/cmd/dray/config/changes": {{"dray/upstream/auth", "secrets in files of their own"}},
	"dray/cmd/dray/reload":         {{"dray/cmd/dray/config", "the configuration to reload"}, {"dray/cmd/dray/config/changes", "the keys that change at a reload"}, {"dray/mirror/admin/api", "types of the API for operators"}, {prometheusClient, measures}},
	"dray/cmd/dray/htpasswd": {
		{"dray/cmd/dray/replace", "a password file keeps its owner"}, {"dray/cmd/dray/usage", "refuses wrong arguments"}, {"dray/mirror/identity", "reads password files"}, {"github.com/spf13/cobra", "a subcommand"},
		{"golang.org/x/crypto/bcrypt", "hashes passwords"}, {"golang.org/x/term", "a terminal shows no password"},
	},
	"dray/cmd/dray/listening": {{"golang.org/x/sync/errgroup", "servers run together"}},
	"dray/cmd/dray/logbuffer": {},
	"dray/cmd/dray/zone":      {{awsSDK, "the metadata of an instance"}},
	"dray/cmd/dray/member": {
		{"dray/cache", "blobs for other members"}, {"dray/cache/fleet", "the fleet"}, {"dray/cache/meta", "facts of the fleet"}, {"dray/mirror/ceilings", "ceilings that members share"},
		{"dray/upstream", "the limiter of requests"}, {prometheusClient, measures}, {"dray/cmd/dray/config", "its configuration"}, {"dray/cmd/dray/watched", "a secret that changes"}, {"dray/mirror/writer", "pushes to any member"},
		{"dray/cmd/dray/stats", "counters"}, {"dray/mirror/admin", "requests of operators"}, {"dray/mirror/admin/api", "types of the API for operators"},
	},
	"dray/cmd/dray/tracing": {
		{openTelemetry, "makes spans, and sends them"}, {"dray/cmd/dray/config", "the address of the collector"}, {"dray/cmd/dray/watched", "headers that change"},
	},
	"dray/cmd/dray/services": {
		{"dray/cmd/dray/config", "the configured services"}, {"dray/cmd/dray/watched", "secrets that change"}, {"dray/mirror/pipeline/webhook", "calls them"},
	},
	"dray/cmd/dray/routes": {
		{"dray/cmd/dray/config", "the configured upstreams"}, {"dray/mirror/route", "finds the upstream of a name"}, {"dray/mirror/inventory", "names that operators write"},
		{"dray/mirror/admin/api", "types of the API for operators"}, {"dray/mirror/repository", "upstreams that answer for others"}, {"dray/upstream/oci", "references"},
	},
	"dray/cmd/dray/registries": {
		{"dray/cmd/dray/config", "the configured registries"}, {"dray/cmd/dray/program", "the version, for User-Agent"}, {"dray/cmd/dray/watched", "secrets and authorities in files"},
		{"dray/cache", "how large blobs are fetched"}, {"dray/mirror/admin", "health before the first request"}, {"dray/mirror/repository", "a registry as the mirror sees it"}, {"dray/upstream", "the client"},
		{"dray/upstream/auth", "its credentials"}, {"dray/upstream/ecr", "the parts that only ECR has"}, {awsSDK, "types of new repositories"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/stats": {
		{"dray/cache", "names of its sources"}, {"dray/cmd/dray/config", "the configured costs of dray"}, {"dray/mirror/admin", "requests of operators"}, {"dray/mirror/admin/api", "types of the API for operators"}, {"dray/mirror/ledger", "counts by day"}, {"dray/mirror/savings", "prices of the counts"}, {"dray/upstream/ecr/host", "regions of registries"},
		{"github.com/prometheus/client_model", "values of metrics"}, {prometheusClient, "gathers metrics"},
	},
	"dray/cmd/dray/window": {
		{"dray/mirror/admin/page", "the page for operators"}, {"dray/mirror/admin", "the checks of health"}, {"dray/mirror/admin/api", "types of the API for operators"},
		{"dray/cmd/dray/config", "the effective configuration"}, {"dray/cmd/dray/ctl", "an explanation as the subcommand prints it"}, {"dray/cmd/dray/program", "the version"}, {"dray/cmd/dray/registries", "the state of upstreams"},
		{"dray/cache/disk", "the cache on disk"}, {"dray/mirror/explain", "explains an image"}, {"dray/mirror/history", "values minute by minute"}, {"dray/mirror/inventory", "the images in the cache"}, {"dray/mirror/live", "pulls and pushes under way"}, {"dray/mirror/push", "open uploads"},
	},
	"dray/cmd/dray/replace": {},
	"dray/cmd/dray/usage":   {{"github.com/spf13/cobra", "subcommands"}},
	"dray/cmd/dray/watched": {
		{"dray/mirror/reread", "files that change"}, {"dray/upstream", "the connections that trust the authorities"}, {"dray/upstream/auth", "passwords are credentials"},
	},
	"dray/cmd/dray/imagelist": {
		{"github.com/distribution/reference", "full names of images"},
		{buildkitParser, "Dockerfiles, and the variables in them and in Compose files, as builds read them"}, {"go.yaml.in/yaml/v3", "files of Compose and Kubernetes"},
	},
	"dray/cmd/dray/top": {{"dray/mirror/admin/api", "values that it shows"}},
	"dray/cmd/dray/ctl": {
		{"dray/cmd/dray/top", "a screen of pulls and pushes"},
		{"dray/cmd/dray/imagelist", "images that files name"}, {containerPlatforms, "platforms as clients write them"}, {imageSpec, "platforms"}, {"golang.org/x/term", "recognises terminals"}, {"golang.org/x/sync/errgroup", "warms images at the same time"},
		{"dray/cmd/dray/config", "the address of the admin listener, and sizes"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{"dray/mirror/admin/api", "requests and answers of the API"}, {"dray/upstream/auth", "a token that no output shows"}, {"dray/upstream/oci", "short digests"}, {"github.com/spf13/cobra", "subcommands"},
	},
	"dray/cmd/dray/doctor": {
		{"dray/upstream/ecr", "the path to its layers"},
		{"dray/cmd/dray/config", "the configuration to check"}, {"dray/cmd/dray/certificates", "certificates near their end"}, {"dray/cmd/dray/cgroup", "the memory limit"}, {"dray/cmd/dray/ctl", "the health of a running dray"},
		{"dray/cache/fleet", "connections to members"},
		{"dray/cmd/dray/program", "an exit code for failures"}, {"dray/cmd/dray/setup", "the expected files of clients"}, {"dray/cmd/dray/usage", "refuses wrong arguments"}, {"dray/mirror/admin/api", "the health of a running dray"}, {"github.com/distribution/reference", "full names of images"}, {"dray/mirror/wire", "the limit of open files"},
		{"github.com/spf13/cobra", "a subcommand"}, {"golang.org/x/sys/unix", "kinds of file systems"},
	},
	"dray/cmd/dray/examine": {
		{"dray/cmd/dray/doctor", "the checks that it carries out"}, {"dray/cmd/dray/config", "the configuration to check"}, {"dray/cmd/dray/registries", "registries, as serve connects to them"}, {"dray/cmd/dray/routes", "repositories by name"}, {"dray/cmd/dray/bucket", "the bucket"},
		{"dray/cache/fleet", "members"}, {"dray/cache/meta/redis", "the store of facts"},
		{"dray/upstream", "uploads and quotas"}, {"dray/upstream/ecr", "sessions with AWS"}, {"dray/upstream/ecr/host", "regions of registries"}, {"dray/upstream/oci", "names and errors"},
		{awsSDK + "/aws", "credentials"},
	},
	"dray/cmd/dray/bundle": {
		{"dray/cmd/dray/config", "secrets to leave out"}, {"dray/cmd/dray/ctl", "pages of a running dray"}, {"dray/cmd/dray/doctor", "the results of dray doctor"}, {"dray/cmd/dray/cgroup", "the memory limit"}, {"dray/cmd/dray/program", "the version"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{"dray/mirror/admin/api", "types of the API for operators"}, {"dray/mirror/reread", "reads files with secrets"}, {"dray/upstream/auth", "secrets"},
		{"github.com/spf13/cobra", "a subcommand"}, {"go.yaml.in/yaml/v3", "names of users in the configuration"},
	},
	"dray/cmd/dray/bucket": {
		{"dray/cache/s3", "makes buckets"}, {"dray/cache/disk", "blobs to write to the bucket"}, {"dray/cmd/dray/config", "the configured bucket"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{awsSDK + "/aws", "credentials"}, {goDigest, addresses}, {"github.com/spf13/cobra", "a subcommand"},
	},
	"dray/cmd/dray/setup": {
		{"dray/cmd/dray/setup/edit", "changes to files that people edit"}, {"dray/cmd/dray/setup/install", "writes files of clients"}, {"dray/cmd/dray/setup/nodes", "a subcommand for clusters"},
		{"dray/cmd/dray/config", "the mirror is a listener of the configuration"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{"github.com/spf13/cobra", "a subcommand"}, {"go.yaml.in/yaml/v3", "the file of k3s is YAML"},
	},
	"dray/cmd/dray/setup/nodes": {{"dray/cmd/dray/usage", "refuses wrong arguments"}, {"github.com/spf13/cobra", "a subcommand"}},
	"dray/cmd/dray/setup/edit": {
		{"github.com/pelletier/go-toml/v2", "values and positions in TOML"}, {"go.yaml.in/yaml/v3", "YAML with its comments"},
	},
	"dray/cmd/dray/setup/install": {
		{"dray/cmd/dray/replace", "files of clients keep their owner"},
		{"github.com/aymanbagabas/go-udiff", "shows changes, and removes them from edited files"},
		{"github.com/pelletier/go-toml/v2", "checks that a file is still TOML"}, {"go.yaml.in/yaml/v3", "checks that a file is still YAML"},
	},
	"dray/cmd/dray/program": {
		{"dray/cmd/dray/config", "prints lists of problems"}, {"dray/cmd/dray/ctl", "the exit code for a dray that does not answer"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{"github.com/spf13/cobra", "subcommands"},
	},
	"dray/cmd/dray/directories": {
		{"dray/mirror/queue", "pushes that must not be lost"}, {"dray/mirror/hosted", "repositories that must not be lost"},
		{"golang.org/x/sys/unix", "the lock of a running dray"},
	},
	"dray/cmd/dray/backup": {
		{"dray/cmd/dray/directories", "the directories and their files"}, {"dray/cache/disk", "files of blobs"}, {"dray/mirror/queue", "blobs that pushes need"}, {"dray/mirror/hosted", "blobs that repositories need"},
		{"dray/cmd/dray/usage", "refuses wrong arguments"}, {"github.com/spf13/cobra", "subcommands"}, {goDigest, addresses},
	},
	"dray/cmd/dray/manual": {{"dray/cmd/dray/usage", "refuses wrong arguments"}, {"github.com/spf13/cobra", "the subcommands that it describes"}},
	"dray/cmd/dray/remote": { // nothing of what a mirror is made of
		{"dray/cmd/dray/config", "the address of the admin listener"}, {"dray/cmd/dray/ctl", "all its subcommands"}, {"dray/cmd/dray/program", "the common parts of both programs"},
		{"dray/cmd/dray/manual", "manual pages"},
	},
	"dray/cmd/dray": {
		{"dray/cmd/dray/tracing", "built here"}, {"dray/cmd/dray/config", "its configuration"}, {"dray/cmd/dray/ctl", "subcommands for a running dray"}, {"dray/cmd/dray/setup", "the configuration of clients"}, {"dray/cmd/dray/bucket", "the bucket, and the subcommand that prepares it"}, {"dray/cmd/dray/usage", "refuses wrong arguments"},
		{"dray/cmd/dray/program", "the common parts of both programs"}, {"dray/cmd/dray/manual", "manual pages"}, {"dray/cmd/dray/backup", "subcommands that save and restore"}, {"dray/cmd/dray/directories", "formats of directories, and moved files"},
		{"dray/cmd/dray/clients", "clients and their rights"}, {"dray/cmd/dray/certificates", "certificates of listeners"}, {"dray/cmd/dray/htpasswd", "password files"}, {"dray/cmd/dray/doctor", "a subcommand"}, {"dray/cmd/dray/bundle", "a subcommand"}, {"dray/cmd/dray/examine", "tests services for dray doctor"}, {"dray/cmd/dray/cgroup", "the memory limit"},
		{"dray/cmd/dray/listening", "serves listeners, and stops them in steps"}, {"dray/cmd/dray/logbuffer", "lines of the access log"}, {"dray/cmd/dray/member", "other drays"}, {"dray/cmd/dray/reload", "reloads the configuration"}, {"dray/cmd/dray/routes", "names of repositories"}, {"dray/cmd/dray/registries", "clients of registries"}, {"dray/cmd/dray/window", "the page for operators"}, {"dray/cmd/dray/services", "external services"}, {"dray/cmd/dray/stats", "sums for operators"}, {"dray/cmd/dray/watched", "files that change"},
		{"dray/cmd/dray/zone", "the zone of the machine"}, {"dray/cache", "chooses the implementation"}, {"dray/mirror", "chooses the implementation"}, {"dray/upstream", "chooses the implementation"},
		{awsSDK, "one AWS configuration for all parts"}, {"github.com/aws/smithy-go", "logs messages of the AWS SDK"}, {goDigest, "digests in answers to operators"},
		{"github.com/spf13/cobra", "subcommands"},
		{prometheusClient, "the registry of all metrics"}, {"golang.org/x/sync/errgroup", "runs all parts as one group"},
		{"github.com/sirupsen/logrus", "switches off the log of distribution"},
	},
	"dray/deploy/release": { // nothing of dray: it runs the programs that it packs; a test reads a journal as the package does
		{goDigest, addresses}, {imageSpec, "the image layout"}, {"github.com/opencontainers/image-spec/specs-go", "the version of a manifest"},
	},
	"dray/cmd/draybench": { // of dray the order of eviction alone: it measures the program
		{"dray/cache/disk", "simulates eviction with dray's own code"}, {goDigest, addresses},
		{awsSDK, "a client of the bucket"},
	},
	"dray/cmd/e2e":     {},
	"dray/cmd/fakeecr": {{"dray/upstream/ecrtest", "the stand-in, which it runs as a program"}},
	"dray/cmd/playtest": {
		{craneLibrary, "an independent client of dray"}, {awsSDK, "credentials of a real ECR"},
		{"github.com/caarlos0/env/v11", "the environment as a map"}, {"golang.org/x/sync/errgroup", "clients that pull at the same time"},
	},
}

// testable is what tests may import in addition, besides what lies beneath their package: no
// library of assertions or mocks.
var testable = []allowance{
	{goCmp, "shows differences"},
	{"go.uber.org/goleak", "finds goroutines that have not ended"},
	{prometheusClient, "reads metrics"},
	{craneLibrary, "an independent client, and images"},
	{"golang.org/x/sys/unix", "listeners in the network of a client"},
	{awsSDK, "the real SDK against the fake AWS"}, {"github.com/aws/smithy-go", "errors of the AWS SDK"},
	{"github.com/fxamacker/cbor/v2", "the wire format of CloudWatch"},
	{"github.com/santhosh-tekuri/jsonschema/v6", "reads the schema of the configuration"},
	{"go.yaml.in/yaml/v3", "reads configuration"}, {"github.com/pelletier/go-toml/v2", "reads files of clients"}, {"golang.org/x/crypto/bcrypt", "makes password files"},
	{"github.com/grafana/grafana-foundation-sdk/go", "the schema of dashboards"},
	{"go.opentelemetry.io/proto/otlp", "traces at a collector"}, {"google.golang.org/protobuf/proto", "decodes traces"},
	{goDigest, addresses}, {imageSpec, "manifests"}, {"dray/upstream/oci", "the protocol as values"},
	{"go.etcd.io/bbolt", "changes the times of old facts"},
	{"github.com/chromedp", "drives a browser"}, {"dray/mirror/admin/page", "the page for operators"}, {"dray/mirror/admin/api", "types of the API for operators"},
	{"dray/mirror/admin", "the API for operators"}, {"dray/mirror/queue", "journals for the package under test"}, {"dray/cache/cachetest", "a test suite"}, {"dray/cache/meta/metatest", "a test suite"}, {"dray/cache/fleet/fleettest", "a test suite"},
	{"dray/upstream/ecrtest", "a registry that misbehaves"}, {"dray/upstream/upstreamtest", "a test suite"},
	{throughTheDoor, "a mirror before a registry in memory"}, {"dray/mirror/fixture", "a log, and a file that changes"},
}

// throughTheDoor is the mirror of tests. A test that uses it reaches its room through the front
// door, and may import what that is made of.
const throughTheDoor = "dray/mirror/mirrortest"

// unlinkable is what must not be in the program, however it would get there.
var unlinkable = []allowance{
	{"testing", "flags and code of tests"}, {"dray/upstream/ecrtest", "the fake ECR"}, {throughTheDoor, "the mirror of tests"}, {"github.com/google/go-containerregistry", "the client of the tests"},
	{"github.com/distribution/distribution/v3/registry/storage", "its drivers import gRPC and a second AWS SDK"},
}

// bulky are packages for which the linker keeps every method of the AWS SDK, if the program uses
// them: see .ci/size. They may be part of it only by those that name them without use.
var bulky = map[string][]allowance{
	"html/template": {{templLibrary, "offers conversions to html/template, which dray does not use"}},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir                    string
	Standard                           bool
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
}

func TestImports(t *testing.T) {
	packages := goList(t, "dray/...")
	standard := map[string]bool{"C": true}
	for _, p := range goList(t, "-deps", "-test", "dray/...") {
		standard[p.ImportPath] = standard[p.ImportPath] || p.Standard
	}
	var names []string
	for _, p := range packages {
		names = append(names, p.ImportPath)
		allowed, known := importable[p.ImportPath]
		if !known {
			t.Errorf("%s is not in the table: what may it import, and why?", p.ImportPath)
			continue
		}
		needed := map[string]bool{}
		for _, path := range p.Imports {
			if a, ok := permits(allowed, path); ok {
				needed[a.path] = true
			} else if !standard[path] {
				t.Errorf("%s imports %s, which the table does not allow", p.ImportPath, path)
			}
		}
		for _, a := range allowed {
			if !needed[a.path] {
				t.Errorf("%s may import %s and does not need to any more", p.ImportPath, a.path)
			}
		}
		inTests := slices.Concat(allowed, testable, beneath(p.ImportPath))
		if slices.Contains(p.XTestImports, throughTheDoor) {
			inTests = append(inTests, beneath(throughTheDoor)...)
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if _, ok := permits(inTests, path); !ok && !standard[path] && !strings.HasPrefix(path, p.ImportPath+"/") {
				t.Errorf("a test of %s imports %s, which the table does not allow", p.ImportPath, path)
			}
		}
	}
	for name := range maps.Keys(importable) {
		if !slices.Contains(names, name) {
			t.Errorf("%s is in the table and not in the module", name)
		}
	}
}

// TestPackagesDocumented: the table of CONTRIBUTING.md names each package by its path, or by its
// last element in the row of the package above it. One row is about all stages.
func TestPackagesDocumented(t *testing.T) {
	rows := map[string]string{}
	for line := range strings.Lines(read(t, "../../CONTRIBUTING.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for i, name := range strings.Split(cells[1], "`") {
			if i%2 == 1 {
				rows[name] = cells[2]
			}
		}
	}
	for name := range importable {
		name = strings.TrimPrefix(name, "dray/")
		above, last := path.Split(name)
		above = strings.TrimSuffix(above, "/")
		if _, own := rows[name]; !own && above != "mirror/pipeline" && !strings.Contains(rows[above], "`"+last+"`") {
			t.Errorf("the table of CONTRIBUTING.md does not name %s", name)
		}
	}
}

func TestLinked(t *testing.T) {
	for _, p := range goList(t, "-tags=grpcnotrace", "-deps", "dray/cmd/dray") {
		if a, ok := permits(unlinkable, p.ImportPath); ok {
			t.Errorf("%s is part of the program: %s", p.ImportPath, a.why)
		}
		for path, users := range bulky {
			if _, ok := permits(users, p.ImportPath); slices.Contains(p.Imports, path) && !ok {
				t.Errorf("%s imports %s, for which the program grows by 12 MiB", p.ImportPath, path)
			}
		}
	}
}

// permits finds the longest allowance for a path. One for a package of dray is for that package
// alone; but cmd/dray, where everything is chosen, names the trees.
func permits(allowed []allowance, path string) (allowance, bool) {
	var best allowance
	for _, a := range allowed {
		below := strings.HasPrefix(path, a.path+"/") && (!strings.HasPrefix(path, "dray/") || slices.Contains(importable["dray/cmd/dray"], a))
		if (path == a.path || below) && len(a.path) > len(best.path) {
			best = a
		}
	}
	return best, best.path != ""
}

// beneath is a package of dray and all those that it is built on.
func beneath(name string) []allowance {
	below := []allowance{{name, "itself"}}
	for i := 0; i < len(below); i++ {
		for _, a := range importable[below[i].path] {
			if strings.HasPrefix(a.path, "dray/") && !slices.Contains(below, a) {
				below = append(below, a)
			}
		}
	}
	return below
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,Imports,TestImports,XTestImports"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
