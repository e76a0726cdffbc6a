package repository

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta"
	"dray/upstream/oci"
)

// Absence is the fact that, according to its upstream, a repository has no content with a
// digest.
type Absence struct {
	repo Repo
	key  meta.AbsentKey
}

// NoManifest returns the absence of a manifest, whether or not it is recorded. accept lists the
// media types that the client accepts: some registries answer "not found" if the client does not
// accept the type of the manifest.
func (r Repo) NoManifest(d digest.Digest, accept []string) Absence {
	return Absence{r, meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindManifest, Accept: oci.AcceptKey(accept)}}
}

// NoBlob returns the absence of a blob, whether or not it is recorded.
func (r Repo) NoBlob(d digest.Digest) Absence {
	return Absence{r, meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindBlob}}
}

// Remember records the absence and the text of err if err is "not found". Otherwise it does
// nothing. asked is when the upstream was asked.
func (a Absence) Remember(ctx context.Context, asked time.Time, err error) {
	if oci.NotFound(err) {
		a.repo.store.Recorded(a.repo.store.absences.Set(ctx, a.key, meta.AbsentFact{CheckedAt: asked, Reason: ReasonOf(err)}, a.repo.Up.Tags.NotFound))
	}
}

// Err returns the recorded "not found" as an error while it is believed, otherwise nil.
func (a Absence) Err(ctx context.Context) error {
	fact, err := a.repo.store.absences.Get(ctx, a.key)
	if err != nil {
		return nil
	}
	return a.repo.Up.Absent(fact)
}

// maxReason bounds the recorded text of a "not found", in bytes.
const maxReason = 512

// ReasonOf returns the code and the text of an upstream's "not found". The text is cut to
// maxReason.
func ReasonOf(err error) meta.Reason {
	e := oci.AsError(err)
	return meta.Reason{Code: e.Code, Text: strings.ToValidUTF8(e.Message[:min(len(e.Message), maxReason)], "")}
}

// Absent returns a recorded "not found" as an error while it is believed ([TagPolicy.NotFound]),
// otherwise nil.
func (u *Upstream) Absent(fact meta.AbsentFact) error {
	if meta.Age(time.Now(), fact.CheckedAt) >= u.Tags.NotFound {
		return nil
	}
	return &oci.Error{Code: cmp.Or(fact.Reason.Code, oci.ErrManifestUnknown.Code), Status: http.StatusNotFound, Message: fact.Reason.Text}
}
