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

// lane is the requests to one host that are counted together. The Limiter's mutex guards it.
type lane struct {
	name string
	pool *pool
	// ceiling is the rate that is allowed at best, per second; 0 where none is known.
	ceiling float64
	// bucket holds the lane to its rate; nil while nothing is known to limit it.
	bucket *rate.Limiter
	front  queue // what clients wait for
	back   queue // what nobody waits for
	wake   *time.Timer

	// paused is until when nothing is sent, refusals how many there were in a row, and said what
	// the last of them said.
	paused   time.Time
	refusals int
	said     string
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
	places, taken int
	lanes         []*lane
	turn          int // of the lanes
}

// room reports whether a request may be sent. Background work leaves a quarter of the places to
// clients.
func (p *pool) room(background bool) bool {
	if background {
		return p.taken < p.places-p.places/4
	}
	return p.taken < p.places
}

// pump sends what may be sent now, lane by lane in turns, clients first, and sees to it that the
// rest is looked at again.
func (p *pool) pump(now time.Time, again func(*lane)) {
	for _, background := range []bool{false, true} {
		for let := true; let; {
			let = false
			for range p.lanes {
				p.turn = (p.turn + 1) % len(p.lanes)
				let = p.room(background) && p.lanes[p.turn].let(now, background) || let
			}
		}
	}
	for _, l := range p.lanes {
		l.schedule(now, again)
	}
}

// let sends the next request of a queue, if its time has come.
func (l *lane) let(now time.Time, background bool) bool {
	q := &l.front
	if background {
		q = &l.back
	}
	if q.size == 0 || now.Before(l.paused) || l.bucket != nil && !l.bucket.AllowN(now, 1) {
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
	q.pop().settle(nil)
	return true
}

// schedule looks again at what waits for the end of a pause or for its rate. What waits for a place
// is looked at when one becomes free.
func (l *lane) schedule(now time.Time, again func(*lane)) {
	if l.wake != nil {
		l.wake.Stop()
		l.wake = nil
	}
	if l.front.size+l.back.size == 0 {
		return
	}
	if d := max(l.paused.Sub(now), l.due(now, 1)); d > 0 {
		l.wake = time.AfterFunc(d, func() { again(l) })
	}
}

// due is how long it takes until n requests may have been sent.
func (l *lane) due(now time.Time, n int) time.Duration {
	if l.bucket == nil {
		return 0
	}
	missing := float64(n) - l.bucket.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(missing / float64(l.bucket.Limit()) * float64(time.Second)))
}

// wait is how long a request that joins now stands in the queue at least.
func (l *lane) wait(now time.Time, flow string, background bool) time.Duration {
	n := 1 + l.front.ahead(flow)
	if background {
		n = 1 + l.front.size + l.back.ahead(flow)
	}
	return max(l.paused.Sub(now), l.due(now, n))
}

// refused takes note of an answer that asks for less. The pause is one for all that wait; only what
// was sent after the last one makes it longer, and halves the rate where throttled.
func (l *lane) refused(began, now time.Time, throttled bool, after time.Duration) {
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
	if l.bucket != nil {
		l.was = min(l.was, float64(l.bucket.Limit()))
	} else {
		l.bucket = rate.NewLimiter(rate.Limit(l.was), 1)
	}
	l.grown = now
	least := max(slowest, l.ceiling/400)
	if l.ceiling > 0 {
		least = min(least, l.ceiling)
	}
	l.setRate(now, max(l.was/2, least))
	l.bucket.AllowN(now, l.bucket.Burst()) // it begins empty
}

// accepted takes note of an answer that asks for nothing: the rate rises by and by.
func (l *lane) accepted(began, now time.Time) {
	if began.Before(l.slowed) {
		return
	}
	l.refusals, l.said = 0, ""
	if l.bucket == nil || l.slowed.IsZero() {
		return
	}
	current := float64(l.bucket.Limit())
	current += max(l.was, current) * min(now.Sub(l.grown), time.Second).Seconds() / recovery.Seconds()
	l.grown = now
	switch {
	case l.ceiling == 0 && now.Sub(l.slowed) > 4*recovery:
		l.bucket, l.slowed = nil, time.Time{} // it was for once
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
func (l *lane) setRate(now time.Time, perSecond float64) {
	l.bucket.SetLimitAt(now, rate.Limit(perSecond))
	burst := perSecond / 2
	if perSecond != l.ceiling {
		burst = perSecond / 10
	}
	l.bucket.SetBurstAt(now, max(1, int(burst)))
}
