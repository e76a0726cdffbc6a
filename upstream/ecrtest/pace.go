package ecrtest

import (
	"context"
	"sync"
	"time"
)

// pacer spreads bytes evenly over real time.
type pacer struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	free time.Time // when the last of the reserved bytes may be sent
}

// newPacer returns a pacer, or nil if rate sets no limit.
func newPacer(rate int64) *pacer {
	if rate <= 0 {
		return nil
	}
	return &pacer{rate: rate}
}

// piece returns how many bytes may be sent at once: the bytes of a twentieth of a second, but at
// most 256 KiB.
func (p *pacer) piece() int64 { return min(max(p.rate/20, 1), 256<<10) }

// reserve reserves n bytes and returns how long to wait before sending them.
func (p *pacer) reserve(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return p.free.Sub(now)
}

// pacers are the pacers that all apply to the same bytes.
type pacers []*pacer

func (ps pacers) with(p *pacer) pacers {
	if p == nil {
		return ps
	}
	return append(ps, p)
}

// maxPiece returns how many of n bytes may be sent at once.
func (ps pacers) maxPiece(n int) int {
	for _, p := range ps {
		n = int(min(int64(n), p.piece()))
	}
	return n
}

// wait reserves n bytes with each pacer and waits until they may be sent.
func (ps pacers) wait(ctx context.Context, n int) error {
	for _, p := range ps {
		if err := wait(ctx, p.reserve(n)); err != nil {
			return err
		}
	}
	return nil
}

// Quota is a token bucket: Rate tokens per second, at most Burst.
type Quota struct {
	Rate  float64 `json:"rate"`
	Burst float64 `json:"burst"`
}

// DefaultQuotas returns AWS's adjustable quotas per region and second (ECR service quotas page).
// The burst of each quota is the number of requests that the quota allows in a second. AWS does
// not document the bursts; one of its examples has a larger one.
func DefaultQuotas() map[string]Quota {
	q := map[string]Quota{}
	for op, rate := range map[string]float64{
		"BatchCheckLayerAvailability": 1000, "BatchGetImage": 2000, "GetDownloadUrlForLayer": 3000, "InitiateLayerUpload": 100,
		"UploadLayerPart": 500, "CompleteLayerUpload": 100, "PutImage": 10, "GetAuthorizationToken": 500,
	} {
		q[op] = Quota{Rate: rate, Burst: rate}
	}
	return q
}

// throttle has one bucket per operation.
type throttle struct {
	clock func() time.Time

	mu      sync.Mutex
	quotas  map[string]Quota
	buckets map[string]*bucket
}

type bucket struct {
	level float64
	at    time.Time
}

func newThrottle(q map[string]Quota, clock func() time.Time) *throttle {
	return &throttle{clock: clock, quotas: q, buckets: map[string]*bucket{}}
}

// allow takes one token from the bucket of an operation, and reports whether there was a token.
func (t *throttle) allow(op string) bool {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	q, ok := t.quotas[op]
	if !ok {
		return true
	}
	b, ok := t.buckets[op]
	if !ok {
		b = &bucket{level: q.Burst, at: now}
		t.buckets[op] = b
	}
	b.level = min(q.Burst, b.level+q.Rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// SetQuotas replaces the quotas; nil removes all.
func (s *Server) SetQuotas(q map[string]Quota) {
	s.throttle.mu.Lock()
	defer s.throttle.mu.Unlock()
	s.throttle.quotas = q
	clear(s.throttle.buckets)
}
