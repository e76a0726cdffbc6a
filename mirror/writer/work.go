package writer

import (
	"context"
	"errors"
	"net/http"

	"dray/cache/fleet"
	"dray/mirror/identity"
	"dray/mirror/request"
	"dray/upstream/oci"
)

// [attempts] bounds how often a request is passed on before the client has to send it again. It is
// enough for two rounds of three attempts. In such a round, the writer does not answer the first
// two attempts. The third goes to the member that find names next. That member answers that yet
// another member is the writer.
const attempts = 6

// Work answers a request by calling local, or passes the request on to the member that has the
// state of pushes to its repository. Requests that write, and questions of clients whether a push
// may leave a blob out, go to the writer of the repository. This member works on other requests
// itself. If it does not find the content, it asks the writer. If AcknowledgeLocally is set for the
// upstream, this member asks the writer for manifests and lists before it looks for them itself. w
// may be nil.
func (w *Writers) Work(x *request.Request, local func() error) error {
	if !x.Listener.TakesPushes() || !w.Shares(x.Repo) {
		return local()
	}
	// Work reads x.Repo now, because local may change it, for example to the repository of a fallback.
	k := w.keyOf(x.Repo)
	switch {
	case x.Vouched != nil && x.R.Header.Get(headerRepository) != k.String():
		return oci.ErrUnavailable.With("members of the fleet differ in what they call %s; configure their upstreams alike", x.Repo.Name)
	case x.Q.Write():
		return w.write(x, k, local)
	case x.Q.Kind == oci.KindBlob && x.AsksToPush() && x.May(identity.Push):
		return w.askWriter(x, k, local)
	case x.Vouched != nil:
		return local()
	case x.Repo.Up.AcknowledgeLocally && x.Q.Kind != oci.KindBlob:
		return w.readFirst(x, k, local)
	}
	err := local()
	if oci.NotFound(err) && !x.W.Started() {
		return w.readAfter(x, k, err)
	}
	return err
}

// write passes a writing request to the writer. If this member is the writer, write calls local
// instead.
func (w *Writers) write(x *request.Request, k key, local func() error) error {
	ctx := x.R.Context()
	at := w.find(ctx, k, fleet.Lease{})
	if x.Vouched != nil {
		return w.received(x, at, local)
	}
	var failed error
	tried := ""
	for range attempts {
		if at.done != nil {
			defer at.done()
			return local()
		}
		err := w.pass(x, at.Lease, passing{repository: k.String()})
		moved, isMoved := errors.AsType[*movedError](err)
		gone, isGone := errors.AsType[*goneError](err)
		switch {
		case isMoved:
			at = w.moved(ctx, k, moved)
		case isGone && gone.again() && tried != at.Holder:
			tried = at.Holder // try it once more: perhaps it has only closed an idle connection
		case isGone:
			w.takeover(x, at.Lease, gone)
			at = w.find(ctx, k, at.Lease)
		default:
			return err
		}
		failed = err
		w.m.passed.WithLabelValues(passedRepeated).Inc()
	}
	if at.done != nil { // this member can still answer, because no attempt has read a byte of the body
		defer at.done()
		return local()
	}
	w.m.passed.WithLabelValues(passedFailed).Inc()
	return notReached(x, failed)
}

// moved returns the writer that another member has named instead of answering the request. If the
// other member has named this one, moved takes the lease first.
func (w *Writers) moved(ctx context.Context, k key, m *movedError) place {
	if m.Holder != w.o.Self.ID {
		return place{Lease: m.Lease}
	}
	l, err := w.take(ctx, k, 0)
	if err != nil {
		// The store does not answer, and each of the two members believed that the other was the
		// writer. So this member becomes the writer.
		l = m.Lease
	}
	return w.placeOf(k, l)
}

// takeover logs that a writer has failed.
func (w *Writers) takeover(x *request.Request, l fleet.Lease, err error) {
	w.m.taken.Inc()
	w.log.Warn("the member of the fleet that works on the pushes to a repository does not answer, so another one takes over", "member", l.Holder, "address", l.Address,
		"upstream", x.Repo.Up.Name, "repository", x.Repo.Name, "error", err)
}

func notReached(x *request.Request, err error) error {
	return oci.ErrUnavailable.With("the member of the fleet that works on pushes to %s does not answer; push again", x.Repo.Name).Because(err)
}

// received works on a request that another member has passed on, if this member is the writer.
// Otherwise it answers with the lease of the writer.
func (w *Writers) received(x *request.Request, at place, local func() error) error {
	if at.done != nil {
		defer at.done()
		w.m.received.Inc()
		return local()
	}
	x.W.Header().Set(headerMoved, encode(at.Lease))
	x.W.WriteHeader(http.StatusMisdirectedRequest)
	return nil
}

// askWriter asks the writer whether a push may leave a blob out. If the writer does not answer,
// this member answers. At worst, the client then sends a blob needlessly, which does no harm.
func (w *Writers) askWriter(x *request.Request, k key, local func() error) error {
	ctx := x.R.Context()
	at := w.find(ctx, k, fleet.Lease{})
	if x.Vouched != nil {
		return w.received(x, at, local)
	}
	answered := func(status int) bool { return status < http.StatusInternalServerError }
	for range 2 {
		if at.done != nil {
			break
		}
		err := w.pass(x, at.Lease, passing{repository: k.String(), bounded: true, takes: answered})
		if err == nil || x.W.Started() {
			return err
		}
		if moved, ok := errors.AsType[*movedError](err); ok {
			at = w.moved(ctx, k, moved)
		} else if gone, ok := errors.AsType[*goneError](err); ok {
			w.takeover(x, at.Lease, gone)
			at = w.find(ctx, k, at.Lease)
		} else {
			break // the writer is too slow or has no answer, and would be so again
		}
	}
	if at.done != nil {
		defer at.done()
	}
	return local()
}

// readFirst passes a request for a manifest or a list on to the writer, because the writer may have
// acknowledged pushes that it has yet to forward. If no other member is the writer, or if the
// writer does not have the content or does not answer, this member answers.
func (w *Writers) readFirst(x *request.Request, k key, local func() error) error {
	if l, ok := w.other(x.R.Context(), k); ok {
		if err := w.pass(x, l, passing{repository: k.String(), bounded: true, takes: found}); err == nil || x.W.Started() {
			return err
		}
	}
	return local()
}

// readAfter passes a request on to the writer, because its content was not found here. If no other
// member is the writer, or if the writer does not have the content or does not answer, readAfter
// returns err, the error of this member.
func (w *Writers) readAfter(x *request.Request, k key, err error) error {
	l, ok := w.other(x.R.Context(), k)
	if !ok {
		return err
	}
	if other := w.pass(x, l, passing{repository: k.String(), bounded: true, takes: found}); other == nil || x.W.Started() {
		return other
	}
	return err
}

func found(status int) bool { return status < http.StatusBadRequest }

// other returns the writer's lease and true if another member is the writer of a repository.
func (w *Writers) other(ctx context.Context, k key) (fleet.Lease, bool) {
	if done, ok := w.enter(k); ok {
		done()
		return fleet.Lease{}, false
	}
	l, err := w.look(ctx, k)
	if err != nil {
		l = w.guess(k, "")
	}
	return l, l.Holder != "" && l.Holder != w.o.Self.ID
}

// maxAsked bounds the members that Anywhere asks.
const maxAsked = 16

// Anywhere answers a request by calling local. If local finds nothing, Anywhere asks other members.
// It is for requests that belong to no repository. w may be nil.
func (w *Writers) Anywhere(x *request.Request, local func() error) error {
	err := local()
	if w == nil || x.Vouched != nil || !x.Listener.TakesPushes() || !oci.NotFound(err) || x.W.Started() {
		return err
	}
	asked := 0
	for _, m := range w.o.Members.Live() {
		if m.ID == w.o.Self.ID {
			continue
		}
		if asked++; asked > maxAsked {
			break
		}
		if other := w.pass(x, fleet.Lease{Holder: m.ID, Address: m.Address}, passing{bounded: true, takes: found}); other == nil || x.W.Started() {
			return other
		}
	}
	return err
}
