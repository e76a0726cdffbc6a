package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// failure is something that can go wrong in a fleet while clients pull an image that is not in the
// cache. Nobody pulls twice, and no pull may fail, but for those of a member that has been killed.
type failure struct {
	name string
	// removed takes away what this test is about. TestFleetMechanisms shows that it then fails. Where
	// two mechanisms each suffice, also takes away the second one. Where removed is empty, the test
	// shows that something is not there.
	removed, also mutation
	options       fleetOptions
	// altered is a change of the second member alone, and ahead says how many numbers its protocol is
	// ahead of the others'.
	altered mutation
	ahead   int
	// event is what goes wrong. It happens when the registry has sent half of the layer, and all
	// clients have read nearly all of that. nil means that it happens before.
	event func(r *round)
	// before happens before anybody pulls, and after when all clients have ended.
	before, after func(r *round)
	// held says that the registry sends no second half of the layer in any answer before event ends.
	// Otherwise only the first answer is incomplete, until all clients have ended.
	held bool
	// late says that the clients of the last member begin after the event.
	late bool
	// lost says that the clients of the holder die with it.
	lost bool
	// pulls replaces the pulls of a round.
	pulls func(r *round, each int)
	// prepare starts what the fleet needs.
	prepare func(t testing.TB, o *fleetOptions)
	// pause is the longest time without a byte that a client may see after the event.
	pause time.Duration
	// bytes is the most that the registry may send, in lengths of the layer.
	bytes float64
}

// own reports whether the failure needs a fleet of its own.
func (f failure) own() bool {
	return f.prepare != nil || f.options.members > 0 || f.options.layer > 0 || f.ahead > 0 || f.altered != mutation{}
}

// round is one image and its pulls.
type round struct {
	*fleetWorld
	image   fleetImage
	holder  *fleetMember
	others  []*fleetMember
	own     []*pulling // of the holder
	clients []*pulling // of the others
	found   []string   // what was wrong beside pulls
	strict  bool
	beside  int64 // bytes of the registry that do not count
	more    int   // requests beside pulls that were answered as they must be
}

func (r *round) wrong(format string, args ...any) {
	r.found = append(r.found, fmt.Sprintf(format, args...))
}

// verdict is what the rounds of a failure have shown.
type verdict struct {
	pulls int
	wrong []string
	pause time.Duration
	bytes float64 // of the worst round
}

func (f failure) String() string { return f.name }

// start starts the fleet that the failure needs. The members lack a mechanism if it is given.
func (f failure) start(t testing.TB, without ...mutation) *fleetWorld {
	t.Helper()
	o := f.options
	if o.members == 0 {
		o.members = 3
	}
	if f.prepare != nil {
		f.prepare(t, &o)
	}
	program, other := built.dray, ""
	if len(without) > 0 {
		program = buildAltered(t, 0, without...)
	}
	switch other = program; {
	case f.altered != (mutation{}):
		other = buildAltered(t, 0, append(without, f.altered)...)
	case f.ahead > 0 && len(without) > 0:
		other = buildAltered(t, f.ahead, without...)
	case f.ahead > 0:
		other = drayAhead(t, f.ahead)
	}
	o.program = func(i int) string {
		if i == 1 {
			return other
		}
		return program
	}
	return newFleet(t, o)
}

// run makes rounds in a fleet until there were enough pulls, or one went wrong.
func (f failure) run(w *fleetWorld, pulls int, strict bool) (v verdict) {
	for i := 0; v.pulls < pulls && len(v.wrong) == 0; i++ {
		r := &round{fleetWorld: w, image: w.seed(), holder: w.members[i%len(w.members)], strict: strict}
		for _, m := range w.members {
			if m != r.holder {
				r.others = append(r.others, m)
			}
		}
		r.pull(f, min(10, max(1, pulls/len(r.others))), &v)
		for _, m := range w.members {
			if isClosed(m.process.ended) {
				m.start()
			}
		}
	}
	return v
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pull makes the pulls of one round.
func (r *round) pull(f failure, each int, v *verdict) {
	bytes, _ := r.sent()
	defer func() {
		<-r.hub.Idle()
		now, _ := r.sent()
		v.bytes = max(v.bytes, float64(now-bytes-r.beside)/float64(r.image.size))
		v.wrong = append(v.wrong, r.found...)
		v.pulls += r.more
	}()
	if f.pulls != nil {
		f.pulls(r, each)
		return
	}
	answers := 1
	if f.held {
		answers = -1
	}
	release := r.hold(r.image, answers)
	defer release()
	if f.before != nil {
		f.before(r)
	}
	all := func(reach int64) bool {
		return r.eventually("progress of all clients", func() bool {
			for _, c := range append(r.own[:len(r.own):len(r.own)], r.clients...) {
				if got, _ := c.got(); got < reach && !c.ended() {
					return false
				}
			}
			return true
		})
	}
	for range each {
		r.own = append(r.own, r.holder.pull(r.image))
	}
	ok := all(r.image.size / 4)
	soon, late := r.others, []*fleetMember(nil)
	if f.late {
		soon, late = r.others[:len(r.others)-1], r.others[len(r.others)-1:]
	}
	r.begin(soon, each)
	if !ok || f.event != nil && !all(r.image.size/2-256<<10) {
		r.wrong("not all clients read while the layer arrives")
	}
	r.mark()
	if f.event != nil {
		f.event(r)
	}
	r.begin(late, each)
	if f.held || f.event == nil {
		release()
	}
	for _, c := range r.clients {
		<-c.done
		_, pause := c.got()
		v.pause = max(v.pause, pause)
		v.pulls++
		if c.err != nil {
			r.wrong("%v", c.err)
		}
	}
	release()
	if f.after != nil {
		f.after(r)
	}
	for _, c := range r.own {
		<-c.done
		if !f.lost {
			v.pulls++
			if c.err != nil {
				r.wrong("%v", c.err)
			}
		}
	}
}

// mark has the clients measure pauses from now on.
func (r *round) mark() {
	for _, c := range append(r.own[:len(r.own):len(r.own)], r.clients...) {
		c.mark()
	}
}

// begin starts clients of some members.
func (r *round) begin(members []*fleetMember, each int) {
	for _, m := range members {
		for range each {
			r.clients = append(r.clients, m.pull(r.image))
		}
	}
}

// judge adds what exceeds the bounds of a failure. Without strict, it allows for a machine that is
// so slow that members take each other, or Redis, for dead.
func (f failure) judge(v *verdict, strict bool) {
	bytes := f.bytes
	if !strict {
		bytes = float64(max(3, f.options.members)) + 1
	}
	if v.bytes > bytes {
		v.wrong = append(v.wrong, fmt.Sprintf("the registry sent %.3f times the layer, more than %v", v.bytes, bytes))
	}
	if strict && f.pause > 0 && v.pause > f.pause {
		v.wrong = append(v.wrong, fmt.Sprintf("a client waited %v, more than %v", v.pause, f.pause))
	}
}

const (
	streamFile = "cache/fleet/stream.go"
	shareFile  = "cache/fleet/share.go"
	fleetFile  = "cache/fleet/fleet.go"
	sendFile   = "cache/fleet/send.go"
	fetchFile  = "mirror/repository/fetch.go"
)

// unasked lacks what finds that a member is dead whose connections stand.
var unasked = mutation{streamFile, "case err != nil:\n\t\ts.stop(errDead)", "case err != nil && off < 0:\n\t\ts.stop(errDead)"}

// failures are the cases of docs/fleet.md.
func failures() []failure {
	return []failure{
		{
			name: "holder killed", lost: true, pause: time.Second, bytes: 1.1,
			event:   func(r *round) { r.holder.kill() },
			removed: mutation{shareFile, "s.failed, s.lease = l.Generation, l", "s.lease = l"}, // nobody takes over
		},
		{
			name: "holder stopped, two fetches", pause: 5 * time.Second, bytes: 1.6,
			event: func(r *round) { r.holder.signal(syscall.SIGSTOP) },
			after: func(r *round) {
				r.holder.signal(syscall.SIGCONT)
			},
			removed: unasked,
		},
		{
			name: "holder in a black hole", pause: 5 * time.Second, bytes: 1.6,
			event:   func(r *round) { r.holder.door.swallow(true) },
			after:   func(r *round) { r.holder.door.swallow(false) },
			removed: unasked,
		},
		{
			name: "holder cut off from members and Redis", pause: 5 * time.Second, bytes: 1.6,
			event: func(r *round) {
				r.holder.door.swallow(true)
				r.holder.store.swallow(true)
			},
			after: func(r *round) {
				r.holder.door.swallow(false)
				r.holder.store.swallow(false)
				r.together()
			},
			removed: unasked,
		},
		{
			name: "registry slow", held: true, pause: 8 * time.Second, bytes: 1.01,
			event:   func(*round) { time.Sleep(4 * time.Second) },
			removed: mutation{streamFile, "default:\n\t\ts.timer.Reset(s.p.patience.Stall)", "default:\n\t\ts.stop(errDead)"}, // everybody leaves a holder that waits
		},
		{
			name: "stream congested", held: true, pause: 5 * time.Second, bytes: 1.01, options: fleetOptions{layer: 16 << 20},
			event:   func(r *round) { r.holder.door.stick() },
			after:   func(r *round) { r.holder.door.drop() },
			removed: mutation{streamFile, "case ready > congested:", "case ready > 1<<50:"},
		},
		{
			name: "Redis away", pause: 5 * time.Second, bytes: 3.01, held: true,
			before: func(r *round) { r.redis.Kill() },
			after: func(r *round) {
				r.redis.Start()
				r.together()
			},
			removed: mutation{shareFile, "case err != nil:\n\t\t\treturn s.goAlone(aloneStore)", "case err != nil:\n\t\t\ttime.Sleep(time.Second)\n\t\t\tcontinue"},
		},
		{
			name: "Redis hangs", pause: 5 * time.Second, bytes: 3.01, held: true,
			before: func(r *round) { r.redis.Pause() },
			after: func(r *round) {
				r.redis.Resume()
				r.together()
			},
			removed: mutation{shareFile, "case err != nil:\n\t\t\treturn s.goAlone(aloneStore)", "case err != nil:\n\t\t\ttime.Sleep(time.Second)\n\t\t\tcontinue"},
		},
		{
			name: "Redis dies meanwhile", pause: time.Second, bytes: 1.01, held: true,
			event: func(r *round) {
				r.redis.Kill()
				time.Sleep(4 * time.Second) // each member has tried to renew its leases
				r.mark()
			},
			after: func(r *round) {
				r.redis.Start()
				r.together()
			},
			removed: mutation{fleetFile, "f.storeAnswered(ctx, err)\n\tf.mu.Lock()", "f.storeAnswered(ctx, err)\n\tif err != nil {\n\t\tf.Interrupt()\n\t}\n\tf.mu.Lock()"},
		},
		{
			name: "Redis flushed", pause: 10 * time.Second, bytes: 1.01, held: true, late: true,
			event: func(r *round) {
				r.redis.Do("FLUSHALL")
				if !r.eventually("lease again", func() bool { return strings.Contains(r.redis.Do("KEYS", "*:lease:*"), r.image.layer.String()) }) {
					r.wrong("the holder did not restore its lease")
				}
			},
			removed: mutation{fleetFile, "all, sent[d] = append(all, l.Lease), l.Generation", "sent[d] = l.Generation"},
		},
		sentinelFailure(),
		bucketFailure("bucket slow down", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "<Error><Code>SlowDown</Code></Error>")
			return true
		}, mutation{fetchFile, "if err != nil {\n\t\tf.tier.left.Store(true)\n\t\treturn s, false", "if err != nil {\n\t\treturn cache.Stream{Body: http.NoBody}, true"}),
		bucketFailure("bucket in a black hole", func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
			mutation{"cache/s3/bucket.go", "return context.WithTimeoutCause(ctx, limit, errSlow)", "return context.WithTimeoutCause(ctx, limit+time.Hour, errSlow)"}),
		{
			name: "herd at the holder", bytes: 1.01, held: true, options: fleetOptions{members: 11},
			event: func(r *round) {
				if n := r.holder.metric("dray_fleet_followers"); n > 8 {
					r.wrong("%v members read from the holder", n)
				}
			},
			removed: mutation{"cache/fleet/readers.go", "countIn(all, here) < maxFollowers", "countIn(all, here) >= 0"},
		},
		{
			name: "all members stop", bytes: 1.01, held: true,
			event: (*round).stopAll,
			after: func(r *round) {
				for _, m := range r.members {
					select {
					case <-m.ended:
					case <-time.After(2 * time.Minute):
						r.wrong("%s does not stop", m.name)
					}
				}
			},
			removed: mutation{"cmd/dray/listening/listening.go", "time.NewTimer(l.Pause)", "time.NewTimer(5 * time.Second)"},
		},
		{
			name: "holder stops, as in a rolling upgrade", bytes: 1.01, held: true,
			event: func(r *round) {
				r.holder.signal(syscall.SIGTERM)
				r.refuses(r.holder.address) // of members; so it has given up its leases
			},
			after:   func(r *round) { <-r.holder.ended },
			removed: mutation{"cache/fleet/server.go", "if s.Shutdown(late) != nil {", "if s.Close() == nil {"},
		},
		{
			name: "layer of another repository", bytes: 1.01, held: true, late: true,
			before:  (*round).seedOther,
			event:   (*round).steal,
			removed: mutation{fetchFile, "if !visible {\n\t\t_, err", "if visible = true; !visible {\n\t\t_, err"},
			also:    mutation{"mirror/pull/blobs.go", "if at.Place != repository.Nowhere || f.Answered() {", "if at.Place != repository.Nowhere || f != nil {"},
		},
		{
			name: "versions one apart", bytes: 1.01, held: true, ahead: 1,
			removed: mutation{sendFile, "protocol >= p.me.Protocol-1 && protocol <= p.me.Protocol+1", "protocol == p.me.Protocol"},
		},
		{
			// If the member of the other version is the holder, the other two cannot read from it, and its
			// lease keeps them from having a holder of their own.
			name: "versions two apart", bytes: 3.01, held: true, ahead: 2,
			after: func(r *round) {
				if log := read(r, r.members[0].logFile); !strings.Contains(string(log), "speaks another protocol") {
					r.wrong("a member that speaks another protocol is not named")
				}
			},
			removed: mutation{sendFile, "p.log.Warn(\"a member of the fleet speaks another protocol", "p.log.Debug(\"a member of the fleet speaks another protocol"},
		},
		{
			name: "clock two days ahead", bytes: 1.01, held: true, options: fleetOptions{settings: ", tags: {fresh: 1s, revalidate: 0s}"},
			after: (*round).retag,
			altered: mutation{"GOROOT/src/time/time.go", "sec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}",
				"sec, nsec, mono := runtimeNow()\n\tsec += 2 * 86400\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}"},
		},
		{
			name: "members with each other's addresses", bytes: 2.01, held: true, before: (*round).swap, // two layers
			removed: mutation{"cache/fleet/holdings.go", "if err != nil || len(h.parts) == 0 {", "if err != nil || len(h.parts) >= 0 {"},
		},
		{
			name: "holder with wrong bytes", bytes: 2.01, pulls: (*round).poison,
			removed: mutation{shareFile, "s.f.wrong(s.digest, slices.Collect(maps.Keys(s.given)), !s.asked)", "_, again = slices.Collect(maps.Keys(s.given)), false"},
		},
	}
}

// TestFleetFailures has each of the failures happen while clients pull.
func TestFleetFailures(t *testing.T) {
	pulls, strict := fleetPulls(t)
	var shared *fleetWorld
	for _, f := range failures() {
		t.Run(f.name, func(inner *testing.T) {
			if f.altered != (mutation{}) && !strict {
				inner.Skip("builds another dray; make test-fleet runs it")
			}
			w := shared
			switch {
			case f.own():
				w = f.start(inner)
			case shared == nil:
				w = f.start(t)
				shared = w
			}
			v := f.run(w, pulls, strict)
			f.judge(&v, strict)
			inner.Logf("%d pulls, a pause of %v, %.3f times the layer from the registry", v.pulls, v.pause.Round(time.Millisecond), v.bytes)
			for _, wrong := range v.wrong {
				inner.Error(wrong)
			}
		})
	}
}

// TestFleetMechanisms removes, one after the other, the mechanisms that the failures are about. A
// failure that nobody notices without its mechanism shows nothing.
func TestFleetMechanisms(t *testing.T) {
	if _, strict := fleetPulls(t); !strict {
		t.Skip("builds many drays; make test-fleet runs it")
	}
	for _, f := range failures() {
		t.Run(f.name, func(t *testing.T) {
			if f.removed == (mutation{}) {
				t.Skip("clocks are compared nowhere, so there is nothing to remove")
			}
			w := f.start(t, f.removed, f.also)
			w.client.Timeout = 30 * time.Second
			v := f.run(w, 20, true)
			for _, m := range w.members { // without a mechanism, some do not stop
				m.kill()
			}
			if f.judge(&v, true); len(v.wrong) == 0 {
				t.Errorf("passes without its mechanism: %d pulls, a pause of %v, %.3f times the layer", v.pulls, v.pause, v.bytes)
				return
			}
			t.Logf("without the mechanism: %s", v.wrong[0])
		})
	}
}
