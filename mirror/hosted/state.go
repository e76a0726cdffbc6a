package hosted

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// state is the content of a repository's file.
type state struct {
	manifests map[digest.Digest]*manifest
	tags      map[string]tag
}

// manifest is one manifest of a repository. Its fields never change, except for the time of the
// last use.
type manifest struct {
	mediaType string
	size      int64
	pushed    time.Time
	used      atomic.Int64 // last use in Unix seconds
	refs
}

// refs are the references of a manifest to other content. artifactType and annotations are for the
// list of the subject's referrers, and are set only if there is a subject.
type refs struct {
	blobs        []oci.Descriptor // blobs that the repository must have
	foreign      []digest.Digest  // the foreign layers among blobs; a client has pushed them
	manifests    []digest.Digest
	subject      digest.Digest
	artifactType string
	annotations  map[string]string
}

// tag is the manifest that a tag points to, and the time of the push.
type tag struct {
	Digest digest.Digest `json:"digest"`
	Pushed time.Time     `json:"pushed"`
}

func (m *manifest) lastUse() time.Time {
	if used := time.Unix(m.used.Load(), 0); used.After(m.pushed) {
		return used
	}
	return m.pushed
}

// notAfter returns the earlier of lastUse and now. lastUse is the time at which content was pushed
// or used. If it is in the future, a clock was ahead, and the content must not be kept longer
// because of that.
func notAfter(lastUse, now time.Time) time.Time {
	if lastUse.After(now) {
		return now
	}
	return lastUse
}

func (st *state) clone() *state {
	c := &state{manifests: maps.Clone(st.manifests), tags: maps.Clone(st.tags)}
	if c.manifests == nil {
		c.manifests = map[digest.Digest]*manifest{}
	}
	if c.tags == nil {
		c.tags = map[string]tag{}
	}
	return c
}

// has reports whether the state has the manifest d, with the media type and the foreign layers of
// m. The digest is not enough, because the media type and the foreign layers also decide which
// blobs a manifest needs. Under another media type, the same bytes name other blobs. A foreign
// layer is needed only after a client has pushed it.
func (st *state) has(d digest.Digest, m *manifest) bool {
	there := st.manifests[d]
	return there != nil && there.mediaType == m.mediaType && slices.Equal(there.foreign, m.foreign)
}

func (st *state) empty() bool { return len(st.manifests) == 0 && len(st.tags) == 0 }

// remove removes a manifest and its tags from a state that is not yet in use.
func (st *state) remove(d digest.Digest) {
	delete(st.manifests, d)
	maps.DeleteFunc(st.tags, func(_ string, t tag) bool { return t.Digest == d })
}

// record is the form of a state on disk.
type record struct {
	Version   int                              `json:"version"`
	Name      string                           `json:"name"`
	Manifests map[digest.Digest]manifestRecord `json:"manifests"`
	Tags      map[string]tag                   `json:"tags"`
}

type manifestRecord struct {
	MediaType string    `json:"mediaType"`
	Size      int64     `json:"size"`
	Pushed    time.Time `json:"pushed"`
	Used      int64     `json:"used"` // Unix seconds
	// Foreign are the foreign layers that were pushed.
	Foreign []digest.Digest `json:"foreign,omitempty"`
}

const recordVersion = 1

func (st *state) encode(name string) ([]byte, error) {
	r := record{Version: recordVersion, Name: name, Manifests: make(map[digest.Digest]manifestRecord, len(st.manifests)), Tags: st.tags}
	for d, m := range st.manifests {
		r.Manifests[d] = manifestRecord{m.mediaType, m.size, m.pushed, m.used.Load(), m.foreign}
	}
	return json.MarshalIndent(r, "", "\t")
}

// decode parses the file of the repository with the given name. It returns an error if the file is
// invalid or belongs to another repository.
func decode(name string, text []byte) (*state, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion || r.Name != name {
		return nil, fmt.Errorf("unexpected version %d or repository %.100q", r.Version, r.Name)
	}
	st := (&state{}).clone()
	now := time.Now()
	for d, m := range r.Manifests {
		if _, err := oci.ParseDigest(d.String()); err != nil {
			return nil, err
		}
		st.manifests[d] = &manifest{mediaType: m.MediaType, size: m.Size, pushed: notAfter(m.Pushed, now), refs: refs{foreign: m.Foreign}}
		st.manifests[d].used.Store(notAfter(time.Unix(m.Used, 0), now).Unix())
	}
	for name, t := range r.Tags {
		if ref, err := oci.ParseReference(name); err != nil || ref.Tag == "" {
			return nil, fmt.Errorf("tag %.100q", name)
		}
		if st.manifests[t.Digest] == nil {
			return nil, fmt.Errorf("tag %s points to a manifest that does not exist", name)
		}
		t.Pushed = notAfter(t.Pushed, now)
		st.tags[name] = t
	}
	return st, nil
}

// refsOf returns the references of a manifest. It includes a foreign layer with the digest d only
// if hasBlob(d) is true.
func refsOf(m *oci.Manifest, hasBlob func(digest.Digest) bool) refs {
	r := refs{}
	for _, c := range m.Children() {
		if c.Foreign() {
			if !hasBlob(c.Digest) {
				continue
			}
			r.foreign = append(r.foreign, c.Digest)
		}
		switch {
		case c.Manifest:
			r.manifests = append(r.manifests, c.Digest)
		default:
			r.blobs = append(r.blobs, c.Descriptor)
		}
	}
	if m.Subject != nil {
		d := m.Referrer()
		r.subject, r.artifactType, r.annotations = m.Subject.Digest, d.ArtifactType, d.Annotations
	}
	return r
}

// [manifest.with] returns the references of m. The parameter parsed is the parsed content of m. Of
// the foreign layers, the result includes only those that clients have pushed.
func (m *manifest) with(parsed *oci.Manifest) refs {
	foreign := m.foreign
	return refsOf(parsed, func(d digest.Digest) bool { return slices.Contains(foreign, d) })
}

// graph is a state with the referrers of each manifest.
type graph struct {
	st        *state
	referrers map[digest.Digest][]digest.Digest
}

func (st *state) graph() graph {
	referrers := map[digest.Digest][]digest.Digest{}
	for d, m := range st.manifests {
		if m.subject != "" {
			referrers[m.subject] = append(referrers[m.subject], d)
		}
	}
	return graph{st, referrers}
}

func (st *state) reachable(from map[digest.Digest]bool) map[digest.Digest]bool {
	return st.graph().reachable(from)
}

// reachable returns the given manifests and all manifests that can be reached from them. An index
// leads to its manifests, and a manifest leads to its referrers.
func (g graph) reachable(from map[digest.Digest]bool) map[digest.Digest]bool {
	live := map[digest.Digest]bool{}
	var todo []digest.Digest
	for d := range from {
		todo = append(todo, d)
	}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m := g.st.manifests[d]
		if m == nil || live[d] {
			continue
		}
		live[d] = true
		todo = append(append(todo, m.manifests...), g.referrers[d]...)
	}
	return live
}

// rewind corrects times of last use that lie in the future, which come from a clock that was ahead.
// It replaces them by the current time, the parameter now.
func (st *state) rewind(now time.Time) {
	for _, m := range st.manifests {
		if used := m.used.Load(); used > now.Unix() {
			m.used.CompareAndSwap(used, now.Unix())
		}
	}
}

// newestFirst sorts tags by the time of their push, the newest first.
func (st *state) newestFirst(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(st.tags[b].Pushed.Compare(st.tags[a].Pushed), cmp.Compare(b, a))
	})
	return names
}
