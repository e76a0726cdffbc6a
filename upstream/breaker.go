package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/oci"
)

// BreakerOptions configure a Breaker.
type BreakerOptions struct {
	// Name names the upstream in messages and metrics.
	Name string
	// Threshold is how many questions in a row must get no answer before the Breaker refuses callers
	// that have no older answer. [Breaker] defines what a question is. 0 means 5.
	Threshold int
	// Lasting is the least time for which failures must have continued before the Breaker refuses
	// callers that have no older answer. During a shorter burst of failures, the Breaker lets these
	// callers through. 0 means that only the number of failures decides.
	Lasting time.Duration
	// Probe is the time from a failure to the next attempt, while the Breaker refuses callers. 0 means
	// 5 s.
	Probe time.Duration
	// Hello, when not nil, sends the registry a request that concerns no content, such as GET /v2/.
	// With Hello, the registry itself counts as down only when Hello has failed, and Threshold applies
	// only to hosts that the registry redirects to. While the registry is down, the Breaker calls
	// Hello before it lets an attempt through. Probe bounds the time of one call of Hello.
	Hello func(context.Context) error
}

// Breaker refuses requests to a host that is down, so that callers do not wait in vain. It judges
// the registry separately from each host that the registry redirects to. A question is one call of
// a Source, Sink, Lister or Deleter, and counts once even if it is repeated. A question has failed
// if its result is ErrUnreachable or a status of 500 or above. Any other answer that says something
// about the content, such as not found, resets the failures of the repository and of the hosts that
// answered.
//
// One bad object must not keep callers from all other objects. So statuses of 500 and above count
// against the host itself only if questions about three repositories have failed. When three
// repositories have failed, or when questions get no answer, Hello decides whether the registry
// itself is down. While Hello gets a good answer, the Breaker refuses a caller that has no older
// answer only if the caller's repository and at least two others fail.
//
// There are two kinds of callers. The Breaker refuses callers that need the answer (Source, Sink,
// Lister, Deleter) while it considers the host to be down. Callers that have an older answer
// ([Breaker.Held]) would lose time by a request and gain little. So the Breaker refuses them after
// one question without an answer, or after one failure of their own repository. Once Probe has
// passed since the last failure, the Breaker lets one attempt through, from a caller of either
// kind.
type Breaker struct {
	o        BreakerOptions
	refusals prometheus.Counter
	open     prometheus.GaugeFunc

	mu sync.Mutex // guards the fields below
	// hosts and repos have the failures of each host, and of each repository, since the last good
	// answer. The registry is the host "".
	hosts, repos map[string]*circuit
	// asked and problem are the fields Asked and Problem of BreakerState.
	asked   bool
	problem error
}

const (
	registryHost = ""
	// severalRepos is how many repositories must fail before the Breaker blames their host.
	severalRepos = 3
	// maxCircuits bounds the entries of Breaker.hosts and of Breaker.repos, because clients and
	// registries choose the names.
	maxCircuits = 1024
)

// circuit records the failures of one host or one repository since the last good answer.
type circuit struct {
	failures   int             // failed questions; counted only for a host
	unanswered int             // failed questions without an answer; counted only for a host
	repos      map[string]bool // repositories of the failed questions, severalRepos at most; only for a host
	silent     bool            // Hello has failed
	asking     bool            // a call of Hello is under way
	first      time.Time       // time of the first failure
	last       error
	next       time.Time // time of the next attempt
}

// BreakerState describes the registry and the hosts that it redirects to.
type BreakerState struct {
	// Open says that the Breaker refuses requests to the registry or to any host that it redirects to.
	Open bool
	// Failures, Last and Next describe the host with the most failures: how many questions in a row
	// failed, the newest failure (nil if there is none), and the time of the next attempt.
	Failures int
	Last     error
	Next     time.Time
	// Asked says that a request to the registry has had a result. Problem is the newest result if it
	// is a failure or a refusal of the credentials, and otherwise nil.
	Asked   bool
	Problem error
}

// OpenError is the refusal of a Breaker. It matches ErrUnreachable. Clients get a 503 for it.
type OpenError struct {
	// Next is when the Breaker lets an attempt through.
	Next time.Time
	err  error
}

// Error names the newest failure before the refusal.
func (e *OpenError) Error() string { return e.err.Error() }

// Unwrap returns the error for the wire, an *oci.Error.
func (e *OpenError) Unwrap() error { return e.err }

// NewBreaker returns a Breaker that refuses nothing yet.
func NewBreaker(o BreakerOptions) *Breaker {
	o.Threshold, o.Probe = cmp.Or(o.Threshold, 5), cmp.Or(o.Probe, 5*time.Second)
	b := &Breaker{o: o, hosts: map[string]*circuit{}, repos: map[string]*circuit{}}
	labels := prometheus.Labels{"upstream": o.Name}
	b.refusals = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dray_upstream_breaker_refusals_total", ConstLabels: labels,
		Help: "Requests that dray did not send because the upstream had just failed.",
	})
	b.open = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_upstream_breaker_open", ConstLabels: labels,
		Help: "1 while dray considers the upstream, or a host to which it redirects, to be down; otherwise 0.",
	}, func() float64 {
		if b.State().Open {
			return 1
		}
		return 0
	})
	return b
}

// Collectors returns the breaker's metrics.
func (b *Breaker) Collectors() []prometheus.Collector {
	return []prometheus.Collector{b.refusals, b.open}
}

// State returns the state of the upstream, for health checks and metrics.
func (b *Breaker) State() (s BreakerState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Asked, s.Problem = b.asked, b.problem
	for host, c := range b.hosts {
		s.Open = s.Open || b.down(host, c)
		if c.failures > s.Failures {
			s.Failures, s.Last, s.Next = c.failures, c.last, c.next
		}
	}
	return s
}

// Greeted records the result of a first request to the registry. It changes only the fields Asked
// and Problem of BreakerState, which the result of the next request replaces.
func (b *Breaker) Greeted(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saw(err)
}

// [Breaker.saw] records whether a result shows that the registry can be used; b.mu is held.
func (b *Breaker) saw(err error) {
	refused := errors.Is(err, ErrCredentials)
	if !refused && saysNothing(err) {
		return
	}
	b.asked, b.problem = true, nil
	if refused || failing(err) {
		b.problem = err
	}
}

// Do calls f, which sends a request to the registry, and records its result. While the Breaker
// considers the registry to be down, Do returns an *OpenError without calling f.
func (b *Breaker) Do(f func() error) error {
	return b.do(context.Background(), Repo{}, false, func(Repo) error { return f() })
}

// attempt is one question that passes a Breaker.
type attempt struct {
	b      *Breaker
	repo   Repo
	held   bool       // the caller has an older answer
	hosts  []string   // hosts that were asked
	probes []*circuit // circuits that let only this question through
}

// [Breaker.do] calls f and records the result, unless the breaker refuses the question.
func (b *Breaker) do(ctx context.Context, repo Repo, hasOlder bool, f func(Repo) error) error {
	p := &attempt{b: b, repo: repo, held: hasOlder}
	if err := p.enter(ctx); err != nil {
		return err
	}
	repo.onward = p.onward
	done := false
	defer func() {
		if !done { // f panicked: that is no failure of the upstream
			p.record(context.Canceled)
		}
	}()
	err := f(repo)
	done = true
	p.record(err)
	return err
}

// enter admits the question to the registry, or returns an *OpenError. If it is doubtful whether
// the registry answers, enter calls Hello first.
func (p *attempt) enter(ctx context.Context) error {
	b := p.b
	c, err := p.admit(registryHost)
	if c == nil || err != nil {
		return err
	}
	probing, cancel := context.WithTimeout(ctx, b.o.Probe)
	defer cancel()
	defer func() { // deferred, because Hello may panic
		b.mu.Lock()
		defer b.mu.Unlock()
		c.asking = false
	}()
	err = b.o.Hello(probing)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case errors.Is(err, ErrCredentials):
		c.silent = false // the registry answers, and callers get ErrCredentials from their own requests
	case saysNothing(err):
	case failing(err) && errors.Is(ctx.Err(), context.DeadlineExceeded): // the caller left too little time
	case failing(err):
		c.silent = true
		c.failed(err, b.o.Probe)
		return b.refusal(c, "the upstream registry %s does not answer", b.o.Name)
	case b.hosts[registryHost] == c:
		delete(b.hosts, registryHost)
	}
	return nil
}

// [attempt.onward] admits the question to a host that the registry redirects to, or returns an
// *OpenError.
func (p *attempt) onward(host string) error {
	_, err := p.admit(host)
	return err
}

// admit returns an *OpenError if the host must not be asked now. If Hello has to be called first,
// admit returns the circuit of the registry, and otherwise nil.
func (p *attempt) admit(host string) (doubtful *circuit, err error) {
	b, now := p.b, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.judge(p.repo.Name, host, p.held, now)
	if j.refusing != nil {
		return nil, b.refusal(j.refusing, j.text, j.args...)
	}
	for _, c := range j.probed {
		p.probe(c, now)
	}
	if j.doubtful != nil {
		j.doubtful.asking = true
	}
	p.hosts = append(p.hosts, host)
	return j.doubtful, nil
}

// judgement is the decision of a Breaker about one question to one host.
type judgement struct {
	refusing *circuit // the reason for a refusal; nil if the question may be sent
	text     string   // the format of the refusal's text; args has its arguments
	args     []any
	probed   []*circuit // circuits that let only this question through
	doubtful *circuit   // the circuit of the registry, if Hello has to be called first
}

// judge decides about a question without changing anything; b.mu is held. hasOlder says that the
// caller has an older answer.
func (b *Breaker) judge(repo, host string, hasOlder bool, now time.Time) (j judgement) {
	own := b.repos[repo]
	if own != nil && (host != registryHost || !hasOlder && !b.spreads(own)) {
		own = nil
	}
	if own != nil && now.Before(own.next) {
		return judgement{refusing: own, text: "the upstream registry %s fails for the repository %s", args: []any{b.o.Name, repo}}
	}
	if c := b.hosts[host]; c != nil {
		down := b.down(host, c)
		if refused := down || hasOlder && c.unanswered > 0; refused {
			if now.Before(c.next) || c.asking {
				j.refusing, j.text, j.args = c, "the upstream registry %s does not answer", []any{b.o.Name}
				if host != registryHost {
					j.text = "the storage of the upstream registry %s does not answer"
				}
				return j
			}
			j.probed = append(j.probed, c)
		}
		hello := host == registryHost && b.o.Hello != nil
		doubt := (c.unanswered > 0 || len(c.repos) >= severalRepos) && b.lasts(c) && !c.asking
		if hello && (down || doubt) {
			j.doubtful = c
		}
	}
	if own != nil {
		j.probed = append(j.probed, own)
	}
	return j
}

// probe records that the question is the one attempt that a circuit lets through; b.mu is held.
func (p *attempt) probe(c *circuit, now time.Time) {
	c.next = now.Add(p.b.o.Probe)
	p.probes = append(p.probes, c)
}

// lasts reports whether the failures of c have continued for Lasting; b.mu is held.
func (b *Breaker) lasts(c *circuit) bool { return time.Since(c.first) >= b.o.Lasting }

// [Breaker.down] reports whether the failures of a host are a reason to refuse all callers; b.mu is
// held.
func (b *Breaker) down(host string, c *circuit) bool {
	if c.silent {
		return true
	}
	if host == registryHost && b.o.Hello != nil {
		return false // Hello decides
	}
	return b.lasts(c) && (len(c.repos) >= severalRepos || c.unanswered >= b.o.Threshold)
}

// spreads reports whether the failures of a repository are part of a wider problem of the registry.
// This is so if the failures of at least severalRepos repositories, including this one, have
// continued for Lasting. A repository does not count if its next attempt is overdue by Probe or
// more. If only one repository fails, the reason may be one bad object, and callers must still get
// the other objects. b.mu is held.
func (b *Breaker) spreads(own *circuit) bool {
	if !b.lasts(own) {
		return false
	}
	n, now := 0, time.Now()
	for _, c := range b.repos {
		if b.lasts(c) && now.Before(c.next.Add(b.o.Probe)) {
			n++
		}
		if n == severalRepos {
			return true
		}
	}
	return false
}

func (b *Breaker) refusal(c *circuit, text string, args ...any) error {
	b.refusals.Inc()
	e := oci.ErrUnavailable.With(text, args...)
	e.RetryAfter = max(time.Second, time.Until(c.next).Round(time.Second))
	return &OpenError{Next: c.next, err: e.Because(fmt.Errorf("%w: refused by breaker: %w", ErrUnreachable, c.last))}
}

// record records the result of the question for the hosts that were asked.
func (p *attempt) record(err error) {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saw(err)
	if saysNothing(err) {
		for _, c := range p.probes {
			c.next = time.Now() // another caller may try at once
		}
		return
	}
	at := registryHost
	if e, ok := errors.AsType[storageError](err); ok {
		at = e.host
	}
	failed := failing(err)
	for _, host := range p.hosts {
		if !failed || host != at {
			delete(b.hosts, host)
		}
	}
	if !failed {
		delete(b.repos, p.repo.Name)
		return
	}
	b.failed(at, p.repo, err)
}

// [Breaker.failed] records a failed question; b.mu is held.
func (b *Breaker) failed(host string, repo Repo, err error) {
	c, unanswered := rowOf(b.hosts, host), errors.Is(err, ErrUnreachable)
	if repo.before == 0 || c.failures == 0 {
		c.failures++
	}
	if unanswered && (repo.before == 0 || c.unanswered == 0) {
		c.unanswered++
	}
	if repo.Name != "" && len(c.repos) < severalRepos {
		c.repos[repo.Name] = true
	}
	c.failed(err, b.o.Probe)
	if repo.Name != "" && !unanswered {
		rowOf(b.repos, repo.Name).failed(err, b.o.Probe)
	}
}

// [circuit.failed] records err as the newest failure, and sets the time of the next attempt.
func (c *circuit) failed(err error, probe time.Duration) {
	c.last, c.next = err, time.Now().Add(probe)
}

// rowOf finds or makes the circuit of key. If there are already maxCircuits circuits, rowOf first
// drops one of them. The Breaker then lets a few more requests to the dropped host or repository
// through before it refuses them again.
func rowOf(all map[string]*circuit, key string) *circuit {
	c := all[key]
	if c != nil {
		return c
	}
	for other := range all {
		if len(all) < maxCircuits {
			break
		}
		if other != registryHost {
			delete(all, other)
		}
	}
	c = &circuit{first: time.Now(), repos: map[string]bool{}}
	all[key] = c
	return c
}

// saysNothing reports whether a result is no evidence about the health of the registry.
func saysNothing(err error) bool {
	_, local := errors.AsType[localError](err)
	_, refused := errors.AsType[*OpenError](err)
	return local || refused || errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) ||
		errors.Is(err, ErrCredentials) || errors.Is(err, ErrRepositoryMissing)
}

// failing reports whether a result is a failure of the host. A 4xx of a storage is no failure,
// because it concerns the object, or the URL that the registry made for the object.
func failing(err error) bool {
	if errors.Is(err, ErrUnreachable) {
		return true
	}
	if errors.Is(err, ErrStorage) {
		e, ok := errors.AsType[storageError](err)
		return ok && e.status >= http.StatusInternalServerError
	}
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e.Status >= http.StatusInternalServerError && !errors.Is(err, ErrCorrupt)
}
