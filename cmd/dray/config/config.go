package config

import "dray/upstream/auth"

// Config holds the settings of dray. The environment overrides the file. A setting that is in
// neither of them has the default that is named here.
type Config struct {
	// The addresses on which dray serves clients. Without this section there is one listener, on
	// `127.0.0.1:5000`. If `TLS_CERTIFICATE` and `TLS_PRIVATE_KEY` give a certificate, this listener
	// is on port 5000 of every interface instead.
	Listeners []Listener `yaml:"listeners"`
	// The registries behind dray. An entry can be a single text, such as `quay.io`, which is short for
	// an entry with only this `url`. Without this section there is Docker Hub, with the prefix
	// `docker.io`. If `ECR_REGISTRY` is set, there is also that registry, and plain names go to it.
	Upstreams []Upstream `yaml:"upstreams"`
	// The conditions that images must meet before dray forwards them. An upstream names the checks
	// that apply to it.
	Checks []Checks `yaml:"checks,omitempty"`
	// The services to which dray reports pushes, verdicts of checks, and deletions.
	Notifications []Notification `yaml:"notifications,omitempty"`
	// The place and the size of the cache.
	Cache Cache `yaml:"cache"`
	// The place of the data that exists nowhere else.
	State State `yaml:"state"`
	// The queue of pushes that dray acknowledges before it forwards them: see `acknowledge`.
	Queue Queue `yaml:"queue"`
	// The store of small facts, such as the digest that a tag points to. If it is lost, dray asks the
	// upstreams again. dray then also lacks the recorded base images (see the `base` stage) and the
	// images for `keep_alive`, until clients pull or push these again.
	Metadata Metadata `yaml:"metadata"`
	// The bucket that several mirrors share. See [bucket.md](bucket.md).
	Bucket Bucket `yaml:"bucket"`
	// The fleet in which several drays fetch each layer from its registry once.
	Fleet Fleet `yaml:"fleet,omitempty"`
	// The ways to recognise clients. A listener names the one that it uses.
	Auth []Auth `yaml:"auth,omitempty"`
	// The listener for metrics, health, profiles, and the subcommands that query a running dray.
	Admin Admin `yaml:"admin"`
	// The publishing of pull counts to Amazon CloudWatch.
	CloudWatch CloudWatch `yaml:"cloudwatch"`
	// The cost of dray, and the prices from which it calculates its savings.
	Savings Savings `yaml:"savings,omitempty"`
	// The sending of traces of requests to an OpenTelemetry collector.
	Traces Traces `yaml:"traces"`
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
	// pushes. Default: `registry` if the first of the listener's upstreams accepts pushes, otherwise
	// `mirror`.
	Role Role `yaml:"role"`
	// The names of the upstreams that clients reach here. Plain names such as `/v2/library/alpine` go
	// to the first; clients choose the others by host name, by prefix, or by `?ns=`. Default: all, in
	// the order of `upstreams`.
	Upstreams []string `yaml:"upstreams"`
	// The certificate of the listener. Without it the listener speaks plain HTTP.
	TLS ServerTLS `yaml:"tls,omitempty"`
	// The URL by which clients reach this listener. dray sends this URL wherever the protocol allows
	// or needs an absolute URL, such as in the location of an upload. Some clients, such as Ollama,
	// cannot use a location that is only a path. Set `external_url` only if all clients of the
	// listener can reach dray by this URL. If the listener needs no credentials, dray answers a
	// browser on its own machine only under host names that dray knows, such as the host name in this
	// URL. Default: locations are paths, and other URLs are derived from each request.
	ExternalURL string `yaml:"external_url,omitempty"`
	// The name of the `auth` entry that recognises clients here, or `none`. Default: `none`.
	Auth string `yaml:"auth"`
	// If `true`, and if the listener has an `auth` entry and the role `mirror`, dray answers 401 to a
	// client without credentials, unless a rule with `anonymous: true` allows the request. Leave it
	// off if you can: classic Docker answers the challenge of a mirror with the user's Docker Hub
	// password. If the listener has an `auth` entry and the role `registry`, dray always answers 401
	// in these cases. Default: `false`.
	Challenge bool `yaml:"challenge,omitempty"`
	// The proxies and load balancers that may name the client, as addresses or networks such as
	// `10.0.0.0/8`. In limits, logs and events, dray then uses the client that they name. A request
	// through such a proxy never counts as a request from this machine. List only proxies that remove
	// the `forwarded_header` of a client, or append the client's address to it. Default: none.
	TrustedProxies []Network `yaml:"trusted_proxies,omitempty"`
	// The header in which the trusted proxies name the client: `X-Forwarded-For` or `Forwarded`. dray
	// reads the addresses in it from right to left. The first address that is not a trusted proxy is
	// the client. dray does not read the other header. Default: `X-Forwarded-For`.
	ForwardedHeader ForwardedHeader `yaml:"forwarded_header,omitempty"`
	// If `true`, each connection from a trusted proxy has to begin with a header of the PROXY
	// protocol, version 1 or 2, which names the client. dray closes other connections from trusted
	// proxies. For connections from elsewhere, nothing changes. Default: `false`.
	ProxyProtocol bool `yaml:"proxy_protocol,omitempty"`
	// If `true`, anybody who can connect may push. If it is `false` and the listener has no `auth`,
	// dray accepts pushes over the loopback interface only. Default: `false`.
	AllowAnonymousPush bool `yaml:"allow_anonymous_push,omitempty"`
	// The time within which dray answers a pushed manifest. Many load balancers end a request that has
	// had no answer for a certain time, often a minute. Behind such a load balancer, set a little less
	// than the time of the load balancer. A push that takes longer goes on, and dray tells its client
	// to push again. Clients that are built on containerd give up after 30 s, so they always get an
	// answer within 25 s. Default: 10 minutes.
	AnswerWithin Duration `yaml:"answer_within,omitempty"`
	// The way in which dray sends blobs from disk over plain HTTP: `splice` (the kernel, through pipes
	// that dray opens), `sendfile` (the kernel alone) or `copy` (through the process). `splice` costs
	// the least processor time. If the system is not Linux, or if dray can open no pipe, dray uses
	// `sendfile` instead. On hosts whose TCP congestion control is BBR, `copy` is faster. TLS always
	// copies. Default: `splice`.
	Send Send `yaml:"send"`
}

// ServerTLS names the certificate of a listener and its private key. Give both files or neither.
type ServerTLS struct {
	// The PEM file with the certificate, followed by its intermediates. dray reads it again when it
	// changes.
	Certificate string `yaml:"certificate,omitempty"`
	// The PEM file with the private key.
	PrivateKey string `yaml:"private_key,omitempty"`
}

// State says where dray stores the data that no registry has.
type State struct {
	// The directory of the queue of pushes, of the lists of hosted repositories (`kind: local`), of
	// pins, of the savings by day, and of the history. dray creates it if it is missing. If the state
	// has a directory of its own, dray moves the state there from the cache's directory, except for
	// the savings and the history. The cache has the layers that pushes in the queue and hosted
	// repositories need; `dray backup` also copies these layers. Default: the directory of the cache.
	Directory string `yaml:"directory"`
}

// Cache says where dray stores content, and how much of it.
type Cache struct {
	// The directory of the cache. dray creates it if it is missing. Default: `dray` in
	// `$XDG_CACHE_HOME` if that is set, otherwise `data` in the working directory.
	Directory string `yaml:"directory"`
	// The most bytes on disk, such as `200GiB`. With `0`, only `min_free_bytes` bounds the cache.
	// Default: `50GiB`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// The bytes of the file system that dray leaves free. When less is free, dray evicts content. If
	// that does not free enough, dray passes content on without storing it. Default: `1GiB`.
	MinFreeBytes Bytes `yaml:"min_free_bytes"`
	// The memory for manifests and other small content that clients often ask for. Default: `64MiB`.
	MemoryBytes Bytes `yaml:"memory_bytes"`
	// If an upstream sends no byte of a layer for this long, dray asks it again for the rest. As long
	// as bytes arrive, a fetch may take any time. Default: `30s`.
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
	// The time in which dray reads everything once, evenly spread. With `0`, dray does not verify
	// content again. Default: `30d`.
	Interval Duration `yaml:"interval"`
	// The most bytes that dray reads in a second, even if a pass then takes longer than `interval`.
	// dray also waits while the disk is busy. Default: `8MiB`.
	Rate Bytes `yaml:"rate"`
}

// Abandoned says what dray does with the fetch of a layer when all clients that read it have left.
// By default dray finishes the fetch: many clients that have left come back, and the bytes are on
// their way already. With `stop_above`, dray stops fetches of large layers, except fetches that it
// began before a client asked for the layer (see `prefetch`).
type Abandoned struct {
	// The size, such as `1GiB`, above which dray stops the fetch of a layer, unless
	// `finish_from_percent` of it has arrived. With `0`, dray finishes every fetch. Default: `0`.
	StopAbove Bytes `yaml:"stop_above"`
	// If this share of a layer, in percent, has arrived, dray finishes its fetch, however large the
	// layer is. Default: `50`.
	FinishFromPercent int `yaml:"finish_from_percent"`
	// The time for which the fetch goes on before dray stops it. A client that asks for the layer in
	// this time joins the fetch. A client that asks later starts a new one. Default: `10s`.
	Grace Duration `yaml:"grace"`
}

// Queue bounds the pushes to upstreams with `acknowledge: local` that dray has not forwarded yet.
// The pushes are in the directory `queue` of the state directory, and their layers are in the
// cache.
type Queue struct {
	// The most pushes in the queue, including those that their registry refused. When the queue is
	// full, dray forwards the next push while its client waits, as with `acknowledge: upstream`. If
	// the registry is not available then, or if the queue has pushes to the same repository, dray
	// refuses the push with 429. Default: `10000`.
	MaxPushes int `yaml:"max_pushes"`
	// The most bytes that the content of these pushes may take. The cache does not evict this content.
	// Default: a quarter of `cache.max_bytes`, or no bound if that is `0`.
	MaxBytes Bytes `yaml:"max_bytes"`
	// If a push has waited for this long, `/readyz` says `degraded`. Default: `5m`.
	ReportAfter Duration `yaml:"report_after"`
}

// Metadata says where dray stores small facts, such as the digest that a tag points to.
type Metadata struct {
	// The address of a Redis, if several processes share their facts: `redis://host:6379/0`,
	// `rediss://` for TLS, `redis+sentinel://` for Redis Sentinel, or `redis+cluster://` for Redis
	// Cluster. dray never prints a password that the address contains. Default: a bbolt file in the
	// cache directory.
	URL SecretURL `yaml:"url"`
	// The file that holds the Redis password; dray ignores white space around the password. When the
	// file changes, dray reads it again for the next connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// The Redis password, from the file or from `DRAY_METADATA_PASSWORD`. `dray check` shows it
	// redacted; you cannot set it here.
	Password auth.Secret `yaml:"password,omitempty"`
	// The text that dray puts before every key in Redis. Default: `dray:`.
	KeyPrefix string `yaml:"key_prefix"`
}

// Bucket names a bucket of Amazon S3, or of a store with the same API. dray copies to the bucket
// the content that it fetches from upstreams. It looks in the bucket before it asks an upstream.
// Mirrors that share a bucket need not share anything else.
type Bucket struct {
	// The bucket, as `s3://name` or `s3://name/prefix`. dray uses keys that begin with `cache/`, after
	// the prefix. Default: no bucket.
	URL string `yaml:"url"`
	// The AWS region of the bucket. Default: the region in the AWS configuration of the machine.
	Region string `yaml:"region,omitempty"`
	// The URL of a store that is not Amazon S3, such as `https://minio.example.com:9000`. Default:
	// Amazon S3.
	Endpoint string `yaml:"endpoint,omitempty"`
	// If `true`, requests have the name of the bucket in their path, which most other stores need.
	// Default: `false`.
	PathStyle bool `yaml:"path_style,omitempty"`
	// The role that dray assumes for the bucket. Default: dray uses the credentials that the AWS SDK
	// finds.
	RoleARN string `yaml:"role_arn,omitempty"`
	// The key of AWS KMS that encrypts the objects that dray writes. Default: the encryption of the
	// bucket.
	KMSKey string `yaml:"kms_key,omitempty"`
	// The longest time that dray waits for the next byte of an answer of the bucket. After this time,
	// or if a body is very slow, dray asks the upstream. The timeout must be shorter than
	// `cache.stall_timeout`. Default: `2s`.
	Timeout Duration `yaml:"timeout"`
	// The age at which the lifecycle of the bucket deletes an object, in whole days; `dray setup
	// bucket` writes the lifecycle. dray writes an object again at three quarters of this age if
	// clients still ask for it. With `0`, objects do not expire. Default: `30d`.
	MaxAge Duration `yaml:"max_age"`
}

// Auth recognises clients, by a password file or by tokens of a token service, and says what each
// client may do.
type Auth struct {
	// The name by which a listener refers to this entry. It follows the rules for names of upstreams.
	Name string `yaml:"name"`
	// The users, with their bcrypt hashes, in a file that `dray htpasswd` or Apache's `htpasswd -B`
	// writes.
	HTPasswd HTPasswd `yaml:"htpasswd,omitempty"`
	// The service whose bearer tokens dray accepts.
	Token Token `yaml:"token,omitempty"`
	// The rights of clients. dray allows a request if any rule allows it. Without rules every
	// recognised client may pull, push and delete everything, if its token grants this and the
	// upstreams allow it. A client can use the admin listener only if a rule grants this.
	Rules []Rule `yaml:"rules,omitempty"`
}

// HTPasswd names a file of users and bcrypt hashes.
type HTPasswd struct {
	// The file. dray reads it again when it changes. While dray cannot read the file, users whose
	// passwords dray accepted before can continue for a minute.
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
	// Patterns of repository names, for `pull`, `push` and `delete`; `*` stands for any characters,
	// slashes included. Names at the listener's first upstream are plain. At any other upstream, they
	// begin with the first prefix of that upstream, as in `hub/library/alpine`, or with the upstream's
	// name if it has no prefix.
	Repositories []string `yaml:"repositories,omitempty"`
	// The actions that the rule grants: `pull`, `push` and `delete`, none of which includes another.
	// For the admin listener: `view`, to see the content and the work of dray, and `operate`, to
	// change these and to take profiles. `operate` includes `view`.
	Actions []string `yaml:"actions"`
}

// Admin describes the listener for the people and programs that operate dray.
type Admin struct {
	// The address to listen on, or `off`. Without `auth` and `token_file`, dray serves other machines
	// only health and metrics. Anybody on dray's own machine can then empty the cache, and take
	// profiles, which can contain fragments of the data that passes through dray. `dray stats` and the
	// other subcommands for operators find a running dray by this address. Default: `localhost:6060`.
	Address string `yaml:"address"`
	// Another address to listen on, for health and metrics alone, such as `:9090`. Everybody who can
	// reach this address can read both, under any host name. The admin listener also serves both.
	// Default: none.
	HealthAddress string `yaml:"health_address,omitempty"`
	// The name of the `auth` entry that recognises operators, or `none`. Its rules say who may `view`
	// and who may `operate`. Default: `none`.
	Auth string `yaml:"auth,omitempty"`
	// If `true`, and if neither `auth` nor `token_file` is set, anybody who can connect may do
	// everything, also from other machines. Use it for a container whose port is published to its host
	// alone: in the container, the requests of the host seem to come from another machine.
	AllowAnonymous bool `yaml:"allow_anonymous,omitempty"`
	// The host names, without a port, that requests may have in their `Host` header, such as
	// `dray.monitoring.svc`. dray always accepts addresses and `localhost`. Health and metrics are
	// served under any name.
	Hosts []string `yaml:"hosts,omitempty"`
	// A file with a token that requests must send, as `Authorization: Bearer TOKEN`. Health and
	// metrics need no token, so Prometheus can read metrics without the right to empty the cache. dray
	// ignores white space around the token, and reads the file again when it changes. The subcommands
	// for operators read the same file. The token allows everything. dray also accepts it if `auth` is
	// set. Default: no token.
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
	// The most combinations of dimension values that dray counts at a time; it adds up the rest under
	// the name `other`. dray always publishes the total without dimensions, too. Default: `100`.
	MaxSeries int `yaml:"max_series"`
}

// Traces says where dray sends OpenTelemetry traces of the requests of clients, by OTLP over HTTP.
// A trace has the request of a client, and the requests that dray sends to upstreams for it. If a
// request joins the fetch of another request, its trace has a link to that request. dray sends
// nothing of a trace to upstreams.
type Traces struct {
	// The URL of the collector, such as `http://127.0.0.1:4318`. dray appends `/v1/traces`. Default:
	// dray traces nothing.
	Endpoint string `yaml:"endpoint,omitempty"`
	// A file with headers for the collector, one in each line, such as `Authorization: Bearer …`. dray
	// reads it again when it changes.
	HeadersFile string `yaml:"headers_file,omitempty"`
	// The share of requests that dray traces, in percent. It also applies to requests that belong to a
	// trace of the client (`traceparent`). Default: `100`.
	Percent int `yaml:"percent"`
}

// Limits bounds what clients may use. The size of a pushed manifest is bounded at 4 MiB, which you
// cannot change.
type Limits struct {
	// The most uploads that one client may have open; `0` is no bound. At the bound, dray drops an
	// upload that the client has abandoned, to make room for the client's next upload. If the client
	// has abandoned none, dray refuses the next upload with 429. Default: `64`.
	MaxUploadsPerClient int `yaml:"max_uploads_per_client"`
	// The most bytes of one client's uploads, together with its pushed layers that no manifest names
	// yet. The cache does not evict these bytes. At the bound, dray drops uploads that the client has
	// abandoned. If that is not enough, dray refuses further uploads with 429. If one upload alone
	// exceeds the bound, dray refuses it with 413. Default: half of `cache.max_bytes`, or no bound if
	// that is `0`.
	MaxUploadBytesPerClient Bytes `yaml:"max_upload_bytes_per_client"`
	// The most connections that clients may have together, without those to the admin listener. If all
	// are open when another client connects, dray closes the connection that has been idle longest. If
	// no connection is idle, the client waits. Default: a quarter of the files that the process may
	// have open, not counting the files that dray needs for other uses.
	MaxConnections int `yaml:"max_connections"`
	// The time after which dray drops an upload without progress, and a layer for which no manifest
	// came. dray keeps the layer while its client sends more layers to the same repository. Default:
	// `1h`.
	UploadExpiry Duration `yaml:"upload_expiry"`
	// The time that a client has to send the header of a request. Default: `10s`.
	ReadHeaderTimeout Duration `yaml:"read_header_timeout"`
	// If no byte of a body passes between dray and a client for this long, dray disconnects the
	// client. It also disconnects a client that takes longer than this for 1 MiB of a file that the
	// kernel sends. Default: `2m`.
	StallTimeout Duration `yaml:"stall_timeout"`
	// The time for which dray leaves an idle connection open. Default: `2m`.
	IdleTimeout Duration `yaml:"idle_timeout"`
	// The time for which dray goes on serving when you stop it, while `/readyz` already answers 503.
	// Behind a load balancer, set a little more than the time that it needs to notice the 503, unless
	// a `preStop` of Kubernetes waits already. Without a load balancer, a pause only makes each
	// restart longer. Default: `0s`.
	ShutdownPause Duration `yaml:"shutdown_pause"`
	// The longest time that dray waits for running requests when you stop it. This time begins after
	// `shutdown_pause`. A second signal ends both times at once. The program that stops dray, such as
	// Docker, must wait longer than the sum of both times. Default: `30s`.
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
