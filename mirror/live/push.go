package live

import (
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
)

// push describes the uploads of a client to a repository, up to the manifest that the client pushes
// under a tag. Only the manifest says which image the blobs belong to. So concurrent uploads of one
// client to one repository are one push.
type push struct {
	entry
	digest digest.Digest
	// tagged is set when a manifest was pushed under a tag. After that, the next upload begins another
	// push.
	tagged bool
	blobs  int
	checks api.LiveChecks
	// received counts bytes from the client. forwarded counts bytes to the upstream: if dray sends a
	// blob again, the bytes of the earlier attempt no longer count.
	received, forwarded atomic.Int64
}

// push returns the push that a writing request belongs to, and counts the request there. reference
// names the manifest. It is empty if the request writes no manifest.
func (t *Table) push(o Owner, agent, reference string) *push {
	key, s := t.shardOf(&o)
	s.mu.Lock()
	p, gone := s.push(t, key, &o, agent, reference)
	if reference != "" {
		p.reference = text(reference)
	}
	p.begin(t)
	s.mu.Unlock()
	t.report(gone)
	return p
}

// push finds or makes a push. The caller holds mu.
func (s *shard) push(t *Table, key uint64, o *Owner, agent, reference string) (p *push, gone []Ended) {
	if all := s.of(key, o); all != nil {
		for _, p := range all.pushes {
			if !p.tagged || reference != "" && p.reference == reference {
				return p, nil
			}
		}
	}
	all, gone := s.owned(t, key, o)
	p = &push{entry: s.newEntry(t, agent)}
	all.pushes = append(all.pushes, p)
	return p, gone
}

// tell returns a push as the operators' API shows it. The caller holds the mutex of the shard.
func (o *owned) tell(p *push) api.LivePush {
	return api.LivePush{
		LiveEntry: o.common(&p.entry), Digest: p.digest.String(), Blobs: p.blobs, Checks: p.checks, Pushed: p.tagged,
		Received: p.received.Load(), Forwarded: p.forwarded.Load(),
	}
}
