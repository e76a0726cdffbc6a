package pull

import (
	"context"
	"sync"
	"time"

	"dray/mirror/flight"
	"dray/mirror/repository"
)

const (
	// pushPatience bounds how long dray waits for a registry's answer on behalf of a client whose
	// pushes dray acknowledges locally. It leaves time to answer the client within 2 s.
	pushPatience = 1900 * time.Millisecond
	// probePause is the time between two questions to a silent upstream.
	probePause = 5 * time.Second
	// outageMemory bounds how long dray still asks a silent upstream after the last question of a
	// client. It is longer than the time between the pushes of one CI run.
	outageMemory = 10 * time.Minute
)

// outages bounds how long a client waits for a registry's answer when its push does not need the
// answer. If [NotAnswered] is true for the error of a question, such as a timeout or throttling,
// the upstream is silent. From then on no client waits: [AskQuickly] returns an error at once.
// Meanwhile a task asks the upstream every probePause, with the newest question of a client, until
// there is an answer, or until no client has asked for outageMemory.
type outages struct {
	tasks  *flight.Tasks
	mu     sync.Mutex         // guards silent and its values; locked before the lock of tasks
	silent map[string]*outage // by upstream
}

// outage is the state of a silent upstream.
type outage struct {
	why   error // result of the newest attempt
	probe func(context.Context) error
	asked time.Time // when a client asked last; probe is that client's question
}

func newOutages(tasks *flight.Tasks) *outages {
	return &outages{tasks: tasks, silent: map[string]*outage{}}
}

// AskQuickly returns the result of query, which sends a question to the upstream of r. If the
// upstream is silent, AskQuickly does not call query, and at once returns the error of an earlier
// question. [NotAnswered] is true for that error. probe sends a question to the same upstream and
// changes nothing there. The task that asks a silent upstream may call probe at any later time.
func AskQuickly[T any](ctx context.Context, p *Puller, r repository.Repo, query func(context.Context) (T, error), probe func(context.Context) error) (v T, err error) {
	name := r.Up.Name
	if why := p.outages.reason(name, probe); why != nil {
		return v, why
	}
	bounded, cancel := context.WithTimeout(ctx, pushPatience)
	defer cancel()
	if v, err = query(bounded); NotAnswered(err) && ctx.Err() == nil {
		p.outages.begin(name, probe, err)
	}
	return v, err
}

// Probe returns a function for the parameter probe of AskQuickly. The function calls ask, which
// must change nothing at the upstream.
func Probe[T any](ask func(context.Context) (T, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := ask(ctx)
		return err
	}
}

// reason returns why an upstream is silent, and stores probe as the next question to that upstream.
// It returns nil if the upstream is not silent.
func (o *outages) reason(name string, probe func(context.Context) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.silent[name]
	if s == nil {
		return nil
	}
	s.probe, s.asked = probe, time.Now()
	return s.why
}

// begin makes an upstream silent, unless it is silent already.
func (o *outages) begin(name string, probe func(context.Context) error, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent[name] == nil && o.tasks.Start(func(ctx context.Context) { o.watch(ctx, name) }) {
		o.silent[name] = &outage{why, probe, time.Now()}
	}
}

// watch asks a silent upstream until it answers, until no client has asked within outageMemory, or
// until ctx ends. In each case, the upstream is no longer silent afterwards.
func (o *outages) watch(ctx context.Context, name string) {
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.silent, name)
	}()
	tick := time.NewTicker(probePause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		probe := o.next(name)
		if probe == nil {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, pushPatience)
		err := probe(bounded)
		cancel()
		if !NotAnswered(err) || ctx.Err() != nil {
			return
		}
		o.still(name, err)
	}
}

// next returns the next question to a silent upstream, or nil if no client has asked within
// outageMemory.
func (o *outages) next(name string) func(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.silent[name]
	if time.Since(s.asked) >= outageMemory {
		return nil
	}
	return s.probe
}

// [outages.still] records why a silent upstream left one more question without an answer.
func (o *outages) still(name string, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silent[name].why = why
}
