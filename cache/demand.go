package cache

import (
	"cmp"
	"slices"
)

// Readers of ranges can wait at many places of a blob at once. A demand says what one reader waits
// for. Each demand that no stream serves gets an extra helper, as long as there are slots.

// grains is the number of parts of a piece. If a reader waits for one of them, that part can be
// fetched without the others.
const grains = 8

// demanded is called by readers with a new demand.
func (w *workers) demanded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.free) > 0 {
		w.serveDemands()
	}
}

// serveDemands starts extra helpers for the demands that no worker serves, unless idle workers can
// serve them. It needs mu.
func (w *workers) serveDemands() {
	demands, _ := w.g.waitedFor()
	for w.ctx.Err() == nil && w.firstUnserved(demands) >= 0 {
		if w.idle > 0 {
			w.wakeLocked()
			return
		}
		if w.limited || !w.Slots.takeAbove(w.keep()) {
			return
		}
		p := w.take(demands)
		w.helpers++
		w.extras++
		w.team.Go(func() { w.help(roleExtra, p) })
	}
}

// keep returns how many slots must stay free for other fetches when the next helper takes one. It
// needs mu.
func (w *workers) keep() int {
	if w.helpers < w.Streams-1 {
		return 0 // this fetch has fewer streams than each fetch may have
	}
	return w.Streams - 1
}

// freeAt returns the index of the free piece with the byte at off, or -1. It needs mu.
func (w *workers) freeAt(off int64) int {
	i, found := slices.BinarySearchFunc(w.free, off, func(p span, off int64) int { return cmp.Compare(p.from, off) })
	if !found {
		i--
	}
	if i < 0 || off >= w.free[i].to {
		return -1
	}
	return i
}

// claim takes a piece for a worker, or returns an empty one if there is none for its role. Pieces
// that readers wait for come first. But the hash needs the blob in order. If all workers fetched
// only for readers, the hash would have much left to do at the end. So the leader fetches in order,
// and so do the helpers while extra helpers serve the readers. When the hash lags, extra helpers
// also fetch every other piece in order. claim needs mu.
func (w *workers) claim(r role) (p span) {
	demands, mark := w.g.waitedFor()
	lags := w.g.lags()
	inOrder := len(w.free) > 0 && (lags || w.free[0].from < mark+int64(w.Streams)*windowPieces*w.Piece)
	first := r == roleLeader || w.extras > 0
	if r == roleExtra {
		if w.firstUnserved(demands) < 0 || w.helpers >= w.Streams && w.Slots.Free() < w.Streams-1 {
			return span{} // no reader needs this helper, or another fetch has taken slots, and some must stay free for a third
		}
		w.turn = !w.turn
		first = w.turn && lags
	}
	if !inOrder || !first {
		p = w.take(demands)
	}
	if p == (span{}) && inOrder {
		p = w.free[0]
		w.remove(0, p)
	}
	if p != (span{}) {
		w.serveDemands() // there may be other demands, which wait for an idle worker
	}
	return p
}

// firstUnserved returns the index of the first demand that no worker serves, or -1. It needs mu.
func (w *workers) firstUnserved(demands []span) int {
	return slices.IndexFunc(demands, func(d span) bool { return w.freeAt(d.from) >= 0 })
}

// take takes the rest of a piece for the oldest demand that no worker serves. The rest begins with
// the grain where that demand begins. If other demands wait, and there is no slot to serve them, it
// also ends with the grain where that demand ends. take returns an empty piece if all demands are
// served. It needs mu.
func (w *workers) take(demands []span) span {
	first := w.firstUnserved(demands)
	if first < 0 {
		return span{}
	}
	d, grain := demands[first], max(w.Piece/grains, 1)
	i := w.freeAt(d.from)
	p := span{max(w.free[i].from, d.from-d.from%grain), w.free[i].to}
	if !w.limited && w.Slots.Free() <= w.keep() && w.firstUnserved(demands[first+1:]) >= 0 {
		p.to = min(p.to, (d.to+grain-1)/grain*grain)
	}
	w.remove(i, p)
	return p
}

// remove removes p, which is a part of the free piece i, and counts it as being fetched. It needs
// mu.
func (w *workers) remove(i int, p span) {
	var rest []span
	if from := w.free[i].from; from < p.from {
		rest = append(rest, span{from, p.from})
	}
	if to := w.free[i].to; p.to < to {
		rest = append(rest, span{p.to, to})
	}
	w.free = slices.Replace(w.free, i, i+1, rest...)
	w.fetching++
}
