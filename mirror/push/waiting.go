package push

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"dray/cache"
	"dray/mirror/gate"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// defaultHold bounds the time for which manifests wait if the gate does not set HoldFor.
const defaultHold = time.Hour

func holdFor(g *gate.Gate) time.Duration {
	if g.HoldFor <= 0 {
		return defaultHold
	}
	return g.HoldFor
}

// addWaiting lets a manifest wait for a manifest that refers to it. It stores the waiting manifest
// on disk, so that the next process can take it over (see waitAgain). If that fails, the waiting
// manifest is only in memory.
func (p *Pusher) addWaiting(ctx context.Context, gated gatedPush) {
	until := time.Now().Add(holdFor(gated.Gate))
	var kept io.Closer
	if blob, err := p.keep(ctx, gated, until); err == nil {
		kept = blob
	} else {
		p.o.Logger.Warn("manifest waits in memory only", "repository", gated.Repo.Name, "digest", gated.Manifest.Digest, "error", err)
	}
	p.o.Repositories.Waiting().Add(gated.Repo.Key(gated.Manifest.Digest), gated.Manifest, gated.owner, until, kept)
}

// keep stores a copy of a manifest for the next process.
func (p *Pusher) keep(ctx context.Context, gated gatedPush, until time.Time) (*cache.ResumableBlob, error) {
	man := gated.Manifest
	note, err := json.Marshal(receipt{
		Upstream: gated.Repo.Up.Name, Repository: gated.Repo.Name, User: gated.User, Owner: gated.owner,
		Waiting: &waitingReceipt{MediaType: man.MediaType, Until: until},
	})
	if err != nil {
		return nil, err
	}
	upload, err := p.o.Cache.ReceiveResumable(ctx, rand.Text(), note)
	if err != nil {
		return nil, err
	}
	var blob cache.Blob
	if _, err = upload.Write(man.Raw); err == nil {
		blob, err = upload.Commit(ctx, man.Digest)
	}
	if err != nil {
		return nil, errors.Join(err, upload.Close())
	}
	return upload.Keep(blob), nil
}

// waitAgain takes over a manifest that waited in a former process, and returns the keys of the
// blobs that it needs. The manifest can wait as before without new checks, because dray checks it
// once more when the index or the tag that it waits for arrives. Two kinds of manifests are left to
// Recover, which checks them if their repository has a gate, and then forwards them or lets them
// wait again. The first is a referrer: the check of its subject does not include it, so without
// Recover nothing would check it again. The second is a manifest whose repository now has no gate,
// or has a gate with ForwardDigests.
func (p *Pusher) waitAgain(k cache.Resumable, r receipt, repo repository.Repo, now time.Time) ([]repository.Key, error) {
	if k.Blob == nil {
		return nil, errors.New("the manifest was not acknowledged")
	}
	if !now.Before(r.Waiting.Until) {
		return nil, errExpired
	}
	raw, err := p.o.Cache.Bytes(context.Background(), k.Blob.Digest, oci.MaxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest: %w", err)
	}
	man, err := oci.ParseManifest(r.Waiting.MediaType, raw)
	if err != nil {
		return nil, err
	}
	man.Digest = k.Blob.Digest
	if g := p.o.Checks.For(repo); g != nil && !g.ForwardDigests && man.Subject == nil {
		until := now.Add(min(holdFor(g), r.Waiting.Until.Sub(now))) // at most holdFor, even if the clock was ahead when Until was set
		p.o.Repositories.Waiting().Add(repo.Key(man.Digest), man, r.Owner, until, k.Blob)
	} else {
		push := gate.Push{Repo: repo, Gate: g, User: r.User, Ref: oci.Reference{Digest: man.Digest}, Manifest: man, Within: forwardTimeout}
		p.unjudged = append(p.unjudged, unjudged{gatedPush{Push: push, owner: r.Owner}, k.Blob})
	}
	return repository.Keys(repo, man.Children()), nil
}
