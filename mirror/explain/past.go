package explain

import (
	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/mirror/notify"
	"dray/mirror/past"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

const (
	// fewMisses bounds the number of misses in an explanation. manyMisses bounds the number in an
	// answer of [Explainer.Misses].
	fewMisses  = 5
	manyMisses = 1000
)

// remember adds dray's records about an image: its last pull, the last misses of the image and its
// parts, and the newest verdict on a push of it.
func (e *Explainer) remember(out *api.Explanation, r repository.Repo, ref oci.Reference) {
	out.LastPull = e.lastPull(r, ref.String(), out.Digest)
	parts := map[digest.Digest]bool{out.Digest: out.Digest != "", ref.Digest: ref.Digest != ""}
	for _, p := range out.Parts {
		parts[p.Digest] = p.Digest != ""
	}
	out.Misses = e.o.Past.Misses(fewMisses, func(m *api.Miss) bool {
		if m.Upstream != r.Up.Name || m.Repository != r.Name {
			return false
		}
		return m.Reference == ref.String() || parts[m.Digest] || parts[digest.Digest(m.Reference)]
	})
	out.Verdict = e.verdict(r, ref, out.Digest)
}

// lastPull returns the last pull of an image, by its tag or its digest, or nil. A pull under way
// counts, too.
func (e *Explainer) lastPull(r repository.Repo, reference string, d digest.Digest) (last *api.LastPull) {
	later := func(p api.LastPull) {
		if last == nil || p.At.After(last.At) {
			last = &p
		}
	}
	for _, name := range []string{reference, d.String()} {
		if p, ok := e.o.Past.LastPull(r.Up.Name, r.Name, name); ok {
			later(p)
		}
	}
	for _, p := range e.o.Live.Snapshot().Pulls {
		if p.Upstream == r.Up.Name && p.Repository == r.Name && (p.Reference == reference || d != "" && p.Digest == d.String()) {
			later(past.LastPull(p))
		}
	}
	return last
}

// verdict returns the newest verdict on a push of an image, or nil.
func (e *Explainer) verdict(r repository.Repo, ref oci.Reference, d digest.Digest) *api.Verdict {
	var found *pipeline.Report
	for _, v := range e.o.Reports() {
		switch {
		case v.Upstream != r.Up.Name || v.Repository != r.Name:
			continue
		case ref.Tag != "" && v.Tag != ref.Tag: // if no verdict has ref.Tag, the newest one on d counts
			if found == nil && v.Digest != "" && v.Digest == d {
				found = v
			}
			continue
		case ref.Tag == "" && v.Digest != ref.Digest:
			continue
		}
		found = v
		break
	}
	if v := found; v != nil {
		out := &api.Verdict{At: v.At.UTC(), Outcome: v.Outcome(), Checks: v.Checks, User: v.User, Tag: v.Tag, Digest: v.Digest}
		if !v.Pass {
			out.Message = v.Message("")
		}
		if v.ID != "" {
			out.Report = notify.ReportPath + v.ID
		}
		return out
	}
	return nil
}

// Misses returns the newest misses, at most as many as the parameter limit says. If id is not
// empty, it returns only misses of requests with this ID.
func (e *Explainer) Misses(limit int, id string) api.Misses {
	return e.o.Past.Misses(min(limit, manyMisses), func(m *api.Miss) bool { return id == "" || m.RequestID == id })
}
