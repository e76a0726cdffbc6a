package config

import "dray/upstream/auth"

// Config holds the settings of dray. The environment overrides the file, and a setting that neither
// of them gives has the default named here.
type Config struct {
	// The addresses on which dray serves clients. Without this section there is one listener, on
	// `127.0.0.1:5000`. If `TLS_CERTIFICATE` and `TLS_PRIVATE_KEY` give a certificate, it listens
	// on port 5000 of every interface instead.
	Listeners []Listener `yaml:"listeners"`
	// The registries behind dray. Without this section there is Docker Hub, with the prefix
	// `docker.io`. If `ECR_REGISTRY` is set, there is also that registry, and plain names go to it.
	Upstreams []Upstream `yaml:"upstreams"`
	// The conditions that images must meet before dray forwards them. An upstream names the checks
	// that apply to it.
	Checks []Checks `yaml:"checks,omitempty"`
	// The services that dray tells about pushes, verdicts of checks, and deletions.
	Notifications []Notification `yaml:"notifications,omitempty"`
	// The place and the size of the cache.
	Cache Cache `yaml:"cache"`
	// The queue of pushes that dray acknowledges before it forwards them: see `acknowledge`.
	Queue Queue `yaml:"queue"`
	// The store of small facts, such as the digest that a tag points to. If it is lost, dray asks the
	// upstreams again. It also forgets the base images that it has seen (see the `base` stage) and the
	// images that `keep_alive` covers, until clients pull or push them again.
	Metadata Metadata `yaml:"metadata"`
	// The ways to recognise clients. A listener names the one that it uses.
	Auth []Auth `yaml:"auth,omitempty"`
	// The listener for metrics, health, profiles, and the subcommands that ask a running dray.
	Admin Admin `yaml:"admin"`
	// The publishing of pull counts to Amazon CloudWatch.
	CloudWatch CloudWatch `yaml:"cloudwatch"`
	// The bounds on what one client, and one process, may use.
	Limits Limits `yaml:"limits"`
	// The log that dray writes to standard error.
	Log Log `yaml:"log"`
}

// Listener is one address that clients connect to.
type Listener struct {
	// The name of the listener in logs and metrics. It follows the rules for names of upstreams.
	// Default: the address.
	Name string `yaml:"name"`
	// The address to listen on, as `host:port`; `:5000` is port 5000 of every interface. Default:
	// `127.0.0.1:5000`.
	Address string `yaml:"address"`
	// The requests that clients may make here: `mirror` allows pulls, `registry` allows pulls and
	// pushes. Default: `registry` if the first of the listener's upstreams accepts pushes,
	// otherwise `mirror`.
	Role Role `yaml:"role"`
	// The names of the upstreams that clients reach here. Plain names such as `/v2/library/alpine`
	// go to the first; clients choose the others by host name, by prefix, or by `?ns=`. Default:
	// all, in the order of `upstreams`.
	Upstreams []string `yaml:"upstreams"`
	// The certificate of the listener. Without it the listener speaks plain HTTP.
	TLS ServerTLS `yaml:"tls,omitempty"`
	// The URL by which clients reach this listener. dray uses it wherever the protocol allows or
	// needs an absolute URL, such as the location of an upload: some clients, such as Ollama, do
	// not resolve paths. So set it only if all clients of the listener reach dray by this URL. Where
	// clients need no credentials, dray refuses the requests of a browser on its own machine,
	// unless they use a host name that dray knows, such as the one in this URL. Default: locations
	// are paths, and other URLs are derived from each request.
	ExternalURL string `yaml:"external_url,omitempty"`
	// The name of the `auth` entry that recognises clients here, or `none`. Default: `none`.
	Auth string `yaml:"auth"`
	// If `true`, a listener with role `mirror` and `auth` answers a client without credentials with
	// 401. Leave it off if you can: classic Docker answers the challenge of a mirror with the user's
	// Docker Hub password. A listener with role `registry` and `auth` does this in any case. Default:
	// `false`.
	Challenge bool `yaml:"challenge,omitempty"`
	// If `true`, anybody who can connect may push. If it is `false` and the listener has no `auth`,
	// dray accepts pushes over the loopback interface only. Default: `false`.
	AllowAnonymousPush bool `yaml:"allow_anonymous_push,omitempty"`
	// The time within which dray answers a pushed manifest. Many load balancers end a request that has
	// had no answer for a certain time, often a minute. Behind such a load balancer, set a little less
	// than its time. A push that takes longer goes on, and its client is told to push again. Clients
	// that are built on containerd give up after 30 s, so they always get an answer within 25 s.
	// Default: 10 minutes.
	AnswerWithin Duration `yaml:"answer_within,omitempty"`
	// The way in which dray sends blobs from disk over plain HTTP: `splice` (the kernel, through pipes
	// that dray opens), `sendfile` (the kernel alone) or `copy` (through the process). `splice` costs
	// the least processor time. If the system is not Linux, or if dray can open no pipe, it uses
	// `sendfile` instead. On hosts whose TCP congestion control is BBR, `copy` is faster. TLS always
	// copies. Default: `splice`.
	Send Send `yaml:"send"`
}

// ServerTLS names the certificate of a listener and its private key. Give both files or neither.
type ServerTLS struct {
	// The PEM file with the certificate, followed by its intermediates. dray reads it again when
	// it changes.
	Certificate string `yaml:"certificate,omitempty"`
	// The PEM file with the private key.
	PrivateKey string `yaml:"private_key,omitempty"`
}

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
	// images that clients push, as for build caches, and never forwards them. Default: dray derives
	// the kind from the host name.
	Kind Kind `yaml:"kind"`
	// The host names that select this upstream, in the `Host` header or in `?ns=`. Default: the host
	// of `url`. The default of Docker Hub is its four names; a registry below a path has no default.
	Hosts []string `yaml:"hosts"`
	// The path prefixes that select this upstream. With `hub`, dray accepts both
	// `/hub/v2/library/alpine/…` (Docker) and `/v2/hub/library/alpine/…` (BuildKit, Podman, and
	// `docker pull <dray>/hub/library/alpine`).
	Prefixes []string `yaml:"prefixes,omitempty"`
	// The namespace of repository names without a slash. Default: `library` for Docker Hub,
	// otherwise none.
	DefaultNamespace string `yaml:"default_namespace,omitempty"`
	// A prefix that dray puts before every repository name at the upstream, with a slash between
	// them. A slash at the end of the prefix makes no difference. Give the prefix of a pull-through
	// cache rule of ECR, or the project of Harbor: with `docker-hub`, dray asks for
	// `library/alpine` as `docker-hub/library/alpine`.
	RepositoryPrefix string `yaml:"repository_prefix,omitempty"`
	// The credentials of dray at the upstream. For kind `ecr` the AWS SDK finds them, and this
	// section is not allowed. Default: anonymous.
	Credentials Credentials `yaml:"credentials,omitempty"`
	// The way in which dray checks the upstream's certificate.
	TLS ClientTLS `yaml:"tls,omitempty"`
	// A `host:port` that dray dials instead of the host of `url`, such as a VPC endpoint, or a
	// stand-in for tests. The `Host` header and the name in the certificate stay those of `url`.
	// dray connects to it without the proxy that `HTTPS_PROXY` names.
	Address string `yaml:"address,omitempty"`
	// If `true`, dray follows redirects of the registry to private addresses, such as storage in your
	// own network behind a public registry. Amazon ECR, and a registry that has a private address
	// itself, may always redirect to private addresses. dray follows a redirect to a loopback or
	// link-local address only if `address`, or the host of `url`, is an address of the same sort, such
	// as `localhost`. Default: `false`.
	PrivateRedirects bool `yaml:"private_redirects,omitempty"`
	// The AWS role that dray assumes before it asks for credentials of the registry; kinds `ecr`
	// and `ecr-public` only.
	RoleARN string `yaml:"role_arn,omitempty"`
	// The external id that the trust policy of `role_arn` asks for.
	ExternalID string `yaml:"external_id,omitempty"`
	// The URL of the ECR API, such as that of a VPC endpoint without private DNS; kinds `ecr` and
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
	// has the image, so they can push while it is down. dray forwards the image afterwards. If the
	// registry then refuses it, only `dray queue`, the log, `/readyz` and the metrics show that.
	// Default: `upstream`.
	Acknowledge Acknowledge `yaml:"acknowledge,omitempty"`
	// If `true`, clients may delete tags and manifests at this upstream, and layers if the registry
	// has a call for that (Amazon ECR has none). It needs `push`, and for kind `ecr` the right
	// `ecr:BatchDeleteImage`. The right to push does not include the right to delete: see
	// `actions`. Always `true` for kind `local`. Default: `false`.
	Delete bool `yaml:"delete,omitempty"`
	// The storage of an upstream of kind `local`.
	Local Local `yaml:"local,omitempty"`
	// The place for build caches of BuildKit that clients push to this upstream.
	BuildCache BuildCache `yaml:"build_cache,omitempty"`
	// The names of the checks that pushed images have to pass. dray uses the first of them whose
	// `repositories` match the repository. Default: none.
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
	// The bounds on what dray asks of the registry at a time.
	Limits UpstreamLimits `yaml:"limits"`
}

// UsesAWS reports whether dray gets its credentials at the upstream from AWS.
func (u Upstream) UsesAWS() bool {
	return u.Kind == KindECR || u.Kind == KindECRPublic && (u.Credentials.AWS || u.RoleARN != "")
}

// UpstreamLimits bounds what dray asks of a registry at a time. Requests that have to wait are sent
// in rotation, one repository after another. Requests that a client waits for go before those that
// dray makes on its own. When the registry answers 429 to a request, all requests of the same
// operation (see `rates`) pause together and go on at half the rate, which then slowly rises again.
// If a request cannot be sent in time, the client gets an older answer from the cache, marked as
// stale, or 429 if there is none.
type UpstreamLimits struct {
	// The most requests at the same time to one host of the registry. The storage of a registry is
	// a host of its own. dray counts blobs that it receives and blobs that it sends separately.
	// Default: `256`.
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
	// are the quotas that Amazon gives every account and region. Lower them by what others in the
	// account use, or raise them with the quotas. For other kinds they are `manifest_get`,
	// `manifest_head`, `manifest_put`, `blob_get`, `blob_head`, `upload_start`, `upload_part` and
	// `upload_end`. These have no defaults, except `manifest_get` of kind `ecr-public`: its default is
	// Amazon's rate of pulls, `10` with credentials and `1` without. All kinds also have `list` and
	// `delete`.
	Rates map[string]float64 `yaml:"rates,omitempty"`
	// The share of the registry's quota of pulls, in percent, that dray leaves to clients. When
	// less remains, dray makes only the requests that a client waits for. Docker Hub tells its
	// quota with every manifest. Default: `20`.
	QuotaReserve int `yaml:"quota_reserve"`
}

// BuildCache says where dray stores the build caches that BuildKit pushes to an upstream
// (`--cache-to type=registry`; dray recognises them by their media type). Clients find them under
// the name that they pushed to; lists of tags do not show them. dray forwards a layer before it
// knows whether the layer belongs to a build cache. So this section saves storage at the upstream,
// but not all of the traffic.
type BuildCache struct {
	// The name of the upstream of kind `local` that stores the build caches. Its repositories for them
	// begin with the name of this upstream. Default: dray forwards build caches like images.
	To string `yaml:"to,omitempty"`
	// With `never`, dray does not forward build caches. With `async`, it stores them and also forwards
	// them, in the background, after the client has its answer. Default: `never`.
	WriteBack WriteBack `yaml:"write_back,omitempty"`
}

// Local bounds what an upstream of kind `local` stores, and for how long. Its blobs are in the
// cache directory, where they count towards `cache.max_bytes` and are never evicted; its tags are
// beside them in `hosted`. Once this content is lost, dray cannot fetch it again, unlike the rest
// of the cache. Mirrors that share a Redis do not share this content.
type Local struct {
	// The most bytes that its images may take. With `0`, only `cache.max_bytes` bounds them.
	// Default: a fifth of `cache.max_bytes`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// The answer to a push that does not fit: `evict` removes the images that were not used for the
	// longest time, `refuse` lets the push fail. Default: `evict`.
	WhenFull WhenFull `yaml:"when_full"`
	// The time after which dray removes a tag that clients neither pushed nor pulled. `0s` never
	// removes it. Default: `720h`.
	Unused Duration `yaml:"unused"`
	// The time after which dray removes an untagged manifest that clients neither pushed nor pulled.
	// It stays as long as an index that is kept lists it, or its subject is kept. `0s` never removes
	// it. Default: `24h`.
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
	// The time after which dray removes a tag that clients neither pushed nor pulled. Default:
	// never.
	Unused Duration `yaml:"unused,omitempty"`
	// The number of tags that dray keeps in a repository: those that clients pushed last. Default:
	// all.
	Keep int `yaml:"keep,omitempty"`
	// A text that divides tags into groups. `keep` then counts the tags of each group by itself. Tags
	// that are alike up to the last occurrence of the text are one group: with `-`, `main-1` and
	// `main-2` are a group, and `fix-1` is another. Default: all tags of the rule are one group.
	Group string `yaml:"group,omitempty"`
}

// Prefetch says which blobs of an image dray fetches as soon as a client has got the manifest of
// its platform. The client joins these fetches, so an image that is pulled as a whole costs no
// additional request. dray does not know which layers the client already has from elsewhere. It
// fetches these, too, unless it holds them.
type Prefetch struct {
	// If `false`, dray fetches nothing before a client asks for it. Default: `true`.
	Enabled bool `yaml:"enabled"`
	// The size of the largest layer that dray fetches ahead of the client. A larger one would take
	// bandwidth from what the client waits for, and its round trip matters little. Default: `8MiB`.
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
	// request. While clients wait for other ranges of the layer, dray fetches more at a time.
	// Default: `4`.
	Streams int `yaml:"streams"`
	// The most connections to the upstream for ranges, counted over all layers, without the first
	// connection of each layer. If none is free, dray fetches the layer by one request. However many
	// clients wait for ranges of one layer, enough connections stay free for the `streams` of another
	// layer. Default: `16`.
	Connections int `yaml:"connections"`
}

// Credentials holds a user name and says where the password is. The file of the configuration never
// contains the password itself.
type Credentials struct {
	// The user name.
	Username string `yaml:"username,omitempty"`
	// The file that holds the password; dray ignores white space around it, and reads the file again
	// when it changes.
	PasswordFile string `yaml:"password_file,omitempty"`
	// The environment variable that holds the password.
	PasswordEnv string `yaml:"password_env,omitempty"`
	// If `true`, dray gets the credentials from AWS, as for kind `ecr`; kind `ecr-public` only. It
	// needs the rights `ecr-public:GetAuthorizationToken` and `sts:GetServiceBearerToken`. Default:
	// `false`, or `true` with a `role_arn`.
	AWS bool `yaml:"aws,omitempty"`
	// The password from the file or the variable. `dray check` shows it redacted; you cannot set it
	// here.
	Password auth.Secret `yaml:"password,omitempty"`
}

// ClientTLS says how dray checks the certificate of an upstream.
type ClientTLS struct {
	// A PEM file with authorities that dray trusts besides those of the system. dray reads it again
	// when it changes.
	CAFile string `yaml:"ca_file,omitempty"`
	// If `true`, dray accepts any certificate. Anybody between dray and the upstream can then read
	// the credentials. Default: `false`.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify,omitempty"`
}

// CreateRepositories is the template for the ECR repositories that dray creates when a client
// pushes to them for the first time.
type CreateRepositories struct {
	// `create` creates the repository that a push needs; dray then needs the right
	// `ecr:CreateRepository`. `dry_run` refuses the push and tells the client, the log and the metrics
	// what dray would have created. `off` creates nothing. If the registry creates repositories on
	// push by templates of its own, no repository is ever missing, and this section has no effect.
	// Default: `create` if `push` is `true`.
	Mode CreateMode `yaml:"mode,omitempty"`
	// Regular expressions for the names of repositories that dray may create. One of them has to
	// match the whole name as it is in ECR, with the `repository_prefix` of the upstream; otherwise
	// dray refuses the push and shows the expressions. Default: any name.
	Names []string `yaml:"names,omitempty"`
	// `MUTABLE` if a push may move a tag to another image, otherwise `IMMUTABLE`. Default:
	// `MUTABLE`.
	TagMutability string `yaml:"tag_mutability,omitempty"`
	// At most five patterns of tags for which the opposite applies, such as `latest` and `dev-*`;
	// `*` stands for any characters.
	TagMutabilityExcept []string `yaml:"tag_mutability_except,omitempty"`
	// A file with the JSON of the lifecycle policy that a new repository gets. It needs the right
	// `ecr:PutLifecyclePolicy`.
	LifecyclePolicy string `yaml:"lifecycle_policy,omitempty"`
	// A file with the JSON of the repository policy that a new repository gets, such as the right of
	// other accounts to pull. It needs the right `ecr:SetRepositoryPolicy`.
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
	// The time after the last answer in which dray serves a tag without asking the upstream; `0s` asks
	// every time. On a listener that takes pushes, this time also applies to HEAD of a manifest by
	// digest. Default: `60s`.
	Fresh Duration `yaml:"fresh"`
	// The time after `fresh` in which dray still serves the old answer at once and asks the upstream
	// in the background for the next one. With `0s`, or with `fresh: 0s`, the client waits for the
	// upstream. On a listener that takes pushes, HEAD always waits, because clients ask by HEAD what
	// they need not push. If the old answer is an empty list of referrers, clients wait, too:
	// signatures often come a moment after the image. Default: `60s`.
	Revalidate Duration `yaml:"revalidate"`
	// The time after the last answer in which dray still serves a tag while the upstream is down,
	// throttles, or refuses credentials; `0s` turns it off. Default: `24h`.
	Stale Duration `yaml:"stale"`
	// The time in which dray does not ask again for a tag or content that the upstream did not
	// have; `0s` asks every time. Default: `10s`.
	NotFound Duration `yaml:"not_found"`
}

// Cache says where dray stores content, and how much of it.
type Cache struct {
	// The directory of the cache. dray creates it if it is missing. Default: `dray` in
	// `$XDG_CACHE_HOME` if that is set, otherwise `data` in the working directory.
	Directory string `yaml:"directory"`
	// The most bytes on disk, such as `200GiB`. With `0`, only `min_free_bytes` bounds the cache.
	// Default: `50GiB`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// The bytes of the file system that dray leaves free. When less is free, dray passes content on
	// without storing it. Default: `1GiB`.
	MinFreeBytes Bytes `yaml:"min_free_bytes"`
	// The memory for manifests and other small content that clients often ask for. Default:
	// `64MiB`.
	MemoryBytes Bytes `yaml:"memory_bytes"`
	// If an upstream sends no byte of a layer for this long, dray asks it again for the rest. As
	// long as bytes arrive, a fetch may take any time. Default: `30s`.
	StallTimeout Duration `yaml:"stall_timeout"`
	// The rules for a fetch whose clients have all left.
	Abandoned Abandoned `yaml:"abandoned"`
	// The repeated verification, in the background, of content on disk.
	Scrub Scrub `yaml:"scrub"`
}

// Scrub says how often dray reads the content on disk again to verify it. dray moves corrupt
// content to `content/quarantine` in the cache directory, and fetches it again when a client asks
// for it. The quarantine is small: older corrupt content is deleted to make room for newer.
type Scrub struct {
	// The time in which dray reads everything once, evenly spread. With `0`, it never does. Default:
	// `30d`.
	Interval Duration `yaml:"interval"`
	// The most bytes that dray reads in a second, even if a pass then takes longer than `interval`.
	// dray also waits while the disk is busy. Default: `8MiB`.
	Rate Bytes `yaml:"rate"`
}

// Abandoned says what dray does with the fetch of a layer when all clients that read it have left.
// By default dray finishes it: clients that leave often come back, and the bytes are on their way
// already. With `stop_above`, dray stops fetches of large layers, except those that it began before
// a client asked (see `prefetch`).
type Abandoned struct {
	// The size, such as `1GiB`, above which dray stops the fetch of a layer, unless
	// `finish_from_percent` of it has arrived. With `0`, dray finishes every fetch. Default: `0`.
	StopAbove Bytes `yaml:"stop_above"`
	// If this share of a layer, in percent, has arrived, dray finishes its fetch, however large the
	// layer is. Default: `50`.
	FinishFromPercent int `yaml:"finish_from_percent"`
	// The time for which the fetch goes on before dray stops it. A client that asks for the layer
	// in this time joins the fetch; after it, a new fetch begins. Default: `10s`.
	Grace Duration `yaml:"grace"`
}

// Queue bounds the pushes to upstreams with `acknowledge: local` that dray has not forwarded yet.
// They are in the directory `queue` of the cache directory, and their layers are in the cache.
type Queue struct {
	// The most pushes in the queue, including those that their registry refused. When the queue is
	// full, dray forwards the next push while its client waits, as with `acknowledge: upstream`. If
	// that fails, or if the queue has pushes to the same repository, dray refuses the push with 429.
	// Default: `10000`.
	MaxPushes int `yaml:"max_pushes"`
	// The most bytes that these pushes may take. The cache does not evict them. Default: a quarter
	// of `cache.max_bytes`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// If a push has waited for this long, `/readyz` says `degraded`. Default: `5m`.
	ReportAfter Duration `yaml:"report_after"`
}

// Metadata says where dray stores small facts, such as the digest that a tag points to.
type Metadata struct {
	// The address of a Redis, if several processes share their facts: `redis://host:6379/0`,
	// `rediss://` for TLS, `redis+sentinel://` for Redis Sentinel, or `redis+cluster://` for Redis
	// Cluster. dray never prints a password in it. Default: a bbolt file in the cache directory.
	URL SecretURL `yaml:"url"`
	// The file that holds the Redis password; dray ignores white space around it, and reads the file
	// again when it changes, for the next connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// The Redis password, from the file or from `DRAY_METADATA_PASSWORD`. `dray check` shows it
	// redacted; you cannot set it here.
	Password auth.Secret `yaml:"password,omitempty"`
	// The text that dray puts before every key in Redis. Default: `dray:`.
	KeyPrefix string `yaml:"key_prefix"`
}

// Auth recognises clients, by a password file or by tokens of a token service, and says what each
// of them may do.
type Auth struct {
	// The name by which a listener refers to this entry. It follows the rules for names of
	// upstreams.
	Name string `yaml:"name"`
	// The users, with their bcrypt hashes, in a file of Apache's htpasswd (`htpasswd -B`; Debian
	// has it in apache2-utils).
	HTPasswd HTPasswd `yaml:"htpasswd,omitempty"`
	// The service whose bearer tokens dray accepts.
	Token Token `yaml:"token,omitempty"`
	// The rights of clients. dray allows a request if any rule allows it. Without rules every
	// recognised client may pull, push and delete everything, within what its token grants and what
	// the upstreams allow.
	Rules []Rule `yaml:"rules,omitempty"`
}

// HTPasswd names a file of users and bcrypt hashes.
type HTPasswd struct {
	// The file. dray reads it again when it changes. While dray cannot read it, users whose passwords
	// it accepted before can continue for a minute.
	File string `yaml:"file,omitempty"`
	// The name that people see when a client asks them for a password. Default: `dray`.
	Realm string `yaml:"realm,omitempty"`
}

// Token describes a token service, as in the registry token specification.
type Token struct {
	// The URL of the token service.
	Realm string `yaml:"realm,omitempty"`
	// The name of this registry at the token service, and the audience of its tokens.
	Service string `yaml:"service,omitempty"`
	// The issuer that the tokens must name.
	Issuer string `yaml:"issuer,omitempty"`
	// The PEM file with the certificates that sign tokens. dray reads it again when it changes.
	RootCertBundle string `yaml:"root_cert_bundle,omitempty"`
	// The JSON Web Key Set file with the keys that sign tokens. dray reads it again when it changes.
	JWKS string `yaml:"jwks,omitempty"`
}

// Rule grants actions on repositories.
type Rule struct {
	// The users that the rule applies to; `*` is every recognised user.
	Users []string `yaml:"users,omitempty"`
	// If `true`, the rule also applies to clients without credentials.
	Anonymous bool `yaml:"anonymous,omitempty"`
	// Patterns of repository names; `*` stands for any characters, slashes included. Names at the
	// listener's first upstream are plain. At any other upstream, such as one with the prefix `hub`,
	// they begin with its first prefix, or with its name if it has no prefix: `hub/library/alpine`.
	Repositories []string `yaml:"repositories"`
	// The actions that the rule grants: `pull`, `push`, `delete`. None of them includes another.
	Actions []string `yaml:"actions"`
}

// Admin describes the listener for the people and programs that operate dray.
type Admin struct {
	// The address to listen on, or `off`. Without `token_file`, anybody who reaches it can empty the
	// cache, and profiles can hold fragments of what passes through dray. So set `token_file`, or keep
	// the listener where only operators of dray can reach it. `dray stats` and the other subcommands
	// for operators find a running dray by this address. Default: `localhost:6060`.
	Address string `yaml:"address"`
	// The host names, without a port, that requests may have in their `Host` header, such as
	// `dray.monitoring.svc`. dray always accepts addresses and `localhost`. Health and metrics are
	// served under any name.
	Hosts []string `yaml:"hosts,omitempty"`
	// A file with a token that requests must send, as `Authorization: Bearer TOKEN`. Health and
	// metrics need none, so Prometheus can read metrics without the right to empty the cache. dray
	// ignores white space around the token, and reads the file again when it changes. The subcommands
	// for operators read the same file. Default: no token.
	TokenFile string `yaml:"token_file,omitempty"`
}

// CloudWatch says which pull counts dray publishes to Amazon CloudWatch, and how often.
type CloudWatch struct {
	// The AWS region to publish to. Default: dray publishes nothing.
	Region string `yaml:"region"`
	// The namespace of the metric. Default: `Custom/ecr_reverse_proxy`.
	Namespace string `yaml:"namespace"`
	// The name of the metric. Default: `ECRImagePulls`.
	Metric string `yaml:"metric"`
	// The time between two publications; dray adds up the pulls in it. Default: `1m`.
	Interval Duration `yaml:"interval"`
	// The dimensions of the metric: `none`, `repository`, or `image` (repository and tag). Amazon
	// bills every combination of values as a metric of its own. Default: `none`.
	Dimensions Dimensions `yaml:"dimensions"`
	// The most combinations of dimension values that dray counts at a time; it adds up the rest
	// under the name `other`. dray always publishes the number without dimensions, too. Default:
	// `100`.
	MaxSeries int `yaml:"max_series"`
}

// Limits bounds what clients may use. The size of a pushed manifest is bounded at 4 MiB, which you
// cannot change.
type Limits struct {
	// The most uploads that one client may have open; `0` is no bound. At the bound, dray drops an
	// upload that the client has left, to make room for its next one. If the client has left none,
	// dray refuses the next one with 429. Default: `64`.
	MaxUploadsPerClient int `yaml:"max_uploads_per_client"`
	// The most bytes of one client's uploads, together with its pushed layers that no manifest names
	// yet. The cache does not evict these. At the bound, dray drops uploads that the client has left.
	// If that is not enough, dray refuses further uploads with 429. It refuses an upload that alone
	// exceeds the bound with 413. Default: half of `cache.max_bytes`.
	MaxUploadBytesPerClient Bytes `yaml:"max_upload_bytes_per_client"`
	// The most connections that clients may have together, without those to the admin listener. A
	// client that comes when all are taken gets the place of the connection that has been idle
	// longest. If no connection is idle, the client waits. Default: a quarter of the files that the
	// process may have open.
	MaxConnections int `yaml:"max_connections"`
	// The time after which dray drops an upload without progress, and a layer for which no manifest
	// came. While its client sends more layers to the repository, the layer is kept. Default: `1h`.
	UploadExpiry Duration `yaml:"upload_expiry"`
	// The time that a client has to send the header of a request. Default: `10s`.
	ReadHeaderTimeout Duration `yaml:"read_header_timeout"`
	// If a client neither sends nor takes a byte for this long in the middle of a body, dray
	// disconnects it. Default: `2m`.
	StallTimeout Duration `yaml:"stall_timeout"`
	// The time for which dray leaves an idle connection open. Default: `2m`.
	IdleTimeout Duration `yaml:"idle_timeout"`
	// The time that running requests have to end when you stop dray. Default: `30s`.
	ShutdownGrace Duration `yaml:"shutdown_grace"`
}

// Log says what dray writes to standard error.
type Log struct {
	// The lowest level that dray writes: `debug`, `info`, `warn` or `error`. Default: `info`.
	Level LogLevel `yaml:"level"`
	// The format of lines: `text` or `json`. Default: `text`.
	Format LogFormat `yaml:"format"`
	// If `true`, dray writes a line for every request. Default: `true`.
	Access bool `yaml:"access"`
}
