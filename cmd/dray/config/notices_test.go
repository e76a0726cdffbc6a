package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNoticesOfFiles: there are notices about the content of well-formed files.
func TestNoticesOfFiles(t *testing.T) {
	cert, key := keyPair(t, "dray.example.com", "*.internal.example.com", "10.0.0.7")
	covers := func(name string) []string {
		t.Helper()
		cfg, err := Load("", []string{"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key, "REGISTRY=" + name})
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Notices()
	}
	for _, name := range []string{"", "dray.example.com", "DRAY.example.com:5000", "https://a.internal.example.com", "10.0.0.7:444"} {
		if got := covers(name); len(got) > 0 {
			t.Errorf("REGISTRY=%s: %q", name, got)
		}
	}
	for name, host := range map[string]string{"mirror.example.com:5000": "mirror.example.com", "10.0.0.8": "10.0.0.8"} {
		want := []string{"listener :5000: the certificate is for dray.example.com, *.internal.example.com, 10.0.0.7, not for " + host +
			", the name in external_url (REGISTRY). Clients will not trust it."}
		if diff := cmp.Diff(want, covers(name)); diff != "" {
			t.Error(diff)
		}
	}

	cfg, err := Load(write(t, "dray.yaml", "listeners: [{name: main, trusted_proxies: ['::/0']}]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "listener main: trusted_proxies has ::/0, so every client can choose"; !strings.Contains(strings.Join(cfg.Notices(), "\n"), want) {
		t.Errorf("notices: %q", cfg.Notices())
	}

	for content, users := range map[string]bool{"": false, "\n# ci:secret\n  \n": false, "\nci:$2y$05$" + strings.Repeat("a", 53): true} {
		file := write(t, "htpasswd", content)
		cfg, err := Load(write(t, "dray.yaml", "listeners: [{auth: a}]\nauth: [{name: a, htpasswd: {file: "+file+"}}]"), nil)
		if err != nil {
			t.Fatal(err)
		}
		notices := strings.Join(cfg.Notices(), "\n")
		if strings.Contains(notices, "auth a: "+file+" has no users") == users {
			t.Errorf("%q: %s", content, notices)
		}
	}
}

func TestUnknownVariablesAreNamed(t *testing.T) {
	cfg, err := Load(write(t, "dray.yaml", "upstreams: [{url: ghcr.io, credentials: {username: u, password_env: DRAY_GHCR_PASSWORD}}]"), []string{"DRAY_GHCR_PASSWORD=x"})
	if err != nil {
		t.Fatal(err)
	}
	for variable, want := range map[string]string{
		"DRAY_LOG_LEVL=debug":     "DRAY_LOG_LEVL: dray does not read this variable; did you mean DRAY_LOG_LEVEL?",
		"DRAY_CACHE_MAXBYTES=1":   "DRAY_CACHE_MAXBYTES: dray does not read this variable; did you mean DRAY_CACHE_MAX_BYTES?",
		"DRAY_CACHE_DIR=/x":       "DRAY_CACHE_DIR: dray does not read this variable; did you mean DRAY_CACHE_DIRECTORY?",
		"DRAY_PORT=5001":          "DRAY_PORT: dray does not read this variable; did you mean PORT?",
		"DRAY_TLS_CERTIFICATE=/x": "DRAY_TLS_CERTIFICATE: dray does not read this variable; did you mean TLS_CERTIFICATE?",
		"DRAY_TEAM=a":             "DRAY_TEAM: dray does not read this variable; dray config reference lists the variables that it reads.",
		"DRAY_SERVICE_ACCOUNT=a":  "DRAY_SERVICE_ACCOUNT: dray does not read this variable; dray config reference lists the variables that it reads.",

		"DRAY_TEAM=": "", "PATH=/bin": "", "DRAYMAN=x": "", "DRAY_LOG_LEVEL=debug": "", "PORT=5001": "", "DRAY_GHCR_PASSWORD=x": "", "DRAY_TEST_CACHE=/x": "",
		// A Service called dray, with a port called https, and one called dray-admin.
		"DRAY_SERVICE_HOST=10.0.0.1": "", "DRAY_SERVICE_PORT=443": "", "DRAY_SERVICE_PORT_HTTPS=443": "", "DRAY_PORT=tcp://10.0.0.1:443": "",
		"DRAY_PORT_443_TCP=tcp://10.0.0.1:443": "", "DRAY_PORT_443_TCP_PROTO=tcp": "", "DRAY_PORT_443_TCP_PORT=443": "", "DRAY_PORT_443_TCP_ADDR=10.0.0.1": "",
		"DRAY_ADMIN_SERVICE_HOST=10.0.0.2": "", "DRAY_ADMIN_PORT=tcp://10.0.0.2:6060": "", "DRAY_ADMIN_PORT_6060_TCP_ADDR=10.0.0.2": "",
	} {
		if got := strings.Join(UnknownVariables([]string{variable}, cfg), "\n"); got != want {
			t.Errorf("%s\n got %q\nwant %q", variable, got, want)
		}
	}
}

// ofUser returns the notices if the test does not run as root.
func ofUser(notices ...string) []string {
	if os.Geteuid() == 0 {
		return nil
	}
	return notices
}

func TestContainerNotices(t *testing.T) {
	local, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := Load("", []string{"DRAY_ADDRESS=:5000"})
	if err != nil {
		t.Fatal(err)
	}
	inside := []string{"container=oci"}
	for _, c := range []struct {
		cfg     Config
		environ []string
		want    int
	}{{local, inside, 1}, {local, []string{"container="}, 0}, {local, nil, 0}, {public, inside, 0}} {
		got := c.cfg.ContainerNotices(c.environ)
		if len(got) != c.want || c.want > 0 && !strings.Contains(got[0], "Set DRAY_ADDRESS to :5000. Anyone") {
			t.Errorf("%v with %q: %q", c.cfg.Listeners[0].Address, c.environ, got)
		}
	}
	second := public
	second.Listeners = append(public.Listeners[:1:1], Listener{Name: "two", Address: "127.0.0.1:5001", Auth: "people"})
	if got := second.ContainerNotices(inside); len(got) != 1 || !strings.HasSuffix(got[0], "Set listeners[1].address to :5001.") {
		t.Errorf("a second listener with auth: %q", got)
	}
}

// TestDiskNotices: dray compares the size of the file system with max_bytes and min_free_bytes.
func TestDiskNotices(t *testing.T) {
	cfg := Config{Cache: Cache{Directory: filepath.Join(t.TempDir(), "not", "there"), MaxBytes: 50 << 30, MinFreeBytes: 1 << 30}}
	for total, want := range map[Bytes]string{
		40 << 20:  "has 40MiB, and cache.min_free_bytes (1GiB) leaves none of them to dray",
		1 << 30:   "has 1GiB, and cache.min_free_bytes (1GiB) leaves none of them to dray",
		20 << 30:  "has 20GiB, less than cache.max_bytes (50GiB)",
		50 << 30:  "",
		500 << 30: "",
	} {
		got := strings.Join(cfg.Cache.sizeNotices(total), "\n")
		if !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%v: %q", total, got)
		}
	}
	cfg.Cache.MinFreeBytes = 1 << 60
	if got := strings.Join(cfg.DiskNotices(), "\n"); !strings.Contains(got, cfg.Cache.Directory) {
		t.Errorf("the notice is %q", got)
	}
}

func TestNotices(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		want       []string
	}{
		{name: "skipped verification", file: "upstreams: [{url: ghcr.io, tls: {insecure_skip_verify: true}}]", want: []string{
			"upstream ghcr.io: insecure_skip_verify accepts any certificate. An attacker on the network can read credentials and change images."}},
		{name: "password over plain HTTP", file: "listeners: [{address: ':80', auth: a, upstreams: [docker.io], role: mirror, challenge: true}]\nauth: [{name: a, htpasswd: {file: /dev/null}}]", want: []string{
			"listener :80: clients send passwords and tokens to :80 over plain HTTP.",
			"listener :80: with challenge: true, Docker without the containerd image store sends the user's Docker Hub password to this mirror."}},
		{name: "a mirror that asks for no password", file: "listeners: [{address: '127.0.0.1:80', auth: a}]\nauth: [{name: a, htpasswd: {file: /dev/null}}]", want: []string{
			"listener 127.0.0.1:80: it has auth, but a mirror asks no client for its password, so Docker sends none after docker login. Set challenge: true if clients log in here, or give the mirror a listener without auth."}},
		{name: "a mirror that lets everybody in", file: "listeners: [{address: '127.0.0.1:80', auth: a}]\nauth: [{name: a, htpasswd: {file: /dev/null}, rules: [{anonymous: true, repositories: ['*'], actions: [pull]}]}]"},
		{name: "anonymous push", file: "listeners: [{address: '0.0.0.0:80', allow_anonymous_push: true}]\nupstreams: [{url: ghcr.io, push: true}]", want: []string{
			"listener 0.0.0.0:80: every client that can connect to 0.0.0.0:80 can push."}},
		{name: "push from this machine is no news on loopback", file: "listeners: [{address: '[::1]:80'}]\nupstreams: [{url: ghcr.io, push: true}]"},
		{name: "a recognised client is needed", file: "listeners: [{address: '127.0.0.1:80'},{address: ':81', auth: a}]\nupstreams: [{url: ghcr.io, push: true, credentials: {username: u, password_env: P}}]\nauth: [{name: a, htpasswd: {file: /dev/null}}]", want: []string{
			"listener :81: clients send passwords and tokens to :81 over plain HTTP."}},
		{name: "an anonymous rule exposes", file: "listeners: [{address: ':81', auth: a}]\nupstreams: [{url: 'http://r.example.com', push: true, credentials: {username: u, password_env: P}}]\nauth: [{name: a, htpasswd: {file: /dev/null}, rules: [{anonymous: true, repositories: ['*'], actions: [pull]}]}]", want: []string{
			"listener :81: clients send passwords and tokens to :81 over plain HTTP.",
			"listener :81: every client that can connect to :81 can pull, without a password, all images that dray's credentials can read from r.example.com.",
			"upstream r.example.com: dray sends credentials to http://r.example.com over plain HTTP."}},
		{name: "pushes beside other mirrors", file: "listeners: [{address: '[::1]:80'}]\nupstreams: [{url: ghcr.io, push: true}]\nmetadata: {url: 'redis://r:6379'}", want: []string{
			"metadata: mirrors that share facts do not share uploads. Set fleet, or let a load balancer send all requests of a client to the same mirror."}},
		{name: "pushes to a member of a fleet", file: "listeners: [{address: '[::1]:80'}]\nupstreams: [{url: ghcr.io, push: true}]\nmetadata: {url: 'redis://r:6379'}\nfleet: {address: '127.0.0.1:81', secret_file: /dev/null}"},
		{name: "pulls beside other mirrors", file: "listeners: [{address: '[::1]:80'}]\nupstreams: [{url: ghcr.io}]\nmetadata: {url: 'redis://r:6379'}"},
		{name: "admin and cloudwatch", file: "admin: {address: ':6060'}\ncloudwatch: {region: eu-west-1, dimensions: image}", want: []string{
			"admin: dray refuses everything but health and metrics to other machines that connect to :6060. Set admin.auth or admin.token_file to operate dray from there.",
			"cloudwatch: dray publishes a metric for each image, up to 100 at a time, and Amazon charges for each."}},
		{name: "admin without names", file: "admin: {address: ':6060', allow_anonymous: true}", want: []string{
			"admin: every client that can connect to :6060 can operate dray and take profiles."}},
		{name: "regions that dray does not know", file: "upstreams: [{url: 123456789012.dkr.ecr.us-eats-1.amazonaws.com}, {url: 123456789012.dkr-ecr.eu-central-2.on.aws}]\ncloudwatch: {region: moon-base-1}", want: []string{
			"upstream 123456789012.dkr.ecr.us-eats-1.amazonaws.com: this version of dray does not know the AWS region us-eats-1; did you mean us-east-1?",
			"cloudwatch: this version of dray does not know the AWS region moon-base-1. Look whether it exists."}},
		{name: "a fallback exposes", file: "listeners: [{address: ':81', upstreams: [ghcr.io]}]\nupstreams: [{url: ghcr.io, fallbacks: [own]}, {name: own, url: r.example.com, credentials: {username: u, password_env: P}}]", want: []string{
			"listener :81: every client that can connect to :81 can pull, without a password, all images that dray's credentials can read from own."}},
		{name: "programs that see what dray sees", file: "checks: [{name: c, exec: [{mode: enforce, command: [/bin/true]}, {command: [/bin/false]}]}]", want: ofUser(
			"checks c: dray does not run as root, so /bin/true runs as the user of dray. It sees none of dray's variables, but it can read dray's files, such as keys and passwords, and kill dray.")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			users := write(t, "htpasswd", "# builders\nci:$2y$05$"+strings.Repeat("a", 53)+"\n")
			cfg, err := Load(write(t, "dray.yaml", strings.ReplaceAll(tc.file, "/dev/null", users)), []string{"P=x"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, cfg.Notices()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An upstream that no host name selects says so. Otherwise it has the names of its registry.
func TestNoHosts(t *testing.T) {
	cfg, err := Load(write(t, "dray.yaml", "upstreams: [{name: a, url: r.example.com, hosts: [docker.io]}, {url: docker.io, hosts: []}]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if u := cfg.Upstreams[1]; len(u.Hosts) > 0 || u.PublicName() != "docker.io" {
		t.Errorf("%q, %s", u.Hosts, u.PublicName())
	}
	const want = `host "docker.io" is already used by upstreams[0]`
	if _, err := Load(write(t, "dray.yaml", "upstreams: [{name: a, url: r.example.com, hosts: [docker.io]}, docker.io]"), nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without hosts: []: %v", err)
	}
}
