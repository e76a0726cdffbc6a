package meta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

// fleetFacts returns the facts of a member in a store. The member has the upstreams, by name, and
// the secrets, of which the first one signs.
func fleetFacts(store meta.Store, upstreams map[string]string, secrets ...string) *meta.Shared {
	proof := func(secret string, message []byte) []byte {
		sum := sha256.Sum256(append([]byte(secret), message...))
		return sum[:]
	}
	return meta.NewShared(store, meta.SharedOptions{
		Identity: func(name string) string { return upstreams[name] },
		Names: func(identity string) (names []string) {
			for name, id := range upstreams {
				if id == identity {
					names = append(names, name)
				}
			}
			return names
		},
		All:  func() string { return fmt.Sprint(upstreams) },
		Sign: func(m []byte) []byte { return proof(secrets[0], m) },
		Verify: func(m, p []byte) bool {
			for _, s := range secrets {
				if bytes.Equal(proof(s, m), p) {
					return true
				}
			}
			return false
		},
	})
}

func TestSharedSuite(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return fleetFacts(memory(t), map[string]string{"lib": "registry", "library": "other"}, "s")
	}}.Run(t)
}

// facts are the facts that this test writes and reads, by one member.
type facts struct {
	*meta.Shared
	tags     *meta.Tags
	links    *meta.Visibility
	verdicts *meta.Verdicts
	bases    *meta.BaseImages
}

func factsOf(s *meta.Shared) facts {
	return facts{s, meta.NewTags(s, meta.Options{}), meta.NewVisibility(s, meta.Options{}), meta.NewVerdicts(s, meta.Options{}), meta.NewBaseImages(s, meta.Options{})}
}

var content = digest.FromString("content")

func (f facts) write(t *testing.T, upstream string) {
	t.Helper()
	err := errors.Join(
		set(t, f.tags, meta.TagKey{Upstream: upstream, Repo: "r", Tag: "t"}, meta.TagFact{Digest: content}, 0),
		f.links.Add(t.Context(), upstream, "r", meta.Link{Digest: content, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}),
		f.bases.Add(t.Context(), []digest.Digest{content}, meta.BaseName{Name: "base", Upstream: upstream, Seen: time.Now()}))
	if err != nil {
		t.Fatal(err)
	}
	f.verdicts.Remember(t.Context(), content, "check", "1", []byte(`"passed"`))
}

// has returns the types of facts that the member finds about an upstream.
func (f facts) has(t *testing.T, upstream string) string {
	t.Helper()
	var found []string
	note := func(what string, err error) {
		if err == nil {
			found = append(found, what)
		} else if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := f.tags.Get(t.Context(), meta.TagKey{Upstream: upstream, Repo: "r", Tag: "t"})
	note("tag", err)
	_, err = f.links.Get(t.Context(), upstream, "r", content)
	note("link", err)
	if _, ok := f.verdicts.Recall(t.Context(), content, "check", "1"); ok {
		note("verdict", nil)
	}
	names, err := f.bases.Named(t.Context(), []digest.Digest{content})
	if len(names) > 0 {
		note("base", err)
	}
	return strings.Join(found, " ")
}

// unproven is how many facts had no valid proof.
func (f facts) unproven() (n float64) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(f.Collectors()...)
	families, _ := metrics.Gather()
	for _, family := range families {
		for _, m := range family.Metric {
			n += m.Counter.GetValue()
		}
	}
	return n
}

// TestShared has members read what others have written. Those with the same registry share facts
// about it, whatever its name is. Those with another registry of the same name share none.
func TestShared(t *testing.T) {
	store := metatest.NewMemory()
	one := factsOf(fleetFacts(store, map[string]string{"hub": "docker.io", "own": ""}, "s"))
	same := factsOf(fleetFacts(store, map[string]string{"docker": "docker.io", "hub": "elsewhere"}, "s"))
	one.write(t, "hub")
	if got, want := one.has(t, "hub"), "tag link verdict base"; got != want {
		t.Errorf("its own facts: %s; want %s", got, want)
	}
	if got, want := same.has(t, "docker"), "tag link verdict"; got != want {
		t.Errorf("facts about the same registry: %s; want %s", got, want)
	}
	if got, want := same.has(t, "hub"), "verdict"; got != want { // which is about content, wherever it is
		t.Errorf("facts about another registry of this name: %s; want %s", got, want)
	}
	one.write(t, "own")
	if got, want := one.has(t, "own"), "verdict base"; got != want {
		t.Errorf("facts about an upstream of which nothing is shared: %s; want %s", got, want)
	}
	// Forgetting reaches the members that share the upstream, and no other.
	same.write(t, "hub")
	if err := errors.Join(same.links.Forget(t.Context(), "docker", "r", content), same.tags.Forget(t.Context(), "docker", "r", "t")); err != nil {
		t.Fatal(err)
	}
	if got, want := one.has(t, "hub"), "verdict base"; got != want {
		t.Errorf("after forgetting: %s; want %s", got, want)
	}
	if got, want := same.has(t, "hub"), "tag link verdict base"; got != want {
		t.Errorf("after forgetting at another registry: %s; want %s", got, want)
	}
}

// TestSharedScan lists facts. They have the names that this member gives to upstreams.
func TestSharedScan(t *testing.T) {
	store := metatest.NewMemory()
	factsOf(fleetFacts(store, map[string]string{"hub": "docker.io", "other": "elsewhere"}, "s")).write(t, "hub")
	factsOf(fleetFacts(store, map[string]string{"hub": "docker.io", "other": "elsewhere"}, "s")).write(t, "other")
	twice := factsOf(fleetFacts(store, map[string]string{"a": "docker.io", "b": "docker.io"}, "s"))
	for _, c := range []struct{ upstream, want string }{{"", "a a b b"}, {"a", "a a"}, {"hub", ""}} {
		var names []string
		for l, err := range twice.links.All(t.Context(), c.upstream) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, l.Upstream)
		}
		for l, err := range twice.tags.All(t.Context(), c.upstream) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, l.Upstream)
		}
		count := func(name string) int { return strings.Count(strings.Join(names, " ")+" ", name+" ") }
		if len(names) != len(strings.Fields(c.want)) || count("a") != strings.Count(c.want, "a") || count("b") != strings.Count(c.want, "b") {
			t.Errorf("facts about %q: %q; want %s", c.upstream, names, c.want)
		}
	}
}

// TestSharedForged has somebody who does not know the secret write to the store.
func TestSharedForged(t *testing.T) {
	upstreams := map[string]string{"hub": "docker.io"}
	for name, forge := range map[string]func(key string, value []byte) []byte{
		"no proof":       func(_ string, v []byte) []byte { return v[bytes.LastIndexByte(v, ' ')+1:] },
		"no value":       func(string, []byte) []byte { return nil },
		"another value":  func(_ string, v []byte) []byte { return bytes.Replace(v, []byte("blob"), []byte("manifest"), 1) },
		"another proof":  func(_ string, v []byte) []byte { return append(v[:20], bytes.ToUpper(v[20:])...) },
		"another secret": nil,
		"a later expiry": func(_ string, v []byte) []byte { return append([]byte("9"), v...) },
		"no expiry":      func(_ string, v []byte) []byte { return append([]byte("0"), v[bytes.IndexByte(v, ' '):]...) },
		"a short proof": func(_ string, v []byte) []byte {
			return fmt.Appendf(nil, "0  %s", v[bytes.LastIndexByte(v, ' ')+1:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := metatest.NewMemory()
			f := factsOf(fleetFacts(store, upstreams, "s"))
			if forge == nil {
				factsOf(fleetFacts(store, upstreams, "guessed")).write(t, "hub")
			} else {
				f.write(t, "hub")
				f.links.Forget(t.Context(), "hub", "r", content)
				f.links.Add(t.Context(), "hub", "r", meta.Link{Digest: content, LinkFact: meta.LinkFact{Kind: meta.KindBlob}})
			}
			forged := 0.0
			for e, err := range store.Scan(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				signed := strings.Contains(e.Key, "/link/") || forge == nil && (strings.Contains(e.Key, "/verdict/") || strings.Contains(e.Key, "/base/"))
				if !signed {
					continue
				}
				forged++
				if forge != nil {
					metatest.Put(t, store, e.Key, string(forge(e.Key, bytes.Clone(e.Value))), 0)
				}
			}
			want := "tag verdict base"
			if forge == nil {
				want = "tag"
			}
			if got := f.has(t, "hub"); got != want || f.unproven() != forged || forged == 0 {
				t.Errorf("found %s, and %v facts without a proof; want %s and %v", got, f.unproven(), want, forged)
			}
		})
	}
}

// TestSharedMoved has somebody copy a valid value to another key: that of another repository, and
// that of a verdict about other content.
func TestSharedMoved(t *testing.T) {
	store := metatest.NewMemory()
	f := factsOf(fleetFacts(store, map[string]string{"hub": "docker.io"}, "s"))
	f.write(t, "hub")
	other := digest.FromString("other")
	moved := 0
	for e, err := range store.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{
			strings.Replace(e.Key, "/docker.io/r/", "/docker.io/secret/", 1),
			strings.Replace(e.Key, "/verdict/"+content.String(), "/verdict/"+other.String(), 1),
		} {
			if to != e.Key && !strings.Contains(to, "/tag/") {
				metatest.Put(t, store, to, string(e.Value), 0)
				moved++
			}
		}
	}
	if _, err := f.links.Get(t.Context(), "hub", "secret", content); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("a link that was copied: %v", err)
	}
	if _, ok := f.verdicts.Recall(t.Context(), other, "check", "1"); ok {
		t.Error("a verdict that was copied is valid")
	}
	if f.unproven() != 2 || moved != 2 {
		t.Errorf("%v facts without a proof, of %d", f.unproven(), moved)
	}
}

// TestSharedReplayed has somebody put a value back after its time.
func TestSharedReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := metatest.NewMemory()
		s := fleetFacts(store, map[string]string{"hub": "docker.io"}, "s")
		links := meta.NewVisibility(s, meta.Options{TTL: time.Hour})
		if err := links.Add(t.Context(), "hub", "r", meta.Link{Digest: content, LinkFact: meta.LinkFact{Kind: meta.KindBlob}}); err != nil {
			t.Fatal(err)
		}
		var copied meta.Entry
		for e := range store.Scan(t.Context(), "") {
			copied = e
		}
		put := func() error {
			metatest.Put(t, store, copied.Key, string(copied.Value), 0)
			_, err := links.Get(t.Context(), "hub", "r", content)
			return err
		}
		time.Sleep(time.Hour - time.Second)
		if err := put(); err != nil {
			t.Errorf("before its time is over: %v", err)
		}
		time.Sleep(3 * time.Second)
		if err := put(); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("after its time is over: %v", err)
		}
	})
}

// TestSharedRotation replaces the secret as the documents say. Facts stay valid at each step, until
// the old secret is removed.
func TestSharedRotation(t *testing.T) {
	upstreams := map[string]string{"hub": "docker.io"}
	for _, c := range []struct {
		writer, reader string
		valid          bool
	}{
		{"old", "old new", true}, {"old new", "old", true}, {"old new", "new old", true}, {"new old", "old new", true},
		{"new old", "new", true}, {"new", "new old", true}, {"old new", "new", false},
	} {
		store := metatest.NewMemory()
		factsOf(fleetFacts(store, upstreams, strings.Fields(c.writer)...)).write(t, "hub")
		got := factsOf(fleetFacts(store, upstreams, strings.Fields(c.reader)...)).has(t, "hub")
		want := "tag link verdict base"
		if !c.valid {
			want = "tag"
		}
		if got != want {
			t.Errorf("written with %s, read with %s: %s", c.writer, c.reader, got)
		}
	}
}

// TestSharedErrors: a failure of the store is no missing fact.
func TestSharedErrors(t *testing.T) {
	store := metatest.NewMemory()
	s := fleetFacts(store, map[string]string{"hub": "docker.io"}, "s")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := meta.NewVisibility(s, meta.Options{}).Get(ctx, "hub", "r", content); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled read: %v", err)
	}
	store.Close()
	if _, err := meta.NewVisibility(s, meta.Options{}).Get(t.Context(), "hub", "r", content); !errors.Is(err, meta.ErrClosed) {
		t.Errorf("a closed store: %v", err)
	}
}
