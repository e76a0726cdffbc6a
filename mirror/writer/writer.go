package writer

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache/fleet"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

const (
	// lingers is the time for which a member remains the writer of a repository after the last
	// request, even if no push is unfinished. So consecutive requests of a push find the same writer.
	lingers = fleet.LeaseTTL
	// storePause is the pause after a failure of the store: for this time, requests do not ask the
	// store. Run still renews leases.
	storePause = 2 * time.Second
	// remembered is the time for which this member remembers another writer, for use while the store
	// fails.
	remembered = 10 * time.Minute
	// maxRemembered bounds the remembered writers.
	maxRemembered = 4096
)

// Members are the members of the fleet. It is a *fleet.Fleet.
type Members interface {
	// Live returns the members that were alive a moment ago, including this one.
	Live() []fleet.Member
	// Send sends one request to a member.
	Send(ctx context.Context, to fleet.Member, r *http.Request) (*http.Response, error)
}

// Options configure Writers.
type Options struct {
	// Self is this member.
	Self    fleet.Member
	Members Members
	Claims  fleet.Claims
	// Identity returns the identity of the registry behind an upstream, which is the same at all
	// members. It returns "" if the upstream's content is stored on this machine alone. For such an
	// upstream, each member works on all requests that it gets.
	Identity func(upstream string) string
	Patience fleet.Patience
	// RenewEvery is how often leases are renewed; 0 means [fleet.RenewEvery].
	RenewEvery time.Duration
	// Unfinished calls visit for each repository in which a push is not finished at this member (see
	// push.Pusher.Unfinished).
	Unfinished func(visit func(repository.Repo))
	Logger     *slog.Logger
}

// Writers decides which member works on a request. With a nil *Writers, this member works on all
// requests.
type Writers struct {
	o         Options
	log       *slog.Logger
	m         *metrics
	receivers sync.Map // of Receiver, by the name of the listener
	leaving   atomic.Bool

	mu      sync.Mutex // guards the fields below
	held    map[key]*hold
	seen    map[key]sighting
	storeAt time.Time // requests do not ask the store before this time; zero while the store answers
}

// key names a repository of a registry. All members use the same identity for the registry.
type key struct{ identity, name string }

func (w *Writers) keyOf(r repository.Repo) key { return key{w.o.Identity(r.Up.Name), r.Name} }

// String returns the text by which members choose a writer.
func (k key) String() string { return k.identity + "/" + k.name }

func (k key) digest() digest.Digest { return digest.FromString(k.String()) }

// hold says that this member is the writer of a repository.
type hold struct {
	lease    fleet.Lease // Generation is 0 until the store has answered
	requests int         // number of requests under way
	used     time.Time   // when the last request began or ended
}

// sighting is the writer that the store named last.
type sighting struct {
	fleet.Lease
	at time.Time
}

// place is the member that works on a repository.
type place struct {
	fleet.Lease
	// done ends the request; nil if another member is the writer.
	done func()
}

// New returns Writers without leases.
func New(o Options) *Writers {
	o.Patience = fleet.Patience{
		Stall: cmp.Or(o.Patience.Stall, 2*time.Second), Begin: cmp.Or(o.Patience.Begin, 3*time.Second),
		Answer: cmp.Or(o.Patience.Answer, 500*time.Millisecond), Store: cmp.Or(o.Patience.Store, 300*time.Millisecond),
	}
	w := &Writers{o: o, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), held: map[key]*hold{}, seen: map[key]sighting{}}
	w.m = newMetrics(w)
	return w
}

// Collectors returns the metrics. w may be nil.
func (w *Writers) Collectors() []prometheus.Collector {
	if w == nil {
		return nil
	}
	return w.m.collectors()
}

// Shares reports whether one member works on all pushes to a repository. w may be nil.
func (w *Writers) Shares(r repository.Repo) bool {
	return w != nil && r.Up != nil && r.Up.Sink != nil && w.o.Identity(r.Up.Name) != ""
}

// Confirm returns an error if another member has taken over the repository. If so, this member must
// not acknowledge a push that it has not published. If the store does not answer, Confirm returns
// nil. w may be nil.
func (w *Writers) Confirm(ctx context.Context, r repository.Repo) error {
	if !w.Shares(r) {
		return nil
	}
	l, err := w.look(ctx, w.keyOf(r))
	if err != nil || l.Holder == "" || l.Holder == w.o.Self.ID {
		return nil
	}
	w.m.fenced.Inc()
	return oci.ErrUnavailable.With("another member of the fleet has taken over the pushes to %s; push again", r.Name)
}

// Overtaken returns the error for a push whose tag was pushed or deleted through another member
// since this member got the push. It returns nil if [Writers.Shares] returns false for the
// repository. w may be nil.
func Overtaken(w *Writers, r repository.Repo, tag string) error {
	if !w.Shares(r) {
		return nil
	}
	w.m.fenced.Inc()
	return oci.ErrUnavailable.With("the tag %s of %s was changed through another member of the fleet meanwhile; push again", tag, r.Name)
}

// find returns the member that works on a repository. If no member does, this one takes the lease.
// failedLease is a lease to replace because its holder did not answer, or zero.
func (w *Writers) find(ctx context.Context, k key, failedLease fleet.Lease) place {
	if done, ok := w.enter(k); ok {
		return place{done: done}
	}
	l, err := w.take(ctx, k, failedLease.Generation)
	switch {
	case err != nil:
		l = w.guess(k, failedLease.Holder)
	case l.Holder != w.o.Self.ID:
		w.remember(k, l)
	}
	at := w.placeOf(k, l)
	if at.done != nil && l.Generation > 0 && w.leaving.Load() { // this member began to stop meanwhile: Run might no longer release the lease
		w.leave(context.WithoutCancel(ctx))
	}
	return at
}

// placeOf returns the place that a lease names. If the place is this member, placeOf begins a
// request.
func (w *Writers) placeOf(k key, l fleet.Lease) place {
	if l.Holder == w.o.Self.ID {
		return place{done: w.hold(k, l)}
	}
	return place{Lease: l}
}

// remember records the writer that the store has named, for use while the store fails.
func (w *Writers) remember(k key, l fleet.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[k] = sighting{l, time.Now()}
	for other := range w.seen {
		if len(w.seen) <= maxRemembered {
			break
		}
		if other != k {
			delete(w.seen, other)
		}
	}
}

// guess returns the writer while the store fails: the writer that the store named last, or else the
// member that rendezvous hashing chooses. By this hashing, members with the same list of live
// members choose the same writer. The result is never the member with the ID failedID.
func (w *Writers) guess(k key, failedID string) fleet.Lease {
	w.mu.Lock()
	last := w.seen[k]
	w.mu.Unlock()
	if last.Holder != "" && last.Holder != failedID && time.Since(last.at) < remembered {
		return last.Lease
	}
	live := slices.DeleteFunc(slices.Clone(w.o.Members.Live()), func(m fleet.Member) bool { return m.ID == failedID })
	chosen := fleet.Rendezvous(k.String(), live)
	if chosen.ID == "" {
		chosen = w.o.Self
	}
	return fleet.Lease{Digest: k.digest(), Holder: chosen.ID, Address: chosen.Address}
}

// enter begins a request if this member is the writer already.
func (w *Writers) enter(k key) (done func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.held[k]
	if h == nil || h.lease.Generation == 0 && h.requests == 0 && !time.Now().Before(w.storeAt) {
		return nil, false // the writer was guessed without the store, which can be asked again
	}
	return w.begin(h), true
}

// hold makes this member the writer, and begins a request.
func (w *Writers) hold(k key, l fleet.Lease) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, k)
	h := w.held[k]
	if h == nil {
		h = &hold{lease: l}
		w.held[k] = h
	}
	if l.Generation > h.lease.Generation {
		h.lease = l
	}
	return w.begin(h)
}

// begin counts a request. The caller holds mu.
func (w *Writers) begin(h *hold) (done func()) {
	h.requests++
	h.used = time.Now()
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		h.requests--
		h.used = time.Now()
	})
}

var errStore = errors.New("the store of leases did not answer a moment ago")

// take takes the lease of a repository, or returns the lease of another member. failedGen is the
// generation of a lease to replace, or 0. A member that is stopping takes no lease.
func (w *Writers) take(ctx context.Context, k key, failedGen int64) (fleet.Lease, error) {
	if w.leaving.Load() {
		l, err := w.look(ctx, k)
		if err == nil && (l.Holder == "" || l.Generation == failedGen) {
			err = errStore // this member must not take the lease, so find guesses the writer
		}
		return l, err
	}
	return w.ask(ctx, func(ctx context.Context) (fleet.Lease, error) {
		return w.o.Claims.Take(ctx, k.digest(), w.o.Self, failedGen)
	})
}

// look returns the lease of a repository. The result has no Holder if no member has the lease.
func (w *Writers) look(ctx context.Context, k key) (fleet.Lease, error) {
	return w.ask(ctx, func(ctx context.Context) (fleet.Lease, error) { return w.o.Claims.Find(ctx, k.digest()) })
}

// ask asks the store a question, unless the store failed a moment ago.
func (w *Writers) ask(ctx context.Context, question func(context.Context) (fleet.Lease, error)) (fleet.Lease, error) {
	w.mu.Lock()
	wait := time.Now().Before(w.storeAt)
	w.mu.Unlock()
	if wait {
		return fleet.Lease{}, errStore
	}
	bounded, cancel := context.WithTimeout(ctx, w.o.Patience.Store)
	defer cancel()
	l, err := question(bounded)
	w.storeAnswered(ctx, err)
	return l, err
}

// storeAnswered records whether the store has answered. It logs each change. If ctx has ended, it
// does nothing: an error then says nothing about the store.
func (w *Writers) storeAnswered(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	was := w.storeAt.IsZero()
	if err == nil {
		w.storeAt = time.Time{}
	} else {
		w.storeAt = time.Now().Add(storePause)
	}
	w.mu.Unlock()
	switch {
	case err != nil && was:
		w.log.Warn("the leases of repositories cannot be read, so this member uses the last ones that it has read", "error", err)
	case err == nil && !was:
		w.log.Info("the leases of repositories can be read again")
	}
}

// Run renews the leases of this member until ctx ends. It also takes the missing leases of
// repositories on which this member works, and releases the leases that this member no longer
// needs. When ctx ends, Run releases all leases. w may be nil.
func (w *Writers) Run(ctx context.Context) {
	if w == nil {
		return
	}
	tick := time.NewTicker(cmp.Or(w.o.RenewEvery, fleet.RenewEvery))
	defer tick.Stop()
	w.renew(ctx)
	for {
		select {
		case <-tick.C:
			w.renew(ctx)
		case <-ctx.Done():
			w.leave(context.WithoutCancel(ctx))
			return
		}
	}
}

// renew does what Run does every Options.RenewEvery.
func (w *Writers) renew(ctx context.Context) {
	extend, missing, over := w.sort(time.Now())
	bounded, cancel := context.WithTimeout(ctx, 4*w.o.Patience.Store)
	defer cancel()
	var asked bool
	var errs error
	if len(over) > 0 {
		asked, errs = true, w.o.Claims.Release(bounded, over)
	}
	if len(extend) > 0 && errs == nil {
		lost, err := w.o.Claims.Renew(bounded, w.o.Self, slices.Collect(values(extend)))
		asked, errs = true, err
		w.lose(extend, lost)
	}
	for _, k := range missing {
		if errs != nil {
			break
		}
		l, err := w.o.Claims.Take(bounded, k.digest(), w.o.Self, 0)
		asked, errs = true, err
		w.retake(k, l, err)
	}
	if asked {
		w.storeAnswered(ctx, errs)
	}
}

// sort returns the leases to renew, the repositories whose lease is missing, and the leases that
// this member no longer needs. sort removes the unneeded leases from w.held.
func (w *Writers) sort(now time.Time) (extend map[key]fleet.Lease, missing []key, over []fleet.Lease) {
	open := map[key]bool{}
	if w.o.Unfinished != nil {
		w.o.Unfinished(func(r repository.Repo) {
			if w.Shares(r) {
				open[w.keyOf(r)] = true
			}
		})
	}
	extend = map[key]fleet.Lease{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, h := range w.held {
		switch needed := open[k] || h.requests > 0 || now.Sub(h.used) < lingers; {
		case needed && h.lease.Generation > 0:
			extend[k] = h.lease
		case needed:
			missing = append(missing, k)
		default:
			delete(w.held, k)
			if h.lease.Generation > 0 {
				over = append(over, h.lease)
			}
		}
	}
	for k := range open {
		if last := w.seen[k]; w.held[k] == nil && now.Sub(last.at) >= lingers { // an earlier process began the push, or another member took over a while ago
			missing = append(missing, k)
		}
	}
	return extend, missing, over
}

func values(m map[key]fleet.Lease) func(func(fleet.Lease) bool) {
	return func(yield func(fleet.Lease) bool) {
		for _, l := range m {
			if !yield(l) {
				return
			}
		}
	}
}

// lose deletes leases that other members have taken.
func (w *Writers) lose(sent map[key]fleet.Lease, lost []digest.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, l := range sent {
		if h := w.held[k]; h != nil && h.lease.Generation == l.Generation && slices.Contains(lost, l.Digest) {
			delete(w.held, k)
			w.log.Warn("another member of the fleet has taken over the pushes to a repository, because it could not reach this one", "repository", k.name)
		}
	}
}

// retake records the answer of the store about a lease that was missing.
func (w *Writers) retake(k key, l fleet.Lease, err error) {
	if err != nil {
		return
	}
	if l.Holder == w.o.Self.ID {
		w.hold(k, l)()
		return
	}
	w.mu.Lock()
	delete(w.held, k)
	w.mu.Unlock()
	w.remember(k, l)
}

// leave releases all leases.
func (w *Writers) leave(ctx context.Context) {
	w.leaving.Store(true)
	var all []fleet.Lease
	w.mu.Lock()
	for k, h := range w.held {
		if h.lease.Generation > 0 {
			all = append(all, h.lease)
		}
		delete(w.held, k)
	}
	w.mu.Unlock()
	if len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 4*w.o.Patience.Store)
	defer cancel()
	if err := w.o.Claims.Release(ctx, all); err != nil {
		w.log.Debug("cannot give up leases of repositories", "leases", len(all), "error", err)
	}
}
