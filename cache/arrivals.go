package cache

import (
	"slices"
	"sort"
)

// span is the part [from, to) of a file.
type span struct{ from, to int64 }

// arrivals are the parts of a file that have been written.
type arrivals struct {
	written int64  // bytes from the beginning on without a gap
	beyond  []span // parts after the first gap, sorted, no two adjacent
}

// add adds a part. The new part must not overlap any part that was added before.
func (a *arrivals) add(from, to int64) {
	i := sort.Search(len(a.beyond), func(i int) bool { return a.beyond[i].from >= from })
	if i < len(a.beyond) && a.beyond[i].from == to { // closes the gap before the next part
		to = a.beyond[i].to
		a.beyond = slices.Replace(a.beyond, i, i+1)
	}
	switch {
	case from == a.written:
		a.written = to
	case i > 0 && a.beyond[i-1].to == from:
		a.beyond[i-1].to = to
	default:
		a.beyond = slices.Insert(a.beyond, i, span{from, to})
	}
}

// [arrivals.end] returns the end of the part that has the byte at the offset off, if this part lies
// after the first gap. In all other cases it returns the offset of the first gap.
func (a *arrivals) end(off int64) int64 {
	if i := sort.Search(len(a.beyond), func(i int) bool { return a.beyond[i].from > off }); i > 0 && off < a.beyond[i-1].to {
		return a.beyond[i-1].to
	}
	return a.written
}

// [arrivals.before] returns the parts up to the offset limit.
func (a *arrivals) before(limit int64) (all []span) {
	for _, p := range append([]span{{0, a.written}}, a.beyond...) {
		if p.to = min(p.to, limit); p.from < p.to {
			all = append(all, p)
		}
	}
	return all
}
