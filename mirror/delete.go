package mirror

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"dray/mirror/notify"
	"dray/mirror/queue"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// mayDelete refuses deletions that nobody switched on: it takes one mistake to lose what many depend on.
func (x *exchange) mayDelete() error {
	if x.up.Deleter == nil {
		return oci.ErrUnsupported.With("nothing is deleted from %s through this mirror", x.up.Registry)
	}
	return nil
}

// deleteManifest forwards the deletion of a tag or a manifest and forgets what was known of it. What the client sees
// afterwards is the upstream's answer again. What is still on its way, or waits, is given up first: it would arrive afterwards.
func (m *Mirror) deleteManifest(x *exchange) error {
	m.divert(x)
	if err := x.mayDelete(); err != nil {
		return err
	}
	ctx := x.hurry(lookFor)
	up, repo, ref := x.up, x.target.Repo, x.q.Ref
	waiting, err := m.withdraw(ctx, up, repo, ref)
	if err != nil {
		return err
	}
	verdicts := m.attachments.Drop(ctx, func(a attachment) bool {
		return a.up == up && a.repo == repo && (a.subject.Digest == ref.Digest || a.ref == ref)
	})
	gone, err := m.deleteThere(ctx, up, repo, ref)
	if err != nil && !oci.NotFound(err) {
		waiting.Restore()
		for _, a := range verdicts {
			m.attachments.Add(a)
		}
		return deniedAs403(x, err)
	}
	waiting.Done()
	dropped := ref.ByDigest() && m.backlog.drop(pinKey{up.Name, repo, ref.Digest})
	after := context.WithoutCancel(ctx)
	if ref.Tag != "" {
		m.forgetReference(after, up, repo, ref)
	}
	for _, p := range waiting.Pushes() {
		dropped, gone = true, p.Digest
		m.forgetManifest(after, up, repo, p.Digest)
	}
	if gone != "" {
		m.forgetManifest(after, up, repo, gone)
	}
	if err != nil && !dropped {
		return err
	}
	m.tell(notify.Delete, up, x.caller.Name, x.cause(), notify.Target{Digest: gone, Repository: repo, Tag: ref.Tag})
	return x.deleted()
}

// deleteThere deletes at the upstream and returns the digest of what has gone, if it is known, also with an error that says that there was nothing.
func (m *Mirror) deleteThere(ctx context.Context, up *Upstream, repo string, ref oci.Reference) (gone digest.Digest, err error) {
	gone = ref.Digest
	if ref.Tag != "" {
		// Registries may drop the manifest with its last tag, so it is to be known which one that was.
		d, err := up.Source.StatManifest(ctx, up.remote(repo), ref, anyManifest)
		if err != nil && !upstream.Transient(err) && !errors.Is(err, oci.ErrDenied) {
			return "", err
		}
		gone = d.Digest
	}
	return gone, up.Deleter.DeleteManifest(ctx, up.remote(repo), ref)
}

// withdraw takes what waits here for a tag or a digest out of its queue, until it is known whether it is deleted. What is on its way at
// this moment arrives first, and is deleted where it lies.
func (m *Mirror) withdraw(ctx context.Context, up *Upstream, repo string, ref oci.Reference) (*queue.Withdrawal, error) {
	meant := func(reference string, d digest.Digest) bool { return reference == ref.String() || d == ref.Digest }
	busy := oci.ErrDenied.With("%s of %s is being copied to %s right now: delete it once it has arrived", ref, repo, up.Registry)
	landing := func(k pleaKey) bool {
		return k.upstream == up.Name && k.repo == repo && meant(k.ref.String(), k.digest)
	}
	if err := m.landings.Wait(ctx, landing); err != nil {
		return nil, busy.Because(err)
	}
	queued := func(p queue.Push) bool { return meant(p.Reference, p.Digest) }
	if index := m.needing(up, repo, queued); index != "" {
		return nil, oci.ErrDenied.With("%s of %s is part of the index %s, which is still on its way to %s: delete that first", ref, repo, index, up.Registry)
	}
	w, err := m.queue.Withdraw(ctx, up.Name, repo, queued)
	switch {
	case errors.Is(err, queue.ErrBusy):
		return nil, busy.Because(err)
	case err != nil:
		return nil, oci.ErrUnavailable.With("the mirror cannot drop the push that waits for %s now", up.Registry).Because(err)
	}
	return w, nil
}

// needing returns the reference of an index in the queue that could not land without the pushes that are to go, or "".
func (m *Mirror) needing(up *Upstream, repo string, goes func(queue.Push) bool) string {
	pushes := m.queue.Pushes(up.Name, repo)
	missing := map[digest.Digest]bool{}
	for _, p := range pushes {
		if goes(p) {
			missing[p.Digest] = true
		}
	}
	for _, p := range pushes {
		if !goes(p) {
			delete(missing, p.Digest)
		}
	}
	for _, p := range pushes {
		if len(missing) == 0 || goes(p) {
			continue
		}
		man, err := oci.ParseManifest(p.MediaType, p.Manifest)
		if err == nil && slices.ContainsFunc(man.Children(), func(c oci.Child) bool { return c.Manifest && missing[c.Digest] }) {
			return p.Reference
		}
	}
	return ""
}

// deleteBlob forwards the deletion of a blob. One that is still on its way arrives first: the client was told that it
// is there.
func (m *Mirror) deleteBlob(x *exchange) error {
	if err := x.mayDelete(); err != nil {
		return err
	}
	ctx := x.hurry(lookFor)
	up, repo, d := x.up, x.target.Repo, x.q.Ref.Digest
	if _, waits := m.queue.Blob(up.Name, repo, d); waits {
		return oci.ErrDenied.With("%s of %s is needed by a push on its way to %s: delete it once that has arrived", d, repo, up.Registry)
	}
	key := pinKey{up.Name, repo, d}
	p := m.pins.get(key)
	if p != nil {
		select {
		case <-p.forward.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := up.Deleter.DeleteBlob(ctx, up.remote(repo), d)
	if p != nil && p.forward.err != nil && oci.NotFound(err) {
		err = nil // it was here alone, and that ends now
	}
	if err != nil && !oci.NotFound(err) {
		return deniedAs403(x, err)
	}
	m.pins.drop(key)
	m.forgetDigest(context.WithoutCancel(ctx), up, repo, d)
	if err != nil {
		return err
	}
	m.tell(notify.Delete, up, x.caller.Name, x.cause(), notify.Target{Digest: d, Repository: repo})
	return x.deleted()
}

// deniedAs403 makes refused credentials of dray a text that reaches the terminal.
func deniedAs403(x *exchange, err error) error {
	if errors.Is(err, upstream.ErrCredentials) {
		return oci.ErrDenied.With("the mirror has no valid credentials for %s", x.up.Registry).Because(err)
	}
	return err
}

// deleted is the answer to a deletion (spec, "Deleting Tags").
func (x *exchange) deleted() error {
	x.w.Header().Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// anyManifest takes every manifest that there is.
var anyManifest = oci.AnyManifest()

// forgetReference drops what is known of a tag, or that a digest was not found, and answers about it
// that are on their way.
func (m *Mirror) forgetReference(ctx context.Context, up *Upstream, repo string, ref oci.Reference) {
	if ref.ByDigest() {
		m.recorded(m.absences.Forget(ctx, up.Name, repo, ref.Digest))
		return
	}
	m.recorded(m.tags.Forget(ctx, up.Name, repo, ref.Tag))
}

// forgetManifest drops what is known of a manifest and its children. Without its link no fact about a tag leads to it any
// more, and each child is asked for when it matters: another manifest may still need it.
func (m *Mirror) forgetManifest(ctx context.Context, up *Upstream, repo string, d digest.Digest) {
	gone := []digest.Digest{d}
	if a := m.held(ctx, up, repo, d); a != nil {
		if man, err := oci.ParseManifest(a.mediaType, a.raw); err == nil {
			for _, c := range man.Children() {
				gone = append(gone, c.Digest)
			}
		}
	}
	m.forgetDigest(ctx, up, repo, gone...)
}

// forgetDigest drops the facts that let a repository see digests, and those that let pushes leave them out.
func (m *Mirror) forgetDigest(ctx context.Context, up *Upstream, repo string, ds ...digest.Digest) {
	m.recorded(m.known.Forget(ctx, up.Name, repo, ds...))
	for _, d := range ds {
		m.recorded(m.links.Forget(ctx, up.Name, repo, d))
		m.recorded(m.absences.Forget(ctx, up.Name, repo, d))
	}
}
