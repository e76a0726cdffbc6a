package cache

import "slices"

// Readers of ranges can wait at many places of a blob at once. A demand says which bytes one reader
// waits for. If no worker fetches these bytes, an idle worker takes them, or an extra helper (see
// workers), which begins only if enough slots are free (see keep).

// grains is the number of grains in a piece. A grain that a reader waits for can be fetched alone.
const grains = 8

// [workers.demanded] is called when a reader has a new demand.
func (w *workers) demanded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.free) > 0 {
		w.serveDemands()
	}
}

// serveDemands starts extra helpers for the demands that no worker serves. If workers are idle, it
// wakes the idle workers instead. It needs mu.
func (w *workers) serveDemands() {
	demands, _ := w.waitedFor()
	for w.ctx.Err() == nil && w.free.firstIn(demands) >= 0 {
		if w.idle > 0 {
			w.wakeLocked()
			return
		}
		if w.refusal > noRefusal || !w.Slots.takeAbove(w.keep()) {
			return
		}
		p := w.take(demands)
		w.helpers++
		w.extras++
		w.team.Go(func() { w.help(roleExtra, p) })
	}
}

// waitedFor returns the demands that a worker may serve, and the offset of the first gap. While the
// leader's stream follows another fetch, it soon brings the leader's piece and the next piece. So
// meanwhile, waitedFor leaves out the demands that begin in or before these two pieces. waitedFor
// needs mu.
func (w *workers) waitedFor() (demands []span, mark int64) {
	demands, mark = w.g.waitedFor()
	if w.followed > 0 {
		demands = slices.DeleteFunc(demands, func(d span) bool { return d.from < w.followed+w.Piece })
	}
	return demands, mark
}

// [workers.keep] returns how many slots must stay free for other fetches when the next helper takes
// a slot. It needs mu.
func (w *workers) keep() int {
	if w.helpers < w.Streams-1 {
		return 0 // even with this helper, the fetch has at most Streams streams, which any fetch may have
	}
	return w.Streams - 1
}

// claim takes a piece for a worker of role r. It returns an empty piece if there is no piece for
// that role. Helpers prefer the pieces that readers wait for. But the hash needs the blob in order.
// If all workers fetched only for readers, most hashing would come at the end. So the leader
// prefers the next piece in order. While extra helpers serve the readers, the other helpers also
// prefer the next piece in order. When the hash lags, every second claim of the extra helpers takes
// the next piece in order. claim needs mu.
func (w *workers) claim(r role) (p span) {
	demands, mark := w.waitedFor()
	lags := w.g.lags()
	inOrder := len(w.free) > 0 && (lags || w.free[0].from < mark+int64(w.Streams)*windowPieces*w.Piece)
	first := r == roleLeader || w.extras > 0
	if r == roleExtra {
		if w.free.firstIn(demands) < 0 || w.helpers >= w.Streams && w.Slots.Free() < w.Streams-1 {
			return span{} // no reader needs this helper, or another fetch may need a slot to begin
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
		w.serveDemands() // other demands may still need a worker
	}
	return p
}

// take takes a part of a free piece for the oldest demand that no worker serves. The part begins
// with the grain where the demand begins, and ends where the piece ends. But if other demands wait,
// and no slot is free for them, the part ends with the grain where the oldest demand ends. take
// returns an empty piece if all demands are served. It needs mu.
func (w *workers) take(demands []span) span {
	first := w.free.firstIn(demands)
	if first < 0 {
		return span{}
	}
	d, grain := demands[first], max(w.Piece/grains, 1)
	i := w.free.find(d.from)
	p := span{max(w.free[i].from, d.from-d.from%grain), w.free[i].to}
	if w.refusal == noRefusal && w.Slots.Free() <= w.keep() && w.free.firstIn(demands[first+1:]) >= 0 {
		p.to = min(p.to, (d.to+grain-1)/grain*grain)
	}
	w.remove(i, p)
	return p
}

// remove removes p, which is a part of the free piece i, and counts it as being fetched. It needs
// mu.
func (w *workers) remove(i int, p span) {
	w.free = w.free.without(i, p)
	w.fetching++
}
