package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/cmd/dray/config"
	"dray/mirror/admin/api"
	"dray/upstream/ecr"
)

// Checks run at once, none longer than the bound, and their findings stay in order.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(context.Context) Finding { time.Sleep(2 * time.Second); return ok("slow") }
		obedient := func(ctx context.Context) Finding {
			<-ctx.Done()
			return failed("hint", "%v", ctx.Err())
		}
		deaf := func(context.Context) Finding { time.Sleep(time.Minute); return ok("too late") }
		began := time.Now()
		r := Run(t.Context(), []Check{{"a", "a.1", slow}, {"a", "a.2", slow}, {"b", "b.1", obedient}, {"b", "b.2", deaf}}, 3*time.Second)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("all checks took %s", took)
		}
		for i, want := range []string{"a.1 ok slow", "a.2 ok slow", "b.1 failed context deadline exceeded", "b.2 failed no result within 3s"} {
			if f := r.Findings[i]; f.ID+" "+string(f.Status)+" "+f.Text != want {
				t.Errorf("%+v, want %s", f, want)
			}
		}
		if r.Failures != 2 || r.Warnings != 0 {
			t.Errorf("%d failures, %d warnings", r.Failures, r.Warnings)
		}
		time.Sleep(time.Minute) // the deaf one ends
	})
}

// Each limit of this machine is judged by its number.
func TestMachine(t *testing.T) {
	cache := config.Cache{Directory: t.TempDir(), MemoryBytes: 64 << 20}
	for name, tc := range map[string]struct {
		got  Finding
		want Status
		text string
	}{
		"many files":       {openFiles(func() (int, error) { return 4096, nil }), OK, "4096"},
		"few files":        {openFiles(func() (int, error) { return 256, nil }), Warning, "256"},
		"files not known":  {openFiles(func() (int, error) { return 0, errors.New("no such call") }), Unknown, "no such call"},
		"no memory limit":  {memory(0, cache), OK, "nothing limits"},
		"enough memory":    {memory(1<<30, cache), OK, "1GiB"},
		"little memory":    {memory(100<<20, cache), Warning, "100MiB"},
		"no proxy":         {proxies([]string{"PATH=/bin", "HTTPS_PROXY="}), OK, "no proxy"},
		"a proxy":          {proxies([]string{"https_proxy=http://ann:secret@proxy.example:3128", "NO_PROXY=10.0.0.0/8"}), OK, "NO_PROXY=10.0.0.0/8, https_proxy=http://ann:xxxxx@proxy.example:3128"},
		"a proxy, no URL":  {proxies([]string{"HTTPS_PROXY=proxy.example:a:b"}), Failed, "HTTPS_PROXY"},
		"a proxy, a host":  {proxies([]string{"HTTPS_PROXY=ann:secret@proxy.example:3128"}), OK, "HTTPS_PROXY=http://ann:xxxxx@proxy.example:3128"},
		"a fast disk":      {syncFinding("/d", time.Millisecond), OK, "1ms"},
		"a slow disk":      {syncFinding("/d", time.Second), Warning, "1s"},
		"no directory yet": {syncTime(cache.Directory + "/none"), Unknown, "does not exist"},
		"room":             {room("/d", space{free: 2 << 30}, 1<<30), OK, "2GiB are free"},
		"no room":          {room("/d", space{free: 1 << 30}, 1<<30), Failed, "1GiB are free"},
		"no inodes":        {inodes("/d", space{files: 1000, freeFiles: 10}), Warning, "only 10 more"},
		"enough inodes":    {inodes("/d", space{files: 1e6, freeFiles: 1e6}), OK, "1000000 more"},
		"inodes as needed": {inodes("/d", space{}), OK, "no fixed number"},
		"a local disk":     {kind("/d", space{}), OK, "local disk"},
		"in memory":        {kind("/d", space{kind: "tmpfs"}), Warning, "tmpfs"},
		"on a network":     {kind("/d", space{kind: "NFS"}), Warning, "NFS"},
		"splice":           {sending(cache.Directory, func(*os.File) error { return nil }), OK, "by splice"},
		"no splice":        {sending(cache.Directory, func(*os.File) error { return errors.New("invalid argument") }), Warning, "invalid argument"},
		"splice not tried": {sending(cache.Directory+"/none", nil), Unknown, "was not tried"},
		"no notices":       {notices(nil), OK, "no notices"},
		"a notice":         {notices([]string{"One.", "Two."}), Warning, "One. Two."},
	} {
		if tc.got.Status != tc.want || !strings.Contains(tc.got.Text, tc.text) || strings.Contains(tc.got.Text, "secret") {
			t.Errorf("%s: %+v", name, tc.got)
		}
	}
}

// The state of a running dray is that of its checks.
func TestRunning(t *testing.T) {
	for state, want := range map[api.Status]Status{api.Ready: OK, api.Degraded: Warning, api.NotReady: Failed} {
		f := running(func(context.Context) (api.Readiness, error) {
			return api.Readiness{Status: state, Checks: []api.Result{{Name: "metadata", OK: new(false), Error: "refused"}}}, nil
		}).Run(t.Context())
		if f.Status != want || want != OK && !strings.Contains(f.Text, "metadata: refused") {
			t.Errorf("%s: %+v", state, f)
		}
	}
	if f := running(func(context.Context) (api.Readiness, error) { return api.Readiness{}, errors.New("nobody") }).Run(t.Context()); f.Status != Unknown {
		t.Errorf("%+v", f)
	}
}

// The way of the layers says what to do where something can be done.
func TestPath(t *testing.T) {
	for _, tc := range []struct {
		path       ecr.Path
		want       Status
		text, hint string
	}{
		{ecr.Path{Proxy: "proxy.example:3128"}, OK, "the proxy proxy.example:3128", ""},
		{ecr.Path{Region: "eu-west-1", Gateway: "nat-1", Table: "rtb-1"}, Warning, "nat-1", "for the route table rtb-1"},
		{ecr.Path{Region: "eu-west-1", Gateway: "nat-1", Table: "rtb-1", Elsewhere: true}, Warning, "nat-1", "from registries in eu-west-1"},
		{ecr.Path{Region: "eu-west-1", Table: "rtb-1", Elsewhere: true}, Warning, "no default route", "from registries in eu-west-1"},
	} {
		f := path(func(context.Context) (ecr.Path, error) { return tc.path, nil }).Run(t.Context())
		if f.Status != tc.want || !strings.Contains(f.Text, tc.text) || !strings.Contains(f.Hint, tc.hint) || tc.want == OK && f.Hint != "" {
			t.Errorf("%+v", f)
		}
	}
}

// A certificate near its end is a failure.
func TestCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for left, want := range map[time.Duration]Status{10 * 24 * time.Hour: Failed, 100 * 24 * time.Hour: OK} {
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left)}, &x509.Certificate{}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		o := Options{
			Load: func() (config.Config, error) {
				return config.Config{Listeners: []config.Listener{{Name: "main", TLS: config.ServerTLS{Certificate: file}}}, Cache: config.Cache{Directory: t.TempDir()}, Admin: config.Admin{Address: config.AdminOff}}, nil
			},
			Notices:    func(config.Config) []string { return nil },
			Registries: func(context.Context, config.Config, string) ([]Registry, error) { return nil, nil },
		}
		found := false
		for _, f := range o.Report(t.Context(), "", time.Minute).Findings {
			if f.ID == "listeners.certificates" {
				if found = true; f.Status != want {
					t.Errorf("%s left: %+v", left, f)
				}
			}
		}
		if !found {
			t.Error("the certificate was not looked at")
		}
	}
}

// TestBucketSettings: settings that a store does not know hide none that are missing, and the other
// way round.
func TestBucketSettings(t *testing.T) {
	for _, test := range []struct {
		missing, unsupported []string
		want                 Status
	}{
		{nil, nil, OK}, {[]string{"lifecycle"}, nil, Warning}, {nil, []string{"public access"}, Unknown}, {[]string{"lifecycle"}, []string{"public access"}, Warning},
	} {
		checks := bucket(func(context.Context) Bucket { return Bucket{Missing: test.missing, Unsupported: test.unsupported} })
		f := checks[1].Run(t.Context())
		if f.Status != test.want || (f.Hint == "") != (f.Status == OK) {
			t.Errorf("%+v: %+v", test, f)
		}
		for _, name := range append(test.missing, test.unsupported...) {
			if !strings.Contains(f.Text, name) {
				t.Errorf("%+v: %q does not name %q", test, f.Text, name)
			}
		}
	}
}
