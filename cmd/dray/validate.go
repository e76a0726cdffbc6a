package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray/upstream/ecr"
)

// check collects problems.
type check struct{ problems Problems }

func (k *check) add(path, format string, args ...any) {
	k.problems = append(k.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// Validate looks at a completed configuration and returns everything that is wrong with it, as Problems, or nil. It opens no file.
func (c Config) Validate() error { return c.validate().err() }

func (c Config) validate() Problems {
	k := &check{}
	names := make([]string, len(c.Upstreams))
	for i, u := range c.Upstreams {
		names[i] = u.Name
		u.validate(k, at("upstreams", i))
	}
	c.validateNames(k)
	auths := []string{noAuth}
	for i, a := range c.Auth {
		auths = append(auths, a.Name)
		a.validate(k, at("auth", i))
	}
	checks := make([]string, len(c.Checks))
	for i, ch := range c.Checks {
		checks[i] = ch.Name
		ch.validate(k, at("checks", i))
	}
	for i, u := range c.Upstreams {
		u.validateChecks(k, at("upstreams", i)+".checks", checks)
	}
	for i, l := range c.Listeners {
		l.validate(k, at("listeners", i), names, auths)
		if l.Role == RoleRegistry && !slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Push && slices.Contains(l.Upstreams, u.Name) }) {
			k.add(at("listeners", i)+".role", "a registry needs an upstream with push: true; none of %s has it", strings.Join(l.Upstreams, ", "))
		}
	}
	c.Queue.validate(k)
	c.validateNotifications(k)
	c.validateRest(k)
	c.validateQuotas(k)
	c.validateBuildCaches(k)
	if len(k.problems) > 0 {
		return k.problems // names that are wrong or given twice would be reported here again
	}
	for i, l := range c.Listeners {
		if err := c.routes(l).Check(); err != nil {
			k.add(at("listeners", i)+".upstreams", "rights could not tell repositories apart: %v", err)
		}
	}
	return k.problems
}

func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// validateNames finds what two entries claim for themselves.
func (c Config) validateNames(k *check) {
	unique := func(what string) func(path, name string) {
		owner := map[string]string{}
		return func(path, name string) {
			if first, taken := owner[name]; taken && name != "" {
				k.add(path, "%s %q is already that of %s", what, name, first)
				return
			}
			owner[name], _, _ = strings.Cut(path, ".")
		}
	}
	names, hosts, prefixes := unique("name"), unique("host"), unique("prefix")
	for i, u := range c.Upstreams {
		names(at("upstreams", i)+".name", u.Name)
		for j, h := range u.Hosts {
			hosts(at(at("upstreams", i)+".hosts", j), h)
		}
		for j, p := range u.Prefixes {
			prefixes(at(at("upstreams", i)+".prefixes", j), p)
		}
	}
	names, addresses := unique("name"), unique("address")
	for i, l := range c.Listeners {
		names(at("listeners", i)+".name", l.Name)
		if !strings.HasSuffix(l.Address, ":0") {
			addresses(at("listeners", i)+".address", l.Address)
		}
	}
	names = unique("name")
	for i, ch := range c.Checks {
		names(at("checks", i)+".name", ch.Name)
	}
	names = unique("name")
	for i, a := range c.Auth {
		names(at("auth", i)+".name", a.Name)
	}
}

func (l Listener) validate(k *check, path string, upstreams, auths []string) {
	address(k, path+".address", l.Address)
	for j, name := range l.Upstreams {
		switch {
		case !slices.Contains(upstreams, name):
			k.add(at(path+".upstreams", j), "no upstream is called %q; there are: %s", name, strings.Join(upstreams, ", "))
		case slices.Index(l.Upstreams, name) < j:
			k.add(at(path+".upstreams", j), "%q is given twice", name)
		}
	}
	if !slices.Contains(auths, l.Auth) {
		k.add(path+".auth", "no auth entry is called %q; there are: %s", l.Auth, strings.Join(auths, ", "))
	}
	if (l.TLS.Certificate == "") != (l.TLS.PrivateKey == "") {
		k.add(path+".tls", "certificate and private_key (TLS_CERTIFICATE and TLS_PRIVATE_KEY) go together; only one is given")
	}
	if l.ExternalURL != "" {
		base(k, path+".external_url", l.ExternalURL)
	}
	if l.Challenge && l.Auth == noAuth {
		k.add(path+".challenge", "needs auth: a client that answers a challenge must be recognised by something")
	}
	if l.AllowAnonymousPush && l.Auth != noAuth {
		k.add(path+".allow_anonymous_push", "contradicts auth; grant anonymous pushes by a rule of the auth entry")
	}
	if l.AllowAnonymousPush && l.Role == RoleMirror {
		k.add(path+".allow_anonymous_push", "a mirror takes no pushes; role: registry does")
	}
}

// prefixName is a path component as the distribution specification allows it in a repository name, several with slashes between.
const prefixName = `^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`

func (u Upstream) validate(k *check, path string) {
	u.validateLocal(k, path)
	u.validateAcknowledge(k, path)
	if u.URL == "" {
		if u.Kind != KindLocal {
			k.add(path+".url", "is missing")
		}
	} else {
		base(k, path+".url", u.URL)
	}
	name := regexp.MustCompile(prefixName)
	for j, p := range u.Prefixes {
		if !name.MatchString(p) || slices.Contains(strings.Split(p, "/"), "v2") {
			k.add(at(path+".prefixes", j), "%q cannot be a prefix; write lower case path components, none of them v2", p)
		}
	}
	prefix := cmp.Or(strings.TrimSuffix(u.RepositoryPrefix, "/"), u.RepositoryPrefix)
	for _, kv := range [][2]string{{"default_namespace", u.DefaultNamespace}, {"repository_prefix", prefix}} {
		if key, value := kv[0], kv[1]; value != "" && !name.MatchString(value) {
			k.add(path+"."+key, "%q cannot begin a repository name; write lower case path components", value)
		}
	}
	for j, h := range u.Hosts {
		if h == "" || strings.ContainsAny(h, "/@ ") || h != strings.ToLower(h) {
			k.add(at(path+".hosts", j), "%q is not a host name; write it in lower case, with :port where it has one", h)
		}
	}
	if u.Address != "" {
		address(k, path+".address", u.Address)
	}
	if u.Delete && !u.Push {
		k.add(path+".delete", "needs push: true")
	}
	u.Credentials.validate(k, path+".credentials", u.Kind)
	u.validateAWS(k, path)
	if u.Tags.Stale != 0 && u.Tags.Stale < u.Tags.Fresh {
		k.add(path+".tags.stale", "%v is less than fresh, %v", u.Tags.Stale, u.Tags.Fresh)
	}
	u.ParallelFill.validate(k, path+".parallel_fill")
	if n := u.Prefetch.Streams; n < 1 || n > 64 {
		k.add(path+".prefetch.streams", "%d is not between 1 and 64", n)
	}
	if u.KeepAlive > maxKeepAlive {
		k.add(path+".keep_alive", "%v is more than %v", u.KeepAlive, maxKeepAlive)
	}
	u.Limits.validate(k, path+".limits", u.Kind)
}

// maxKeepAlive is well below the time for which it is known that an image was asked for.
const maxKeepAlive = Duration(14 * 24 * time.Hour)

func (l UpstreamLimits) validate(k *check, path string, kind Kind) {
	between := func(key string, n, least, most int) {
		if n < least || n > most {
			k.add(path+"."+key, "%d is not between %d and %d", n, least, most)
		}
	}
	between("concurrency", l.Concurrency, 1, 10_000)
	between("queue", l.Queue, 1, 100_000)
	between("quota_reserve", l.QuotaReserve, 0, 100)
	if l.Wait < Duration(time.Second) || l.Wait > Duration(time.Minute) {
		k.add(path+".wait", "%v is not between 1s and 1m", l.Wait)
	}
	if _, err := quirksOf(kind).RatesWith(l.Rates); err != nil {
		k.add(path+".rates", "%v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Rates)) {
		if r := l.Rates[name]; !(r >= 0 && r <= 1_000_000) {
			k.add(path+".rates."+name, "%v is not between 0 and 1000000", r)
		}
	}
}

// minPiece of a layer: smaller ones cost more in requests than they gain.
const minPiece = 64 << 10

func (p ParallelFill) validate(k *check, path string) {
	if p.Piece < minPiece {
		k.add(path+".piece", "%v is less than %v", p.Piece, Bytes(minPiece))
	}
	if p.Streams < 1 || p.Streams > 64 {
		k.add(path+".streams", "%d is not between 1 and 64", p.Streams)
	}
	if p.Connections < 0 || p.Connections > 4096 {
		k.add(path+".connections", "%d is not between 0 and 4096", p.Connections)
	}
}

func (cr Credentials) validate(k *check, path string, kind Kind) {
	sources := 0
	for _, given := range []bool{cr.PasswordFile != "", cr.PasswordEnv != ""} {
		if given {
			sources++
		}
	}
	switch given := cr.Username != "" || sources > 0; {
	case given && kind == KindECR:
		k.add(path, "an ECR upstream gets its credentials from the AWS SDK; leave this section out")
	case sources > 1:
		k.add(path, "give password_file or password_env, not both")
	case given && sources == 0:
		k.add(path, "the password is missing; give password_file or password_env")
	case given && cr.Username == "":
		k.add(path+".username", "is missing")
	}
}

func (u Upstream) validateAWS(k *check, path string) {
	if u.Kind != KindECR {
		if u.RoleARN != "" {
			k.add(path+".role_arn", "is for kind ecr only")
		}
		return
	}
	if u.URL != "" && kindOf(u.Host()) != KindECR {
		k.add(path+".url", "%q is not the name of an Amazon ECR registry, <account>.dkr.ecr.<region>.amazonaws.com; where to dial instead is said by address", u.Host())
	}
	if u.RoleARN != "" && !strings.HasPrefix(u.RoleARN, "arn:") {
		k.add(path+".role_arn", "%q is not an ARN", u.RoleARN)
	}
	create, path := u.CreateRepositories, path+".create_repositories"
	if m := create.TagMutability; m != "" && m != "MUTABLE" && m != "IMMUTABLE" {
		k.add(path+".tag_mutability", "%q is none of MUTABLE, IMMUTABLE", m)
	}
	if e := create.Encryption; e != "" && e != "AES256" && e != "KMS" {
		k.add(path+".encryption", "%q is none of AES256, KMS", e)
	}
	if create.KMSKey != "" && create.Encryption == "AES256" {
		k.add(path+".kms_key", "needs encryption: KMS")
	}
	for i, name := range create.Names {
		if _, err := regexp.Compile(name); err != nil {
			k.add(at(path+".names", i), "%v", err)
		}
	}
	if err := ecr.CheckExceptTags(create.TagMutabilityExcept); err != nil {
		k.add(path+".tag_mutability_except", "%v", err)
	}
}

func (a Auth) validate(k *check, path string) {
	htpasswd, token := a.HTPasswd != HTPasswd{}, a.Token != Token{}
	switch {
	case a.Name == "" || a.Name == noAuth:
		k.add(path+".name", "%q cannot be a name", a.Name)
	case htpasswd == token:
		k.add(path, "give exactly one of htpasswd and token")
	case htpasswd && a.HTPasswd.File == "":
		k.add(path+".htpasswd.file", "is missing")
	case token:
		a.Token.validate(k, path+".token")
	}
	for i, r := range a.Rules {
		r.validate(k, at(path+".rules", i))
	}
}

func (t Token) validate(k *check, path string) {
	if t.Realm == "" {
		k.add(path+".realm", "is missing")
	} else if u, err := url.Parse(t.Realm); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		k.add(path+".realm", "%q is not an http or https URL", t.Realm)
	}
	if t.Service == "" {
		k.add(path+".service", "is missing")
	}
	if t.Issuer == "" {
		k.add(path+".issuer", "is missing")
	}
	if t.RootCertBundle == "" && t.JWKS == "" {
		k.add(path, "give root_cert_bundle or jwks: without one no token can be verified")
	}
}

func (r Rule) validate(k *check, path string) {
	if len(r.Users) == 0 && !r.Anonymous {
		k.add(path, "is for nobody; give users or anonymous: true")
	}
	if len(r.Repositories) == 0 {
		k.add(path+".repositories", "is missing; * is every repository")
	}
	for j, p := range r.Repositories {
		if !repositoryPattern(p) {
			k.add(at(path+".repositories", j), "%q matches no repository; names are lower case and do not begin with a slash", p)
		}
	}
	if len(r.Actions) == 0 {
		k.add(path+".actions", "is missing; write some of pull, push, delete")
	}
	for j, a := range r.Actions {
		if a != "pull" && a != "push" && a != "delete" {
			k.add(at(path+".actions", j), "%q is none of pull, push, delete", a)
		}
	}
}

// repositoryPattern reports whether a pattern can match the name of a repository.
func repositoryPattern(p string) bool {
	return p != "" && !strings.HasPrefix(p, "/") && p == strings.ToLower(p)
}

// sameAddress reports whether two addresses cannot be listened on at once.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && portA != "0" &&
		(hostA == hostB || hostA == "" || hostB == "" || isLoopback(a) && isLoopback(b))
}

func (c Config) validateRest(k *check) {
	c.Cache.validate(k, "cache")
	if c.Admin.Address != adminOff {
		address(k, "admin.address", c.Admin.Address)
		for _, l := range c.Listeners {
			if sameAddress(l.Address, c.Admin.Address) {
				k.add("admin.address", "%s is taken by listener %s", c.Admin.Address, l.Name)
			}
		}
	}
	if c.Metadata.URL != "" {
		// Opening does not connect: who writes the URL and who uses it agree on its forms.
		if store, err := openRedis(c.Metadata); err != nil {
			k.add("metadata.url", "%v", err)
		} else {
			_ = store.Close()
		}
	} else if c.Metadata.Password != "" || c.Metadata.PasswordFile != "" {
		k.add("metadata.password", "needs url: the bbolt file in the cache directory has no password")
	}
	if cw := c.CloudWatch; cw.Region != "" {
		if cw.Interval < Duration(time.Second) {
			k.add("cloudwatch.interval", "%v is less than one second", cw.Interval)
		}
		if cw.Namespace == "" || strings.HasPrefix(cw.Namespace, "AWS/") || len(cw.Namespace) > 255 {
			k.add("cloudwatch.namespace", "%q cannot be a namespace: 1 to 255 characters, not beginning with AWS/", cw.Namespace)
		}
		if cw.Metric == "" || len(cw.Metric) > 255 {
			k.add("cloudwatch.metric", "must have 1 to 255 characters")
		}
	}
	if n := c.CloudWatch.MaxSeries; n < 0 {
		k.add("cloudwatch.max_series", "%d is negative", n)
	}
	c.Limits.validate(k)
}

func (l Limits) validate(k *check) {
	if l.MaxUploadsPerClient < 0 {
		k.add("limits.max_uploads_per_client", "%d is negative", l.MaxUploadsPerClient)
	}
	for _, bound := range []struct {
		key  string
		time Duration
	}{
		{"upload_expiry", l.UploadExpiry},
		{"read_header_timeout", l.ReadHeaderTimeout},
		{"idle_timeout", l.IdleTimeout},
		{"stall_timeout", l.StallTimeout},
	} {
		if bound.time == 0 {
			k.add("limits."+bound.key, "must be more than zero")
		}
	}
}

func address(k *check, path, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		k.add(path, "%q is not host:port", value)
	}
}

// base checks the URL of a registry: a scheme and a host, and nothing else.
func base(k *check, path, value string) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		k.add(path, "%q is not an http or https URL, nor a host name", value)
	case u.User != nil:
		k.add(path, "must not hold a user or a password")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		k.add(path, "%q must end after the host", value)
	}
}
