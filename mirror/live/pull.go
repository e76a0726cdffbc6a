package live

import (
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

// Prefetch is the source of bytes that dray had begun to fetch before the client asked for them.
const Prefetch = "prefetch"

// sources are the possible sources of bytes: the values of the header X-Cache, Prefetch, and
// "other" for any other source.
var sources = [...]string{"memory", "disk", "flight", "origin", Prefetch, "member", "bucket", "cache", "stale", "updating", "direct", "other"}

// indexOf returns the index of a source in sources. An unknown source gets the index of "other".
func indexOf(source string) int {
	for i, s := range sources {
		if s == source {
			return i
		}
	}
	return len(sources) - 1
}

// Manifest is a manifest that a client asks for.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	// Size is in bytes.
	Size int64
	// Parse returns the parsed manifest, or nil if it cannot be parsed.
	Parse func() *oci.Manifest
}

// pull has the manifests and blobs of one image that a client asks for. The first manifest is the
// one that the client named: an index, or the manifest of an image. A pull without manifests has
// the blobs that belong to no known pull, such as layers of which a client fetches parts on demand.
type pull struct {
	entry
	// got is set when the client has asked for a manifest or blob by GET. HEAD requests alone are no
	// pull.
	got       bool
	digest    digest.Digest
	mediaType string
	size      int64
	manifests []asked
	loose     []uint64 // the blobs of a pull without manifests
	bytes     [len(sources)]atomic.Int64
}

// asked is a manifest that the client has asked for. A bit is set for each of its layers that the
// client has asked for.
type asked struct {
	*shape
	bits []uint64
}

// ask records that the client asks for a blob, and reports whether the manifest names it.
func (a asked) ask(id uint64) bool {
	if i := a.index(id); i >= 0 {
		a.bits[i/64] |= 1 << (i % 64)
		return true
	}
	return id == a.config
}

func (a asked) wasAsked(i int) bool { return a.bits[i/64]&(1<<(i%64)) != 0 }

func (p *pull) sum() (n int64) {
	for i := range p.bytes {
		n += p.bytes[i].Load()
	}
	return n
}

// knows reports whether the client has asked for the given manifest.
func (p *pull) knows(id uint64) bool {
	return slices.ContainsFunc(p.manifests, func(a asked) bool { return a.id == id })
}

// has reports whether a manifest belongs to the pull.
func (p *pull) has(id uint64) bool {
	return slices.ContainsFunc(p.manifests, func(a asked) bool { return a.id == id || a.names(id) })
}

// ask records that the client asks for a blob, and reports whether the blob belongs to the pull.
func (p *pull) ask(id uint64) (found bool) {
	for _, a := range p.manifests {
		found = a.ask(id) || found
	}
	return found
}

// pullOf returns the newest pull that a manifest belongs to, or nil.
func (o *owned) pullOf(id uint64) *pull {
	if o == nil {
		return nil
	}
	for _, p := range slices.Backward(o.pulls) {
		if p.has(id) {
			return p
		}
	}
	return nil
}

// manifest counts a request for the manifest m, and returns the pull that m belongs to.
func (t *Table) manifest(o Owner, agent, reference string, get bool, m *Manifest) *pull {
	id := t.id(m.Digest.String())
	key, s := t.shardOf(&o)
	s.mu.Lock()
	p := s.of(key, &o).pullOf(id)
	if p != nil && (p.knows(id) || len(p.manifests) == maxManifests) {
		p.name(id, reference)
		p.got = p.got || get
		p.begin(t)
		s.mu.Unlock()
		return p
	}
	s.mu.Unlock()
	shape := t.shapes.acquire(t, id, m.Parse)
	s.mu.Lock()
	p, gone := s.add(t, key, &o, agent, m, shape)
	p.name(id, reference)
	p.got = p.got || get
	p.begin(t)
	s.mu.Unlock()
	t.report(gone)
	return p
}

// add adds a manifest to its pull, or to a new one. The caller has acquired the shape. The method
// add keeps the shape in the pull, or releases it. The caller holds mu.
func (s *shard) add(t *Table, key uint64, o *Owner, agent string, m *Manifest, shape *shape) (p *pull, gone []Ended) {
	if p = s.of(key, o).pullOf(shape.id); p == nil {
		var all *owned
		all, gone = s.owned(t, key, o)
		p = &pull{entry: s.newEntry(t, agent), digest: digest.Digest(text(m.Digest.String())), mediaType: text(m.MediaType), size: m.Size}
		all.pulls = append(all.pulls, p)
	}
	if p.knows(shape.id) || len(p.manifests) == maxManifests { // another request was faster
		t.shapes.release(shape)
		return p, gone
	}
	p.manifests = append(p.manifests, asked{shape, make([]uint64, (len(shape.layers)+63)/64)})
	return p, gone
}

// name sets the reference of the pull if a request names the first manifest. A tag replaces a
// digest, and a digest never replaces a tag: some clients ask for the tag by HEAD, and then get the
// manifest by its digest.
func (p *pull) name(id uint64, reference string) {
	if p.manifests[0].id == id && (p.reference == "" || p.reference == p.digest.String() && reference != p.reference) {
		p.reference = text(reference)
	}
}

// blob counts a GET of a blob, and returns its pull.
func (t *Table) blob(o Owner, agent string, d digest.Digest) *pull {
	id := t.id(d.String())
	key, s := t.shardOf(&o)
	s.mu.Lock()
	p, gone := s.blob(t, key, &o, agent, id)
	p.got = true
	p.begin(t)
	s.mu.Unlock()
	t.report(gone)
	return p
}

// blob finds or makes the pull of a blob. The caller holds mu.
func (s *shard) blob(t *Table, key uint64, o *Owner, agent string, id uint64) (p *pull, gone []Ended) {
	if all := s.of(key, o); all != nil {
		for _, candidate := range slices.Backward(all.pulls) {
			if candidate.ask(id) {
				return candidate, nil
			}
			if len(candidate.manifests) == 0 {
				p = candidate
			}
		}
	}
	if p == nil {
		var all *owned
		all, gone = s.owned(t, key, o)
		p = &pull{entry: s.newEntry(t, agent)}
		all.pulls = append(all.pulls, p)
	}
	if len(p.loose) < maxLayers && !slices.Contains(p.loose, id) {
		p.loose = append(p.loose, id)
	}
	return p, gone
}

// layers returns how many layers the manifests name, and the number and the bytes of those that the
// client has asked for. A layer that several manifests name counts once. In a pull without
// manifests, each blob counts as a requested layer of 0 bytes. The caller holds the mutex of the
// shard.
func (p *pull) layers() (l api.LiveLayers) {
	l.Asked = len(p.loose)
	seen := map[uint64]bool{}
	for _, a := range p.manifests {
		for i, c := range a.layers {
			if seen[c.id] {
				continue
			}
			seen[c.id] = true
			l.Of++
			if a.wasAsked(i) {
				l.Asked++
				l.Bytes += c.size
			}
		}
	}
	return l
}

// told returns a pull as the operators' API shows it. The caller holds the mutex of the shard.
func (o *owned) told(p *pull) api.LivePull {
	out := api.LivePull{LiveEntry: o.common(&p.entry), Digest: p.digest.String(), MediaType: p.mediaType, Layers: p.layers(), Sources: map[string]int64{}}
	for i := range p.bytes {
		if n := p.bytes[i].Load(); n > 0 {
			out.Sources[sources[i]] = n
			out.Bytes += n
		}
	}
	return out
}

// [owned.ended] releases the shapes of a pull that is removed from the table. It returns the last
// state of the pull for OnPull, or nothing if the client sent only HEADs. The caller holds the
// mutex of the shard.
func (o *owned) ended(t *Table, p *pull) (ended []Ended) {
	if p.got && t.o.OnPull != nil {
		ended = []Ended{{o.told(p), p.size}}
	}
	for _, m := range p.manifests {
		t.shapes.release(m.shape)
	}
	return ended
}
