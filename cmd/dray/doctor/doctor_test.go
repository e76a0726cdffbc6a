package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/cmd/dray/config"
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
		"no notices":       {notices(nil), OK, "no notices"},
		"a notice":         {notices([]string{"One.", "Two."}), Warning, "One. Two."},
	} {
		if tc.got.Status != tc.want || !strings.Contains(tc.got.Text, tc.text) || strings.Contains(tc.got.Text, "secret") {
			t.Errorf("%s: %+v", name, tc.got)
		}
	}
}
