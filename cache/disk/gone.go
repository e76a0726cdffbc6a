package disk

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Gone says why and when a blob left the directory.
type Gone struct {
	Why GoneBy
	At  time.Time
}

// GoneBy is what removed a blob.
type GoneBy string

// The reasons of a [Gone].
const (
	GoneEvicted GoneBy = "evicted" // to make room
	GoneRemoved GoneBy = "removed" // by an operator, or because nothing needs it any more
	GoneDamaged GoneBy = "damaged" // its bytes were wrong
)

// maxGone bounds the blobs that are remembered, at 64 bytes each.
const maxGone = 16 << 10

// departed remembers why blobs have left the directory, the last maxGone of them. It is guarded by
// account.mu.
type departed struct {
	why  map[uint64]Gone // by prefix: a collision gives a wrong reason, which costs nobody anything
	last []uint64        // a ring of prefixes
	next int
}

func (d *departed) add(prefix uint64, why GoneBy) {
	if d.why == nil {
		d.why = map[uint64]Gone{}
	}
	if _, known := d.why[prefix]; !known {
		if len(d.last) < maxGone {
			d.last = append(d.last, prefix)
		} else {
			delete(d.why, d.last[d.next])
			d.last[d.next] = prefix
			d.next = (d.next + 1) % maxGone
		}
	}
	d.why[prefix] = Gone{why, time.Now()}
}

// Gone says why a blob left the directory, if that is one of the last 16384 that have left it since
// it was opened.
func (a *account) Gone(dg digest.Digest) (Gone, bool) {
	if dg.Validate() != nil {
		return Gone{}, false
	}
	k := keyOf(dg)
	a.mu.RLock()
	defer a.mu.RUnlock()
	g, ok := a.departed.why[k.prefix()]
	return g, ok
}
