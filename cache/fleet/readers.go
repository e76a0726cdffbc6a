package fleet

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

const (
	// maxFollowers bounds the members of this zone that read one blob from this member.
	maxFollowers = 8
	// maxStreams bounds the streams of one blob to one follower.
	maxStreams = 16
)

// readers are the members that read blobs from this member.
type readers struct {
	own  string        // the address of this member
	here func() string // returns the zone of this member

	mu  sync.Mutex                       // guards the field below; leaf lock
	all map[digest.Digest]map[reader]int // the number of streams of each reader, by blob
}

// reader is a member that reads a blob from this member.
type reader struct {
	address, zone string
}

// admit counts a stream to a follower of a blob, and returns the addresses of other followers. If
// ok is false, admit counts nothing, and the follower should read the blob from these addresses.
// This happens in these cases:
//   - The follower has found this member too slow (badSources has the address of this member), and
//     the follower's zone has another follower that is not in badSources.
//   - The follower already has maxStreams streams of the blob from here.
//   - The follower has no stream from here yet and is in another zone. Another member of that zone,
//     which is not in badSources, reads the blob from here.
//   - The follower has no stream from here yet and is in the zone of this member, which already
//     has maxFollowers followers there.
//
// badSources has the addresses of members that sent the blob to the follower too slowly, or not at
// all. If admit refuses the follower, it does not return these addresses.
func (r *readers) admit(d digest.Digest, who reader, badSources []string) (others []string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, here := r.all[d], r.here()
	var same []string // other followers in the zone of this follower
	var near []string // other followers in the zone of this member
	for other := range all {
		if other.address == who.address {
			continue
		}
		others = append(others, other.address)
		if slices.Contains(badSources, other.address) {
			continue
		}
		if other.zone == who.zone {
			same = append(same, other.address)
		}
		if other.zone == here {
			near = append(near, other.address)
		}
	}
	outside := who.zone != here
	switch slow := slices.Contains(badSources, r.own); {
	case slow && len(same) > 0:
		return same, false
	case all[who] > 0:
		ok = all[who] < maxStreams
	case outside:
		if ok = len(same) == 0; !ok {
			return same, false
		}
	default:
		ok = countIn(all, here) < maxFollowers
	}
	if !ok {
		return near, false
	}
	if all == nil {
		all = map[reader]int{}
		r.all[d] = all
	}
	all[who]++
	return others[:min(len(others), 2*maxFollowers)], true
}

// countIn returns how many readers are in a zone.
func countIn(all map[reader]int, zone string) (n int) {
	for r := range all {
		if r.zone == zone {
			n++
		}
	}
	return n
}

func (r *readers) dismiss(d digest.Digest, who reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all[d]
	if all[who]--; all[who] == 0 {
		delete(all, who)
	}
	if len(all) == 0 {
		delete(r.all, d)
	}
}

// followersOf returns how many members read a blob from this member.
func (r *readers) followersOf(d digest.Digest) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all[d])
}

// streams returns the number of streams to all readers.
func (r *readers) streams() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, blob := range r.all {
		for _, streams := range blob {
			n += streams
		}
	}
	return n
}
