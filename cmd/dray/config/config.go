package config

import "dray/upstream/auth"

// Config is everything dray can be told. A YAML file gives it, the environment overrides the file, and a value that
// neither gives has the default named here. Keys that are not listed here are refused.
type Config struct {
	// Where clients reach dray. Without this section there is one listener: on `127.0.0.1:5000`, or, where a
	// certificate is given by `TLS_CERTIFICATE` and `TLS_PRIVATE_KEY`, on port 5000 of every interface.
	Listeners []Listener `yaml:"listeners"`
	// The registries behind dray. Without this section there are Docker Hub, with the prefix `docker.io`, and the registry of
	// `ECR_REGISTRY` where that is set; plain names then go to ECR.
	Upstreams []Upstream `yaml:"upstreams"`
	// What must be true of images before they land at an upstream that names these checks.
	Checks []Checks `yaml:"checks,omitempty"`
	// Services that are told what was pushed, judged and deleted.
	Notifications []Notification `yaml:"notifications,omitempty"`
	// Where and how much content is kept.
	Cache Cache `yaml:"cache"`
	// Pushes that were acknowledged before they were forwarded: see `acknowledge`.
	Queue Queue `yaml:"queue"`
	// Where small facts are kept, such as what a tag points to. Losing them costs some requests to the upstreams, nothing else.
	Metadata Metadata `yaml:"metadata"`
	// Ways to recognise clients. A listener names the one it uses.
	Auth []Auth `yaml:"auth,omitempty"`
	// The listener for metrics, health, profiles, and the subcommands that ask a running dray.
	Admin Admin `yaml:"admin"`
	// Publishing of pull counts to Amazon CloudWatch.
	CloudWatch CloudWatch `yaml:"cloudwatch"`
	// Bounds on what one client, and one process, may take.
	Limits Limits `yaml:"limits"`
	// What is written to standard error.
	Log Log `yaml:"log"`
}

// Listener is one address that clients connect to.
type Listener struct {
	// Name in logs and metrics, written like the name of an upstream. Default: the address.
	Name string `yaml:"name"`
	// Address to listen on, `host:port`; `:5000` is port 5000 of every interface. Default: `127.0.0.1:5000`.
	Address string `yaml:"address"`
	// What clients may do here: `mirror` (pull) or `registry` (push and pull). Default: `registry` where the first of the
	// listener's upstreams accepts pushes, otherwise `mirror`.
	Role Role `yaml:"role"`
	// Names of the upstreams that can be reached here. Plain names such as `/v2/library/alpine` go to the first; the others are
	// chosen by host name, by prefix, or by `?ns=`. Default: all, in the order of `upstreams`.
	Upstreams []string `yaml:"upstreams"`
	// Certificate of the listener. Without it the listener speaks plain HTTP.
	TLS ServerTLS `yaml:"tls,omitempty"`
	// The URL under which clients know this listener, for the places where the protocol needs an absolute one.
	// Default: made from each request.
	ExternalURL string `yaml:"external_url,omitempty"`
	// Name of the `auth` entry that recognises clients here, or `none`. Default: `none`.
	Auth string `yaml:"auth"`
	// Whether a mirror answers a client without credentials with 401. Off by default and best left off: classic Docker answers
	// the challenge of a mirror with the user's Docker Hub password. A listener with role `registry` always challenges.
	Challenge bool `yaml:"challenge,omitempty"`
	// Whether anybody who can connect may push. Without it, and without `auth`, pushes are accepted over the loopback interface only.
	AllowAnonymousPush bool `yaml:"allow_anonymous_push,omitempty"`
	// How blobs on disk are sent over plain HTTP: `splice` (by the kernel, through pipes that dray keeps), `sendfile` (by the kernel
	// alone) or `copy` (through the process). Splice costs the least processor time; where there are no pipes, or no Linux, it is sendfile. On hosts whose
	// TCP congestion control is BBR copying is faster. TLS always copies. Default: `splice`.
	Send Send `yaml:"send"`
}

// ServerTLS is the certificate of a listener; both files, or neither.
type ServerTLS struct {
	// PEM file with the certificate, followed by its intermediates. It is read again within a minute of its change.
	Certificate string `yaml:"certificate,omitempty"`
	// PEM file with the private key.
	PrivateKey string `yaml:"private_key,omitempty"`
}

// Upstream is one registry behind dray.
type Upstream struct {
	// Name in the configuration, in logs and in metrics: at most 64 lower case letters and digits, with single dots, colons, dashes or underscores between them. Default: the host of `url`.
	Name string `yaml:"name"`
	// Where the registry is, unless it is of kind `local`: `https://host[:port]`, or a bare host name. `docker.io` stands for `https://registry-1.docker.io`.
	URL string `yaml:"url"`
	// How the registry is spoken to: `oci`, `ecr` (Amazon ECR, with the credentials of the AWS SDK, account and region
	// from the host name) or `ecr-public`; or `local`: what is pushed is kept here alone and never sent on, as for the cache of builds.
	// Default: by the host name.
	Kind Kind `yaml:"kind"`
	// Host names that select this upstream, in the `Host` header or in `?ns=`. Default: the host of `url`; for Docker Hub
	// its three names.
	Hosts []string `yaml:"hosts"`
	// Path prefixes that select this upstream: with `hub`, both `/hub/v2/library/alpine/…` (Docker) and
	// `/v2/hub/library/alpine/…` (BuildKit, Podman, and `docker pull <dray>/hub/library/alpine`).
	Prefixes []string `yaml:"prefixes,omitempty"`
	// Namespace of names without a slash. For Docker Hub the default is `library`; elsewhere there is none.
	DefaultNamespace string `yaml:"default_namespace,omitempty"`
	// Put before every repository name at the upstream, with a slash between them; a slash at its end
	// makes no difference. It is the prefix of a pull-through cache rule of ECR, or the project of
	// Harbor: with `docker-hub`, `library/alpine` is asked for as `docker-hub/library/alpine`.
	RepositoryPrefix string `yaml:"repository_prefix,omitempty"`
	// Who dray is at the upstream; not for kind `ecr`, where the AWS SDK knows. Default: anonymous.
	Credentials Credentials `yaml:"credentials,omitempty"`
	// How the upstream's certificate is checked.
	TLS ClientTLS `yaml:"tls,omitempty"`
	// Dial this `host:port` instead of the host of `url`: for a VPC endpoint, or a double in tests. The `Host` header and the
	// name in the certificate stay those of `url`.
	Address string `yaml:"address,omitempty"`
	// AWS role that dray assumes before it asks for credentials of the registry; kind `ecr` only.
	RoleARN string `yaml:"role_arn,omitempty"`
	// Whether clients may push to this upstream, through a listener with role `registry`. Always so for kind `local`.
	Push bool `yaml:"push"`
	// When a push has succeeded: `upstream` when the registry has the image, or `local` when dray has it on stable storage. With `local` clients wait for
	// nobody, also while the registry is down; dray forwards the image afterwards, and what the registry refuses shows in `dray queue`, the log and the metrics alone.
	// Default: `upstream`.
	Acknowledge Acknowledge `yaml:"acknowledge,omitempty"`
	// Whether clients may delete from this upstream: tags and manifests, and layers where the registry has a call for that (Amazon ECR has none).
	// Needs `push`, and for kind `ecr` the right `ecr:BatchDeleteImage`. Always so for kind `local`. Who may push does not delete for that: see `actions`.
	Delete bool `yaml:"delete,omitempty"`
	// What is kept, and for how long; kind `local` only.
	Local Local `yaml:"local,omitempty"`
	// Build caches of BuildKit that are pushed here, which can be kept elsewhere.
	BuildCache BuildCache `yaml:"build_cache,omitempty"`
	// Names of the checks that pushed images have to pass; of several, the first with a pattern for the repository. Default: none.
	Checks []string `yaml:"checks,omitempty"`
	// Repositories that do not exist yet at the first push; kind `ecr` only.
	CreateRepositories CreateRepositories `yaml:"create_repositories,omitempty"`
	// How long it is known what a tag points to.
	Tags Tags `yaml:"tags"`
	// How large layers are fetched by several ranges at once, where one connection is slower than the line.
	ParallelFill ParallelFill `yaml:"parallel_fill"`
	// What of an image is fetched as soon as a client has got its manifest, before the client asks for it.
	Prefetch Prefetch `yaml:"prefetch"`
	// Amazon ECR can delete images that nobody has pulled for a while, and pulls that dray answers do not reach it. So dray asks for the manifest of each image
	// that clients have pulled here since it was last asked for, once in this time, and after everything that clients wait for. Lifecycle rules count in
	// days; give less than the smallest of them. `0s` never. Default: `24h` for kind `ecr`, otherwise `0s`.
	KeepAlive Duration `yaml:"keep_alive"`
	// How much is asked of the registry at a time.
	Limits UpstreamLimits `yaml:"limits"`
}

// UpstreamLimits says how much is asked of a registry at a time. Requests that have to wait take turns, repository by repository, and clients go before
// what dray does on its own. When the registry answers 429, all requests of that operation pause together and go on at half the rate, which rises again
// by and by. What could not have its turn in time is refused with 429, or answered from what is held, marked as stale.
type UpstreamLimits struct {
	// Requests under way at one host of the registry, its storage being another host. Blobs being received, and blobs being sent, are counted apart.
	// Default: `256`.
	Concurrency int `yaml:"concurrency"`
	// Requests of one operation that may wait; those of the repository with the most of them are refused first. Default: `1000`.
	Queue int `yaml:"queue"`
	// How long a request may wait. Clients give up after 30 s without an answer. Default: `20s`.
	Wait Duration `yaml:"wait"`
	// Ceilings in requests per second, by operation; `0` lifts one. For kind `ecr` there are `BatchGetImage`, `GetDownloadUrlForLayer`,
	// `BatchCheckLayerAvailability`, `InitiateLayerUpload`, `UploadLayerPart`, `CompleteLayerUpload` and `PutImage`, whose defaults are the quotas that Amazon
	// gives every account and region: lower them by what others use, or raise them with the quotas. Elsewhere there are `manifest_get`, `manifest_head`,
	// `manifest_put`, `blob_get`, `blob_head`, `upload_start`, `upload_part` and `upload_end`, without defaults; everywhere `list` and `delete`.
	Rates map[string]float64 `yaml:"rates,omitempty"`
	// Part of the registry's quota of pulls, in per cent, that is left to clients: with less remaining, nothing is asked that no client waits for. Docker
	// Hub tells its quota with every manifest. Default: `20`.
	QuotaReserve int `yaml:"quota_reserve"`
}

// BuildCache says where the build caches that BuildKit pushes to an upstream are kept (`--cache-to type=registry`, recognised by their media type). Clients find them under the name that
// they were pushed to; lists of tags do not show them. Layers of a build cache are on their way to the upstream before it is known what they belong to, so this saves storage there and not all of the traffic.
type BuildCache struct {
	// Name of the upstream of kind `local` that keeps them, in repositories whose names begin with the name of this upstream. Default: they are forwarded like images.
	To string `yaml:"to,omitempty"`
	// Whether they are forwarded as well: `never`, or `async` (in the background, after the client has been answered). Default: `never`.
	WriteBack WriteBack `yaml:"write_back,omitempty"`
}

// Local says how much an upstream of kind `local` keeps, and for how long. Its blobs lie in the cache directory, where they count
// towards `cache.max_bytes` and are not evicted; its tags lie beside them in `hosted`. Unlike the rest of the cache, what is lost there cannot be fetched again.
// Where several mirrors share a Redis, each keeps its own.
type Local struct {
	// Most bytes that its images may take. `0` leaves `cache.max_bytes` as the only bound. Default: a fifth of that.
	MaxBytes Bytes `yaml:"max_bytes"`
	// What a push that does not fit does: `evict` (drop the images that were not used for the longest time) or `refuse` (fail). Default: `evict`.
	WhenFull WhenFull `yaml:"when_full"`
	// A tag that was neither pushed nor pulled for this long is dropped; `0s` keeps it. Default: `720h`.
	Unused Duration `yaml:"unused"`
	// A manifest without a tag that was neither pushed nor pulled for this long is dropped, unless an index or a subject leads to it; `0s` keeps it. Default: `24h`.
	Untagged Duration `yaml:"untagged"`
	// Rules for certain tags. The first one that fits a tag decides, in place of `unused`.
	Prune []PruneRule `yaml:"prune,omitempty"`
}

// PruneRule says which tags of an upstream of kind `local` are kept. In patterns `*` stands for any characters.
type PruneRule struct {
	// Patterns of repository names, without the prefix of the upstream. Default: all.
	Repositories []string `yaml:"repositories,omitempty"`
	// Patterns of tags. Default: all.
	Tags []string `yaml:"tags,omitempty"`
	// A tag that was neither pushed nor pulled for this long is dropped. Default: never.
	Unused Duration `yaml:"unused,omitempty"`
	// Only so many tags of a repository are kept, those that were pushed last. Default: all.
	Keep int `yaml:"keep,omitempty"`
	// `keep` counts for each group of tags that are alike up to the last occurrence of this text: with `-`, `main-1` and `main-2` are a group, and `fix-1` another.
	// Default: all tags of the rule are one group.
	Group string `yaml:"group,omitempty"`
}

// Prefetch says what of an image is fetched as soon as a client has got the manifest of its platform. The client joins these fetches: an image that is pulled
// as a whole costs no request more. Layers that the client has from elsewhere are fetched, too, once, if dray does not hold them.
type Prefetch struct {
	// Whether anything is fetched ahead. Default: `true`.
	Enabled bool `yaml:"enabled"`
	// Layers larger than this are fetched when a client asks for them: they would take the line from what it waits for, and a round trip is little of their time. Default: `8MiB`.
	MaxLayer Bytes `yaml:"max_layer"`
	// Blobs fetched ahead at a time. Small ones take hardly more than a round trip each, so that many at once are what makes them fast. Default: `16`.
	Streams int `yaml:"streams"`
}

// ParallelFill says how large layers are fetched by several ranges at once. Each range costs one request more, with its redirect. A registry that
// ignores or refuses ranges is asked for the layer as a whole.
type ParallelFill struct {
	// Layers at least this large are fetched by ranges. Smaller ones gain little where several are fetched at the same time, and the client gets their bytes in order anyway. Default: `32MiB`.
	Threshold Bytes `yaml:"threshold"`
	// Length of a range. Default: `8MiB`.
	Piece Bytes `yaml:"piece"`
	// Ranges of one layer that are fetched at a time; `1` fetches every layer by one request. Default: `4`.
	Streams int `yaml:"streams"`
	// Connections to the upstream for ranges, over all layers and beside the first connection of each. Layers that find none free are fetched by
	// one request. Default: `16`.
	Connections int `yaml:"connections"`
}

// Credentials are a user name and a password. The password is never written in the file itself.
type Credentials struct {
	// User name.
	Username string `yaml:"username,omitempty"`
	// File that holds the password; white space around it does not count.
	PasswordFile string `yaml:"password_file,omitempty"`
	// Environment variable that holds the password.
	PasswordEnv string `yaml:"password_env,omitempty"`
	// The password as found in the file or the variable. It is shown by `dray check` as redacted, and cannot be set here.
	Password auth.Secret `yaml:"password,omitempty"`
}

// ClientTLS says how the certificate of an upstream is checked.
type ClientTLS struct {
	// PEM file with authorities trusted besides those of the system.
	CAFile string `yaml:"ca_file,omitempty"`
	// Accept any certificate. Whoever sits between dray and the upstream can then read the credentials.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify,omitempty"`
}

// CreateRepositories is the template for ECR repositories that dray creates when they are pushed to for the first time.
type CreateRepositories struct {
	// Whether dray creates repositories: `create`; `dry_run`, it refuses the push and says, to the client, in the log and in the metrics, what it would have
	// created; or `off`. `create` needs the right `ecr:CreateRepository`. A registry that creates repositories on push by templates of its own never
	// finds one missing, and dray has nothing to do. Default: `create` where `push` is.
	Mode CreateMode `yaml:"mode,omitempty"`
	// Regular expressions for the names of repositories that may be created, as they are in ECR, with the `repository_prefix` of the upstream. One of them
	// has to match the whole name; a push that needs another one is refused with their text. Default: any name.
	Names []string `yaml:"names,omitempty"`
	// Whether a tag can be moved: `MUTABLE` or `IMMUTABLE`. Default: `MUTABLE`.
	TagMutability string `yaml:"tag_mutability,omitempty"`
	// Tags of which the contrary is true, such as `latest` and `dev-*`; at most five, in which `*` stands for any characters.
	TagMutabilityExcept []string `yaml:"tag_mutability_except,omitempty"`
	// File with the JSON of the lifecycle policy that a new repository gets. Needs `ecr:PutLifecyclePolicy`.
	LifecyclePolicy string `yaml:"lifecycle_policy,omitempty"`
	// Whether ECR scans what is pushed.
	ScanOnPush bool `yaml:"scan_on_push,omitempty"`
	// Encryption at rest: `AES256` or `KMS`. Default: `KMS` with a `kms_key`, otherwise `AES256`.
	Encryption string `yaml:"encryption,omitempty"`
	// ARN or id of the KMS key.
	KMSKey string `yaml:"kms_key,omitempty"`
	// AWS resource tags.
	Tags map[string]string `yaml:"tags,omitempty"`
}

// Tags says for how long answers about a tag are believed.
type Tags struct {
	// A tag is served without a question to the upstream for this long after the last answer; `0s` asks every time. Default: `60s`.
	Fresh Duration `yaml:"fresh"`
	// For this long after that, the old answer is still served at once, while the upstream is asked in the background for the next one. `0s` lets the
	// client wait for it, as does `fresh: 0s`. Default: `60s`.
	Revalidate Duration `yaml:"revalidate"`
	// A tag is still served this long after the last answer while the upstream is down, throttles or refuses credentials;
	// `0s` never. Default: `24h`.
	Stale Duration `yaml:"stale"`
	// What was not found is not asked for again for this long; `0s` asks every time. Default: `10s`.
	NotFound Duration `yaml:"not_found"`
}

// Cache says where and how much content is kept.
type Cache struct {
	// Directory of the cache; it is created where it is missing. Default: `dray` in `$XDG_CACHE_HOME` where that is set,
	// otherwise `data` in the working directory.
	Directory string `yaml:"directory"`
	// Most bytes kept on disk, such as `200GiB`. `0` leaves `min_free_bytes` as the only bound. Default: `50GiB`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// Bytes of the file system that dray leaves free; with less than this it passes content on without keeping it. Default: `1GiB`.
	MinFreeBytes Bytes `yaml:"min_free_bytes"`
	// Memory for manifests and other small content that is asked for often. Default: `64MiB`.
	MemoryBytes Bytes `yaml:"memory_bytes"`
	// An upstream that gives no byte of a layer for this long is asked again for the rest of it. Only progress counts, never the whole time. Default: `30s`.
	StallTimeout Duration `yaml:"stall_timeout"`
	// What becomes of a fetch whose clients have all left.
	Abandoned Abandoned `yaml:"abandoned"`
	// How what is held is verified again in the background.
	Scrub Scrub `yaml:"scrub"`
}

// Scrub says how content on disk is read again, to see whether it is still what it was. What is not is moved to `content/quarantine` in the cache directory, where
// the newest of it stay, and is fetched again when a client asks for it.
type Scrub struct {
	// Time within which everything is read once, evenly spread, or `0` for never. Default: `30d`.
	Interval Duration `yaml:"interval"`
	// Bytes read in a second at most, even if it then takes longer; a busy disk is left alone besides. Default: `8MiB`.
	Rate Bytes `yaml:"rate"`
}

// Abandoned says what becomes of the fetch of a layer when every client that read it has left. It is finished, unless `stop_above` is set: who left often comes
// back, and what is on its way has been paid for. Layers fetched ahead are never abandoned.
type Abandoned struct {
	// Fetches of layers larger than this are stopped, such as `1GiB`; those of which enough has arrived are not. `0` finishes all. Default: `0`.
	StopAbove Bytes `yaml:"stop_above"`
	// Percentage of a layer from which on its fetch is finished, however large it is. Default: `50`.
	FinishFromPercent int `yaml:"finish_from_percent"`
	// How long the fetch goes on before it is stopped. A client that comes meanwhile joins it; a later one makes it begin anew. Default: `10s`.
	Grace Duration `yaml:"grace"`
}

// Queue holds the pushes to upstreams with `acknowledge: local` until they are forwarded, in the directory `queue` of the cache directory, with their layers in the cache.
type Queue struct {
	// Most pushes that may wait, those that were refused by their registry included. A further one is forwarded while its client waits, as with `acknowledge: upstream`, or refused
	// with 429 where that fails or others wait for the same repository. Default: `10000`.
	MaxPushes int `yaml:"max_pushes"`
	// Most bytes of them, which are not evicted. Default: a quarter of `cache.max_bytes`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// `/readyz` says `degraded` when a push has waited this long. Default: `5m`.
	ReportAfter Duration `yaml:"report_after"`
}

// Metadata says where small facts are kept.
type Metadata struct {
	// `redis://host:6379/0`, or `rediss://` with TLS, where several processes share what they know; `redis+sentinel://` and `redis+cluster://` for those. Default: a bbolt file in the cache
	// directory. A password in it is never printed.
	URL SecretURL `yaml:"url"`
	// File that holds the Redis password; white space around it does not count.
	PasswordFile string `yaml:"password_file,omitempty"`
	// The Redis password, from the file or from `DRAY_METADATA_PASSWORD`. It is shown by `dray check` as redacted, and cannot be set here.
	Password auth.Secret `yaml:"password,omitempty"`
	// Put before every key in Redis. Default: `dray:`.
	KeyPrefix string `yaml:"key_prefix"`
}

// Auth recognises clients, by a password file or by tokens of a token service, and says what each of them may do.
type Auth struct {
	// Name by which a listener refers to it, written like the name of an upstream.
	Name string `yaml:"name"`
	// Users and bcrypt hashes in a file of Apache's htpasswd (`htpasswd -B`; Debian has it in apache2-utils).
	HTPasswd HTPasswd `yaml:"htpasswd,omitempty"`
	// Bearer tokens signed by a token service.
	Token Token `yaml:"token,omitempty"`
	// Rights. A request is allowed when any rule allows it. Without rules every recognised client may pull, push and delete everything,
	// within what its token grants and what the upstreams allow.
	Rules []Rule `yaml:"rules,omitempty"`
}

// HTPasswd is a file of users and bcrypt hashes.
type HTPasswd struct {
	// The file. It is read again when it changes; a password that was right is believed for a minute more.
	File string `yaml:"file,omitempty"`
	// Name shown to people who are asked for a password. Default: `dray`.
	Realm string `yaml:"realm,omitempty"`
}

// Token is a token service, as in the registry token specification.
type Token struct {
	// URL of the token service.
	Realm string `yaml:"realm,omitempty"`
	// Name of this registry at the token service; the audience of its tokens.
	Service string `yaml:"service,omitempty"`
	// Issuer that the tokens must name.
	Issuer string `yaml:"issuer,omitempty"`
	// PEM file with the certificates that sign tokens.
	RootCertBundle string `yaml:"root_cert_bundle,omitempty"`
	// JSON Web Key Set file with the keys that sign tokens.
	JWKS string `yaml:"jwks,omitempty"`
}

// Rule grants actions on repositories.
type Rule struct {
	// The users it is for; `*` is every recognised user.
	Users []string `yaml:"users,omitempty"`
	// Whether it is for clients without credentials, too.
	Anonymous bool `yaml:"anonymous,omitempty"`
	// Patterns of repository names; `*` stands for any characters, slashes included. Names at an upstream other than the listener's first
	// begin with its first prefix, or with its name where it has none: `hub/library/alpine`.
	Repositories []string `yaml:"repositories"`
	// What is granted: `pull`, `push`, `delete`. None of them includes another.
	Actions []string `yaml:"actions"`
}

// Admin is the listener for people and machines that look after dray.
type Admin struct {
	// Address to listen on, or `off`. Whoever reaches it can empty the cache, and profiles can hold fragments of what passes
	// through dray, so keep it on the loopback interface, or where only people who look after dray can reach it. `dray stats` and the
	// other subcommands for operators find a running dray by it. Default: `localhost:6060`.
	Address string `yaml:"address"`
}

// CloudWatch says which pull counts are published.
type CloudWatch struct {
	// AWS region to publish to. Default: nothing is published.
	Region string `yaml:"region"`
	// Namespace. Default: `Custom/ecr_reverse_proxy`.
	Namespace string `yaml:"namespace"`
	// Name of the metric. Default: `ECRImagePulls`.
	Metric string `yaml:"metric"`
	// Pulls are added up and published this often. Default: `1m`.
	Interval Duration `yaml:"interval"`
	// Dimensions: `none`, `repository`, or `image` (repository and tag). Amazon bills every combination of values as a
	// metric of its own. Default: `none`.
	Dimensions Dimensions `yaml:"dimensions"`
	// Most combinations of dimension values that are counted at a time; the rest is added up under the name `other`. The number without
	// dimensions is always published, too. Default: `100`.
	MaxSeries int `yaml:"max_series"`
}

// Limits bounds what clients may take. The size of a manifest is bounded at 4 MiB and cannot be changed.
type Limits struct {
	// Uploads that one client may have under way; 0 is no bound. Default: `64`.
	MaxUploadsPerClient int `yaml:"max_uploads_per_client"`
	// Bytes of a client's uploads, and of layers that it pushed and no manifest followed for yet: these are not evicted. Further ones are
	// refused with 429. Default: half of `cache.max_bytes`.
	MaxUploadBytesPerClient Bytes `yaml:"max_upload_bytes_per_client"`
	// An upload without progress is dropped after this time, and so is a layer that no manifest followed. Default: `1h`.
	UploadExpiry Duration `yaml:"upload_expiry"`
	// Time a client has for the header of a request. Default: `10s`.
	ReadHeaderTimeout Duration `yaml:"read_header_timeout"`
	// A client that neither sends nor takes a byte for this long amid a body is disconnected. Default: `2m`.
	StallTimeout Duration `yaml:"stall_timeout"`
	// Time an idle connection is kept open. Default: `2m`.
	IdleTimeout Duration `yaml:"idle_timeout"`
	// Time that running requests have when dray is asked to stop. Default: `30s`.
	ShutdownGrace Duration `yaml:"shutdown_grace"`
}

// Log says what is written to standard error.
type Log struct {
	// Least level written: `debug`, `info`, `warn` or `error`. Default: `info`.
	Level LogLevel `yaml:"level"`
	// `text` or `json`. Default: `text`.
	Format LogFormat `yaml:"format"`
	// Whether every request gets a line. Default: `true`.
	Access bool `yaml:"access"`
}
