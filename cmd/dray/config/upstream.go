package config

import "dray/upstream/auth"

// Upstream is one registry behind dray.
type Upstream struct {
	// The name in the configuration, in logs and in metrics: at most 64 lower case letters and
	// digits, with single dots, colons, dashes or underscores between them. Default: the host of
	// `url`.
	Name string `yaml:"name"`
	// The URL of the registry: `https://host[:port]`, or a bare host name. `docker.io` stands for
	// `https://registry-1.docker.io`. A path after the host comes before `/v2/` in requests, as for
	// the repositories of Artifactory. An upstream of kind `local` has no URL.
	URL string `yaml:"url"`
	// The kind of registry: `oci`, `ecr` (Amazon ECR, with the credentials of the AWS SDK; the host
	// name gives account and region), `ecr-public`, or `local`. With `local`, dray itself stores the
	// images or build caches that clients push, and never forwards them. A reload does not add, remove
	// or change an upstream of this kind, except for `hosts`, `prefixes`, `default_namespace` and
	// `repositories`. Default: dray derives the kind from the host name.
	Kind Kind `yaml:"kind"`
	// The host names that select this upstream, in the `Host` header or in `?ns=`. A host name with a
	// dot and without a port also selects the upstream like a prefix: with `quay.io`, clients can pull
	// `<dray>/quay.io/org/app`. Default: the host of `url`. The default of Docker Hub is its four
	// names; a registry below a path has no default. With `[]`, no host name selects the upstream.
	Hosts []string `yaml:"hosts"`
	// The path prefixes that select this upstream. With `hub`, dray accepts both
	// `/hub/v2/library/alpine/…` (Docker) and `/v2/hub/library/alpine/…` (BuildKit, Podman, and
	// `docker pull <dray>/hub/library/alpine`).
	Prefixes []string `yaml:"prefixes,omitempty"`
	// The namespace that dray puts before repository names without a slash. Default: `library` for
	// Docker Hub, otherwise none.
	DefaultNamespace string `yaml:"default_namespace,omitempty"`
	// A prefix that dray puts before every repository name at the upstream, with a slash between
	// them. A slash at the end of the prefix makes no difference. Give the prefix of a pull-through
	// cache rule of ECR, or the project of Harbor: with `docker-hub`, dray asks for
	// `library/alpine` as `docker-hub/library/alpine`.
	RepositoryPrefix string `yaml:"repository_prefix,omitempty"`
	// The repositories of this upstream in which clients may pull, push and delete.
	Repositories Repositories `yaml:"repositories,omitempty"`
	// Other upstreams that dray asks, in this order, when this upstream does not answer a pull.
	Fallbacks []Fallback `yaml:"fallbacks,omitempty"`
	// The credentials of dray at the upstream. For kind `ecr` the AWS SDK finds them, and this
	// section is not allowed. Default: anonymous.
	Credentials Credentials `yaml:"credentials,omitempty"`
	// The way in which dray checks the upstream's certificate.
	TLS ClientTLS `yaml:"tls,omitempty"`
	// A `host:port` that dray dials instead of the host of `url`, such as a VPC endpoint, or a
	// stand-in for tests. The `Host` header and the name in the certificate remain the host of `url`.
	// dray connects to this address without the proxy that `HTTPS_PROXY` names.
	Address string `yaml:"address,omitempty"`
	// If `true`, dray follows redirects of the registry to private addresses, such as storage in your
	// own network behind a public registry. Amazon ECR, and a registry that has a private address
	// itself, may always redirect to private addresses. dray follows a redirect to a loopback address
	// only if `address` is one, such as `localhost`, and a redirect to a link-local address only if
	// `address` is link-local. If `address` is not set, the host of `url` counts. Default: `false`.
	PrivateRedirects bool `yaml:"private_redirects,omitempty"`
	// The AWS role that dray assumes before it asks for credentials of the registry; kinds `ecr`
	// and `ecr-public` only.
	RoleARN string `yaml:"role_arn,omitempty"`
	// The external id that the trust policy of `role_arn` asks for.
	ExternalID string `yaml:"external_id,omitempty"`
	// The URL of the ECR API, such as the URL of a VPC endpoint without private DNS; kinds `ecr` and
	// `ecr-public` only. Default: the variable `AWS_ENDPOINT_URL_ECR`, which applies to all upstreams
	// of kind `ecr` (for `ecr-public` it is `AWS_ENDPOINT_URL_ECR_PUBLIC`). If the variable is not
	// set, dray uses the API's address at AWS. For a registry with a FIPS or dual-stack host name,
	// that is the API's FIPS or dual-stack address.
	APIURL string `yaml:"api_url,omitempty"`
	// If `true`, clients may push to this upstream, through a listener with role `registry`. Always
	// `true` for kind `local`. Default: `false`.
	Push bool `yaml:"push"`
	// The moment at which a push has succeeded: `upstream` means when the registry has the image,
	// `local` when dray has it on stable storage. With `local`, clients do not wait until the registry
	// has the image, so clients can push while the registry is down. dray forwards the image
	// afterwards. If the registry then refuses it, only `dray queue`, the log, `/readyz` and the
	// metrics show that. Default: `upstream`.
	Acknowledge Acknowledge `yaml:"acknowledge,omitempty"`
	// If `true`, clients may delete tags and manifests at this upstream, and layers if the registry
	// has a call for that (Amazon ECR has none). This needs `push`, and for kind `ecr` the right
	// `ecr:BatchDeleteImage`. The right to push does not include the right to delete: see
	// `actions` in the rules of `auth`. Always `true` for kind `local`. Default: `false`.
	Delete bool `yaml:"delete,omitempty"`
	// The storage of an upstream of kind `local`.
	Local Local `yaml:"local,omitempty"`
	// The place for build caches of BuildKit that clients push to this upstream.
	BuildCache BuildCache `yaml:"build_cache,omitempty"`
	// The names of checks for pushed images. An image has to pass only the first of them whose
	// `repositories` match the repository of the image. Default: none.
	Checks []string `yaml:"checks,omitempty"`
	// The template for repositories that do not exist yet at the first push; kind `ecr` only.
	CreateRepositories CreateRepositories `yaml:"create_repositories,omitempty"`
	// The times for which dray remembers the digest that a tag points to.
	Tags Tags `yaml:"tags"`
	// The fetching of large layers by several ranges at once, for upstreams that send less on one
	// connection than the network can carry.
	ParallelFill ParallelFill `yaml:"parallel_fill"`
	// The fetching of an image's blobs as soon as a client has got its manifest, before the client
	// asks for them.
	Prefetch Prefetch `yaml:"prefetch"`
	// The time between two requests by which dray shows Amazon ECR that an image is in use. ECR can
	// delete images that nobody has pulled for a while, and it does not see the pulls that dray
	// answers. So, once in this time, dray asks for the manifest of each image that clients have
	// pulled here since dray last asked for it. The requests of clients go first. Give less than the
	// shortest time in your lifecycle rules, which count in days. `0s` turns the requests off.
	// Default: `24h` for kind `ecr`, otherwise `0s`.
	KeepAlive Duration `yaml:"keep_alive"`
	// The bounds on the requests that dray sends to the registry.
	Limits UpstreamLimits `yaml:"limits"`
	// The network route by which clients would reach the registry without dray. dray calculates its
	// savings from the price of this route.
	Savings UpstreamSavings `yaml:"savings,omitempty"`
}

// Fixed says what a reload cannot do with the upstream. If addFixed is true, a reload cannot add or
// remove it, because its pushes need the queue or a store of their own. If keysFixed is true, a
// reload cannot change most of its keys, because its pushes need a store of their own.
func (u Upstream) Fixed() (addFixed, keysFixed bool) {
	local := u.Kind == KindLocal
	return local || u.Acknowledge == AcknowledgeLocal, local
}

// UsesAWS reports whether dray gets its credentials at the upstream from AWS.
func (u Upstream) UsesAWS() bool {
	return u.Kind == KindECR || u.Kind == KindECRPublic && (u.Credentials.AWS || u.RoleARN != "")
}

// Repositories bounds the repositories that clients can reach through dray. dray refuses a request
// for another repository with 403, whoever the client is, and does not ask the registry. A client
// that uses dray as a mirror then asks the registry directly, if the network allows this. In the
// patterns, `*` stands for any characters, slashes included. Patterns match the name that a
// repository has at the registry, such as `library/alpine`, without the `repository_prefix`.
type Repositories struct {
	// Patterns of the repositories that clients may name. Default: all.
	Allow []string `yaml:"allow,omitempty"`
	// Patterns of repositories that clients may not name, even if `allow` matches them. Default: none.
	Deny []string `yaml:"deny,omitempty"`
}

// UpstreamLimits bounds the requests that dray sends to a registry. dray sends waiting requests in
// rotation, one repository after another. Requests that a client waits for go before requests that
// dray makes on its own. When the registry answers 429 to a request, all requests of the same
// operation (see `rates`) pause together and go on at half the rate, which then slowly rises again.
// If a request cannot be sent in time, the client gets an older answer from the cache, marked as
// stale. Without such an answer, it gets 429. The members of a [fleet](fleet.md) share `rates`,
// pauses and `quota_reserve`; the other bounds apply to each member by itself.
type UpstreamLimits struct {
	// The most requests at the same time to one host of the registry. The storage of a registry is
	// a host of its own. Each of three groups may reach this number by itself: downloads of blobs,
	// uploads of blobs, and all other requests. Default: `256`.
	Concurrency int `yaml:"concurrency"`
	// The most requests of one operation that may wait. Beyond that, dray first refuses requests that
	// no client waits for. If there are none, it refuses the newest request of the repository that has
	// the most requests waiting. Default: `1000`.
	Queue int `yaml:"queue"`
	// The longest time that a request may wait. Clients give up after 30 s without an answer.
	// Default: `20s`.
	Wait Duration `yaml:"wait"`
	// The highest rates in requests per second, by operation; `0` removes a bound. For kind `ecr` the
	// operations are `BatchGetImage`, `GetDownloadUrlForLayer`, `BatchCheckLayerAvailability`,
	// `InitiateLayerUpload`, `UploadLayerPart`, `CompleteLayerUpload` and `PutImage`, and the defaults
	// are the quotas that Amazon gives every account and region. Lower the defaults by the rates that
	// other programs in the account use, or raise them when Amazon raises the quotas. For other kinds,
	// the operations are `manifest_get`, `manifest_head`, `manifest_put`, `blob_get`, `blob_head`,
	// `upload_start`, `upload_part` and `upload_end`. These have no defaults, except `manifest_get` of
	// kind `ecr-public`: its default is Amazon's rate of pulls, `10` with credentials and `1` without.
	// All kinds also have `list` and `delete`.
	Rates map[string]float64 `yaml:"rates,omitempty"`
	// The share of the registry's quota of pulls, in percent, that dray leaves to clients. When less
	// remains, dray asks for manifests only while a client waits for them. Docker Hub reports its
	// quota with every manifest. Default: `20`.
	QuotaReserve int `yaml:"quota_reserve"`
}

// BuildCache says where dray stores the build caches that BuildKit pushes to an upstream
// (`--cache-to type=registry`; dray recognises them by their media type). Clients pull a build
// cache by the name to which they pushed it; lists of tags do not show it. dray forwards a layer
// before it knows whether the layer belongs to a build cache. So this section saves storage at the
// upstream, but not all of the traffic.
type BuildCache struct {
	// The name of the upstream of kind `local` that stores the build caches. There, the repository of
	// a build cache has a name that begins with the name of the upstream to which the client pushed.
	// Default: dray forwards build caches like images.
	To string `yaml:"to,omitempty"`
	// With `never`, dray does not forward build caches. With `async`, it stores them and also forwards
	// them, in the background, after the client has its answer. Default: `never`.
	WriteBack WriteBack `yaml:"write_back,omitempty"`
}

// Local bounds the size and the age of content that an upstream of kind `local` stores. Its blobs
// are in the cache directory, where they count towards `cache.max_bytes` and are never evicted; its
// tags are in the directory `hosted` of the state directory. Once this content is lost, dray cannot
// fetch it again, unlike the rest of the cache. Mirrors that share a Redis do not share this
// content.
type Local struct {
	// The most bytes that the images of the upstream may take. With `0`, only `cache.max_bytes` bounds
	// them. Default: a fifth of `cache.max_bytes`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// The answer to a push that does not fit: `evict` removes the images that were not used for the
	// longest time, `refuse` lets the push fail. Default: `evict`.
	WhenFull WhenFull `yaml:"when_full"`
	// The time without a push or a pull after which dray removes a tag. With `0s`, dray never removes
	// it. Default: `720h`.
	Unused Duration `yaml:"unused"`
	// The time without a push or a pull after which dray removes an untagged manifest. But dray keeps
	// the manifest while dray stores its subject (the image that the manifest describes), or an index
	// that lists the manifest. With `0s`, dray never removes it. Default: `24h`.
	Untagged Duration `yaml:"untagged"`
	// The rules for certain tags. The first rule that matches a tag decides, in place of `unused`.
	Prune []PruneRule `yaml:"prune,omitempty"`
}

// PruneRule says which tags of an upstream of kind `local` dray removes. In patterns `*` stands for
// any characters.
type PruneRule struct {
	// Patterns of repository names, without the prefix of the upstream. Default: all.
	Repositories []string `yaml:"repositories,omitempty"`
	// Patterns of tags. Default: all.
	Tags []string `yaml:"tags,omitempty"`
	// The time without a push or a pull after which dray removes a tag. Default: never.
	Unused Duration `yaml:"unused,omitempty"`
	// The most tags that dray keeps in a repository: those that clients pushed last. `unused` can
	// remove these, too. Default: all.
	Keep int `yaml:"keep,omitempty"`
	// A text that divides tags into groups. `keep` then counts the tags of each group by itself. Tags
	// that are alike up to the last occurrence of the text are one group: with `-`, `main-1` and
	// `main-2` are a group, and `fix-1` is another. Default: all tags of the rule are one group.
	Group string `yaml:"group,omitempty"`
}

// Prefetch says which blobs of an image dray fetches as soon as a client has got the manifest of
// its platform. The client joins these fetches, so an image that is pulled as a whole costs no
// additional request. dray does not know which layers the client already has from elsewhere, so it
// also fetches these layers if they are not in the cache.
type Prefetch struct {
	// If `false`, dray fetches nothing before a client asks for it. Default: `true`.
	Enabled bool `yaml:"enabled"`
	// The size of the largest layer that dray fetches ahead of the client. A larger layer would take
	// bandwidth from content that the client waits for, and gain little. Default: `8MiB`.
	MaxLayer Bytes `yaml:"max_layer"`
	// The number of blobs that dray fetches ahead at a time. A small blob takes hardly more than a
	// round trip, so many at once make the pull fast. Default: `16`.
	Streams int `yaml:"streams"`
}

// ParallelFill says how dray fetches large layers by several ranges at once. Each range costs one
// additional request, with its redirect. If a registry ignores or refuses ranges, dray asks it for
// the layer as a whole.
type ParallelFill struct {
	// The size of the smallest layer that dray fetches by ranges. Smaller layers would gain little,
	// because clients fetch several of them at the same time. Default: `32MiB`.
	Threshold Bytes `yaml:"threshold"`
	// The length of a range. Default: `8MiB`.
	Piece Bytes `yaml:"piece"`
	// The number of ranges of one layer that dray fetches at a time; `1` fetches every layer by one
	// request. While clients wait for ranges that dray is not fetching yet, it fetches more ranges at
	// a time. Default: `4`.
	Streams int `yaml:"streams"`
	// The most connections to the upstream for the ranges of all layers together. The first connection
	// of each layer does not count. If no connection is free, dray fetches the layer by one request. A
	// layer gets more connections than `streams` only while enough connections for another layer stay
	// free. Default: `16`.
	Connections int `yaml:"connections"`
}

// Credentials holds a user name and says where the password is. The file of the configuration never
// contains the password itself.
type Credentials struct {
	// The user name.
	Username string `yaml:"username,omitempty"`
	// The file that holds the password; dray ignores white space around the password, and reads the
	// file again when it changes.
	PasswordFile string `yaml:"password_file,omitempty"`
	// The environment variable that holds the password.
	PasswordEnv string `yaml:"password_env,omitempty"`
	// If `true`, dray gets the credentials from AWS, as for kind `ecr`; kind `ecr-public` only. dray
	// needs the rights `ecr-public:GetAuthorizationToken` and `sts:GetServiceBearerToken`. Default:
	// `false`, or `true` with a `role_arn`.
	AWS bool `yaml:"aws,omitempty"`
	// The password from the file or the variable. `dray check` shows it redacted; you cannot set it
	// here.
	Password auth.Secret `yaml:"password,omitempty"`
}

// ClientTLS says how dray checks the certificate of an upstream.
type ClientTLS struct {
	// A PEM file with authorities that dray trusts besides the authorities of the system. dray reads
	// it again when it changes.
	CAFile string `yaml:"ca_file,omitempty"`
	// If `true`, dray accepts any certificate. Anybody between dray and the upstream can then read
	// the credentials. Default: `false`.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify,omitempty"`
}

// CreateRepositories is the template for the ECR repositories that dray creates when a client
// pushes to them for the first time.
type CreateRepositories struct {
	// `create` creates the repository that a push needs; dray then needs the right
	// `ecr:CreateRepository`. `dry_run` refuses the push. It reports, to the client, in the log and in
	// the metrics, which repository dray would have created. `off` creates nothing. If the registry
	// creates repositories on push by templates of its own, no repository is ever missing, and this
	// section has no effect. Default: `create` if `push` is `true`.
	Mode CreateMode `yaml:"mode,omitempty"`
	// Regular expressions for the names of repositories that dray may create. One of them has to
	// match the whole name as it is in ECR, with the `repository_prefix` of the upstream; if none
	// matches, dray refuses the push and shows the expressions. Default: any name.
	Names []string `yaml:"names,omitempty"`
	// `MUTABLE` if a push may move a tag to another image, otherwise `IMMUTABLE`. Default:
	// `MUTABLE`.
	TagMutability string `yaml:"tag_mutability,omitempty"`
	// At most five patterns of tags for which the opposite of `tag_mutability` applies, such as
	// `latest` and `dev-*`; `*` stands for any characters.
	TagMutabilityExcept []string `yaml:"tag_mutability_except,omitempty"`
	// A file with the JSON of the lifecycle policy that a new repository gets. dray needs the right
	// `ecr:PutLifecyclePolicy`.
	LifecyclePolicy string `yaml:"lifecycle_policy,omitempty"`
	// A file with the JSON of the repository policy that a new repository gets, such as the right of
	// other accounts to pull. dray needs the right `ecr:SetRepositoryPolicy`.
	RepositoryPolicy string `yaml:"repository_policy,omitempty"`
	// If `true`, ECR scans pushed images.
	ScanOnPush bool `yaml:"scan_on_push,omitempty"`
	// The encryption at rest: `AES256`, `KMS`, or `KMS_DSSE`, which encrypts twice. Default: `KMS`
	// with a `kms_key`, otherwise `AES256`.
	Encryption string `yaml:"encryption,omitempty"`
	// The ARN or the id of the KMS key.
	KMSKey string `yaml:"kms_key,omitempty"`
	// The AWS resource tags of a new repository.
	Tags map[string]string `yaml:"tags,omitempty"`
}

// Tags says for how long dray relies on the upstream's last answer about a tag. The same times
// apply to lists of referrers, in which clients find the signatures of an image.
type Tags struct {
	// For this time after an answer, dray serves the tag without asking the upstream; `0s` asks every
	// time. On a listener that accepts pushes, this time also applies to HEAD of a manifest by digest.
	// Default: `60s`.
	Fresh Duration `yaml:"fresh"`
	// For this time after `fresh`, dray still serves the old answer at once, and asks the upstream in
	// the background for a new answer. With `0s`, or with `fresh: 0s`, the client waits for the
	// upstream. On a listener that accepts pushes, HEAD always waits, because clients find out by HEAD
	// which content they need not push. If the old answer is an empty list of referrers, clients wait,
	// too: signatures often come a moment after the image. Default: `60s`.
	Revalidate Duration `yaml:"revalidate"`
	// For this time after an answer, dray still serves the tag while the upstream is down, throttles,
	// or refuses credentials; `0s` turns this off. Default: `24h`.
	Stale Duration `yaml:"stale"`
	// If the upstream does not have a tag or content, dray does not ask for it again for this time;
	// `0s` asks every time. Default: `10s`.
	NotFound Duration `yaml:"not_found"`
}
