package upstream

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

const (
	// slowest is the least rate that a registry can push a lane down to, in requests per second;
	// where it documents a ceiling, that is at least a four hundredth of it.
	slowest = 1
	// recovery is the time, of answers without a refusal, in which a lane wins back the rate at
	// which it was refused. After four times as long, a lane without a ceiling has no rate any
	// more.
	recovery = 15 * time.Second
	// probePause bounds the pauses of a lane that only sends one request after each, to see how
	// things stand.
	probePause = time.Second
	// fewRequests are not what a registry refuses for their number: it is others who ask for too
	// much, and only time helps.
	fewRequests = 3
	// longestPause bounds what a registry may ask for: afterwards one request finds out how it stands.
	longestPause = time.Minute
)

// tokens is the requests to one host that are counted together. The Limiter's mutex guards it.
type bucket struct {
	name string
	pool *pool
	// ceiling is the rate that is allowed at best, per second; 0 where none is known.
	ceiling float64
	// tokens holds the lane to its rate; nil while nothing is known to limit it.
	tokens     *rate.Limiter
	foreground queue // what clients wait for
	background queue // what nobody waits for
	wake       *time.Timer

	// paused is until when nothing is sent, refusals how many there were in a row, and said what
	// the last of them said.
	paused    time.Time
	refusals  int
	lastError string
	// slowed is when the rate was last cut: refusals of what was sent before say nothing new. grown
	// is when it last rose.
	slowed, grown time.Time
	// was is the rate at which it was refused, per second, and since how many were sent after the
	// last refusal.
	was   float64
	since int

	// second and sent count what is sent, lastSent what was sent in the second before.
	second         time.Time
	sent, lastSent int
}

// pool is the places for requests under way at one host.
type pool struct {
	slots, taken int
	buckets      []*bucket
	next         int // of the lanes
}

// room reports whether a request may be sent. Background work leaves a quarter of the places to
// clients.
func (p *pool) room(background bool) bool {
	if background {
		return p.taken < p.slots-p.slots/4
	}
	return p.taken < p.slots
}

// pump sends what may be sent now, lane by lane in turns, clients first, and sees to it that the
// rest is looked at again.
func (p *pool) pump(now time.Time, again func(*bucket)) {
	for _, background := range []bool{false, true} {
		for let := true; let; {
			let = false
			for range p.buckets {
				p.next = (p.next + 1) % len(p.buckets)
				let = p.room(background) && p.buckets[p.next].let(now, background) || let
			}
		}
	}
	for _, l := range p.buckets {
		l.schedule(now, again)
	}
}

// let sends the next request of a queue, if its time has come.
func (l *bucket) let(now time.Time, background bool) bool {
	q := &l.foreground
	if background {
		q = &l.background
	}
	if q.size == 0 || now.Before(l.paused) || l.tokens != nil && !l.tokens.AllowN(now, 1) {
		return false
	}
	l.pool.taken++
	if now.Sub(l.second) >= time.Second {
		l.lastSent = 0
		if now.Sub(l.second) < 2*time.Second {
			l.lastSent = l.sent
		}
		l.second, l.sent = now, 0
	}
	l.sent++
	l.since++
	q.pop().finish(nil)
	return true
}

// schedule looks again at what waits for the end of a pause or for its rate. What waits for a place
// is looked at when one becomes free.
func (l *bucket) schedule(now time.Time, again func(*bucket)) {
	if l.wake != nil {
		l.wake.Stop()
		l.wake = nil
	}
	if l.foreground.size+l.background.size == 0 {
		return
	}
	if d := max(l.paused.Sub(now), l.due(now, 1)); d > 0 {
		l.wake = time.AfterFunc(d, func() { again(l) })
	}
}

// due is how long it takes until n requests may have been sent.
func (l *bucket) due(now time.Time, n int) time.Duration {
	if l.tokens == nil {
		return 0
	}
	missing := float64(n) - l.tokens.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(missing / float64(l.tokens.Limit()) * float64(time.Second)))
}

// wait is how long a request that joins now stands in the queue at least.
func (l *bucket) wait(now time.Time, flow string, background bool) time.Duration {
	n := 1 + l.foreground.ahead(flow)
	if background {
		n = 1 + l.foreground.size + l.background.ahead(flow)
	}
	return max(l.paused.Sub(now), l.due(now, n))
}

// refused takes note of an answer that asks for less. The pause is one for all that wait; only what
// was sent after the last one makes it longer, and halves the rate where throttled.
func (l *bucket) refused(began, now time.Time, throttled bool, after time.Duration) {
	if began.Before(l.slowed) {
		return
	}
	if after <= 0 {
		after = min(backoff(l.refusals), probePause)
	}
	few := l.since < fewRequests
	l.refusals++
	l.since, l.slowed = 0, now
	l.paused = now.Add(min(after, longestPause))
	if !throttled || few {
		return
	}
	l.was = float64(max(l.sent, l.lastSent, 1))
	if l.tokens != nil {
		l.was = min(l.was, float64(l.tokens.Limit()))
	} else {
		l.tokens = rate.NewLimiter(rate.Limit(l.was), 1)
	}
	l.grown = now
	least := max(slowest, l.ceiling/400)
	if l.ceiling > 0 {
		least = min(least, l.ceiling)
	}
	l.setRate(now, max(l.was/2, least))
	l.tokens.AllowN(now, l.tokens.Burst()) // it begins empty
}

// accepted takes note of an answer that asks for nothing: the rate rises by and by.
func (l *bucket) accepted(began, now time.Time) {
	if began.Before(l.slowed) {
		return
	}
	l.refusals, l.lastError = 0, ""
	if l.tokens == nil || l.slowed.IsZero() {
		return
	}
	current := float64(l.tokens.Limit())
	current += max(l.was, current) * min(now.Sub(l.grown), time.Second).Seconds() / recovery.Seconds()
	l.grown = now
	switch {
	case l.ceiling == 0 && now.Sub(l.slowed) > 4*recovery:
		l.tokens, l.slowed = nil, time.Time{} // it was for once
	case l.ceiling > 0 && current >= l.ceiling:
		l.setRate(now, l.ceiling)
		l.slowed = time.Time{}
	default:
		l.setRate(now, current)
	}
}

// setRate changes the rate. Half a second's worth may go at once, so that what arrives together
// with others' requests does not make more than a second's worth at the registry. Below its ceiling
// a lane sends evenly, or each pause would end in a burst that is refused again.
func (l *bucket) setRate(now time.Time, perSecond float64) {
	l.tokens.SetLimitAt(now, rate.Limit(perSecond))
	burst := perSecond / 2
	if perSecond != l.ceiling {
		burst = perSecond / 10
	}
	l.tokens.SetBurstAt(now, max(1, int(burst)))
}
