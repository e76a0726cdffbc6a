package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testRegistry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// write puts a file into a new directory and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyPair makes a certificate for the names and returns the paths of it and of its key.
func keyPair(t *testing.T, names ...string) (cert, key string) {
	t.Helper()
	return keyPairFrom(t, time.Now(), time.Now().AddDate(1, 0, 0), names...)
}

// keyPairFrom is keyPair for a certificate with a time of its own.
func keyPairFrom(t *testing.T, from, until time.Time, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func TestDefaultsAlone(t *testing.T) {
	cfg, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Listener{{Name: "127.0.0.1:5000", Address: "127.0.0.1:5000", Role: RoleMirror, Upstreams: []string{"docker.io"}, Auth: "none", Send: SendSplice}}
	if diff := cmp.Diff(want, cfg.Listeners); diff != "" {
		t.Error("listeners", diff)
	}
	if len(cfg.Upstreams) != 1 || cfg.Upstreams[0].URL != "https://registry-1.docker.io" || cfg.Upstreams[0].DefaultNamespace != "library" {
		t.Errorf("upstreams %+v", cfg.Upstreams)
	}
	if cfg.Cache.Directory != "data" || cfg.Metadata.URL != "" || cfg.Admin.Address != "localhost:6060" || cfg.CloudWatch.Region != "" {
		t.Errorf("rest %+v", cfg)
	}
	if notices := cfg.Notices(); len(notices) != 0 {
		t.Errorf("notices %q", notices)
	}
}

func TestCacheDirectoryFollowsXDG(t *testing.T) {
	cfg, err := Load("", []string{"XDG_CACHE_HOME=/home/me/.cache"})
	if err != nil || cfg.Cache.Directory != "/home/me/.cache/dray" {
		t.Errorf("got %q, %v", cfg.Cache.Directory, err)
	}
}

func TestKinds(t *testing.T) {
	for url, want := range map[string]Kind{
		"https://" + testRegistry:                                   KindECR,
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":     KindECR,
		"123456789012.dkr-ecr.ap-south-1.on.aws":                    KindECR,
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":          KindECR,
		"https://public.ecr.aws":                                    KindECRPublic,
		"https://ghcr.io":                                           KindOCI,
		"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil": KindOCI,
	} {
		u := Upstream{URL: url}
		if u.complete(); u.Kind != want {
			t.Errorf("%s: got %s, want %s", url, u.Kind, want)
		}
	}
}

// TestProblems gives wrong files and variables and wants every problem reported, with its path and
// its line.
func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		env        []string
		want       []string
	}{
		{name: "not YAML", file: "listeners: [", want: []string{"dray.yaml:1: a value is missing, or the [ or { before it is not closed"}},
		{name: "not a section", file: "- a\n", want: []string{"dray.yaml:1: must be a map of keys and values"}},
		{name: "two documents", file: "log: {level: info}\n---\nlog: {}\n", want: []string{"dray.yaml: the file has more than one YAML document"}},
		{name: "unknown keys", file: "cash: {}\nlog:\n  levle: info\n  shape: round\n", want: []string{
			"dray.yaml:1: cash: unknown key; did you mean cache?", "dray.yaml:3: log.levle: unknown key; did you mean level?", "dray.yaml:4: log.shape: unknown key; known keys: access, format, level"}},
		{name: "given twice", file: "log:\n  level: info\n  level: warn\n", want: []string{"dray.yaml:3: log.level: is set twice"}},
		{name: "types", file: "listeners: 5\nlog:\n  access: maybe\n  level: [info]\nlimits:\n  max_uploads_per_client: many\n  idle_timeout: 5 parsecs\ncache:\n  max_bytes: -1\nadmin: 6060\n", want: []string{
			"dray.yaml:1: listeners: must be a list", "dray.yaml:3: log.access: must be true or false", "dray.yaml:4: log.level: must be a single value",
			"dray.yaml:6: limits.max_uploads_per_client: must be a whole number",
			`dray.yaml:7: limits.idle_timeout: "5 parsecs" is not a duration; write one like 90s, 10m or 7d`,
			`dray.yaml:9: cache.max_bytes: "-1" is not a size; write one like 200GiB, 500MB or 4096`,
			"dray.yaml:10: admin: must be a map of keys and values"}},
		{name: "secrets in the file", file: "upstreams:\n- url: ghcr.io\n  credentials: {username: me, password: hush}\nmetadata: {url: 'redis://h', password: hush}\n", want: []string{
			"dray.yaml:3: upstreams[0].credentials.password: " + errSecretInFile.Error(), "dray.yaml:4: metadata.password: " + errSecretInFile.Error(),
			"dray.yaml:3: upstreams[0].credentials: the password is missing; set password_file or password_env"}},
		{name: "listeners", file: `listeners:
- address: nowhere
  role: boss
  upstreams: [hub, other, hub]
  auth: team
- name: b
  role: mirror
  challenge: true
  allow_anonymous_push: true
  external_url: ftp://x
  tls: {certificate: cert.pem}
- name: b
  role: registry
upstreams: [{name: hub, url: docker.io}]
`, want: []string{
			`dray.yaml:3: listeners[0].role: "boss" is not one of mirror, registry`,
			`dray.yaml:12: listeners[2].name: name "b" is already used by listeners[1]`,
			`dray.yaml:12: listeners[2].address: address "127.0.0.1:5000" is already used by listeners[1]`,
			`dray.yaml:2: listeners[0].address: "nowhere" is not host:port`,
			`dray.yaml:4: listeners[0].upstreams[1]: there is no upstream named "other"; known names: hub`,
			`dray.yaml:4: listeners[0].upstreams[2]: "hub" is listed twice`,
			`dray.yaml:5: listeners[0].auth: there is no auth entry named "team"; known names: none`,
			"dray.yaml:11: listeners[1].tls: only one of certificate and private_key (TLS_CERTIFICATE and TLS_PRIVATE_KEY) is set; set both",
			`dray.yaml:10: listeners[1].external_url: "ftp://x" is not an http or https URL or a host name`,
			"dray.yaml:8: listeners[1].challenge: needs auth, so that dray can check the credentials that a client sends after a challenge",
			"dray.yaml:9: listeners[1].allow_anonymous_push: a listener with role: mirror accepts no pushes; set role: registry",
			"dray.yaml:13: listeners[2].role: role: registry needs an upstream with push: true, and none of hub has it"}},
		{name: "proxies", file: "listeners:\n- trusted_proxies: [10.0.0.0/8, here, 10.0.0.0/33, 'fe80::1%eth0']\n  forwarded_header: Via\n- address: ':1'\n  proxy_protocol: true\n  forwarded_header: Forwarded\n", want: []string{
			`dray.yaml:2: listeners[0].trusted_proxies[1]: "here" is not a network; write one like 10.0.0.0/8, fd00::/8 or 10.1.2.3`,
			`dray.yaml:2: listeners[0].trusted_proxies[2]: "10.0.0.0/33" is not a network; write one like 10.0.0.0/8, fd00::/8 or 10.1.2.3`,
			`dray.yaml:2: listeners[0].trusted_proxies[3]: "fe80::1%eth0" is not a network; write one like 10.0.0.0/8, fd00::/8 or 10.1.2.3`,
			`dray.yaml:3: listeners[0].forwarded_header: "Via" is not one of X-Forwarded-For, Forwarded`,
			"dray.yaml:5: listeners[1].proxy_protocol: needs trusted_proxies, the addresses of the proxies that speak it",
			"dray.yaml:6: listeners[1].forwarded_header: needs trusted_proxies, the addresses of the proxies that write it"}},
		{name: "limits of an upstream", file: `upstreams:
- url: docker.io
  limits: {concurrency: 0, queue: 0, wait: 0s, quota_reserve: 101, rates: {manifest_get: -1}}
- url: quay.io
  keep_alive: 15d
`, want: []string{
			"dray.yaml:3: upstreams[0].limits.concurrency: 0 is not between 1 and 10000", "dray.yaml:3: upstreams[0].limits.queue: 0 is not between 1 and 100000",
			"dray.yaml:3: upstreams[0].limits.quota_reserve: 101 is not between 0 and 100", "dray.yaml:3: upstreams[0].limits.wait: 0s is not between 1s and 1m",
			"dray.yaml:3: upstreams[0].limits.rates.manifest_get: -1 is not between 0 and 1000000",
			"dray.yaml:5: upstreams[1].keep_alive: 360h is more than 336h"}},
		{name: "upstreams", file: `upstreams:
- name: a
- name: a
  url: https://me@h/path
  prefixes: [v2, Big, fine]
  hosts: ["H:1"]
  repository_prefix: /x
  address: here
  role_arn: nobody
  external_id: x
  api_url: https://api.example.com
- name: b
  url: https://h.example.com/v2/path
  prefixes: [fine]
  credentials: {username: u, password_file: /f, password_env: E}
  tags: {fresh: 2h, stale: 1h}
- name: c
  url: http://127.0.0.1:1
  kind: ecr
  push: true
  role_arn: nobody
  api_url: api.example.com/path
  credentials: {username: u}
  create_repositories: {tag_mutability: SOMETIMES, encryption: AES256, kms_key: k, names: ["a/.*", "("]}
`, want: []string{
			"dray.yaml:2: upstreams[0].url: is missing",
			"dray.yaml:4: upstreams[1].url: must not contain a user or a password",
			`dray.yaml:5: upstreams[1].prefixes[0]: "v2" is not a valid prefix; use lower case path components other than v2`,
			`dray.yaml:5: upstreams[1].prefixes[1]: "Big" is not a valid prefix; use lower case path components other than v2`,
			`dray.yaml:7: upstreams[1].repository_prefix: "/x" is not a valid beginning of a repository name; use lower case path components`,
			`dray.yaml:6: upstreams[1].hosts[0]: "H:1" is not a host name; write it in lower case, with :port if it is not the default port`,
			`dray.yaml:8: upstreams[1].address: "here" is not host:port`,
			`dray.yaml:9: upstreams[1].role_arn: "nobody" is not an ARN`,
			"dray.yaml:9: upstreams[1].role_arn: is only for upstreams of kind ecr or ecr-public",
			"dray.yaml:11: upstreams[1].api_url: is only for upstreams of kind ecr or ecr-public",
			`dray.yaml:13: upstreams[2].url: remove /v2, which dray adds, from the path; what follows it is a repository_prefix`,
			"dray.yaml:15: upstreams[2].credentials: password_file and password_env are both set; remove one",
			"dray.yaml:16: upstreams[2].tags.stale: 1h is less than fresh, 2h",
			"dray.yaml:23: upstreams[3].credentials: an upstream of kind ecr gets its credentials from the AWS SDK; remove this section",
			`dray.yaml:18: upstreams[3].url: "127.0.0.1:1" is not the name of an Amazon ECR registry, <account>.dkr.ecr.<region>.amazonaws.com; to connect to another host, set address`,
			`dray.yaml:22: upstreams[3].api_url: is not the URL of an API; write https:// and the name of its host`,
			`dray.yaml:21: upstreams[3].role_arn: "nobody" is not an ARN`,
			`dray.yaml:24: upstreams[3].create_repositories.tag_mutability: "SOMETIMES" is not one of MUTABLE, IMMUTABLE`,
			"dray.yaml:24: upstreams[3].create_repositories.kms_key: needs encryption: KMS or KMS_DSSE",
			"dray.yaml:24: upstreams[3].create_repositories.names[1]: error parsing regexp: missing closing ): `(`",
			`dray.yaml:3: upstreams[1].name: name "a" is already used by upstreams[0]`,
			`dray.yaml:14: upstreams[2].prefixes[0]: prefix "fine" is already used by upstreams[1]`,
			"dray.yaml:15: upstreams[2].credentials.password_file: open /f: no such file or directory"}},
		{name: "hosted", file: `upstreams:
- {kind: local}
- name: a/b
  kind: local
  url: https://h.example.com
  repository_prefix: x
  local: {max_bytes: 60GiB, prune: [{repositories: [A], tags: ["a:b"], keep: -1}, {group: "-"}]}
- name: q:1
  url: https://q.example.com
  push: true
  local: {unused: 1h}
  build_cache: {to: a/b}
- {name: r, url: "https://r.example.com", build_cache: {to: a/b}}
- {name: s, url: "https://s.example.com", push: true, build_cache: {to: q}}
- {name: t, url: "https://t.example.com", push: true, build_cache: {write_back: async}}
`, want: []string{
			"dray.yaml:2: upstreams[0].name: is missing",
			`dray.yaml:3: upstreams[1].name: "a/b" is not a valid name for kind local, where it is also the name of a directory; use at most 64 lower case letters and digits, with single dots, dashes or underscores between them`,
			"dray.yaml:3: upstreams[1]: address, repository_prefix and credentials have no effect for kind local, which has no registry; remove them",
			"dray.yaml:5: upstreams[1].url: has no effect for kind local, which has no registry; remove it",
			"dray.yaml:7: upstreams[1].local.max_bytes: the upstreams of kind local use 70GiB together, which leaves no room for other content in cache.max_bytes, 50GiB; lower their quotas, or raise cache.max_bytes",
			"dray.yaml:7: upstreams[1].local.prune[0].keep: -1 is negative",
			`dray.yaml:7: upstreams[1].local.prune[0].repositories[0]: "A" matches no repository: names are lower case and do not begin with a slash`,
			`dray.yaml:7: upstreams[1].local.prune[0].tags[0]: "a:b" matches no tag`,
			"dray.yaml:7: upstreams[1].local.prune[1].group: needs keep",
			`dray.yaml:8: upstreams[2].name: "q:1" is not a valid name with build_cache, where repository names begin with it; use lower case letters and digits, with single dots, dashes or underscores between them`,
			"dray.yaml:11: upstreams[2].local: is only for upstreams of kind local",
			"dray.yaml:13: upstreams[3].build_cache: is only for upstreams with push: true that are not of kind local",
			`dray.yaml:14: upstreams[4].build_cache.to: there is no upstream of kind local named "q"; known names: a/b`,
			"dray.yaml:15: upstreams[5].build_cache.to: is missing"}},
		{name: "auth", file: `auth:
- name: none
- name: both
  htpasswd: {file: /nowhere/htpasswd}
  token: {service: s}
- name: h
  htpasswd: {realm: r}
  rules:
  - {}
  - {users: ["*"], repositories: [/a, B], actions: [pull, erase]}
- name: t
  token: {realm: "tokens.example.com"}
- name: missing
`, want: []string{
			`dray.yaml:2: auth[0].name: "none" is not a valid name`, "dray.yaml:3: auth[1]: set exactly one of htpasswd and token",
			"dray.yaml:7: auth[2].htpasswd.file: is missing",
			"dray.yaml:9: auth[2].rules[0]: applies to nobody; set users, or anonymous: true",
			"dray.yaml:9: auth[2].rules[0].repositories: is missing; use * for all repositories",
			"dray.yaml:9: auth[2].rules[0].actions: is missing; list one or more of pull, push, delete, view, operate",
			`dray.yaml:10: auth[2].rules[1].repositories[0]: "/a" matches no repository: names are lower case and do not begin with a slash`,
			`dray.yaml:10: auth[2].rules[1].repositories[1]: "B" matches no repository: names are lower case and do not begin with a slash`,
			`dray.yaml:10: auth[2].rules[1].actions[1]: "erase" is not one of pull, push, delete, view, operate`,
			`dray.yaml:12: auth[3].token.realm: is not an http or https URL`,
			"dray.yaml:12: auth[3].token.service: is missing", "dray.yaml:12: auth[3].token.issuer: is missing",
			"dray.yaml:12: auth[3].token: set root_cert_bundle or jwks, so that dray can verify tokens",
			"dray.yaml:13: auth[4]: set exactly one of htpasswd and token"}},
		{name: "names", file: `listeners: [{name: "a b", upstreams: [Hub, quay.io]}]
upstreams: [{name: Hub, url: docker.io}, {url: quay.io}]
checks: [{name: a--b}]
auth: [{name: ` + strings.Repeat("a", 65) + `, htpasswd: {file: /dev/null}}]
`, want: []string{
			`dray.yaml:1: listeners[0].name: "a b" is not a valid name; use at most 64 lower case letters and digits, with single dots, colons, dashes or underscores between them`,
			`dray.yaml:2: upstreams[0].name: "Hub" is not a valid name; use at most 64 lower case letters and digits, with single dots, colons, dashes or underscores between them`,
			`dray.yaml:3: checks[0].name: "a--b" is not a valid name; use at most 64 lower case letters and digits, with single dots, colons, dashes or underscores between them`,
			`dray.yaml:4: auth[0].name: "` + strings.Repeat("a", 65) + `" is not a valid name; use at most 64 lower case letters and digits, with single dots, colons, dashes or underscores between them`}},
		{name: "the rest", file: `cache: {directory: "", stall_timeout: 0s, abandoned: {finish_from_percent: 101, grace: 0s}, scrub: {rate: 0}}
admin: {address: here}
metadata: {url: ""}
cloudwatch: {region: r, namespace: AWS/ECR, metric: "", interval: 10ms, max_series: -1, dimensions: all}
limits: {max_uploads_per_client: -1, upload_expiry: 0s, read_header_timeout: 0s, idle_timeout: 0s}
log: {format: xml}
`, want: []string{
			`dray.yaml:4: cloudwatch.dimensions: "all" is not one of none, repository, image`, `dray.yaml:6: log.format: "xml" is not one of text, json`,
			"dray.yaml:1: cache.directory: is missing", "dray.yaml:1: cache.stall_timeout: must be more than zero", "dray.yaml:1: cache.abandoned.finish_from_percent: 101 is not between 1 and 100",
			"dray.yaml:1: cache.abandoned.grace: must be more than zero", "dray.yaml:1: cache.scrub.rate: must be more than zero; to switch scrubbing off, set interval: 0", `dray.yaml:2: admin.address: "here" is not host:port`,
			"dray.yaml:4: cloudwatch.interval: 10ms is less than one second",
			`dray.yaml:4: cloudwatch.namespace: "AWS/ECR" is not a valid namespace; use 1 to 255 characters that do not begin with AWS/`,
			"dray.yaml:4: cloudwatch.metric: must have 1 to 255 characters", "dray.yaml:4: cloudwatch.max_series: -1 is negative",
			"dray.yaml:5: limits.max_uploads_per_client: -1 is negative", "dray.yaml:5: limits.upload_expiry: must be more than zero",
			"dray.yaml:5: limits.read_header_timeout: must be more than zero", "dray.yaml:5: limits.idle_timeout: must be more than zero"}},
		{name: "bucket", file: "bucket: {url: s3://shared, timeout: 2s}\ncache: {stall_timeout: 2s}\n", want: []string{
			"dray.yaml:1: bucket.timeout: 2s is not shorter than cache.stall_timeout, 2s, after which dray gives up waiting for bytes"}},
		{name: "environment", env: []string{"PORT=http", "DRAY_CACHE_MAX_BYTES=lots", "DRAY_LOG_ACCESS=maybe", "ECR_REGISTRY=https://u:p@h/x", "DRAY_ADMIN_ADDRESS=x",
			"TLS_CERTIFICATE=/nowhere/c", "TLS_PRIVATE_KEY=/nowhere/k", "DRAY_METADATA_PASSWORD=p"}, want: []string{
			`PORT: "http" is not a port from 1 to 65535`, `DRAY_CACHE_MAX_BYTES: "lots" is not a size; write one like 200GiB, 500MB or 4096`,
			"DRAY_LOG_ACCESS: must be true or false", "ECR_REGISTRY: upstreams[1].url: must not contain a user or a password",
			`ECR_REGISTRY: upstreams[1].url: "h" is not the name of an Amazon ECR registry, <account>.dkr.ecr.<region>.amazonaws.com; to connect to another host, set address`,
			`DRAY_ADMIN_ADDRESS: admin.address: "x" is not host:port`,
			"DRAY_METADATA_PASSWORD: metadata.password: needs url, because the bbolt file in the cache directory has no password",
			"listeners[0].tls: open /nowhere/c: no such file or directory; put a certificate there, or make one: dray cert --host NAME --out-cert /nowhere/c --out-key /nowhere/k"}},
		{name: "names of registries", file: "upstreams: [docker.io, 'https://u:p@ghcr.io', quay.io/team/v2]\nlisteners: [docker.io]\n", want: []string{
			"dray.yaml:1: upstreams[1].url: must not contain a user or a password",
			"dray.yaml:1: upstreams[2].url: remove /v2, which dray adds, from the path; what follows it is a repository_prefix",
			"dray.yaml:2: listeners[0]: must be a map of keys and values"}},
		{name: "waivers", file: "checks:\n- name: a\n  waivers:\n  - {reason: r}\n  - {path: 'usr/*', repositories: [team/*], reason: r}\n  - {stage: secrets}\n", want: []string{
			"dray.yaml:4: checks[0].waivers[0]: waives findings of every kind; set stage, rule or fingerprint",
			"dray.yaml:5: checks[0].waivers[1]: waives findings of every kind; set stage, rule or fingerprint",
			"dray.yaml:6: checks[0].waivers[2].reason: is missing; reports show it to users"}},
		{name: "secrets in URLs", file: "upstreams: [{url: 123456789012.dkr.ecr.eu-west-1.amazonaws.com, api_url: 'https://u:p@api.example.com'}]\nauth: [{name: t, token: {realm: 'ftp://u:p@h', service: s, issuer: i, jwks: /dev/null}}]\ntraces: {endpoint: 'http://h?token=p'}\nbucket: {url: 's3://u:p@b'}\n", want: []string{
			"dray.yaml:1: upstreams[0].api_url: is not the URL of an API; write https:// and the name of its host",
			"dray.yaml:2: auth[0].token.realm: is not an http or https URL",
			"dray.yaml:3: traces.endpoint: is not the URL of a collector; write http:// or https:// and its host, such as http://127.0.0.1:4318, and put credentials into headers_file",
			"dray.yaml:4: bucket.url: is not the URL of a bucket; write s3://NAME or s3://NAME/PREFIX"}},
		{name: "patterns of repositories", file: "upstreams:\n- url: quay.io\n  repositories: {allow: [/team/*, team/*], deny: [Team/*, '']}\n", want: []string{
			`dray.yaml:3: upstreams[0].repositories.allow[0]: "/team/*" matches no repository: names are lower case and do not begin with a slash`,
			`dray.yaml:3: upstreams[0].repositories.deny[0]: "Team/*" matches no repository: names are lower case and do not begin with a slash`,
			`dray.yaml:3: upstreams[0].repositories.deny[1]: "" matches no repository: names are lower case and do not begin with a slash`}},
		{name: "operators", file: "auth:\n- {name: a, htpasswd: {file: /dev/null}, rules: [{users: [me], repositories: ['*'], actions: [pull]}]}\n- {name: b, htpasswd: {file: /dev/null}, rules: [{anonymous: true, actions: [view, operate]}, {users: [me], actions: [view, pull]}]}\nadmin: {auth: a, health_address: ':6060'}\nlisteners: [{auth: b}]\n", want: []string{
			"dray.yaml:3: auth[1].rules[0].actions[1]: clients without credentials cannot get operate",
			"dray.yaml:3: auth[1].rules[1].repositories: is missing; use * for all repositories",
			"dray.yaml:4: admin.health_address: :6060 is already used by admin.address, where health and metrics are, too",
			"dray.yaml:4: admin.auth: no rule of auth entry a grants view or operate, so nobody could use the admin listener; add one, such as {users: [me], actions: [operate]}"}},
		{name: "operators that are not there", file: "admin: {auth: a, health_address: here, allow_anonymous: true}\n", want: []string{
			`dray.yaml:1: admin.health_address: "here" is not host:port`, `dray.yaml:1: admin.allow_anonymous: contradicts admin.auth and admin.token_file; remove it or them`, `dray.yaml:1: admin.auth: there is no auth entry named "a"`}},
		{name: "addresses", file: "listeners: [{address: ':6060'}]\n", want: []string{"admin.address: localhost:6060 is already used by listener :6060"}},
		{name: "quotas of hosted repositories", file: "cache: {max_bytes: 50GiB}\nupstreams:\n- {name: a, kind: local, local: {max_bytes: 30GiB}}\n- {name: b, kind: local, local: {max_bytes: 30GiB}}\n- {name: c, kind: local, local: {max_bytes: 5GiB}}\n", want: []string{
			"dray.yaml:4: upstreams[1].local.max_bytes: the upstreams of kind local use 65GiB together, which leaves no room for other content in cache.max_bytes, 50GiB; lower their quotas, or raise cache.max_bytes"}},
		{name: "addresses of all interfaces", file: "listeners: [{address: '0.0.0.0:6060'}, {address: '[::]:6061'}]\nadmin: {health_address: '127.0.0.1:6061'}\n", want: []string{
			"dray.yaml:2: admin.address: localhost:6060 is already used by listener 0.0.0.0:6060", "dray.yaml:2: admin.health_address: 127.0.0.1:6061 is already used by listener [::]:6061"}},
		{name: "files", file: "upstreams: [{url: ghcr.io, tls: {ca_file: /dev/null}, credentials: {username: u, password_env: NOT_SET}}]\nmetadata: {url: 'redis://h', password_file: /dev/null}\n", want: []string{
			"dray.yaml:1: upstreams[0].credentials.password_env: NOT_SET is not set", "dray.yaml:2: metadata.password_file: /dev/null is empty",
			"dray.yaml:1: upstreams[0].tls.ca_file: /dev/null contains no PEM certificate"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := ""
			if tc.file != "" {
				path = write(t, "dray.yaml", tc.file)
			}
			_, err := Load(path, tc.env)
			if err == nil {
				t.Fatal("no problem found")
			}
			if diff := cmp.Diff(sorted(tc.want), sorted(strings.Split(err.Error(), "\n"))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDerivedNames: an entry without a name gets the name of its host or address, even if the
// configuration could not set such a name.
func TestDerivedNames(t *testing.T) {
	long := "vpce-0123456789abcdef0-abcdefgh.dkr.ecr.eu-west-1.vpce.amazonaws.com"
	want := []string{"[::1]:5000", "xn--dckerx.example", long, "docker.io", "registry.example.com:5443"}
	c, err := Load(write(t, "dray.yaml", `listeners: [{address: ":7000"}, {address: "[::1]:7001"}]
upstreams: [{url: "http://[::1]:5000"}, {url: xn--dckerx.example}, {url: `+long+`}, {url: registry-1.docker.io}, {name: "registry.example.com:5443", url: q.example}]
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range c.Upstreams {
		got = append(got, u.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestRegistriesByName: a file can give a registry as one word. dray derives the kind and the names
// of the registry from this word.
func TestRegistriesByName(t *testing.T) {
	const file = "upstreams: [docker.io, ghcr.io, quay.io, registry.k8s.io, mcr.microsoft.com, public.ecr.aws, gcr.io, {url: registry.gitlab.com}]\n"
	c, err := Load(write(t, "dray.yaml", file), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got, order []string
	for _, u := range c.Upstreams {
		got = append(got, fmt.Sprint(u.Name, " ", u.Kind, " ", u.URL, " ", u.Hosts, u.DefaultNamespace))
		order = append(order, u.Name)
	}
	want := []string{
		"docker.io oci https://registry-1.docker.io [docker.io registry-1.docker.io index.docker.io registry.hub.docker.com]library",
		"ghcr.io oci https://ghcr.io [ghcr.io]", "quay.io oci https://quay.io [quay.io]", "registry.k8s.io oci https://registry.k8s.io [registry.k8s.io]",
		"mcr.microsoft.com oci https://mcr.microsoft.com [mcr.microsoft.com]", "public.ecr.aws ecr-public https://public.ecr.aws [public.ecr.aws]",
		"gcr.io oci https://gcr.io [gcr.io]", "registry.gitlab.com oci https://registry.gitlab.com [registry.gitlab.com]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(order, c.Listeners[0].Upstreams); diff != "" {
		t.Error(diff)
	}
	var entries []string
	for _, name := range order {
		entries = append(entries, "{url: "+name+"}")
	}
	long, err := Load(write(t, "dray.yaml", "upstreams: ["+strings.Join(entries, ", ")+"]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(long, c); diff != "" {
		t.Errorf("the short form differs from the long one: %s", diff)
	}
}

func TestMissingFileIsAProblem(t *testing.T) {
	_, err := Load("/nowhere/dray.yaml", []string{"PORT=0"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/dray.yaml") || !strings.Contains(err.Error(), "PORT") {
		t.Errorf("got %v", err)
	}
}

func TestProblemsAreTyped(t *testing.T) {
	_, err := Load(write(t, "dray.yaml", "log: {level: loud}"), nil)
	want := Problems{{Path: "log.level", Origin: "dray.yaml:1", Message: `"loud" is not one of debug, info, warn, error`}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyKeysAndFilesKeepDefaults(t *testing.T) {
	plain, _ := Load("", nil)
	for _, file := range []string{"# nothing\n", "cache:\nlog:\n  level:\n"} {
		cfg, err := Load(write(t, "dray.yaml", file), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(plain, cfg); diff != "" {
			t.Error(diff)
		}
	}
}

// TestLoadAgain: a running dray refuses an empty file, which somebody may be writing, and a pipe,
// because a read of it could wait forever. A file that has only comments gives the defaults.
func TestLoadAgain(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := syscall.Mkfifo(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                            "is empty",
		" \n\n":                       "is empty",
		"# the defaults\n":            "",
		"log: {level: debug}\n":       "",
		"admin: {token_file: PIPE}\n": "is a pipe",
		"upstreams: [{url: ghcr.io, credentials: {username: u, password_file: PIPE}}]\n": "is a pipe",
		"upstreams: [{url: ghcr.io, tls: {ca_file: PIPE}}]\n":                            "is a pipe",
		"listeners: [{tls: {certificate: PIPE, private_key: PIPE}}]\n":                   "is a pipe",
	} {
		_, err := LoadAgain(write(t, "dray.yaml", strings.ReplaceAll(text, "PIPE", secret)), nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadAgain(secret, nil); err == nil || !strings.Contains(err.Error(), "is a pipe") {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := Load(write(t, "dray.yaml", ""), nil); err != nil {
		t.Errorf("an empty file at the start: %v", err)
	}
}
