package member_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/fleet/fleettest"
	"dray/cmd/dray/config"
	"dray/cmd/dray/member"
)

// TestNew: a member keeps its ID in the state directory, and there is none without a Redis.
func TestNew(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(disk.Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := member.Options{
		Config: config.Config{
			State: config.State{Directory: dir}, Metadata: config.Metadata{URL: "redis://127.0.0.1:1"},
			Fleet: config.Fleet{Address: "127.0.0.1:0", Advertise: "127.0.0.1:0", SecretFile: secret},
		},
		Leases: &fleettest.Memory{}, Cache: cache.New(cache.Options{Disk: d}), Logger: slog.New(slog.DiscardHandler),
	}
	file := filepath.Join(dir, "fleet-id")
	var ids []string
	for _, text := range []string{"", "", "known\n"} { // at the first start the file is empty, as after a full disk
		if text != "" || len(ids) == 0 {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := member.New(o); err != nil || m == nil {
			t.Fatalf("got %v, %v", m, err)
		}
		id, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strings.TrimSpace(string(id)))
	}
	if len(ids[0]) < 20 || ids[1] != ids[0] || ids[2] != "known" {
		t.Errorf("the IDs are %q", ids)
	}
	o.Config.Metadata.URL = ""
	if m, err := member.New(o); m != nil || err != nil {
		t.Errorf("without a Redis: %v, %v", m, err)
	}
	o.Config.Metadata.URL, o.Config.Fleet.SecretFile = "redis://127.0.0.1:1", file
	if _, err := member.New(o); err == nil || strings.Contains(err.Error(), "known") {
		t.Errorf("a short secret: %v", err)
	}
}

// TestIdentity: what members compare of an upstream is where it is, and with whose rights dray asks
// it. A change of a password, of names, or of how dray behaves, is no difference.
func TestIdentity(t *testing.T) {
	hub := config.Upstream{Name: "hub", Kind: config.KindOCI, URL: "https://registry.example", RepositoryPrefix: "team", Credentials: config.Credentials{Username: "robot", Password: "secret"}}
	change := func(f func(*config.Upstream)) config.Upstream { u := hub; f(&u); return u }
	for name, c := range map[string]struct {
		upstream config.Upstream
		same     bool
	}{
		"name":        {change(func(u *config.Upstream) { u.Name = "other" }), true},
		"password":    {change(func(u *config.Upstream) { u.Credentials.Password = "another" }), true},
		"file":        {change(func(u *config.Upstream) { u.Credentials.PasswordFile = "/etc/password" }), true},
		"address":     {change(func(u *config.Upstream) { u.Address = "127.0.0.1:1" }), true},
		"push":        {change(func(u *config.Upstream) { u.Push = true }), true},
		"slashes":     {change(func(u *config.Upstream) { u.URL += "/"; u.RepositoryPrefix = "/team/" }), true},
		"url":         {change(func(u *config.Upstream) { u.URL = "https://registry.example/path" }), false},
		"kind":        {change(func(u *config.Upstream) { u.Kind = config.KindECRPublic }), false},
		"prefix":      {change(func(u *config.Upstream) { u.RepositoryPrefix = "other" }), false},
		"user":        {change(func(u *config.Upstream) { u.Credentials.Username = "other" }), false},
		"anonymous":   {change(func(u *config.Upstream) { u.Credentials = config.Credentials{} }), false},
		"AWS":         {change(func(u *config.Upstream) { u.Kind, u.Credentials = config.KindECR, config.Credentials{} }), false},
		"moved parts": {change(func(u *config.Upstream) { u.RepositoryPrefix, u.Credentials.Username = "", "teamrobot" }), false},
	} {
		if got := member.IdentityOf(c.upstream) == member.IdentityOf(hub); got != c.same {
			t.Errorf("%s: the same registry: %v", name, got)
		}
	}
	role := func(arn string) string {
		return member.IdentityOf(config.Upstream{Kind: config.KindECR, URL: "https://1.dkr.ecr.eu-west-1.amazonaws.com", RoleARN: arn})
	}
	if role("") == role("arn:aws:iam::1:role/a") || role("arn:aws:iam::1:role/b") == role("arn:aws:iam::1:role/a") {
		t.Error("roles do not differ")
	}
}
