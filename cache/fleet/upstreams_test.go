package fleet_test

import (
	"errors"
	"fmt"
	"testing"

	"dray/cache/fleet"
)

func upstreams(namesAndIdentities ...string) fleet.Upstreams {
	var all []fleet.Upstream
	for i := 0; i < len(namesAndIdentities); i += 2 {
		all = append(all, fleet.Upstream{Name: namesAndIdentities[i], Identity: namesAndIdentities[i+1]})
	}
	return fleet.NewUpstreams(all)
}

func TestDriftOf(t *testing.T) {
	a, b, c, old := fleet.Member{ID: "a"}, fleet.Member{ID: "b"}, fleet.Member{ID: "c"}, fleet.Member{ID: "d", Upstreams: "no list"}
	for _, v := range []struct {
		name    string
		a, b, c fleet.Upstreams
		want    string
	}{
		{"the same", upstreams("hub", "1", "ecr", "2"), upstreams("ecr", "2", "hub", "1"), upstreams("hub", "1", "ecr", "2"), "[]"},
		{"one has more", upstreams("hub", "1"), upstreams("hub", "1", "ecr", "2"), "", "[]"},
		{"another name", upstreams("hub", "1"), upstreams("docker", "2"), upstreams("x", "1"), "[]"},
		{"one differs", upstreams("hub", "1", "ecr", "2"), upstreams("hub", "1", "ecr", "3"), upstreams("ecr", "2"), "[ecr b]"},
		{"all differ", upstreams("hub", "1", "ecr", "2"), upstreams("hub", "2", "ecr", "1"), upstreams("ecr", "3"), "[hub b ecr b c]"},
	} {
		a.Upstreams, b.Upstreams, c.Upstreams = v.a, v.b, v.c
		var got []string
		for _, d := range fleet.DriftOf("a", []fleet.Member{a, b, c, old}) {
			got = append(got, d.Upstream)
			for _, m := range d.Members {
				got = append(got, m.ID)
			}
		}
		if fmt.Sprint(got) != v.want {
			t.Errorf("%s: got %v, want %s", v.name, got, v.want)
		}
	}
}

// TestUpstreams: members see each other's upstreams as they were at the last renewal.
func TestUpstreams(t *testing.T) {
	leases, now := lasting(), upstreams("hub", "1")
	a := start(t, leases, "a", func(o *fleet.Options) { o.Upstreams = func() fleet.Upstreams { return now } })
	b := start(t, leases, "b", nil)
	for _, now = range []fleet.Upstreams{upstreams("hub", "1"), upstreams("hub", "2"), upstreams()} {
		a.Renew(t.Context())
		b.Renew(t.Context())
		if own, seen := a.Live()[0].Upstreams, b.Live()[0].Upstreams; own != now || seen != now {
			t.Errorf("a says %s, b sees %s, want %s", own, seen, now)
		}
	}
	leases.Fail(errors.New("away"))
	now = upstreams("hub", "3")
	b.Renew(t.Context())
	if got := b.Live()[0].Upstreams; got != upstreams() {
		t.Errorf("without the store b sees %s", got)
	}
}
