package hosted

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/upstream/oci"
)

// ErrFull says that there is no space for a push: the quota is used up and no more content may be
// dropped for the push, or the disk is full.
var ErrFull = errors.New("no space in the hosted registry")

func storeError(err error) error {
	if errors.Is(err, cache.ErrFull) || errors.Is(err, cache.ErrTooLarge) {
		return full("the disk of the mirror is full").Because(err)
	}
	return oci.ErrUnavailable.With("the mirror cannot store content at the moment; try again later").Because(err)
}

// full returns the error for a push that is refused for lack of space. Clients show the text of the
// error. The error's status is not a 5xx, because after a 5xx, clients would try again at once.
func full(why string) *oci.Error {
	return oci.ErrDenied.With("no space for the push: %s", why).Because(ErrFull)
}

func nameUnknown(name string) error {
	return oci.ErrNameUnknown.With("repository %s does not exist", name)
}

func unknown(name string, ref oci.Reference) *oci.Error {
	return oci.ErrManifestUnknown.With("%s has no %s", name, ref)
}

func cacheError(ctx context.Context, d digest.Digest, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cache.ErrNotFound):
		return oci.ErrBlobUnknown.With("the mirror does not have blob %s", d).Because(err)
	}
	return oci.ErrUnavailable.With("the mirror cannot read content at the moment; try again later").Because(err)
}
