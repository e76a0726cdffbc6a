package config

import (
	"cmp"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Validator adds the problems of a completed configuration to k.
type Validator func(c Config, k *Report)

// Check returns the problems of a completed configuration, as Load does, but leaves the field
// Origin of each [Problem] empty. Of the files that c names, it checks only those that the
// validators read.
func (c Config) Check(validators ...Validator) error {
	k := &Report{}
	c.validate(k, validators)
	return k.problems.err()
}

// validate adds all problems of a completed configuration, and the problems that the validators
// find. Only the validators may open files.
func (c Config) validate(k *Report, validators []Validator) {
	names := make([]string, len(c.Upstreams))
	for i, u := range c.Upstreams {
		names[i] = u.Name
		u.validate(k, At("upstreams", i))
	}
	c.validateNames(k)
	auths := []string{noAuth}
	for i, a := range c.Auth {
		auths = append(auths, a.Name)
		a.validate(k, At("auth", i))
	}
	checks := make([]string, len(c.Checks))
	for i, ch := range c.Checks {
		checks[i] = ch.Name
		ch.validate(k, At("checks", i))
	}
	for i, u := range c.Upstreams {
		u.validateChecks(k, At("upstreams", i)+".checks", checks)
	}
	for i, l := range c.Listeners {
		l.validate(k, At("listeners", i), names, auths)
		if l.Role == RoleRegistry && !slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Push && slices.Contains(l.Upstreams, u.Name) }) {
			k.Add(At("listeners", i)+".role", "role: registry needs an upstream with push: true, and none of %s has it", strings.Join(l.Upstreams, ", "))
		}
	}
	c.Queue.validate(k)
	c.validateFleet(k)
	c.validateNotifications(k)
	c.validateRest(k)
	c.validateQuotas(k)
	c.validateBuildCaches(k)
	for _, v := range validators {
		v(c, k)
	}
}

// validateNames adds a problem for each name, host, prefix and address that is used twice in one
// list, such as listeners.
func (c Config) validateNames(k *Report) {
	unique := func(what string) func(path, name string) {
		owner := map[string]string{}
		return func(path, name string) {
			if first, taken := owner[name]; taken && name != "" {
				k.Add(path, "%s %q is already used by %s", what, name, first)
				return
			}
			owner[name], _, _ = strings.Cut(path, ".")
		}
	}
	names, hosts, prefixes := unique("name"), unique("host"), unique("prefix")
	for i, u := range c.Upstreams {
		names(At("upstreams", i)+".name", u.Name)
		for j, h := range u.Hosts {
			hosts(At(At("upstreams", i)+".hosts", j), h)
		}
		for j, p := range u.Prefixes {
			prefixes(At(At("upstreams", i)+".prefixes", j), p)
		}
	}
	names, addresses := unique("name"), unique("address")
	for i, l := range c.Listeners {
		names(At("listeners", i)+".name", l.Name)
		if !strings.HasSuffix(l.Address, ":0") {
			addresses(At("listeners", i)+".address", l.Address)
		}
	}
	names = unique("name")
	for i, ch := range c.Checks {
		names(At("checks", i)+".name", ch.Name)
	}
	names = unique("name")
	for i, a := range c.Auth {
		names(At("auth", i)+".name", a.Name)
	}
}

// maxName bounds the names of upstreams, listeners, checks and auth entries, in bytes.
const maxName = 64

// entryName matches names that can be labels of metrics and parts of keys and log lines.
var entryName = regexp.MustCompile(`^[a-z0-9]+(?:[._:-][a-z0-9]+)*$`)

// name checks the name of an entry. It always accepts defaultName: the name that an entry without a
// name gets, which is a host, an address or empty.
func (k *Report) name(path, name, defaultName string) {
	if name != defaultName && (len(name) > maxName || !entryName.MatchString(name)) {
		k.Add(path, "%q is not a valid name; use at most %d lower case letters and digits, with single dots, colons, dashes or underscores between them", name, maxName)
	}
}

func (l Listener) validate(k *Report, path string, upstreams, auths []string) {
	k.name(path+".name", l.Name, l.Address)
	checkAddress(k, path+".address", l.Address)
	for j, name := range l.Upstreams {
		switch {
		case !slices.Contains(upstreams, name):
			k.Add(At(path+".upstreams", j), "there is no upstream named %q; known names: %s", name, strings.Join(upstreams, ", "))
		case slices.Index(l.Upstreams, name) < j:
			k.Add(At(path+".upstreams", j), "%q is listed twice", name)
		}
	}
	if !slices.Contains(auths, l.Auth) {
		k.Add(path+".auth", "there is no auth entry named %q; known names: %s", l.Auth, strings.Join(auths, ", "))
	}
	if (l.TLS.Certificate == "") != (l.TLS.PrivateKey == "") {
		k.Add(path+".tls", "only one of certificate and private_key (TLS_CERTIFICATE and TLS_PRIVATE_KEY) is set; set both")
	}
	if l.ExternalURL != "" {
		checkBaseURL(k, path+".external_url", l.ExternalURL)
	}
	if l.AnswerWithin != 0 && l.AnswerWithin < Duration(time.Second) {
		k.Add(path+".answer_within", "%s is too short for a push; use at least 1s", l.AnswerWithin)
	}
	if l.ProxyProtocol && len(l.TrustedProxies) == 0 {
		k.Add(path+".proxy_protocol", "needs trusted_proxies, the addresses of the proxies that speak it")
	}
	if l.ForwardedHeader != "" && len(l.TrustedProxies) == 0 {
		k.Add(path+".forwarded_header", "needs trusted_proxies, the addresses of the proxies that write it")
	}
	if l.Challenge && l.Auth == noAuth {
		k.Add(path+".challenge", "needs auth, so that dray can check the credentials that a client sends after a challenge")
	}
	if l.AllowAnonymousPush && l.Auth != noAuth {
		k.Add(path+".allow_anonymous_push", "contradicts auth; allow anonymous pushes by a rule of the auth entry")
	}
	if l.AllowAnonymousPush && l.Role == RoleMirror {
		k.Add(path+".allow_anonymous_push", "a listener with role: mirror accepts no pushes; set role: registry")
	}
}

// prefixName matches path components of a repository name, with slashes between them (distribution
// specification).
const prefixName = `^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`

func (u Upstream) validate(k *Report, path string) {
	if u.Kind != KindLocal {
		k.name(path+".name", u.Name, u.hostName())
	}
	u.validateLocal(k, path)
	u.validateAcknowledge(k, path)
	u.Savings.validate(k, path+".savings", u.Kind)
	if u.URL == "" {
		if u.Kind != KindLocal {
			k.Add(path+".url", "is missing")
		}
	} else {
		u.checkURL(k, path+".url")
	}
	name := regexp.MustCompile(prefixName)
	for j, p := range u.Prefixes {
		if !name.MatchString(p) || slices.Contains(strings.Split(p, "/"), "v2") {
			k.Add(At(path+".prefixes", j), "%q is not a valid prefix; use lower case path components other than v2", p)
		}
	}
	prefix := cmp.Or(strings.TrimSuffix(u.RepositoryPrefix, "/"), u.RepositoryPrefix)
	for _, kv := range [][2]string{{"default_namespace", u.DefaultNamespace}, {"repository_prefix", prefix}} {
		if key, value := kv[0], kv[1]; value != "" && !name.MatchString(value) {
			k.Add(path+"."+key, "%q is not a valid beginning of a repository name; use lower case path components", value)
		}
	}
	for j, h := range u.Hosts {
		if h == "" || strings.ContainsAny(h, "/@ ") || h != strings.ToLower(h) {
			k.Add(At(path+".hosts", j), "%q is not a host name; write it in lower case, with :port if it is not the default port", h)
		}
	}
	if u.Address != "" {
		checkAddress(k, path+".address", u.Address)
	}
	if u.Delete && !u.Push {
		k.Add(path+".delete", "needs push: true")
	}
	patterns(k, path+".repositories.allow", u.Repositories.Allow)
	patterns(k, path+".repositories.deny", u.Repositories.Deny)
	u.Credentials.validate(k, path+".credentials", u.Kind)
	u.validateAWS(k, path)
	if u.Tags.Stale != 0 && u.Tags.Stale < u.Tags.Fresh {
		k.Add(path+".tags.stale", "%v is less than fresh, %v", u.Tags.Stale, u.Tags.Fresh)
	}
	u.ParallelFill.validate(k, path+".parallel_fill")
	k.between(path+".prefetch.streams", u.Prefetch.Streams, 1, 64)
	if u.KeepAlive > maxKeepAlive {
		k.Add(path+".keep_alive", "%v is more than %v", u.KeepAlive, maxKeepAlive)
	}
	u.Limits.validate(k, path+".limits")
}

// maxKeepAlive is well below the time for which dray remembers that it asked for an image
// (meta.NewLastPulls).
const maxKeepAlive = Duration(14 * 24 * time.Hour)

func (l UpstreamLimits) validate(k *Report, path string) {
	k.between(path+".concurrency", l.Concurrency, 1, 10_000)
	k.between(path+".queue", l.Queue, 1, 100_000)
	k.between(path+".quota_reserve", l.QuotaReserve, 0, 100)
	if l.Wait < Duration(time.Second) || l.Wait > Duration(time.Minute) {
		k.Add(path+".wait", "%v is not between 1s and 1m", l.Wait)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Rates)) {
		if r := l.Rates[name]; !(r >= 0 && r <= 1_000_000) {
			k.Add(path+".rates."+name, "%v is not between 0 and 1000000", r)
		}
	}
}

// minPiece is the least length of a range. Smaller ranges cost more in requests than they gain.
const minPiece = 64 << 10

func (p ParallelFill) validate(k *Report, path string) {
	if p.Piece < minPiece {
		k.Add(path+".piece", "%v is less than %v", p.Piece, Bytes(minPiece))
	}
	k.between(path+".streams", p.Streams, 1, 64)
	k.between(path+".connections", p.Connections, 0, 4096)
}

func (cr Credentials) validate(k *Report, path string, kind Kind) {
	sources := 0
	for _, given := range []bool{cr.PasswordFile != "", cr.PasswordEnv != ""} {
		if given {
			sources++
		}
	}
	switch given := cr.Username != "" || sources > 0; {
	case given && kind == KindECR:
		k.Add(path, "an upstream of kind ecr gets its credentials from the AWS SDK; remove this section")
	case sources > 1:
		k.Add(path, "password_file and password_env are both set; remove one")
	case given && sources == 0:
		k.Add(path, "the password is missing; set password_file or password_env")
	case given && cr.Username == "":
		k.Add(path+".username", "is missing")
	}
}

func (u Upstream) validateAWS(k *Report, path string) {
	if u.ExternalID != "" && u.RoleARN == "" {
		k.Add(path+".external_id", "needs role_arn, whose trust policy asks for it")
	}
	if u.RoleARN != "" && !strings.HasPrefix(u.RoleARN, "arn:") {
		k.Add(path+".role_arn", "%q is not an ARN", u.RoleARN)
	}
	if api, err := url.Parse(u.APIURL); u.APIURL != "" && (err != nil || api.Host == "" || api.Scheme != "https" && api.Scheme != "http" || api.User != nil || strings.Trim(api.Path, "/")+api.RawQuery != "") {
		k.Add(path+".api_url", "is not the URL of an API; write https:// and the name of its host") // the URL is not printed, because it may contain a password
	}
	if u.Kind != KindECR {
		u.validatePublic(k, path)
		return
	}
	if u.URL != "" && kindOf(u.RegistryHost()) != KindECR {
		k.Add(path+".url", "%q is not the name of an Amazon ECR registry, <account>.dkr.ecr.<region>.amazonaws.com; to connect to another host, set address", u.RegistryHost())
	}
	create, path := u.CreateRepositories, path+".create_repositories"
	if m := create.TagMutability; m != "" && m != "MUTABLE" && m != "IMMUTABLE" {
		k.Add(path+".tag_mutability", "%q is not one of MUTABLE, IMMUTABLE", m)
	}
	if e := create.Encryption; e != "" && e != "AES256" && e != "KMS" && e != "KMS_DSSE" {
		k.Add(path+".encryption", "%q is not one of AES256, KMS, KMS_DSSE", e)
	}
	if create.KMSKey != "" && create.Encryption == "AES256" {
		k.Add(path+".kms_key", "needs encryption: KMS or KMS_DSSE")
	}
	for i, name := range create.Names {
		if _, err := regexp.Compile(name); err != nil {
			k.Add(At(path+".names", i), "%v", err)
		}
	}
}

// validatePublic validates the settings for AWS of an upstream that is not of kind ecr. Of these
// upstreams, only those of kind ecr-public may have settings for AWS.
func (u Upstream) validatePublic(k *Report, path string) {
	if u.Kind == KindECRPublic {
		if aws := u.Credentials.AWS || u.RoleARN != ""; aws && u.Credentials.Username != "" {
			k.Add(path+".credentials", "AWS and username are both a source of credentials; remove one")
		}
		return
	}
	if u.RoleARN != "" {
		k.Add(path+".role_arn", "is only for upstreams of kind ecr or ecr-public")
	}
	if u.APIURL != "" {
		k.Add(path+".api_url", "is only for upstreams of kind ecr or ecr-public")
	}
	if u.Credentials.AWS {
		k.Add(path+".credentials.aws", "is only for upstreams of kind ecr-public")
	}
}

func (a Auth) validate(k *Report, path string) {
	htpasswd, token := a.HTPasswd != HTPasswd{}, a.Token != Token{}
	switch {
	case a.Name == "" || a.Name == noAuth:
		k.Add(path+".name", "%q is not a valid name", a.Name)
	case htpasswd == token:
		k.Add(path, "set exactly one of htpasswd and token")
	case htpasswd && a.HTPasswd.File == "":
		k.Add(path+".htpasswd.file", "is missing")
	case token:
		a.Token.validate(k, path+".token")
	}
	k.name(path+".name", a.Name, "")
	for i, r := range a.Rules {
		r.validate(k, At(path+".rules", i))
	}
}

func (t Token) validate(k *Report, path string) {
	if t.Realm == "" {
		k.Add(path+".realm", "is missing")
	} else if u, err := url.Parse(t.Realm); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		k.Add(path+".realm", "is not an http or https URL") // the URL is not printed, because it may contain a password
	}
	if t.Service == "" {
		k.Add(path+".service", "is missing")
	}
	if t.Issuer == "" {
		k.Add(path+".issuer", "is missing")
	}
	if t.RootCertBundle == "" && t.JWKS == "" {
		k.Add(path, "set root_cert_bundle or jwks, so that dray can verify tokens")
	}
}

func (r Rule) validate(k *Report, path string) {
	if len(r.Users) == 0 && !r.Anonymous {
		k.Add(path, "applies to nobody; set users, or anonymous: true")
	}
	if len(r.Repositories) == 0 && !r.forOperators() {
		k.Add(path+".repositories", "is missing; use * for all repositories")
	}
	patterns(k, path+".repositories", r.Repositories)
	if len(r.Actions) == 0 {
		k.Add(path+".actions", "is missing; list one or more of %s", strings.Join(actions(), ", "))
	}
	for j, a := range r.Actions {
		if !slices.Contains(actions(), a) {
			k.Add(At(path+".actions", j), "%q is not one of %s", a, strings.Join(actions(), ", "))
		}
		if a == actionOperate && r.Anonymous {
			k.Add(At(path+".actions", j), "clients without credentials cannot get operate")
		}
	}
}

// The actions of operators.
const (
	actionView    = "view"
	actionOperate = "operate"
)

// actions lists the actions that a rule can grant.
func actions() []string { return []string{"pull", "push", "delete", actionView, actionOperate} }

// ofOperators reports whether an action concerns the admin listener.
func ofOperators(action string) bool { return action == actionView || action == actionOperate }

// forOperators reports whether all actions of the rule concern the admin listener.
func (r Rule) forOperators() bool {
	return len(r.Actions) > 0 && !slices.ContainsFunc(r.Actions, func(a string) bool { return !ofOperators(a) })
}

// repositoryPattern reports whether a pattern can match the name of a repository.
func repositoryPattern(p string) bool {
	return p != "" && !strings.HasPrefix(p, "/") && p == strings.ToLower(p)
}

func (c Config) validateRest(k *Report) {
	c.Cache.validate(k, "cache")
	c.Bucket.validate(k, "bucket", c.Cache.StallTimeout)
	c.validateAdmin(k)
	if c.Metadata.URL == "" && (c.Metadata.Password != "" || c.Metadata.PasswordFile != "") {
		k.Add("metadata.password", "needs url, because the bbolt file in the cache directory has no password")
	}
	if cw := c.CloudWatch; cw.Region != "" {
		if cw.Interval < Duration(time.Second) {
			k.Add("cloudwatch.interval", "%v is less than one second", cw.Interval)
		}
		if cw.Namespace == "" || strings.HasPrefix(cw.Namespace, "AWS/") || len(cw.Namespace) > 255 {
			k.Add("cloudwatch.namespace", "%q is not a valid namespace; use 1 to 255 characters that do not begin with AWS/", cw.Namespace)
		}
		if cw.Metric == "" || len(cw.Metric) > 255 {
			k.Add("cloudwatch.metric", "must have 1 to 255 characters")
		}
	}
	c.Traces.validate(k, "traces")
	if n := c.CloudWatch.MaxSeries; n < 0 {
		k.Add("cloudwatch.max_series", "%d is negative", n)
	}
	c.Savings.validate(k)
	c.Limits.validate(k)
}

func (t Traces) validate(k *Report, path string) {
	if t.Endpoint == "" {
		if t.HeadersFile != "" {
			k.Add(path+".headers_file", "needs endpoint, the URL of the collector that gets the headers")
		}
		return
	}
	if u, err := url.Parse(t.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		// The URL is not printed, because it may contain a password or a token.
		k.Add(path+".endpoint", "is not the URL of a collector; write http:// or https:// and its host, such as http://127.0.0.1:4318, and put credentials into headers_file")
	}
	if t.Percent < 0 || t.Percent > 100 {
		k.Add(path+".percent", "%d is not between 0 and 100", t.Percent)
	}
}

func (l Limits) validate(k *Report) {
	if l.MaxUploadsPerClient < 0 {
		k.Add("limits.max_uploads_per_client", "%d is negative", l.MaxUploadsPerClient)
	}
	if l.MaxConnections < 0 {
		k.Add("limits.max_connections", "%d is negative", l.MaxConnections)
	}
	positive(k, "limits.upload_expiry", l.UploadExpiry)
	positive(k, "limits.read_header_timeout", l.ReadHeaderTimeout)
	positive(k, "limits.idle_timeout", l.IdleTimeout)
	positive(k, "limits.stall_timeout", l.StallTimeout)
}

func positive[N ~int | ~int64](k *Report, path string, n N) {
	if n <= 0 {
		k.Add(path, "must be more than zero")
	}
}

func (k *Report) between(path string, n, least, most int) {
	if n < least || n > most {
		k.Add(path, "%d is not between %d and %d", n, least, most)
	}
}

// checkURL checks the URL of a registry. The URL may have a path: a repository of Artifactory is a
// registry below a path. But the URLs of the registries of Amazon and Docker must not have a path.
func (u *Upstream) checkURL(k *Report, path string) {
	parsed, err := url.Parse(u.URL)
	below := err == nil && strings.Trim(parsed.Path, "/") != "" && parsed.Fragment == "" && u.Kind == KindOCI && u.RegistryHost() != dockerHubHost
	if !below {
		checkBaseURL(k, path, u.URL)
		return
	}
	base := *parsed
	base.Path, base.RawPath = "", ""
	checkBaseURL(k, path, base.String())
	segments := strings.Split(strings.TrimPrefix(parsed.EscapedPath(), "/"), "/")
	switch {
	case slices.Contains(segments, "v2"):
		k.Add(path, "remove /v2, which dray adds, from the path; what follows it is a repository_prefix")
	case slices.ContainsFunc(segments, func(s string) bool { return !pathSegment.MatchString(s) }):
		k.Add(path, "the path may have letters, digits, and the characters . _ ~ - between single slashes")
	}
}

// pathSegment matches one segment of the path of a registry. Other segments would need escapes, or
// would lead to another path, as ".." does.
var pathSegment = regexp.MustCompile(`^[A-Za-z0-9_~-][A-Za-z0-9._~-]*$`)
