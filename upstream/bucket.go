package upstream

import (
	"math"
	"time"

	"golang.org/x/time/rate"

	"dray/upstream/turns"
)

const (
	// minRate is the lowest rate, in requests per second, to which refusals can slow a bucket. For a
	// bucket with a ceiling above 400, the lowest rate is 1/400 of the ceiling. A bucket with a
	// ceiling below minRate is never slowed.
	minRate = 1
	// recovery is the time in which the rate rises by at least refusedRate (the rate at the last
	// refusal), if the registry refuses nothing meanwhile and accepts a request at least every second.
	// So a halved rate is back at refusedRate after half of this time. If a bucket has no ceiling, its
	// limit ends when the registry has refused nothing for 4*recovery.
	recovery = 15 * time.Second
	// probePause bounds the pause after a refusal without Retry-After.
	probePause = time.Second
	// fewRequests is a number of requests. If a bucket has sent fewer since the last refusal, a
	// new refusal does not halve its rate: other clients are using up the registry's limit, and only
	// waiting helps.
	fewRequests = 3
	// maxPause bounds the pause after a refusal, even if Retry-After asks for a longer pause.
	maxPause = time.Minute
)

// bucket queues and paces the requests to one host that count towards one ceiling. The
// Limiter's mutex guards it.
type bucket struct {
	name string
	pool *pool
	// The registry's ceiling, and the part of it that this process may use, both in requests per
	// second. Both are 0 if no ceiling is known.
	full, ceiling float64
	// allowed is the rate, in requests per second, to which refusals have lowered the bucket. It
	// equals full if no refusal has lowered it. The bucket sends at min(allowed, ceiling), or at
	// allowed if no ceiling is known. allowed and ceiling change independently.
	allowed float64
	// tokens limits the rate; nil while no limit is known.
	tokens     *rate.Limiter
	foreground turns.Queue // requests of clients
	background turns.Queue // requests of background work
	timer      *time.Timer

	// Nothing is sent before pausedUntil. refusals counts the refusals in a row, and lastError is the
	// text of the last refusal.
	pausedUntil time.Time
	refusals    int
	lastError   string
	// refusedAt is the time of the last refusal, or zero when the rate has recovered from that
	// refusal. Answers to requests that were sent before refusedAt are ignored. raisedAt is when the
	// rate last changed.
	refusedAt, raisedAt time.Time
	// refusedRate is the rate, in requests per second, at the last refusal that lowered allowed.
	// sentSince counts the requests sent since the last refusal of any kind.
	refusedRate float64
	sentSince   int

	// sent counts the requests sent in the second that began at secondStart. lastSent counts the
	// requests sent in the second before.
	secondStart    time.Time
	sent, lastSent int
}

// pool has the slots for requests in flight to one host, and the buckets that share the slots.
type pool struct {
	slots, taken int
	buckets      []*bucket
	next         int // index of the bucket that was last looked at
}

// hasSlot reports whether a request may take a slot. Background work leaves a quarter of the slots
// to clients.
func (p *pool) hasSlot(background bool) bool {
	if background {
		return p.taken < p.slots-p.slots/4
	}
	return p.taken < p.slots
}

// pump sends all requests that may be sent now. The buckets take turns, and requests of clients go
// first. For requests that wait for a token or for the end of a pause, pump sets timers that call
// resume.
func (p *pool) pump(now time.Time, resume func(*bucket)) {
	for _, background := range []bool{false, true} {
		for sent := true; sent; {
			sent = false
			for range p.buckets {
				p.next = (p.next + 1) % len(p.buckets)
				sent = p.hasSlot(background) && p.buckets[p.next].sendNext(now, background) || sent
			}
		}
	}
	for _, b := range p.buckets {
		b.schedule(now, resume)
	}
}

// sendNext sends the next request of a queue and returns true. It returns false without sending if
// the queue is empty, or if the bucket is paused or out of tokens.
func (b *bucket) sendNext(now time.Time, background bool) bool {
	q := &b.foreground
	if background {
		q = &b.background
	}
	if q.Size() == 0 || now.Before(b.pausedUntil) || b.tokens != nil && !b.tokens.AllowN(now, 1) {
		return false
	}
	b.pool.taken++
	if now.Sub(b.secondStart) >= time.Second {
		b.lastSent = 0
		if now.Sub(b.secondStart) < 2*time.Second {
			b.lastSent = b.sent
		}
		b.secondStart, b.sent = now, 0
	}
	b.sent++
	b.sentSince++
	q.Pop().Finish(nil)
	return true
}

// schedule sets the timer for requests that wait for the end of a pause or for a token. Requests
// that wait for a slot need no timer, because permit.release calls pump.
func (b *bucket) schedule(now time.Time, resume func(*bucket)) {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if b.foreground.Size()+b.background.Size() == 0 {
		return
	}
	if d := max(b.pausedUntil.Sub(now), b.tokenDelay(now, 1)); d > 0 {
		b.timer = time.AfterFunc(d, func() { resume(b) })
	}
}

// tokenDelay returns how long it takes until the bucket has n tokens; 0 if the bucket has no limit.
func (b *bucket) tokenDelay(now time.Time, n int) time.Duration {
	if b.tokens == nil {
		return 0
	}
	missing := float64(n) - b.tokens.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(missing / float64(b.tokens.Limit()) * float64(time.Second)))
}

// minWait returns the least time that a request would wait if it joined the queue now.
func (b *bucket) minWait(now time.Time, flow string, background bool) time.Duration {
	n := 1 + b.foreground.Ahead(flow)
	if background {
		n = 1 + b.foreground.Size() + b.background.Ahead(flow)
	}
	wait := b.tokenDelay(now, n)
	if b.ceiling > 0 && b.ceiling < b.allowed {
		// SetPart may raise b.ceiling to b.allowed within a second, so minWait assumes b.allowed.
		wait = time.Duration(float64(wait) * b.ceiling / b.allowed)
	}
	return max(b.pausedUntil.Sub(now), wait)
}

// [bucket.recent] returns how many requests were sent in this second or in the second before,
// whichever is more.
func (b *bucket) recent(now time.Time) int {
	switch since := now.Sub(b.secondStart); {
	case since < time.Second:
		return max(b.sent, b.lastSent)
	case since < 2*time.Second:
		return b.sent
	}
	return 0
}

// [bucket.refused] pauses the bucket after the registry has refused a request that was sent at
// sentAt. It does nothing if the request was sent before the last refusal. throttled says that the
// registry limits the rate (see permit.answered). If throttled is true, and at least fewRequests
// were sent since the last refusal, refused also lowers the rate: to half of refusedRate, which is
// the rate at which the bucket has just sent. retryAfter is the Retry-After of the answer; if it is
// 0, the pause grows with each refusal in a row, up to probePause.
func (b *bucket) refused(sentAt, now time.Time, throttled bool, retryAfter time.Duration) {
	if sentAt.Before(b.refusedAt) {
		return
	}
	if retryAfter <= 0 {
		retryAfter = min(backoff(b.refusals), probePause)
	}
	few := b.sentSince < fewRequests
	b.refusals++
	b.sentSince, b.refusedAt = 0, now
	b.pausedUntil = now.Add(min(retryAfter, maxPause))
	if !throttled || few {
		return
	}
	b.refusedRate = float64(max(b.sent, b.lastSent, 1))
	if b.tokens != nil {
		b.refusedRate = min(b.refusedRate, b.allowed)
	} else {
		b.tokens = rate.NewLimiter(rate.Limit(b.refusedRate), 1)
	}
	b.raisedAt = now
	least := max(minRate, b.full/400)
	if b.full > 0 {
		least = min(least, b.full)
	}
	b.setRate(now, max(b.refusedRate/2, least))
	b.tokens.AllowN(now, b.tokens.Burst()) // empties the limiter if it is full
}

// [bucket.accepted] records an answer that is no refusal, and raises the rate until it has
// recovered. It ignores a request that was sent before the last refusal.
func (b *bucket) accepted(sentAt, now time.Time) {
	if sentAt.Before(b.refusedAt) {
		return
	}
	b.refusals, b.lastError = 0, ""
	if b.tokens == nil || b.refusedAt.IsZero() {
		return
	}
	allowed := b.allowed + max(b.refusedRate, b.allowed)*min(now.Sub(b.raisedAt), time.Second).Seconds()/recovery.Seconds()
	b.raisedAt = now
	switch {
	case b.full == 0 && now.Sub(b.refusedAt) > 4*recovery:
		b.tokens, b.refusedAt = nil, time.Time{} // without a ceiling the limit was temporary
	case b.full > 0 && allowed >= b.full:
		b.setRate(now, b.full)
		b.refusedAt = time.Time{}
	default:
		b.setRate(now, allowed)
	}
}

// setRate sets b.allowed, and with it the rate and the burst of the bucket. A bucket that refusals
// have not slowed may send half a second's worth of requests at once. A whole second's worth,
// together with the requests just sent, could exceed the registry's limit. A bucket that was slowed
// sends more evenly, because otherwise each pause would end in a burst that is refused again.
func (b *bucket) setRate(now time.Time, allowed float64) {
	b.allowed = allowed
	perSecond := allowed
	if b.full > 0 {
		perSecond = min(allowed, b.ceiling)
	}
	b.tokens.SetLimitAt(now, rate.Limit(perSecond))
	burst := perSecond / 2
	if allowed != b.full {
		burst = perSecond / 10
	}
	b.tokens.SetBurstAt(now, max(1, int(burst)))
}
