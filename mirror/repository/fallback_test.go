package repository

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// Which places are asked, in which order, and whose error is the result.
func TestInTurn(t *testing.T) {
	down, busy := oci.ErrUnavailable.Because(upstream.ErrUnreachable), oci.ErrTooManyRequests.With("busy")
	missing, refused := error(oci.ErrManifestUnknown), error(oci.ErrDenied)
	for name, tc := range map[string]struct {
		answers  []error // of the upstream, and of the fallbacks b and c
		notFound string  // the fallbacks that are asked for what is missing
		lent     string  // the fallback that has lent the digest
		shut     string  // the fallback that may not be asked
		asked    string
		want     error
	}{
		"found":                               {[]error{nil, nil, nil}, "bc", "", "", "a", nil},
		"down":                                {[]error{down, nil, nil}, "", "", "", "ab", nil},
		"throttled":                           {[]error{busy, nil, nil}, "", "", "", "ab", nil},
		"late":                                {[]error{context.DeadlineExceeded, nil, nil}, "", "", "", "ab", nil},
		"missing":                             {[]error{missing, nil, nil}, "", "", "", "a", missing},
		"missing, second asked":               {[]error{missing, nil, nil}, "c", "", "", "ac", nil},
		"refused":                             {[]error{refused, nil, nil}, "bc", "", "", "a", refused},
		"down, then refused":                  {[]error{down, refused, nil}, "", "", "", "abc", nil},
		"down, then missing":                  {[]error{down, missing, missing}, "bc", "", "", "abca", down},
		"missing, then down":                  {[]error{missing, busy, missing}, "b", "", "", "abc", busy},
		"all down":                            {[]error{down, busy, busy}, "", "", "", "abc", down},
		"all missing":                         {[]error{missing, oci.ErrNameUnknown, oci.ErrNameUnknown}, "bc", "", "", "abc", missing},
		"down, first fallback shut":           {[]error{down, nil, nil}, "", "", "b", "ac", nil},
		"lent by the second":                  {[]error{missing, missing, nil}, "", "c", "", "c", nil},
		"lent, and down":                      {[]error{nil, missing, down}, "", "c", "", "ca", nil},
		"lent, and lost":                      {[]error{refused, nil, missing}, "", "c", "", "cab", nil},
		"lent by one that may not be asked":   {[]error{missing, nil, nil}, "", "c", "c", "a", missing},
		"lent, and nobody has it":             {[]error{missing, missing, missing}, "", "b", "", "ba", missing},
		"lent, and nobody has it or is there": {[]error{missing, missing, down}, "", "c", "", "cab", down},
	} {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
			f := newFixture(t)
			d := digest.FromString(name)
			f.Up.Name = "a"
			for i, name := range []string{"b", "c"} {
				to := (&Upstream{Name: name, Source: f.source, Lister: f.source, Sink: f.source, Deleter: f.source}).Reading(i == 1)
				f.Up.Fallbacks = append(f.Up.Fallbacks, Fallback{To: to, NotFound: strings.Contains(tc.notFound, name)})
				if tc.lent == name {
					Lend(t.Context(), Repo{Up: to, Name: f.Name, store: f.store}, f.Repo, digest.FromString("index"), []oci.Child{{Descriptor: oci.Descriptor{Digest: d}}})
				}
			}
			if err := f.Up.check(); err != nil {
				t.Fatal(err)
			}
			asked := ""
			err := InTurn(t.Context(), f.Repo, d, func(u *Upstream) bool { return u.Name != tc.shut }, func(r Repo) error {
				asked += r.Up.Name
				if r.Name != f.Name || r.Up.Name != "a" && r.Up.Sink != nil {
					t.Errorf("%s %s", r.Up.Name, r.Name)
				}
				return tc.answers[slices.Index([]string{"a", "b", "c"}, r.Up.Name)]
			})
			if asked != tc.asked || !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Errorf("%s were asked: %v, want %s: %v", asked, err, tc.asked, tc.want)
			}
		})
	}
}

// Lent content is remembered for one repository, and does not become visible. Once the upstream
// itself has it, it is no longer looked for at the fallback first.
func TestLend(t *testing.T) {
	f := newFixture(t)
	to := (&Upstream{Name: "b", Source: f.source, Lister: f.source}).Reading(true)
	f.Up.Fallbacks = []Fallback{{To: to}}
	lender, other := Repo{Up: to, Name: f.Name, store: f.store}, f.store.Repo(f.Up, "team/other")
	index, child, layer := digest.FromString("index"), digest.FromString("child"), digest.FromString("layer")
	Lend(t.Context(), lender, f.Repo, index, []oci.Child{{Descriptor: oci.Descriptor{Digest: child}, Manifest: true}})
	Lend(t.Context(), lender, f.Repo, child, []oci.Child{{Descriptor: oci.Descriptor{Digest: layer}}}) // child is known to be lent, its layer is not
	for _, d := range []digest.Digest{index, child, layer} {
		for _, r := range []Repo{f.Repo, lender, other} {
			if _, visible, err := r.visible(t.Context(), d); visible {
				t.Errorf("%s is visible in %s of %s: %v", d, r.Name, r.Up.Name, err)
			}
		}
		if first := Turns(t.Context(), f.Repo, d, nil)[0].Repo; first != lender {
			t.Errorf("%s is asked first for %s", first.Up.Name, d)
		}
		if first := Turns(t.Context(), other, d, nil)[0].Repo; first != other {
			t.Errorf("the other repository borrows %s", d)
		}
		f.confirmed(t.Context(), d, 1)
		if first := Turns(t.Context(), f.Repo, d, nil)[0].Repo; first != f.Repo {
			t.Errorf("%s is asked first for %s, which the upstream has", first.Up.Name, d)
		}
	}
}

// The facts of a fallback belong to it whatever name clients use. Content of pushes to it that are
// under way does not belong to what others read.
func TestReading(t *testing.T) {
	up := &Upstream{Name: "b", Yielding: &source{}, Source: &source{}, Fallbacks: []Fallback{{}}}
	last, before := up.Reading(true), up.Reading(false)
	if last.Name != "b" || last.ForPulls() != up.Source || before.ForPulls() != up.Yielding || up.ForPulls() != up.Yielding {
		t.Error("another source")
	}
	up.Fallbacks = nil
	if up.ForPulls() != up.Source || up.Yields() || !before.Yields() || last.Yields() {
		t.Error("an upstream without fallbacks yields, or one with fallbacks does not")
	}
}
