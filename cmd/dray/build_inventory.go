package main

import (
	"context"
	"errors"
	"iter"
	"net/url"

	"dray/cache/disk"
	"dray/cmd/dray/routes"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/inventory"
	"dray/mirror/queue"
	"dray/mirror/warming"
	"dray/upstream/oci"
)

// maxVictims bounds the blobs in one answer about eviction.
const maxVictims = 10_000

// inventoryAPI lists the endpoints that query and change the cache.
func (g *graph) inventoryAPI(n routes.Names) []admin.Endpoint {
	o := inventoryOperator{g.inventory, g.mirror.Warm(), n}
	return []admin.Endpoint{
		admin.List("images", func(ctx context.Context, params url.Values) iter.Seq2[api.Image, error] {
			return o.Images(ctx, params.Get("repository"))
		}),
		admin.List("blobs", func(ctx context.Context, _ url.Values) iter.Seq2[api.Blob, error] { return o.Blobs(ctx) }),
		admin.Query("eviction", o.eviction),
		admin.Change("evict", o.evict),
		admin.Change("purge", o.purge),
		admin.Query("pins", func(context.Context, url.Values) (api.Items[api.Pin], error) {
			return api.Items[api.Pin]{Items: o.Pins()}, nil
		}),
		admin.Change("pin", o.pin),
		admin.Change("unpin", o.unpin),
		admin.Work("warm", o.warm),
	}
}

// inventoryOperator parses the requests of operators, and passes them to the inventory.
type inventoryOperator struct {
	*inventory.Inventory
	warmer *warming.Warmer
	names  routes.Names
}

func (o inventoryOperator) eviction(ctx context.Context, params url.Values) (api.Evicted, error) {
	n, err := admin.Number(params, "bytes", 1<<62)
	if err != nil {
		return api.Evicted{}, err
	}
	most, err := admin.Number(params, "most", maxVictims)
	if err != nil {
		return api.Evicted{}, err
	}
	all, err := o.Eviction(ctx, n, int(min(most, maxVictims)))
	return api.Evicted{Victims: all}, err
}

func (o inventoryOperator) evict(ctx context.Context, q api.EvictRequest) (api.Evicted, error) {
	if q.Bytes <= 0 {
		return api.Evicted{}, api.Errorf(api.CodeInvalid, "bytes must be positive")
	}
	all, left, err := o.Evict(ctx, q.Bytes, maxVictims)
	return api.Evicted{Victims: all, LeftBytes: left}, err
}

func (o inventoryOperator) purge(ctx context.Context, q api.PurgeRequest) (api.Purged, error) {
	sel := inventory.Selection{Pattern: q.Repository, Force: q.Force, DryRun: q.DryRun}
	if q.Name != "" {
		var err error
		if sel.Name, err = o.names.Parse(q.Name); err != nil {
			return api.Purged{}, err
		}
	}
	out, err := o.Purge(ctx, sel)
	return out, withCode(err)
}

func (o inventoryOperator) pin(ctx context.Context, q api.NameRequest) (api.Pin, error) {
	n, err := o.names.Parse(q.Name)
	if err != nil {
		return api.Pin{}, err
	}
	p, err := o.Pin(ctx, n)
	return p, withCode(err)
}

func (o inventoryOperator) unpin(ctx context.Context, q api.NameRequest) (api.NameRequest, error) {
	if n, err := o.names.Parse(q.Name); err == nil {
		q.Name = n.String()
	}
	return q, withCode(o.Unpin(ctx, q.Name)) // removes the pin even if the name does not parse, because its upstream may no longer be configured
}

func (o inventoryOperator) warm(ctx context.Context, q api.WarmRequest) iter.Seq2[api.Warmth, error] {
	n, err := o.names.Parse(q.Name)
	if err != nil {
		return func(yield func(api.Warmth, error) bool) { yield(api.Warmth{}, err) }
	}
	return o.warmer.Warm(ctx, warming.Image{Name: n.String(), Upstream: n.Upstream, Repo: n.Repo, Reference: n.Reference, Serves: o.names.Serves}, q.Platforms)
}

// hostedImages yields the images of all hosted upstreams.
func (g *graph) hostedImages(yield func(inventory.Hosted) bool) {
	for _, s := range g.hosted {
		for i := range s.Images() {
			if !yield(inventory.Hosted(i)) {
				return
			}
		}
	}
}

// queuedImages yields the queued pushes that clients can pull. It leaves out the pushes that their
// registry has refused.
func (g *graph) queuedImages(yield func(inventory.Queued) bool) {
	for _, e := range g.queue.List() {
		m, err := oci.ParseManifest(e.MediaType, e.Manifest)
		if e.State == queue.Failed || err != nil { // err is always nil, because dray parsed the manifest before it queued the push
			continue
		}
		i := inventory.Queued{Upstream: e.Upstream, Repo: e.Repository, Digest: e.Digest, Manifest: m}
		if e.Reference != e.Digest.String() {
			i.Tag = e.Reference
		}
		if !yield(i) {
			return
		}
	}
}

// withCode adds the code of the API to an error of the inventory.
func withCode(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, inventory.ErrNotHeld):
		return api.Errorf(api.CodeNotFound, "%v", err)
	case errors.Is(err, inventory.ErrHosted), errors.Is(err, inventory.ErrPinned), errors.Is(err, inventory.ErrQueued):
		return api.Errorf(api.CodeConflict, "%v", err)
	case errors.Is(err, inventory.ErrSelection), errors.Is(err, disk.ErrPinName), errors.Is(err, disk.ErrDigest):
		return api.Errorf(api.CodeInvalid, "%v", err)
	}
	return err
}
