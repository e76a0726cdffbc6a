package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"dray/upstream/auth"
)

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func TestBytes(t *testing.T) {
	for text, want := range map[string]struct {
		size    Bytes
		printed string
	}{
		"0": {0, "0"}, "4096": {4096, "4KiB"}, "200GiB": {200 << 30, "200GiB"}, "500MB": {500e6, "500MB"}, "1 TiB": {1 << 40, "1TiB"}, "7B": {7, "7"}, "3kB": {3000, "3kB"},
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want.size || b.String() != want.printed {
			t.Errorf("%q: got %d (%s), %v", text, int64(b), b, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1gib", "0x10", "9223372036854775808", "8388608TiB", "1 2", "+1"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, int64(b))
		}
	}
}

// A unit in the form of Kubernetes or of dd gets a hint.
func TestSizeHint(t *testing.T) {
	for text, want := range map[string]string{
		"100Gi": "did you mean 100GiB?", "100G": "did you mean 100GB?", "5 mib": "did you mean 5MiB?", "64k": "did you mean 64kB?", "64KB": "did you mean 64kB?", "2tb": "did you mean 2TB?",
		"lots": "write one like", "G": "write one like", "1.5G": "write one like", "-1G": "write one like", "1 G B": "write one like",
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want …%s…", text, err, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]struct {
		length  time.Duration
		printed string
	}{
		"0s": {0, "0s"}, "90s": {90 * time.Second, "1m30s"}, "10m": {10 * time.Minute, "10m"}, "7d": {7 * 24 * time.Hour, "168h"}, "1h30m": {90 * time.Minute, "1h30m"}, "20s": {20 * time.Second, "20s"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want.length || d.String() != want.printed {
			t.Errorf("%q: got %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "10", "-1s", "1w", "-1d", "1.5d", "99999999d"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %v", text, d)
		}
	}
}

// FuzzBytes: an accepted size is never negative and survives being printed.
func FuzzBytes(f *testing.F) {
	for _, seed := range []string{"200GiB", "1 kB", "9223372036854775807", "8EiB", "8388607TiB", " 5B "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b, again Bytes
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b || b < 0 {
			t.Errorf("%q: %d is printed as %q, which is %d, %v", text, int64(b), b, int64(again), err)
		}
	})
}

// FuzzDuration: an accepted duration is never negative and survives being printed.
func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"10m", "7d", "1h0m1s", "1.5h", "65535d", "2562047h47m16.854775807s", "1h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d || d < 0 {
			t.Errorf("%q: %d is printed as %q, which is %d, %v", text, int64(d), d, int64(again), err)
		}
	})
}

func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{"10.1.2.3/8": "10.0.0.0/8", "10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3": "10.1.2.3/32", "2001:db8::1": "2001:db8::1/128", "fd00::/8": "fd00::/8"} {
		var n Network
		if err := n.UnmarshalText([]byte(text)); err != nil || n.String() != want {
			t.Errorf("%q: got %v, %v", text, n, err)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	type holder struct {
		Password auth.Secret
		URL      SecretURL
	}
	h := holder{"hunter2", "redis://me:hunter2@redis:6379/0?password=hunter2"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "p", h.Password, "u", h.URL, "h", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "p", h.Password, "u", h.URL, "h", h)
	asJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(asJSON)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, h) + fmt.Sprintf(verb, h.Password) + fmt.Sprintf(verb, &h.URL)
	}
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(printed, secret) {
			t.Errorf("the secret is in %s", printed)
		}
	}
	if h.Password.Reveal() != "hunter2" || h.URL.String() != "redis://me:redacted@redis:6379/0?password=redacted" {
		t.Errorf("reveal %q, url %s", h.Password.Reveal(), h.URL)
	}
	if got := SecretURL("redis://:p%zz@h").String(); got != redacted {
		t.Errorf("a URL that cannot be parsed is printed as %q", got)
	}
}

// TestSecretURLOfService: of the URL of a service, only the scheme and the host are shown, because
// any other part can contain a token.
func TestSecretURLOfService(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        "",
		"https://events.example":                  "https://events.example",
		"https://events.example:8443/":            "https://events.example:8443/",
		"https://events.example/hook?token=S3CR":  "https://events.example/redacted",
		"https://events.example?any=S3CR":         "https://events.example/redacted",
		"https://events.example/services/T0/S3CR": "https://events.example/redacted",
		"https://S3CR@events.example/":            "https://events.example/redacted",
		"http://me:S3CR@events.example":           "http://events.example/redacted",
		"http://events.example/#S3CR":             "http://events.example/redacted",
		"events.example/a?token=S3CR":             redacted,
		"events.example:443/a?token=S3CR":         redacted,
		"HTTPS://events.example/a%zzS3CR":         redacted,
		"redis://:S3CR@h:6379/1?db=2":             "redis://:redacted@h:6379/1?db=2",
		"redis://h:6379/1?token=S3CR;b":           "redis://h:6379/1?redacted",
		"redis://h:6379/1#S3CR":                   "redis://h:6379/1#redacted",
	} {
		if got := SecretURL(text).String(); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// TestSecretsOfPrograms: arguments that look like secrets, and values of variables, are redacted.
func TestSecretsOfPrograms(t *testing.T) {
	for _, tc := range []struct{ command, want []string }{
		{[]string{"/usr/bin/trivy", "image", "--severity", "HIGH", "{layout}"}, nil},
		{[]string{"scan", "--token", "S3CR", "--input={layout}"}, []string{"scan", "--token", redacted, "--input={layout}"}},
		{[]string{"scan", "--registry-password=S3CR", "-v"}, []string{"scan", "--registry-password=" + redacted, "-v"}},
		{[]string{"env", "API_KEY=S3CR", "scan"}, []string{"env", "API_KEY=" + redacted, "scan"}},
		{[]string{"scan", "--server", "https://me:S3CR@scans.example/"}, []string{"scan", "--server", "https://scans.example/redacted"}},
		{[]string{"scan", "--server=https://scans.example/S3CR"}, []string{"scan", "--server=https://scans.example/redacted"}},
		{[]string{"scan", "--no-token", "--json"}, nil},
		{[]string{"scan", "-H", "Authorization: Bearer S3CR", "-u", "me:S3CR", "-p", "S3CR"}, []string{"scan", "-H", redacted, "-u", redacted, "-p", redacted}},
		{[]string{"scan", "--extra", "X-Api-Key: S3CR", "--header=Cookie: S3CR"}, []string{"scan", "--extra", "X-Api-Key: " + redacted, "--header=" + redacted}},
		{[]string{"scan", "sha256:abc", "{layout}:latest"}, nil},
		{[]string{"scan", "-pS3CR", "-ume:S3CR", "-HCookie: S3CR", "-v"}, []string{"scan", "-p" + redacted, "-u" + redacted, "-H" + redacted, "-v"}},
		{[]string{"scan", "-sSume:S3CR", "-sS", "-vHCookie: S3CR"}, []string{"scan", "-sSu" + redacted, "-sS", "-vH" + redacted}},
		{[]string{"scan", "-p=S3CR", "-sSfu", "me:S3CR", "-k"}, []string{"scan", "-p" + redacted, "-sSfu", redacted, "-k"}},
		{[]string{"scan", "--token", "-S3CR", "-u", "-me:S3CR", "-v"}, []string{"scan", "--token", redacted, "-u", redacted, "-v"}},
		{[]string{"run", "--env=API_TOKEN=S3CR", "--label=a=b"}, []string{"run", "--env=" + redacted, "--label=a=b"}},
	} {
		if tc.want == nil {
			tc.want = tc.command
		}
		c := Command(tc.command)
		if got := c.Redacted(); !slices.Equal(got, tc.want) {
			t.Errorf("%q is shown as %q", tc.command, got)
		}
		v := Variable("PASSWORD=S3CR")
		printed := fmt.Sprintf("%v %+v %#v %q %s %x %v %x", c, c, c, c, v, v, []Variable{v}, "S3CR")
		if strings.Contains(printed, "S3CR") || !strings.Contains(printed, "PASSWORD="+redacted) {
			t.Errorf("printed: %s", printed)
		}
	}
	if err := new(Variable).UnmarshalText([]byte("S3CR")); err == nil || strings.Contains(err.Error(), "S3CR") {
		t.Errorf("a variable without a name: %v", err)
	}
}
