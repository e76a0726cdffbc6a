package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSixVariablesAlone(t *testing.T) {
	cert, key := keyPair(t, "localhost")
	cfg, err := Load("", []string{"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key, "ECR_REGISTRY=" + testRegistry,
		"REGISTRY=registry.example.com:8443", "PORT=8443", "REGION=eu-central-1", "DRAY_LOG_LEVEL="})
	if err != nil {
		t.Fatal(err)
	}
	want := []Listener{{
		Name: ":8443", Address: ":8443", Role: RoleRegistry, Upstreams: []string{"ecr", "docker.io"}, Auth: "none", Send: SendSplice,
		TLS: ServerTLS{Certificate: cert, PrivateKey: key}, ExternalURL: "https://registry.example.com:8443",
	}}
	if diff := cmp.Diff(want, cfg.Listeners); diff != "" {
		t.Error("listeners", diff)
	}
	ecr := cfg.Upstreams[1]
	wantECR := Upstream{
		Name: "ecr", URL: "https://" + testRegistry, Kind: KindECR, Hosts: []string{testRegistry}, Push: true,
		CreateRepositories: CreateRepositories{Mode: CreateAll, TagMutability: "MUTABLE", Encryption: "AES256"},
		Tags:               Tags{Fresh: Duration(time.Minute), Revalidate: Duration(time.Minute), Stale: Duration(24 * time.Hour), NotFound: Duration(10 * time.Second)},
		ParallelFill:       ParallelFill{Threshold: 32 << 20, Piece: 8 << 20, Streams: 4, Connections: 16},
		Prefetch:           Prefetch{Enabled: true, MaxLayer: 8 << 20, Streams: 16},
		KeepAlive:          Duration(24 * time.Hour),
		Limits:             UpstreamLimits{Concurrency: 256, Queue: 1000, Wait: Duration(20 * time.Second), QuotaReserve: 20},
	}
	if diff := cmp.Diff(wantECR, ecr); diff != "" {
		t.Error("upstream", diff)
	}
	if cfg.CloudWatch.Region != "eu-central-1" || cfg.CloudWatch.Namespace != "Custom/ecr_reverse_proxy" || cfg.CloudWatch.Metric != "ECRImagePulls" {
		t.Errorf("cloudwatch %+v", cfg.CloudWatch)
	}
	wantNotices := []string{
		"listener :8443: dray refuses pushes from other machines until you configure auth or set allow_anonymous_push: true.",
		"listener :8443: the certificate is for localhost, not for registry.example.com, the name in external_url (REGISTRY). Clients will not trust it.",
		"listener :8443: every client that can connect to :8443 can pull, without a password, all images that dray's credentials can read from ecr.",
	}
	if diff := cmp.Diff(wantNotices, cfg.Notices()); diff != "" {
		t.Error("notices", diff)
	}
	if !cfg.Listeners[0].PushLocalOnly() {
		t.Error("pushes from other machines must not be accepted")
	}
}

func TestAddressOfFirstListener(t *testing.T) {
	cert, key := keyPair(t, "localhost")
	tls := []string{"TLS_CERTIFICATE=" + cert, "TLS_PRIVATE_KEY=" + key}
	for _, tc := range []struct {
		name string
		env  []string
		file string
		want string
	}{
		{name: "nothing", want: "127.0.0.1:5000"},
		{name: "port alone stays on this machine", env: []string{"PORT=7000"}, want: "127.0.0.1:7000"},
		{name: "certificate", env: tls, want: ":5000"},
		{name: "certificate and port", env: append([]string{"PORT=443"}, tls...), want: ":443"},
		{name: "address", env: []string{"DRAY_ADDRESS=0.0.0.0:80"}, want: "0.0.0.0:80"},
		{name: "address and port", env: []string{"DRAY_ADDRESS=10.0.0.1:80", "PORT=81"}, want: "10.0.0.1:81"},
		{name: "file", file: "listeners: [{address: ':81'}]", want: ":81"},
		{name: "address without a port, and port", env: []string{"DRAY_ADDRESS=127.0.0.1", "PORT=81"}, want: "127.0.0.1:81"},
		{name: "IPv6 address without a port, and port", env: []string{"DRAY_ADDRESS=[::1]", "PORT=81"}, want: "[::1]:81"},
		{name: "port over file", file: "listeners: [{address: '[::1]:81'}]", env: []string{"PORT=82"}, want: "[::1]:82"},
		{name: "certificate keeps the address of the file", file: "listeners: [{address: '127.0.0.1:81'}]", env: tls, want: "127.0.0.1:81"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := ""
			if tc.file != "" {
				path = write(t, "dray.yaml", tc.file)
			}
			cfg, err := Load(path, tc.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Listeners[0].Address; got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestEnvironmentOverridesFile(t *testing.T) {
	path := write(t, "dray.yaml", `
listeners:
  - {name: front, upstreams: [hub, quay], external_url: "https://old.example.com"}
  - {name: back, address: "127.0.0.1:5001"}
upstreams:
  - {name: hub, url: docker.io, tags: {fresh: 0s}}
  - {name: quay, url: "https://quay.io", prefixes: [quay]}
cache: {directory: /var/cache/dray, max_bytes: 10GiB}
metadata: {url: "redis://:old@redis:6379"}
log: {level: warn, access: false}
`)
	cfg, err := Load(path, []string{"ECR_REGISTRY=" + testRegistry, "REGISTRY=https://new.example.com", "DRAY_CACHE_MAX_BYTES=1TiB",
		"DRAY_METADATA_URL=redis://other:6379/1", "DRAY_METADATA_PASSWORD=hush", "DRAY_LOG_LEVEL=debug", "DRAY_LOG_ACCESS=true",
		"DRAY_ALLOW_ANONYMOUS_PUSH=true", "DRAY_ADMIN_ADDRESS=off", "DRAY_ADMIN_ALLOW_ANONYMOUS=true", "DRAY_ECR_ADDRESS=127.0.0.1:4443"})
	if err != nil {
		t.Fatal(err)
	}
	front, back, ecr := cfg.Listeners[0], cfg.Listeners[1], cfg.Upstreams[2]
	if diff := cmp.Diff([]string{"ecr", "hub", "quay"}, front.Upstreams); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"hub", "quay", "ecr"}, back.Upstreams); diff != "" {
		t.Error(diff)
	}
	if front.ExternalURL != "https://new.example.com" || !front.AllowAnonymousPush || !cfg.Admin.AllowAnonymous || front.PushLocalOnly() || back.Role != RoleMirror {
		t.Errorf("listeners %+v %+v", front, back)
	}
	if ecr.Address != "127.0.0.1:4443" || ecr.Kind != KindECR || cfg.Upstreams[0].Tags.Fresh != 0 || cfg.Upstreams[0].Tags.NotFound == 0 {
		t.Errorf("upstreams %+v", cfg.Upstreams)
	}
	if cfg.Cache.Directory != "/var/cache/dray" || cfg.Cache.MaxBytes != 1<<40 || cfg.Metadata.URL.Reveal() != "redis://other:6379/1" ||
		cfg.Metadata.Password.Reveal() != "hush" || cfg.Log.Level != "debug" || !cfg.Log.Access || cfg.Admin.Address != "off" {
		t.Errorf("scalars %+v", cfg)
	}
}

func TestECRRegistryKeepsWhatTheFileSaysAboutIt(t *testing.T) {
	path := write(t, "dray.yaml", "upstreams: [{name: hub, url: docker.io}, {name: mine, url: 'https://"+testRegistry+"', push: true, repository_prefix: team}]")
	cfg, err := Load(path, []string{"ECR_REGISTRY=" + testRegistry})
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Upstreams) != 2 || cfg.Upstreams[1].RepositoryPrefix != "team" {
		t.Errorf("upstreams %+v", cfg.Upstreams)
	}
	if diff := cmp.Diff([]string{"mine", "hub"}, cfg.Listeners[0].Upstreams); diff != "" {
		t.Error(diff)
	}
}

// TestECRPublicAsTheRegistry: if plain names go to ECR Public, dray pulls without credentials. The
// notice says how to push to it, by a configuration that is valid.
func TestECRPublicAsTheRegistry(t *testing.T) {
	for _, name := range []string{"public.ecr.aws", "https://public.ecr.aws/", "ecr-public.aws.com"} {
		cfg, err := Load("", []string{"ECR_REGISTRY=" + name})
		if err != nil {
			t.Fatal(err)
		}
		u, l := cfg.Upstreams[1], cfg.Listeners[0]
		if u.Kind != KindECRPublic || u.Push || u.UsesAWS() || l.Upstreams[0] != u.Name || l.Role != RoleMirror {
			t.Errorf("%s: %+v, %+v", name, u, l)
		}
		notices := cfg.Notices()
		if len(notices) != 1 || !strings.HasPrefix(notices[0], "upstream ecr: dray pulls from ECR Public without credentials") {
			t.Fatalf("%s: %q", name, notices)
		}
		for _, want := range []string{"push: true", "credentials: {aws: true}", "us-east-1"} {
			if !strings.Contains(notices[0], want) {
				t.Errorf("%s is not in %s", want, notices[0])
			}
		}
	}
	path := write(t, "dray.yaml", "upstreams: [{url: public.ecr.aws, push: true, credentials: {aws: true}}]")
	cfg, err := Load(path, []string{"ECR_REGISTRY=public.ecr.aws"})
	if err != nil {
		t.Fatal(err)
	}
	if u, l := cfg.Upstreams[0], cfg.Listeners[0]; len(cfg.Upstreams) != 1 || !u.Push || !u.UsesAWS() || l.Role != RoleRegistry || len(cfg.Notices()) != 0 {
		t.Errorf("%+v, %+v, %q", u, l, cfg.Notices())
	}
}
