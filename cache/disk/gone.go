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

// GoneBy is the reason for which a blob left the directory.
type GoneBy string

// The reasons of a [Gone].
const (
	GoneEvicted GoneBy = "evicted" // to make room
	// GoneRemoved is for removal by an operator, for a blob that nothing needs any more, and for a
	// file that was missing or had a wrong length when it was opened.
	GoneRemoved GoneBy = "removed"
	GoneDamaged GoneBy = "damaged" // its bytes were wrong or could not be read
)

// maxGone bounds the number of blobs in departed. The record of one blob takes 64 bytes.
const maxGone = 16 << 10

// departed records why the last maxGone blobs have left the directory. It is guarded by account.mu.
type departed struct {
	why  map[uint64]Gone // by prefix; a collision gives a wrong reason, which does no harm
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

// Gone says why and when a blob left the directory. It returns false if the blob is not among the
// last 16384 blobs that left since the directory was opened.
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
