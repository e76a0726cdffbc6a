package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowance lets a package import what begins with path, and says why it needs to.
type allowance struct{ path, why string }

// Reasons that many packages share.
const (
	measures  = "its own metrics, registered by the composition root"
	addresses = "content is named by digest"
	judges    = "a suite shows differences"
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
		{"dray/cache/disk", "blobs lie on disk"}, {"dray/cache/memory", "small objects are in memory, too"},
		{"github.com/hashicorp/golang-lru/v2/simplelru", "what was counted a moment ago, bounded"},
		{goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/cachetest": {
		{"dray/cache", "the suite of its readers"}, {"dray/cache/disk", "they read from a real directory"}, {goDigest, addresses}, {goCmp, judges},
	},
	"dray/cache/disk": {
		{goDigest, addresses}, {prometheusClient, measures},
		{"golang.org/x/sys/unix", "fallocate, linkat and the other calls that make a blob appear whole"},
	},
	"dray/cache/fleet": {
		{"dray/cache", "what members give each other, and get"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/fleet/fleettest": {{"dray/cache/fleet", "the suite of its leases"}, {goDigest, addresses}},
	"dray/cache/s3": {
		{"dray/cache", "the contract it fulfils"}, {awsSDK, "the API of S3"}, {"github.com/aws/smithy-go/transport/http", "the status of its answers"},
		{"github.com/hashicorp/golang-lru/v2/simplelru", "what the bucket has, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/cache/s3/s3test": {}, // nothing of dray: it judges dray
	"dray/cache/memory": {
		{"github.com/hashicorp/golang-lru/v2/simplelru", "the order of use"}, {goDigest, addresses},
	},
	"dray/cache/meta": {
		{"github.com/hashicorp/golang-lru/v2", "an LRU in front of every store"}, {goDigest, "facts are about digests"}, {prometheusClient, measures},
	},
	"dray/cache/meta/bolt": {
		{"dray/cache/meta", "the contract it fulfils"}, {"go.etcd.io/bbolt", "the embedded database, here alone"}, {prometheusClient, measures},
	},
	"dray/cache/meta/metatest": {{"dray/cache/meta", "the suite of its stores"}, {goCmp, judges}},
	"dray/cache/meta/redis": {
		{"dray/cache/meta", "the contract it fulfils"}, {"dray/cache/fleet", "the contract of leases"}, {goDigest, addresses}, {"github.com/redis/go-redis/v9", "the shared database, here alone"},
	},
	"dray/upstream/oci": {
		{"github.com/distribution/distribution/v3/manifest/manifestlist", "a manifest type of Docker"},
		{"github.com/distribution/distribution/v3/manifest/schema2", "a manifest type of Docker"},
		{"github.com/distribution/distribution/v3/registry/api/errcode", "the error codes of the specification"},
		{"github.com/distribution/distribution/v3/registry/api/v2", "the routes of the specification"},
		{"github.com/distribution/reference", "the grammar of names and tags"}, {goDigest, addresses}, {imageSpec, "the manifest types of OCI"},
	},
	"dray/upstream/auth": {{"dray/upstream/oci", "refusals are errors of the protocol"}},
	"dray/upstream": {
		{openTelemetry, "spans of a trace"}, {"dray/upstream/auth", "requests carry credentials"}, {"dray/upstream/oci", "it speaks the protocol"}, {"dray/upstream/turns", "which request is next"}, {goDigest, addresses}, {prometheusClient, measures},
		{"golang.org/x/time/rate", "token buckets"},
	},
	"dray/upstream/turns":    {},
	"dray/upstream/ecr/host": {},
	"dray/upstream/ecr": {
		{"dray/upstream/ecr/host", "names of registries"}, {"dray/upstream", "it adds to the client of any registry"}, {"dray/upstream/auth", "ECR's tokens"}, {"dray/upstream/oci", "errors of the protocol"},
		{awsSDK, "the API of ECR"}, {"github.com/aws/smithy-go", "the errors of that API"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/upstream/ecrtest": { // nothing of dray: it judges dray
		{"github.com/distribution/reference", "the grammar of names and tags"}, {"github.com/fxamacker/cbor/v2", "the wire format of CloudWatch"},
		{goDigest, addresses}, {imageSpec, "the manifest types of OCI"},
	},
	"dray/upstream/upstreamtest": {
		{"dray/upstream", "the suite of its sources and sinks"}, {"dray/upstream/oci", "they speak the protocol"},
		{craneLibrary, "a registry that somebody else wrote"}, {goDigest, addresses}, {goCmp, judges},
	},
	"dray/mirror/pattern": {},
	"dray/mirror/pipeline": { // nothing of cache or upstreams: it judges what it is given, also without a mirror
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/upstream/oci", "manifests"}, {"github.com/klauspost/compress/gzip", "layers, a third faster than the standard library"},
		{"github.com/klauspost/compress/zstd", "layers, which the standard library cannot read"}, {goDigest, addresses}, {imageSpec, "configurations of images"},
		{prometheusClient, measures}, {"golang.org/x/sync/errgroup", "layers that are waited for together"},
	},
	"dray/mirror/notify": {
		{"dray/mirror/pipeline/webhook", "signs alike"}, {"dray/upstream/oci", "addresses of manifests"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/flight":  {{openTelemetry, "links between those that share a call"}}, // it knows nothing of what is done
	"dray/mirror/reread":  {},
	"dray/mirror/proxied": {{"github.com/pires/go-proxyproto", "the header of the PROXY protocol"}, {prometheusClient, measures}},
	"dray/mirror/wire":    {{"dray/mirror/reread", "certificates are replaced"}, {"dray/mirror/proxied", "connections that proxies make for clients"}, {"dray/upstream/oci", "parts of bodies, and the error for one that there is not"}, {"golang.org/x/sys/unix", "splice"}, {prometheusClient, measures}},
	"dray/mirror/route":   {{"dray/mirror/pattern", "repositories that clients may name"}, {"dray/upstream/oci", "requests and references as values"}},
	"dray/mirror/identity": {
		{"dray/mirror/proxied", "clients behind proxies"}, {"dray/mirror/flight", "equal credentials are hashed once"}, {"dray/mirror/reread", "passwords and keys are replaced"}, {prometheusClient, measures},
		{"dray/mirror/pattern", "repositories that a rule is for"}, {"dray/upstream/oci", "refusals are errors of the protocol"},
		{"github.com/distribution/distribution/v3/registry/auth", "recognises clients by tokens"},
		{"github.com/hashicorp/golang-lru/v2", "passwords that were wrong, bounded"}, {"golang.org/x/crypto/bcrypt", "compares passwords with hashes"},
	},
	"dray/mirror/repository": {
		{openTelemetry, "spans of a trace"}, {"dray/cache", "where bytes are"}, {"dray/cache/fleet", "other mirrors that have bytes"}, {"dray/cache/meta", "where facts are"}, {"dray/mirror/queue", "content that is still to be forwarded"},
		{"dray/mirror/flight", "one question for all who wait for it"}, {"dray/upstream", "what confirms content, and gives it"},
		{"dray/upstream/oci", "manifests say what belongs together"},
		{"github.com/hashicorp/golang-lru/v2", "what is remembered for a while, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/gate": {
		{"dray/mirror/flight", "one verdict for all who wait for it"}, {"dray/mirror/pipeline", "what judges"}, {"dray/mirror/notify", "events"}, {"dray/mirror/pattern", "patterns of names"},
		{"dray/mirror/repository", "the names of what is judged"}, {"dray/upstream/oci", "manifests and references"},
		{"github.com/hashicorp/golang-lru/v2", "the newest reports, bounded"}, {goDigest, addresses},
	},
	"dray/mirror/jobs": {
		{"dray/mirror/flight", "bounded work that nobody waits for"}, {"dray/mirror/repository", "images, and where they are"}, {"dray/mirror/pipeline", "verdicts"},
		{"dray/cache", "configurations that are here"}, {"dray/cache/meta", "what was learnt and asked for"}, {"dray/upstream", "requests in the background"},
		{"dray/upstream/oci", "manifests"}, {"github.com/hashicorp/golang-lru/v2", "what was learnt, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/live": {
		{"dray/mirror/admin/api", "what operators are shown"}, {"dray/upstream/oci", "manifests say what belongs together"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/past": {
		{"dray/mirror/admin/api", "what operators are shown"}, {"dray/upstream", "requests that were sent"}, {goDigest, addresses},
		{"github.com/hashicorp/golang-lru/v2", "the last pulls, bounded"},
	},
	"dray/mirror/request": {
		{"dray/mirror/past", "why the cache alone does not answer"},
		{"dray/mirror/live", "which pull or push it belongs to"},
		{"dray/mirror/notify", "what events tell of a request"}, {"dray/mirror/identity", "who asks"},
		{"dray/mirror/repository", "for which repository"}, {"dray/mirror/route", "which one it means"}, {"dray/mirror/wire", "its answer"},
		{"dray/upstream/oci", "what was asked for"}, {goDigest, addresses},
	},
	"dray/mirror/ceilings": {
		{"dray/cache/fleet", "other members, and what they share"}, {"dray/upstream", "what paces requests"}, {prometheusClient, measures},
	},
	"dray/mirror/fallback": {
		{"dray/mirror/request", "what is answered"}, {"dray/mirror/repository", "who has the content"}, {"dray/mirror/identity", "who may push"},
		{"dray/upstream/oci", "manifests name what follows"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/delegate": {{"dray/cache/fleet", "the members, and requests to them"}, {goDigest, addresses}, {prometheusClient, measures}},
	"dray/mirror/pull": {
		{"dray/mirror/past", "why the cache alone does not answer"}, {"dray/mirror/admin/api", "the same, in words"}, {"dray/cache/disk", "why content is not here any more"},
		{openTelemetry, "spans of a trace"}, {"dray/mirror/fallback", "who answers"}, {"dray/mirror/delegate", "another member that asks"}, {"dray/cache/fleet", "given to what asks members"},
		{"dray/mirror/request", "what it answers"}, {"dray/mirror/repository", "where content is"}, {"dray/mirror/jobs", "observers of pulls"}, {"dray/mirror/identity", "who may push"},
		{"dray/mirror/flight", "one question for all who wait for it"}, {"dray/mirror/wire", "bodies"}, {"dray/cache", "where bytes come from"},
		{"dray/cache/meta", "facts about tags"}, {"dray/upstream", "where manifests and lists come from"}, {"dray/upstream/oci", "what clients speak"},
		{"github.com/hashicorp/golang-lru/v2", "answers that are asked for again, bounded"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/writer": {
		{openTelemetry, "traces that span members"},
		{"dray/cache/fleet", "the other members, and leases"}, {"dray/mirror/request", "what is passed on"}, {"dray/mirror/identity", "who asks, as another member says"},
		{"dray/mirror/proxied", "the proxies before another member"}, {"dray/mirror/repository", "what members work on"}, {"dray/mirror/wire", "bodies that are passed on"},
		{"dray/upstream/oci", "refusals, and kinds of requests"}, {goDigest, "leases are named by digest"}, {prometheusClient, measures},
	},
	"dray/mirror/warming": {
		{"dray/mirror/pull", "finds and fetches as for clients"}, {"dray/mirror/repository", "where content is"}, {"dray/mirror/admin/api", "what operators are shown"},
		{"dray/cache", "what is still held at the end"}, {"dray/upstream/oci", "manifests say what belongs together"},
		{containerPlatforms, "which manifest of an index a client chooses"}, {imageSpec, "platforms"}, {goDigest, addresses}, {"golang.org/x/sync/errgroup", "blobs of one image"},
	},
	"dray/mirror/explain": { // what pulls do, told beforehand by the parts that do it
		{"dray/mirror/past", "what pulls have done"}, {"dray/mirror/live", "pulls under way"}, {"dray/mirror/pipeline", "verdicts on pushes"}, {"dray/mirror/notify", "where reports are"},
		{"dray/mirror/pull", "what a pull would find"}, {"dray/mirror/repository", "where content is"}, {"dray/mirror/warming", "which manifest of an index a client chooses"},
		{"dray/mirror/route", "which repository a name means"}, {"dray/mirror/identity", "who may do what"}, {"dray/mirror/request", "listeners"}, {"dray/mirror/inventory", "blobs as operators see them"}, {"dray/mirror/admin/api", "what operators are shown"},
		{"dray/cache", "where bytes are"}, {"dray/upstream", "what would be sent, and what is refused"}, {"dray/upstream/oci", "names, and manifests"},
		{containerPlatforms, "platforms as operators write them"}, {imageSpec, "platforms"}, {goDigest, addresses},
	},
	"dray/mirror/report": {{"dray/mirror/pipeline", "what it shows"}, {templLibrary, "a page whose every text is escaped"}},
	"dray/mirror/push": {
		{"dray/mirror/report", "reports for browsers"},
		{"dray/mirror/live", "pushes that operators see"},
		{"dray/mirror/request", "what it answers"}, {"dray/mirror/repository", "where content is"}, {"dray/mirror/gate", "what has to be passed"},
		{"dray/mirror/pipeline", "checks see what was pushed"}, {"dray/mirror/jobs", "observers of pushes"}, {"dray/mirror/pull", "manifests of an index that checks look at, and silent upstreams"},
		{"dray/mirror/queue", "pushes that are forwarded later"}, {"dray/mirror/flight", "one push for all who push the same"}, {"dray/mirror/notify", "events"},
		{"dray/cache", "where uploads are"}, {"dray/cache/meta", "tags that others have pushed meanwhile"}, {"dray/upstream", "where they go"}, {"dray/upstream/oci", "what clients speak"},
		{"github.com/hashicorp/golang-lru/v2", "refused mounts, bounded"}, {"golang.org/x/sync/errgroup", "blobs of one image"}, {goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror": { // the front door, and where its rooms are put together
		{"dray/mirror/past", "told of requests"}, {"dray/mirror/admin/api", "what operators are told of requests"},
		{openTelemetry, "spans of a trace"}, {"dray/mirror/repository", "put together here"}, {"dray/mirror/gate", "put together here"}, {"dray/mirror/jobs", "put together here"},
		{"dray/mirror/pull", "put together here"}, {"dray/mirror/warming", "put together here"}, {"dray/mirror/push", "put together here"}, {"dray/mirror/writer", "put together here"}, {"dray/mirror/live", "told of requests"}, {"dray/mirror/explain", "put together here"}, {"dray/mirror/flight", "tasks that end with it"},
		{"dray/mirror/request", "what comes in"}, {"dray/mirror/identity", "who may do what"}, {"dray/mirror/wire", "how answers leave"},
		{"dray/mirror/proxied", "the log names proxies"}, {"dray/mirror/notify", "events"}, {"dray/mirror/pipeline", "reports"}, {"dray/mirror/queue", "pushes that are forwarded later"},
		{"dray/cache", "given to the rooms"}, {"dray/cache/fleet", "given to the rooms"}, {"dray/cache/meta", "given to the rooms"}, {"dray/upstream/oci", "kinds of requests"}, {prometheusClient, measures},
	},
	"dray/mirror/fixture": {},
	"dray/mirror/mirrortest": {
		{"dray/mirror", "rooms are tested through the front door"}, {"dray/mirror/identity", "a listener that takes pushes from everybody"},
		{"dray/mirror/repository", "an upstream"}, {"dray/mirror/request", "a listener"}, {"dray/mirror/route", "a listener of one route"},
		{"dray/cache", "bytes"}, {"dray/cache/disk", "a directory that fails"}, {"dray/cache/meta", "facts"}, {"dray/cache/meta/metatest", "facts in memory, which fail"},
		{"dray/upstream", "the contracts that a registry in memory fulfils"}, {"dray/upstream/oci", "images"}, {goDigest, addresses}, {prometheusClient, "what was counted"},
	},
	"dray/mirror/hosted": {
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/cache", "where the bytes lie"}, {"dray/upstream", "the contracts it fulfils"}, {"dray/upstream/oci", "what clients push"},
		{goDigest, addresses}, {prometheusClient, measures},
	},
	"dray/mirror/admin/api": {{goDigest, addresses}},
	"dray/mirror/admin": { // everything else through views of its own
		{"dray/mirror/admin/api", "failures as it tells them"}, {"dray/mirror/identity", "who may do what, and which Host headers no page has"}, {"dray/upstream/oci", "why somebody is refused"}, {prometheusClient, "it shows what is gathered"},
	},
	"dray/mirror/admin/page": { // the values of the API, and nothing of what it shows
		{"dray/mirror/admin/api", "what operators are told"}, {templLibrary, "pages whose every text is escaped"}, {goDigest, addresses},
	},
	"dray/mirror/inventory": {
		{"dray/mirror/admin/api", "what operators are shown"},
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/cache", "what it looks after"}, {"dray/cache/disk", "where that lies"}, {"dray/cache/meta", "whose it is"},
		{"dray/upstream/oci", "manifests say what belongs together"}, {goDigest, addresses},
	},
	"dray/mirror/savings": {{"dray/mirror/admin/api", "what operators are told"}, {prometheusClient, measures}}, // arithmetic on values
	"dray/mirror/history": {
		{"dray/mirror/admin/api", "what operators are shown"}, {"github.com/prometheus/client_model", "it reads what is gathered"}, {prometheusClient, "it gathers"},
	},
	"dray/mirror/ledger": {
		{"dray/mirror/savings", "what it stores"}, {"dray/mirror/history", "by how much counters have grown"}, {"dray/cache", "names of its sources"}, {"github.com/prometheus/client_model", "it reads what is gathered"}, {prometheusClient, "it gathers"},
	},
	"dray/mirror/pipeline/metadata":     {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/names":        {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}, {"dray/upstream/oci", "tags that tools derive from a digest"}},
	"dray/mirror/pipeline/runtime":      {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/shape":        {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/attestations": {{"dray/mirror/pattern", "patterns of names"}, {"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/base": {
		{"dray/mirror/pattern", "patterns of names"},
		{"dray/mirror/pipeline", "a stage"}, {"dray/mirror/pipeline/attestations", "what provenance declares an image to be made from"},
		{"github.com/distribution/reference", "whole names of images that people write short"}, {goDigest, addresses}, {imageSpec, "annotations"},
	},
	"dray/mirror/pipeline/clamd": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/local": {
		{"dray/mirror/pipeline", "what judges"}, {"dray/upstream/oci", "manifests"}, {goDigest, addresses}, {imageSpec, "the image layout"},
		{"github.com/opencontainers/image-spec/specs-go", "the version of a manifest"},
	},
	"dray/mirror/pipeline/rules": {
		{"dray/mirror/pipeline", "a stage"},
		{"cel.dev/cel-go/cel", "the language of rules, which always ends and whose cost is bounded"}, {"cel.dev/cel-go/ext", "its functions on texts and lists"},
	},
	"dray/mirror/pipeline/scanner": {
		{"dray/mirror/pipeline", "a stage"}, {"dray/upstream/oci", "descriptors"}, {goDigest, addresses}, {imageSpec, "the image layout"},
		{"golang.org/x/sys/unix", "a program's processes end with it, and see nothing of dray's"},
	},
	"dray/mirror/pipeline/secrets": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pipeline/webhook": {{"dray/mirror/pipeline", "a stage"}},
	"dray/mirror/pulls":            {{prometheusClient, measures}},
	"dray/mirror/queue":            {{goDigest, addresses}, {prometheusClient, measures}},
	"dray/mirror/cloudwatch": {
		{"dray/mirror/pulls", "the counts it publishes"}, {awsSDK, "the API of CloudWatch"},
		{prometheusClient, measures}, {"github.com/prometheus/client_model", "it reads what is gathered"},
	},
	"dray/cmd/dray/config": { // none of the parts that it configures
		{"dray/upstream/ecr/host", "the kind of an upstream by its host name"}, {"dray/upstream/oci", "a prefix is joined to a repository as requests do"},
		{"dray/upstream/auth", "secrets that nothing shows"}, {"dray/cmd/dray/certificates", "files of certificates, and what is wrong with them"}, {"dray/mirror/reread", "files that are read again"},
		{"github.com/caarlos0/env/v11", "configuration from the environment"}, {"go.yaml.in/yaml/v3", "configuration from a file"},
	},
	"dray/cmd/dray/certificates": {
		{"dray/cmd/dray/usage", "arguments that are refused"}, {"dray/mirror/reread", "files that change"}, {"github.com/spf13/cobra", "a subcommand"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/clients": {
		{"dray/cmd/dray/config", "whom it lets in"}, {"dray/cmd/dray/watched", "a token that is replaced"}, {"dray/mirror/identity", "what lets them in"}, {"dray/mirror/proxied", "the proxies between"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/cgroup":         {},
	"dray/cmd/dray/config/changes": {{"dray/upstream/auth", "secrets in files of their own"}},
	"dray/cmd/dray/reload":         {{"dray/cmd/dray/config", "what is reloaded"}, {"dray/cmd/dray/config/changes", "what of it applies at once"}, {"dray/mirror/admin/api", "what operators are told"}, {prometheusClient, measures}},
	"dray/cmd/dray/htpasswd": {
		{"dray/cmd/dray/replace", "a password file keeps its owner"}, {"dray/cmd/dray/usage", "arguments that are refused"}, {"dray/mirror/identity", "what a password file may have"}, {"github.com/spf13/cobra", "a subcommand"},
		{"golang.org/x/crypto/bcrypt", "hashes passwords"}, {"golang.org/x/term", "a terminal shows no password"},
	},
	"dray/cmd/dray/listening": {{"golang.org/x/sync/errgroup", "servers run together"}},
	"dray/cmd/dray/logbuffer": {},
	"dray/cmd/dray/zone":      {{awsSDK, "the metadata of an instance"}},
	"dray/cmd/dray/member": {
		{"dray/cache", "what other members read"}, {"dray/cache/fleet", "the fleet"}, {"dray/cache/meta", "facts of the fleet"}, {"dray/mirror/ceilings", "ceilings that members share"},
		{"dray/upstream", "what paces requests"}, {prometheusClient, measures}, {"dray/cmd/dray/config", "what it is told"}, {"dray/cmd/dray/watched", "a secret that is replaced"}, {"dray/mirror/writer", "pushes to any of them"},
		{"dray/cmd/dray/stats", "what was counted"}, {"dray/mirror/admin", "operators ask for all members"}, {"dray/mirror/admin/api", "what they are told"},
	},
	"dray/cmd/dray/tracing": {
		{openTelemetry, "makes spans, and sends them"}, {"dray/cmd/dray/config", "where the collector is"}, {"dray/cmd/dray/watched", "headers that change"},
	},
	"dray/cmd/dray/services": {
		{"dray/cmd/dray/config", "which services there are"}, {"dray/cmd/dray/watched", "secrets that are replaced"}, {"dray/mirror/pipeline/webhook", "what calls them"},
	},
	"dray/cmd/dray/routes": {
		{"dray/cmd/dray/config", "which upstreams there are"}, {"dray/mirror/route", "finds one of them"}, {"dray/mirror/inventory", "what operators name"},
		{"dray/mirror/admin/api", "what they are told"}, {"dray/mirror/repository", "upstreams that answer for others"}, {"dray/upstream/oci", "references"},
	},
	"dray/cmd/dray/registries": {
		{"dray/cmd/dray/config", "which registries there are"}, {"dray/cmd/dray/program", "the version, for User-Agent"}, {"dray/cmd/dray/watched", "secrets and authorities in files"},
		{"dray/cache", "how large blobs are fetched"}, {"dray/mirror/admin", "health that is not known yet"}, {"dray/mirror/repository", "a registry as the mirror sees it"}, {"dray/upstream", "the client"},
		{"dray/upstream/auth", "its credentials"}, {"dray/upstream/ecr", "what is specific to Amazon"}, {awsSDK, "types of new repositories"}, {prometheusClient, measures},
	},
	"dray/cmd/dray/stats": {
		{"dray/cache", "names of its sources"}, {"dray/cmd/dray/config", "what dray costs"}, {"dray/mirror/admin", "operators ask for it"}, {"dray/mirror/admin/api", "what operators are told"}, {"dray/mirror/ledger", "what was counted by day"}, {"dray/mirror/savings", "what that is worth"}, {"dray/upstream/ecr/host", "regions of registries"},
		{"github.com/prometheus/client_model", "what the metrics have counted"}, {prometheusClient, "where that is gathered"},
	},
	"dray/cmd/dray/window": {
		{"dray/mirror/admin/page", "what operators see in a browser"}, {"dray/mirror/admin", "the checks of health"}, {"dray/mirror/admin/api", "what operators are told"},
		{"dray/cmd/dray/config", "the effective configuration"}, {"dray/cmd/dray/ctl", "an explanation as the subcommand prints it"}, {"dray/cmd/dray/program", "the version"}, {"dray/cmd/dray/registries", "the state of upstreams"},
		{"dray/cache/disk", "the cache on disk"}, {"dray/mirror/explain", "what is known of an image"}, {"dray/mirror/history", "what happened"}, {"dray/mirror/inventory", "the images in the cache"}, {"dray/mirror/live", "pulls and pushes under way"}, {"dray/mirror/push", "open uploads"},
	},
	"dray/cmd/dray/replace": {},
	"dray/cmd/dray/usage":   {{"github.com/spf13/cobra", "subcommands"}},
	"dray/cmd/dray/watched": {
		{"dray/mirror/reread", "files that change"}, {"dray/upstream", "the connections that trust the authorities"}, {"dray/upstream/auth", "passwords are credentials"},
	},
	"dray/cmd/dray/imagelist": {
		{"github.com/distribution/reference", "whole names of images that files name short"},
		{buildkitParser, "Dockerfiles, and the variables in them and in Compose files, as builds read them"}, {"go.yaml.in/yaml/v3", "files of Compose and Kubernetes"},
	},
	"dray/cmd/dray/top": {{"dray/mirror/admin/api", "what it shows"}},
	"dray/cmd/dray/ctl": {
		{"dray/cmd/dray/top", "a screen of pulls and pushes"},
		{"dray/cmd/dray/imagelist", "images that files name"}, {containerPlatforms, "platforms as clients write them"}, {imageSpec, "platforms"}, {"golang.org/x/term", "what can show a progress bar"}, {"golang.org/x/sync/errgroup", "images that are warmed side by side"},
		{"dray/cmd/dray/config", "where the admin listener is, and sizes"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{"dray/mirror/admin/api", "what is asked and answered"}, {"dray/upstream/auth", "a token that nothing shows"}, {"dray/upstream/oci", "digests as people compare them"}, {"github.com/spf13/cobra", "subcommands"},
	},
	"dray/cmd/dray/doctor": {
		{"dray/upstream/ecr", "the path to its layers"},
		{"dray/cmd/dray/config", "what is checked"}, {"dray/cmd/dray/certificates", "certificates near their end"}, {"dray/cmd/dray/cgroup", "how much memory there is"}, {"dray/cmd/dray/ctl", "how a running dray is"},
		{"dray/cache/fleet", "members that are reached"},
		{"dray/cmd/dray/program", "an exit code for failures"}, {"dray/cmd/dray/setup", "what the files of clients should have"}, {"dray/cmd/dray/usage", "arguments that are refused"}, {"dray/mirror/admin/api", "what a running dray says of itself"}, {"github.com/distribution/reference", "whole names of images that people write short"}, {"dray/mirror/wire", "how many files may be open"},
		{"github.com/spf13/cobra", "a subcommand"}, {"golang.org/x/sys/unix", "kinds of file systems"},
	},
	"dray/cmd/dray/examine": {
		{"dray/cmd/dray/doctor", "what is to be found out"}, {"dray/cmd/dray/config", "about what"}, {"dray/cmd/dray/registries", "registries, as serve connects to them"}, {"dray/cmd/dray/routes", "repositories that people name"}, {"dray/cmd/dray/bucket", "the bucket"},
		{"dray/cache/fleet", "members"}, {"dray/cache/meta/redis", "the store of facts"},
		{"dray/upstream", "uploads and quotas"}, {"dray/upstream/ecr", "sessions with AWS"}, {"dray/upstream/ecr/host", "regions of registries"}, {"dray/upstream/oci", "names and errors"},
		{awsSDK + "/aws", "credentials"},
	},
	"dray/cmd/dray/bundle": {
		{"dray/cmd/dray/config", "secrets that it leaves out"}, {"dray/cmd/dray/ctl", "pages of a running dray"}, {"dray/cmd/dray/doctor", "what it finds"}, {"dray/cmd/dray/cgroup", "how much memory there is"}, {"dray/cmd/dray/program", "the version"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{"dray/mirror/admin/api", "where clients are named"}, {"dray/mirror/reread", "files with secrets"}, {"dray/upstream/auth", "secrets"},
		{"github.com/spf13/cobra", "a subcommand"}, {"go.yaml.in/yaml/v3", "where users are named"},
	},
	"dray/cmd/dray/bucket": {
		{"dray/cache/s3", "what it makes"}, {"dray/cache/disk", "where the bucket's content comes from"}, {"dray/cmd/dray/config", "which bucket"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{awsSDK + "/aws", "credentials"}, {goDigest, addresses}, {"github.com/spf13/cobra", "a subcommand"},
	},
	"dray/cmd/dray/setup": {
		{"dray/cmd/dray/setup/edit", "changes to files that people edit"}, {"dray/cmd/dray/setup/install", "files that are put into place"}, {"dray/cmd/dray/setup/nodes", "what it needs in a cluster"},
		{"dray/cmd/dray/config", "the mirror is a listener of the configuration"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{"github.com/spf13/cobra", "a subcommand"}, {"go.yaml.in/yaml/v3", "the file of k3s is YAML"},
	},
	"dray/cmd/dray/setup/nodes": {{"dray/cmd/dray/usage", "arguments that are refused"}, {"github.com/spf13/cobra", "a subcommand"}},
	"dray/cmd/dray/setup/edit": {
		{"github.com/pelletier/go-toml/v2", "what a TOML file means, and where its tables are"}, {"go.yaml.in/yaml/v3", "YAML with its comments"},
	},
	"dray/cmd/dray/setup/install": {
		{"dray/cmd/dray/replace", "files of clients keep their owner"},
		{"github.com/aymanbagabas/go-udiff", "shows changes, and takes them out of a file that was edited since"},
		{"github.com/pelletier/go-toml/v2", "what is left of a file is still TOML"}, {"go.yaml.in/yaml/v3", "or YAML"},
	},
	"dray/cmd/dray/program": {
		{"dray/cmd/dray/config", "lists of problems are printed as they are"}, {"dray/cmd/dray/ctl", "that nothing was reached has an exit code"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{"github.com/spf13/cobra", "subcommands"},
	},
	"dray/cmd/dray/directories": {
		{"dray/mirror/queue", "pushes that must not be lost"}, {"dray/mirror/hosted", "repositories that must not be lost"},
		{"golang.org/x/sys/unix", "the lock of a running dray"},
	},
	"dray/cmd/dray/backup": {
		{"dray/cmd/dray/directories", "where everything is"}, {"dray/cache/disk", "files of blobs"}, {"dray/mirror/queue", "what pushes need"}, {"dray/mirror/hosted", "what repositories need"},
		{"dray/cmd/dray/usage", "arguments that are refused"}, {"github.com/spf13/cobra", "subcommands"}, {goDigest, addresses},
	},
	"dray/cmd/dray/manual": {{"dray/cmd/dray/usage", "arguments that are refused"}, {"github.com/spf13/cobra", "what it describes"}},
	"dray/cmd/dray/remote": { // nothing of what a mirror is made of
		{"dray/cmd/dray/config", "where the admin listener is"}, {"dray/cmd/dray/ctl", "all its subcommands"}, {"dray/cmd/dray/program", "what the programs have in common"},
		{"dray/cmd/dray/manual", "manual pages"},
	},
	"dray/cmd/dray": {
		{"dray/cmd/dray/tracing", "put together here"}, {"dray/cmd/dray/config", "what it is told"}, {"dray/cmd/dray/ctl", "subcommands that ask a running dray"}, {"dray/cmd/dray/setup", "the configuration of clients"}, {"dray/cmd/dray/bucket", "the bucket, and what prepares it"}, {"dray/cmd/dray/usage", "arguments that are refused"},
		{"dray/cmd/dray/program", "what the programs have in common"}, {"dray/cmd/dray/manual", "manual pages"}, {"dray/cmd/dray/backup", "subcommands that save and restore"}, {"dray/cmd/dray/directories", "formats, and what moves between the directories"},
		{"dray/cmd/dray/clients", "who may come in"}, {"dray/cmd/dray/certificates", "certificates of listeners"}, {"dray/cmd/dray/htpasswd", "password files"}, {"dray/cmd/dray/doctor", "a subcommand"}, {"dray/cmd/dray/bundle", "a subcommand"}, {"dray/cmd/dray/examine", "what the doctor asks"}, {"dray/cmd/dray/cgroup", "how much memory there is"},
		{"dray/cmd/dray/listening", "serves, and stops in steps"}, {"dray/cmd/dray/logbuffer", "lines of the access log"}, {"dray/cmd/dray/member", "other drays"}, {"dray/cmd/dray/reload", "another configuration for the running program"}, {"dray/cmd/dray/routes", "names of repositories"}, {"dray/cmd/dray/registries", "what answers pulls and takes pushes"}, {"dray/cmd/dray/window", "the page for operators"}, {"dray/cmd/dray/services", "what checks and notifications call"}, {"dray/cmd/dray/stats", "sums for operators"}, {"dray/cmd/dray/watched", "files that are read again"},
		{"dray/cmd/dray/zone", "where this machine is"}, {"dray/cache", "chosen here"}, {"dray/mirror", "chosen here"}, {"dray/upstream", "chosen here"},
		{awsSDK, "one AWS configuration for all who need one"}, {"github.com/aws/smithy-go", "takes the messages of the AWS SDK"}, {goDigest, "operators are shown digests"},
		{"github.com/spf13/cobra", "subcommands"},
		{prometheusClient, "the one registry of metrics"}, {"golang.org/x/sync/errgroup", "everything that runs, in one group"},
		{"github.com/sirupsen/logrus", "distribution's log, to switch it off"},
	},
	"dray/deploy/release": { // nothing of dray: it runs the programs that it packs; a test reads a journal as the package does
		{goDigest, addresses}, {imageSpec, "the image layout"}, {"github.com/opencontainers/image-spec/specs-go", "the version of a manifest"},
	},
	"dray/cmd/draybench": { // of dray the order of eviction alone: it measures the program
		{"dray/cache/disk", "the order in which dray evicts is simulated by dray's own code, not by a copy"}, {goDigest, addresses},
		{awsSDK, "a client of the bucket, beside a member of a fleet"},
	},
	"dray/cmd/e2e":     {},
	"dray/cmd/fakeecr": {{"dray/upstream/ecrtest", "it is that, as a program"}},
	"dray/cmd/playtest": {
		{craneLibrary, "it uses dray as a stranger would"}, {awsSDK, "credentials of a real ECR"},
		{"github.com/caarlos0/env/v11", "the environment as a map"}, {"golang.org/x/sync/errgroup", "clients that pull at the same time"},
	},
}

// testable is what tests may import in addition, besides what lies beneath their package: no
// library of assertions or mocks.
var testable = []allowance{
	{goCmp, "shows differences"},
	{"go.uber.org/goleak", "shows goroutines that were left behind"},
	{prometheusClient, "reads metrics"},
	{craneLibrary, "a client, and images, that somebody else wrote"},
	{"golang.org/x/sys/unix", "listeners in the network of a client"},
	{awsSDK, "the real SDK against the fake AWS"}, {"github.com/aws/smithy-go", "its errors"},
	{"github.com/fxamacker/cbor/v2", "the wire format of CloudWatch"},
	{"github.com/santhosh-tekuri/jsonschema/v6", "reads the schema of the configuration"},
	{"go.yaml.in/yaml/v3", "reads configuration"}, {"github.com/pelletier/go-toml/v2", "reads files of clients"}, {"golang.org/x/crypto/bcrypt", "makes password files"},
	{"github.com/grafana/grafana-foundation-sdk/go", "the schema of dashboards"},
	{"go.opentelemetry.io/proto/otlp", "what a collector gets"}, {"google.golang.org/protobuf/proto", "decodes it"},
	{goDigest, addresses}, {imageSpec, "manifests"}, {"dray/upstream/oci", "the protocol as values"},
	{"go.etcd.io/bbolt", "moves the times of facts that a former program left"},
	{"github.com/chromedp", "drives a browser"}, {"dray/mirror/admin/page", "what operators see in a browser"}, {"dray/mirror/admin/api", "what they are told"},
	{"dray/mirror/admin", "the API that operators ask"}, {"dray/mirror/queue", "a journal that a package reads"}, {"dray/cache/cachetest", "a suite"}, {"dray/cache/meta/metatest", "a suite"}, {"dray/cache/fleet/fleettest", "a suite"},
	{"dray/upstream/ecrtest", "a registry that misbehaves"}, {"dray/upstream/upstreamtest", "a suite"},
	{throughTheDoor, "a mirror before a registry in memory"}, {"dray/mirror/fixture", "a log and a file that change meanwhile"},
}

// throughTheDoor is the mirror of tests. A test that uses it reaches its room through the front
// door, and may import what that is made of.
const throughTheDoor = "dray/mirror/mirrortest"

// unlinkable is what must not be in the program, however it would get there.
var unlinkable = []allowance{
	{"testing", "flags and code of tests"}, {"dray/upstream/ecrtest", "the fake ECR"}, {throughTheDoor, "the mirror of tests"}, {"github.com/google/go-containerregistry", "the client of the tests"},
	{"github.com/distribution/distribution/v3/registry/storage", "its drivers bring gRPC and a second AWS SDK"},
}

// bulky are packages for which the linker keeps every method of the AWS SDK, if the program uses
// them: see .ci/size. They may be part of it only by those that name them without use.
var bulky = map[string][]allowance{
	"html/template": {{templLibrary, "converts to its templates and back, which nothing here does"}},
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
