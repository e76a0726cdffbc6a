package push

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"dray/mirror/gate"
	"dray/mirror/notify"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/upstream"
	"dray/upstream/oci"
)

// mayDelete refuses deletions unless the configuration allows them, because one mistake could
// delete images that many people use.
func mayDelete(x *request.Request) error {
	if x.Repo.Up.Deleter == nil {
		return oci.ErrUnsupported.With("this mirror does not accept deletions for %s", x.Repo.Up.Registry)
	}
	return nil
}

// DeleteManifest forwards the deletion of a tag or a manifest. First it withdraws what could reach
// the upstream after the deletion: the queued pushes and verdicts of the tag or manifest, and a
// waiting manifest that is deleted by its digest. It does not withdraw a push that arrives during
// the deletion. If the deletion fails, except with "not found", DeleteManifest puts back what it
// has withdrawn. After a deletion, it drops the facts about the tag or manifest, so that dray asks
// the upstream again.
func (p *Pusher) DeleteManifest(x *request.Request) error {
	x.Divert()
	if err := mayDelete(x); err != nil {
		return err
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	r, ref := x.Repo, x.Q.Ref
	withdrawal, err := p.withdraw(ctx, r, ref)
	if err != nil {
		return err
	}
	deleted := false
	defer func() {
		if !deleted { // the deletion failed, or a panic left its result unknown
			withdrawal.Restore()
		}
	}()
	restore := p.o.Verdicts.Drop(ctx, r, ref)
	dropped, endWait := false, func(bool) {}
	if ref.ByDigest() {
		dropped, endWait = p.o.Repositories.Waiting().Withdraw(r.Key(ref.Digest))
	}
	gone, err := deleteAtUpstream(ctx, r, ref)
	if err != nil && !oci.NotFound(err) {
		restore()
		endWait(true)
		return deniedAs403(r, err)
	}
	deleted = true
	withdrawal.Done()
	endWait(false)
	after := context.WithoutCancel(ctx)
	if ref.Tag != "" {
		r.ForgetReference(after, ref)
	}
	if gone != "" {
		r.ForgetManifest(after, gone)
	}
	target := gone
	for _, push := range withdrawal.Pushes() {
		dropped = true
		if gone == "" {
			target = push.Digest
		}
		r.ForgetManifest(after, push.Digest)
	}
	if err != nil && !dropped {
		return err
	}
	p.o.Checks.Emit(notify.Delete, r.Up.Name, x.Caller.Name, x.Cause(), notify.Target{Digest: target, Repository: r.Name, Tag: ref.Tag})
	return x.Deleted()
}

// deleteAtUpstream deletes a tag or a manifest at the upstream. It returns the manifest's digest,
// or "" if the digest is not known. Even with an error, it may return the digest.
func deleteAtUpstream(ctx context.Context, r repository.Repo, ref oci.Reference) (gone digest.Digest, err error) {
	gone = ref.Digest
	if ref.Tag != "" {
		// Ask while the tag exists: a registry may drop a manifest with its last tag, and dray must
		// then forget the manifest, too.
		d, err := r.AskManifest(ctx, ref)
		if err != nil && !upstream.Transient(err) && !errors.Is(err, oci.ErrDenied) {
			return "", err
		}
		gone = d.Digest
	}
	return gone, r.Up.Deleter.DeleteManifest(ctx, r.Remote(), ref)
}

// withdraw first waits until no push of a tag or a digest is being checked or sent. Then withdraw
// takes the pushes of the tag or digest out of the queue. They stay out until it is known whether
// the deletion succeeded. withdraw returns an error if a queued index needs one of these pushes.
func (p *Pusher) withdraw(ctx context.Context, r repository.Repo, ref oci.Reference) (*queue.Withdrawal, error) {
	matches := func(reference string, d digest.Digest) bool { return reference == ref.String() || d == ref.Digest }
	busy := oci.ErrDenied.With("%s of %s is being copied to %s; delete it when the copy is complete", ref, r.Name, r.Up.Registry)
	underWay := func(k gate.Key) bool { return repository.Same(k.Repo, r) && matches(k.Ref, k.Digest) }
	if err := p.pushing.Wait(ctx, underWay); err != nil {
		return nil, busy.Because(err)
	}
	queued := func(q queue.Push) bool { return matches(q.Reference, q.Digest) }
	if index := p.indexNeeding(r, queued); index != "" {
		return nil, oci.ErrDenied.With("%s of %s is part of the index %s, which is not forwarded to %s yet; delete the index first", ref, r.Name, index, r.Up.Registry)
	}
	w, err := p.o.Queue.Withdraw(ctx, r.Up.Name, r.Name, queued)
	switch {
	case errors.Is(err, queue.ErrBusy):
		return nil, busy.Because(err)
	case err != nil:
		return nil, oci.ErrUnavailable.With("the mirror cannot drop the queued push for %s at the moment; try again later", r.Up.Registry).Because(err)
	}
	return w, nil
}

// indexNeeding returns the reference of a queued index that could not be forwarded without the
// pushes for which isWithdrawn returns true. It returns "" if there is no such index.
func (p *Pusher) indexNeeding(r repository.Repo, isWithdrawn func(queue.Push) bool) string {
	pushes := p.o.Queue.Pushes(r.Up.Name, r.Name)
	missing := map[digest.Digest]bool{}
	for _, q := range pushes {
		if isWithdrawn(q) {
			missing[q.Digest] = true
		}
	}
	for _, q := range pushes {
		if !isWithdrawn(q) {
			delete(missing, q.Digest)
		}
	}
	for _, q := range pushes {
		if len(missing) == 0 || isWithdrawn(q) {
			continue
		}
		man, err := oci.ParseManifest(q.MediaType, q.Manifest)
		if err == nil && slices.ContainsFunc(man.Children(), func(c oci.Child) bool { return c.Manifest && missing[c.Digest] }) {
			return q.Reference
		}
	}
	return ""
}

// DeleteBlob forwards the deletion of a blob. It refuses if a queued push needs the blob. If the
// blob is staged, DeleteBlob waits until the forward of the blob has ended. Until then, the
// upstream might answer that there is no such blob, although dray has already acknowledged the blob
// to its client.
func (p *Pusher) DeleteBlob(x *request.Request) error {
	x.Divert()
	if err := mayDelete(x); err != nil {
		return err
	}
	ctx := x.WithTimeout(repository.LookupTimeout)
	r, d := x.Repo, x.Q.Ref.Digest
	if _, waits := p.o.Queue.Blob(r.Up.Name, r.Name, d); waits {
		return oci.ErrDenied.With("a push to %[3]s in progress needs %[1]s of %[2]s; delete it when the push is complete", d, r.Name, r.Up.Registry)
	}
	staged := r.Staged(d)
	if staged != nil {
		select {
		case <-staged.Forward.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := r.Up.Deleter.DeleteBlob(ctx, r.Remote(), d)
	if staged != nil && staged.Forward.Err() != nil && oci.NotFound(err) {
		err = nil // the deletion succeeds: the blob was only here, and is released below
	}
	if err != nil && !oci.NotFound(err) {
		return deniedAs403(r, err)
	}
	p.o.Repositories.Staged().Drop(r.Key(d))
	r.Forget(context.WithoutCancel(ctx), d)
	if err != nil {
		return err
	}
	p.o.Checks.Emit(notify.Delete, r.Up.Name, x.Caller.Name, x.Cause(), notify.Target{Digest: d, Repository: r.Name})
	return x.Deleted()
}

// deniedAs403 converts an error about dray's credentials to a 403, whose text clients show in the
// terminal. Clients hide the text of a 5xx and repeat the request.
func deniedAs403(r repository.Repo, err error) error {
	if errors.Is(err, upstream.ErrCredentials) {
		return oci.ErrDenied.With("the mirror has no valid credentials for %s", r.Up.Registry).Because(err)
	}
	return err
}
