package past

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dray/mirror/admin/api"
)

func all(*api.Miss) bool { return true }

// TestBounds: however many misses there are and however long their texts, there are never more
// than the bounds allow, and the newest stay.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, of := range map[string]func(i int) api.Miss{
		"small": func(i int) api.Miss { return api.Miss{RequestID: fmt.Sprint(i)} },
		"large": func(i int) api.Miss {
			return api.Miss{
				RequestID: fmt.Sprint(i), Requester: api.Requester{Listener: long, Client: long, User: long, Agent: long}, Method: long, Kind: long,
				MissTarget: api.MissTarget{Upstream: long, Repository: long, InsteadOf: long, Reference: long, Digest: "sha256:0"}, Source: long, Error: long, Stale: long,
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := New()
			n := 3 * maxMisses
			for i := range n {
				p.Add(of(i), &Miss{})
			}
			held := len(p.misses) - p.first
			if held > maxMisses || p.bytes > maxBytes || cap(p.misses) > 4*maxMisses || name == "small" && held != maxBytes/(overhead+askedBytes+5) && held != maxMisses {
				t.Errorf("%d misses, %d bytes, room for %d", held, p.bytes, cap(p.misses))
			}
			sum := 0
			for _, e := range p.misses[p.first:] {
				sum += e.size
			}
			if sum != p.bytes {
				t.Errorf("%d bytes are counted, %d are there", p.bytes, sum)
			}
			got := p.Misses(2, all)
			if len(got.Items) != 2 || got.Items[0].RequestID != fmt.Sprint(n-1) || got.Items[1].RequestID != fmt.Sprint(n-2) || len(got.Items[0].Error) > maxError {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestSince: what is remembered is complete from the time that is stated.
func TestSince(t *testing.T) {
	p := New()
	began := time.Now()
	if got := p.Misses(10, all); got.Since.After(began) || len(got.Items) != 0 {
		t.Errorf("%+v", got)
	}
	for i := range maxMisses + 10 {
		p.Add(api.Miss{At: began.Add(time.Duration(i) * time.Second)}, nil)
	}
	if got := p.Misses(1, all); !got.Since.Equal(began.Add(9 * time.Second)) {
		t.Errorf("%v after the beginning", got.Since.Sub(began))
	}
	if got := p.Misses(maxMisses, func(m *api.Miss) bool { return m.At.Equal(began.Add(100 * time.Second)) }); len(got.Items) != 1 {
		t.Errorf("%+v", got.Items)
	}
}

// TestPulls: the last pull of a name counts, by tag and by digest, in its repository alone.
func TestPulls(t *testing.T) {
	p := New()
	pull := func(repo, tag, digest, client string) {
		p.Pulled(api.LivePull{LiveEntry: api.LiveEntry{Upstream: "hub", Repository: repo, Reference: tag, Client: client}, Digest: digest})
	}
	pull("app", "v1", "sha256:a", "one")
	pull("app", "v2", "sha256:a", "two")
	pull("app", "v1", "sha256:b", "three")
	pull("other", "v1", "sha256:a", "four")
	pull("app", "", "", "nobody")
	for reference, want := range map[string]string{"v1": "three", "v2": "two", "sha256:a": "two", "sha256:b": "three", "": "", "v3": ""} {
		got, ok := p.LastPull("hub", "app", reference)
		if got.Client != want || ok != (want != "") {
			t.Errorf("%q: %+v", reference, got)
		}
	}
	for i := range 2 * maxPulls {
		pull("many", fmt.Sprint(i), "", "one")
	}
	if n := p.pulls.Len(); n > maxPulls {
		t.Errorf("%d names", n)
	}
}

// TestNone: without a Past, nothing is remembered and nothing fails.
func TestNone(t *testing.T) {
	var p *Past
	p.Add(api.Miss{}, nil)
	p.Pulled(api.LivePull{})
	if _, ok := p.LastPull("", "", ""); ok || len(p.Misses(1, all).Items) != 0 {
		t.Error("it remembers")
	}
}
