package fleet

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// position says how far a flight is from the registry. A member follows only a nearer member, so
// that no two members wait for each other.
type position struct {
	generation int64 // of the blob's lease
	hop        int   // 0 if the member has the lease or the whole blob, or fetches without others
}

// nearer reports whether p is nearer to the registry than q, or belongs to a newer generation of
// the blob's lease.
func (p position) nearer(q position) bool {
	return p.generation > q.generation || p.generation == q.generation && p.hop < q.hop
}

// positions has the positions of the flights that read from other members.
type positions struct {
	mu  sync.Mutex // guards the field below; leaf lock
	all map[digest.Digest]position
}

// [positions.follow] records the position of a flight.
func (p *positions) follow(d digest.Digest, at position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[d] = at
}

// unfollow removes a flight that does not read from other members any more.
func (p *positions) unfollow(d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, d)
}

// [positions.of] returns the position of a flight, and whether the flight reads from another
// member.
func (p *positions) of(d digest.Digest) (at position, follows bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, follows = p.all[d]
	return at, follows
}
