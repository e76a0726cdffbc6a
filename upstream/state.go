package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"dray/upstream/oci"
)

// Admission describes how a Breaker would treat a question to the registry.
type Admission struct {
	// Refusal, if not empty, is the reason why the Breaker would not send the question. Until is when
	// the Breaker lets a question through again, and Last is the newest failure.
	Refusal string
	Until   time.Time
	Last    error
	// Hello says that the Breaker would first send GET /v2/ to the registry.
	Hello bool
}

// Foresee returns how the Breaker would treat a question about a repository now. hasOlder says that
// the caller has an older answer ([Breaker.Held]). Foresee changes nothing.
func (b *Breaker) Foresee(repo string, hasOlder bool) Admission {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.judge(repo, registryHost, hasOlder, time.Now())
	if j.refusing != nil {
		return Admission{Refusal: fmt.Sprintf(j.text, j.args...), Until: j.refusing.next, Last: j.refusing.last}
	}
	return Admission{Hello: j.doubtful != nil}
}

// OperationState describes the requests of one operation. Requests to the hosts that the registry
// redirects to are not included.
type OperationState struct {
	// Name is the name of the operation, as in metrics.
	Name string
	// Ceiling is the highest rate, and PerSecond is the present rate, both in requests per second; 0
	// means that no limit is known.
	Ceiling, PerSecond float64
	// Waiting counts the requests that wait.
	Waiting int
	// PausedUntil is when the Limiter sends requests again. It is in the past if there is no pause.
	PausedUntil time.Time
	// LastError is the text of the registry's last refusal, if requests were refused lately.
	LastError string
}

// Reads returns the state of the operations that pulls use.
func (l *Limiter) Reads() (all []OperationState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, class := range []Class{ManifestGet, ManifestHead, BlobGet, BlobHead} {
		full, part := l.partOf(class)
		s := OperationState{Name: l.operation("", class), Ceiling: full, PerSecond: part}
		if slices.ContainsFunc(all, func(o OperationState) bool { return o.Name == s.Name }) {
			continue // the registry counts several classes together
		}
		if b := l.buckets[bucketKey{"", s.Name}]; b != nil {
			s.Waiting, s.PausedUntil, s.LastError = b.foreground.Size()+b.background.Size(), b.pausedUntil, b.lastError
			if b.tokens != nil {
				s.PerSecond = float64(b.tokens.Limit())
			}
		}
		all = append(all, s)
	}
	return all
}

// QuotaState is the quota of pulls, as the registry stated it.
type QuotaState struct {
	Limit, Remaining int
	// Window is the time in which the registry counts pulls; 0 if it is not known.
	Window time.Duration
	// Source is the address or the account whose pulls the registry counts; it may be empty.
	Source string
	// ObservedAt is when the registry stated the quota.
	ObservedAt time.Time
	// Reserved says that the remaining pulls are left to clients: background work gets no manifests.
	Reserved bool
}

// Quota returns the newest known state of the registry's quota. ok is false if no state is known.
func (l *Limiter) Quota() (s QuotaState, ok bool) {
	low := l.quota.low(time.Now())
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	s, ok = l.quota.newest().public()
	s.Reserved = low
	return s, ok
}

// OwnQuota returns the quota as the registry stated it to this process. It leaves Reserved false.
func (l *Limiter) OwnQuota() (s QuotaState, ok bool) {
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	return l.quota.stated.public()
}

// LearnQuota records a quota that the registry has stated to another process. The Limiter uses it
// if it is newer than the quota stated to this process, and if both concern the same address or
// account. If no quota was stated to this process, the Limiter uses it in any case.
func (l *Limiter) LearnQuota(s QuotaState) {
	l.quota.mu.Lock()
	defer l.quota.mu.Unlock()
	if s.ObservedAt.After(l.quota.learnt.at) {
		l.quota.learnt = statement{s.Limit, s.Remaining, s.Window, s.Source, s.ObservedAt}
	}
}

func (s statement) public() (state QuotaState, ok bool) {
	return QuotaState{Limit: s.limit, Remaining: s.remaining, Window: s.window, Source: s.from, ObservedAt: s.at}, !s.at.IsZero()
}

// Question is a kind of call of a [Source].
type Question int

// The questions.
const (
	GetManifest      Question = iota // Source.Manifest
	DescribeManifest                 // Source.StatManifest
	GetBlob                          // Source.Blob
	DescribeBlob                     // Source.StatBlob
)

// RequestOf returns the first request that c would send for a question, as a method and the path at
// the registry. After a HEAD that fails, c may send a GET, too.
func RequestOf(c *Client, q Question, repo Repo, ref oci.Reference) (method, path string) {
	kind, method := oci.KindManifest, http.MethodGet
	switch q {
	case DescribeManifest:
		if c.heads.worthwhile(time.Now()) {
			method = http.MethodHead
		}
	case GetBlob:
		kind = oci.KindBlob
	case DescribeBlob:
		kind = oci.KindBlob
		if !c.o.Quirks.BlobHeadUnsupported {
			method = http.MethodHead
		}
	}
	return method, c.url(oci.Request{Method: method, Kind: kind, Repo: repo.Name, Ref: ref}).Path
}
