package config

import (
	"cmp"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray/upstream/ecr/host"
)

const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
	noAuth        = "none"
	AdminOff      = "off"
	defaultPort   = "5000"
)

// Default returns the defaults that do not depend on other settings. The only variable that it
// reads from environ is XDG_CACHE_HOME. It sets no listeners and no upstreams: Load adds them if
// the configuration has none.
func Default(environ []string) Config {
	directory := "data"
	if base := variables(environ)["XDG_CACHE_HOME"]; base != "" {
		directory = filepath.Join(base, "dray")
	}
	return Config{
		Cache: Cache{
			Directory: directory, MaxBytes: 50 << 30, MinFreeBytes: 1 << 30, MemoryBytes: 64 << 20, StallTimeout: Duration(30 * time.Second),
			Abandoned: Abandoned{FinishFromPercent: 50, Grace: Duration(10 * time.Second)},
			Scrub:     Scrub{Interval: Duration(30 * 24 * time.Hour), Rate: 8 << 20},
		},
		Queue:    Queue{MaxPushes: 10_000, ReportAfter: Duration(5 * time.Minute)},
		Metadata: Metadata{KeyPrefix: "dray:"},
		Bucket:   Bucket{Timeout: Duration(2 * time.Second), MaxAge: Duration(30 * 24 * time.Hour)},
		Admin:    Admin{Address: "localhost:6060"},
		CloudWatch: CloudWatch{
			Namespace: "Custom/ecr_reverse_proxy", Metric: "ECRImagePulls",
			Interval: Duration(time.Minute), Dimensions: DimensionsNone, MaxSeries: 100,
		},
		Traces: Traces{Percent: 100},
		Limits: Limits{
			MaxUploadsPerClient: 64, UploadExpiry: Duration(time.Hour), ReadHeaderTimeout: Duration(10 * time.Second),
			IdleTimeout: Duration(2 * time.Minute), ShutdownGrace: Duration(30 * time.Second), StallTimeout: Duration(2 * time.Minute),
		},
		Log: Log{Level: "info", Format: LogText, Access: true},
	}
}

// unsetDuration marks a duration whose default depends on other values. A file cannot set a
// negative duration.
const unsetDuration = Duration(-1)

func (u *Upstream) setDefaults() {
	u.CreateRepositories.Mode = CreateAll
	u.Local = defaultLocal()
	u.Tags = Tags{Fresh: Duration(time.Minute), Revalidate: Duration(time.Minute), Stale: Duration(24 * time.Hour), NotFound: Duration(10 * time.Second)}
	u.ParallelFill = ParallelFill{Threshold: 32 << 20, Piece: 8 << 20, Streams: 4, Connections: 16}
	u.Prefetch = Prefetch{Enabled: true, MaxLayer: 8 << 20, Streams: 16}
	u.KeepAlive = unsetDuration
	u.Limits = UpstreamLimits{Concurrency: 256, Queue: 1000, Wait: Duration(20 * time.Second), QuotaReserve: 20}
}

// setText sets the URL. It is called for an upstream that the file gives as a text alone, such as
// "- docker.io".
func (u *Upstream) setText(text string) { u.URL = text }

// unsetQuota marks a quota that is not set. A file cannot set a negative quota.
const unsetQuota = -1

func defaultLocal() Local {
	return Local{MaxBytes: unsetQuota, WhenFull: WhenFullEvict, Unused: Duration(30 * 24 * time.Hour), Untagged: Duration(24 * time.Hour)}
}

// override applies the variables to cfg. For each value that it sets, it records the name of the
// variable in origins.
func (e *Environment) override(cfg *Config, origins map[string]string) {
	if e.ECRRegistry != nil {
		e.overrideECR(cfg, origins)
	}
	e.overrideListener(cfg, origins)
	set(&cfg.CloudWatch.Region, e.Region, origins, "cloudwatch.region", "REGION")
	if e.TracesEndpoint != nil && strings.HasPrefix(*e.TracesEndpoint, "http") {
		set(&cfg.Traces.Endpoint, e.TracesEndpoint, origins, "traces.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT")
	}
	set(&cfg.Cache.Directory, e.CacheDirectory, origins, "cache.directory", "DRAY_CACHE_DIRECTORY")
	set(&cfg.State.Directory, e.StateDirectory, origins, "state.directory", "DRAY_STATE_DIRECTORY")
	set(&cfg.Cache.MaxBytes, e.CacheMaxBytes, origins, "cache.max_bytes", "DRAY_CACHE_MAX_BYTES")
	set(&cfg.Cache.MinFreeBytes, e.CacheMinFreeBytes, origins, "cache.min_free_bytes", "DRAY_CACHE_MIN_FREE_BYTES")
	set(&cfg.Cache.MemoryBytes, e.CacheMemoryBytes, origins, "cache.memory_bytes", "DRAY_CACHE_MEMORY_BYTES")
	set(&cfg.Metadata.URL, e.MetadataURL, origins, "metadata.url", "DRAY_METADATA_URL")
	set(&cfg.Fleet.Advertise, e.FleetAdvertise, origins, "fleet.advertise", "DRAY_FLEET_ADVERTISE")
	set(&cfg.Metadata.Password, e.MetadataPassword, origins, "metadata.password", "DRAY_METADATA_PASSWORD")
	set(&cfg.Admin.Address, e.AdminAddress, origins, "admin.address", "DRAY_ADMIN_ADDRESS")
	set(&cfg.Admin.AllowAnonymous, e.AdminAllowAnonymous, origins, "admin.allow_anonymous", "DRAY_ADMIN_ALLOW_ANONYMOUS")
	set(&cfg.Log.Level, e.LogLevel, origins, "log.level", "DRAY_LOG_LEVEL")
	set(&cfg.Log.Format, e.LogFormat, origins, "log.format", "DRAY_LOG_FORMAT")
	set(&cfg.Log.Access, e.LogAccess, origins, "log.access", "DRAY_LOG_ACCESS")
}

func set[T any](to, from *T, origins map[string]string, path, variable string) {
	if from != nil {
		*to = *from
		origins[path] = variable
	}
}

func (e *Environment) overrideListener(cfg *Config, origins map[string]string) {
	if len(cfg.Listeners) == 0 {
		cfg.Listeners = []Listener{{}}
	}
	l, at := &cfg.Listeners[0], func(key string) string { return "listeners[0]." + key }
	set(&l.TLS.Certificate, e.TLSCertificate, origins, at("tls.certificate"), "TLS_CERTIFICATE")
	set(&l.TLS.PrivateKey, e.TLSPrivateKey, origins, at("tls.private_key"), "TLS_PRIVATE_KEY")
	set(&l.ExternalURL, e.Registry, origins, at("external_url"), "REGISTRY")
	set(&l.AllowAnonymousPush, e.AllowAnonymousPush, origins, at("allow_anonymous_push"), "DRAY_ALLOW_ANONYMOUS_PUSH")
	set(&l.Address, e.Address, origins, at("address"), "DRAY_ADDRESS")
	if l.Address == "" && e.TLSCertificate != nil {
		l.Address = ":" + defaultPort // all addresses, because a certificate is for clients on other machines
	}
	if e.Port != nil {
		host, _, err := net.SplitHostPort(cmp.Or(l.Address, "127.0.0.1:"))
		if err != nil {
			host = strings.Trim(l.Address, "[]") // a host without a port
		}
		l.Address = net.JoinHostPort(host, strconv.Itoa(int(*e.Port)))
		origins[at("address")] = "PORT"
	}
	if l.ExternalURL != "" && !strings.Contains(l.ExternalURL, "://") {
		scheme := "http://"
		if l.TLS.Certificate != "" {
			scheme = "https://"
		}
		l.ExternalURL = scheme + l.ExternalURL
	}
}

// overrideECR makes the registry of ECR_REGISTRY the first upstream of the first listener. If the
// file has an upstream with the same host, the settings of that upstream stay, except those that
// DRAY_ECR_ADDRESS and DRAY_ECR_CA_FILE override.
func (e *Environment) overrideECR(cfg *Config, origins map[string]string) {
	host := (&Upstream{URL: *e.ECRRegistry}).RegistryHost()
	i := slices.IndexFunc(cfg.Upstreams, func(u Upstream) bool { return u.RegistryHost() == host })
	if i < 0 {
		u := Upstream{Name: "ecr", URL: *e.ECRRegistry, Kind: KindECR, Push: true}
		if kindOf(host) == KindECRPublic {
			// The registry accepts pushes only with credentials, and only the file can configure them.
			u.Kind, u.Push = KindECRPublic, false
		}
		u.setDefaults()
		if len(cfg.Upstreams) == 0 {
			cfg.Upstreams = []Upstream{hub()}
		}
		cfg.Upstreams = append(cfg.Upstreams, u)
		i = len(cfg.Upstreams) - 1
		origins["upstreams["+strconv.Itoa(i)+"]"] = "ECR_REGISTRY"
	}
	u, at := &cfg.Upstreams[i], func(key string) string { return "upstreams[" + strconv.Itoa(i) + "]." + key }
	set(&u.Address, e.ECRAddress, origins, at("address"), "DRAY_ECR_ADDRESS")
	set(&u.TLS.CAFile, e.ECRCAFile, origins, at("tls.ca_file"), "DRAY_ECR_CA_FILE")

	if len(cfg.Listeners) == 0 {
		cfg.Listeners = []Listener{{}}
	}
	name := u.name()
	names := cfg.Listeners[0].Upstreams
	if len(names) == 0 {
		for _, u := range cfg.Upstreams {
			names = append(names, u.name())
		}
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	cfg.Listeners[0].Upstreams = append([]string{name}, names...)
}

// hub returns the upstream for Docker Hub that dray uses if the file names no upstreams. The
// upstream has a prefix, because Docker does not tell a mirror which registry an image belongs to.
// With the prefix, the URL in Docker's registry-mirrors can name the registry:
// https://dray.example.com/docker.io.
func hub() Upstream {
	u := Upstream{Name: dockerHub, URL: dockerHub, Prefixes: []string{dockerHub}}
	u.setDefaults()
	return u
}

// complete sets the defaults that depend on other values.
func (c *Config) complete() {
	c.State.Directory = cmp.Or(c.State.Directory, c.Cache.Directory)
	c.Queue.MaxBytes = cmp.Or(c.Queue.MaxBytes, c.Cache.MaxBytes/4)
	c.Limits.MaxUploadBytesPerClient = cmp.Or(c.Limits.MaxUploadBytesPerClient, c.Cache.MaxBytes/2)
	c.Fleet.applyDefaults()
	if len(c.Upstreams) == 0 {
		c.Upstreams = []Upstream{hub()}
	}
	for i := range c.Upstreams {
		c.Upstreams[i].complete()
		if u := &c.Upstreams[i]; u.Local.MaxBytes == unsetQuota {
			u.Local.MaxBytes = c.Cache.MaxBytes / 5
		}
	}
	if len(c.Listeners) == 0 {
		c.Listeners = []Listener{{}}
	}
	for i := range c.Listeners {
		c.Listeners[i].complete(c.Upstreams)
	}
	for i := range c.Auth {
		if a := &c.Auth[i]; a.HTPasswd.File != "" {
			a.HTPasswd.Realm = cmp.Or(a.HTPasswd.Realm, "dray")
		}
	}
}

func (u *Upstream) complete() {
	u.Name = u.name()
	host := u.RegistryHost()
	if !strings.Contains(u.URL, "://") && u.URL != "" {
		u.URL = "https://" + u.URL
	}
	u.URL = strings.TrimSuffix(u.URL, "/")
	if name, ok := strings.CutPrefix(u.URL, "https://"); ok && isDockerHub(name) {
		u.URL = "https://" + dockerHubHost
	}
	u.Kind = cmp.Or(u.Kind, kindOf(host))
	u.completeLocal()
	if u.BuildCache.To != "" {
		u.BuildCache.WriteBack = cmp.Or(u.BuildCache.WriteBack, WriteBackNever)
	}
	if u.KeepAlive == unsetDuration {
		u.KeepAlive = 0
		if u.Kind == KindECR {
			u.KeepAlive = Duration(24 * time.Hour)
		}
	}
	if host == dockerHubHost {
		u.DefaultNamespace = cmp.Or(u.DefaultNamespace, "library")
	}
	if u.Hosts == nil {
		u.Hosts = u.hosts()
	}
	if u.Kind != KindECR || !u.Push {
		u.CreateRepositories.Mode = ""
	}
	if create := &u.CreateRepositories; create.Mode.Creates() {
		create.TagMutability = cmp.Or(create.TagMutability, "MUTABLE")
		if create.KMSKey != "" {
			create.Encryption = cmp.Or(create.Encryption, "KMS")
		}
		create.Encryption = cmp.Or(create.Encryption, "AES256")
	}
}

// completeLocal sets the fields that differ between kind local and the other kinds.
func (u *Upstream) completeLocal() {
	if u.Kind == KindLocal {
		u.Push, u.Delete = true, true
		u.Tags = Tags{} // dray itself stores the tags, so it need not remember answers about them
		return
	}
	if reflect.DeepEqual(u.Local, defaultLocal()) {
		u.Local = Local{}
	}
}

// name returns the configured name. If there is none, it returns the host of the URL, or docker.io
// for Docker Hub.
func (u *Upstream) name() string { return cmp.Or(u.Name, u.hostName()) }

// PublicName returns how the full names of the registry's images begin, such as docker.io.
func (u *Upstream) PublicName() string { return slices.Concat(u.Hosts, []string{u.hostName()})[0] }

func (u *Upstream) hostName() string {
	host := u.RegistryHost()
	if host == dockerHubHost {
		return dockerHub
	}
	return host
}

// RegistryHost returns the host of the URL, with the port if it has one. Every name of Docker Hub
// becomes registry-1.docker.io. The host of a malformed URL is "".
func (u *Upstream) RegistryHost() string {
	raw := u.URL
	if !strings.Contains(raw, "://") {
		raw = "https://" + raw
	}
	parsed, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	host := strings.ToLower(parsed.Host)
	if isDockerHub(host) {
		return dockerHubHost
	}
	return host
}

// hosts returns the default of the field Hosts: the host names by which clients choose the
// upstream. For a registry below a path, it returns no host names, because other registries may be
// on the same host.
func (u *Upstream) hosts() []string {
	parsed, err := url.Parse(u.URL)
	switch host := u.RegistryHost(); {
	case host == dockerHubHost:
		return dockerHubNames()
	case host == "" || err == nil && parsed.Path != "":
		return nil
	default:
		return []string{host}
	}
}

// DockerHub reports whether clients know the upstream as Docker Hub. At such an upstream,
// dray refuses names with a dot before the first slash, such as quay.io/app, because Docker Hub's
// namespaces have only lower case letters and digits
// (https://docs.docker.com/accounts/create-account).
func (u *Upstream) DockerHub() bool { return slices.Contains(u.Hosts, dockerHub) }

// dockerHubNames returns the host names of Docker Hub. Clients use all of them.
func dockerHubNames() []string {
	return []string{dockerHub, dockerHubHost, "index.docker.io", "registry.hub.docker.com"}
}

func isDockerHub(host string) bool { return slices.Contains(dockerHubNames(), strings.ToLower(host)) }

func (l *Listener) complete(upstreams []Upstream) {
	l.Address = cmp.Or(l.Address, "127.0.0.1:"+defaultPort)
	l.Name = cmp.Or(l.Name, l.Address)
	l.Auth = cmp.Or(l.Auth, noAuth)
	l.Send = cmp.Or(l.Send, SendSplice)
	if len(l.Upstreams) == 0 {
		for _, u := range upstreams {
			if !slices.Contains(l.Upstreams, u.Name) {
				l.Upstreams = append(l.Upstreams, u.Name)
			}
		}
	}
	if l.Role != "" {
		return
	}
	l.Role = RoleMirror
	if slices.ContainsFunc(upstreams, func(u Upstream) bool { return u.Name == l.Upstreams[0] && u.Push }) {
		l.Role = RoleRegistry
	}
}

// kindOf derives the kind of a registry from its host name.
func kindOf(name string) Kind {
	registry, err := host.Parse(name)
	switch {
	case err != nil:
		return KindOCI
	case registry.Public:
		return KindECRPublic
	default:
		return KindECR
	}
}
