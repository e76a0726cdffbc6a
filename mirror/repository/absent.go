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

// Absence is the fact that the upstream says that a repository has no content with a digest.
type Absence struct {
	repo Repo
	key  meta.AbsentKey
}

// NoManifest is the absence of a manifest. Some registries answer "not found" to a client that does
// not take the type, so accept is what the client takes.
func (r Repo) NoManifest(d digest.Digest, accept []string) Absence {
	return Absence{r, meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindManifest, Accept: oci.AcceptKey(accept)}}
}

// NoBlob is the absence of a blob.
func (r Repo) NoBlob(d digest.Digest) Absence {
	return Absence{r, meta.AbsentKey{Upstream: r.Up.Name, Repo: r.Name, Digest: d, Kind: meta.KindBlob}}
}

// Remember records the absence in the upstream's words, where err is such an answer of the
// upstream. asked is when the upstream was asked.
func (a Absence) Remember(ctx context.Context, asked time.Time, err error) {
	if oci.NotFound(err) {
		a.repo.store.Recorded(a.repo.store.absences.Set(ctx, a.key, meta.AbsentFact{CheckedAt: asked, Reason: ReasonOf(err)}, a.repo.Up.Tags.NotFound))
	}
}

// Err returns the upstream's answer for as long as it is believed, else nil.
func (a Absence) Err(ctx context.Context) error {
	fact, err := a.repo.store.absences.Get(ctx, a.key)
	if err != nil {
		return nil
	}
	return a.repo.Up.Absent(fact)
}

// maxReason bounds what is kept of an upstream's text, in bytes.
const maxReason = 512

// ReasonOf is an upstream's answer that something does not exist, in its words.
func ReasonOf(err error) meta.Reason {
	e := oci.AsError(err)
	return meta.Reason{Code: e.Code, Text: strings.ToValidUTF8(e.Message[:min(len(e.Message), maxReason)], "")}
}

// Absent is an error in the upstream's words, while its "not found" is believed.
func (u *Upstream) Absent(fact meta.AbsentFact) error {
	if meta.Age(time.Now(), fact.CheckedAt) >= u.Tags.NotFound {
		return nil
	}
	return &oci.Error{Code: cmp.Or(fact.Reason.Code, oci.ErrManifestUnknown.Code), Status: http.StatusNotFound, Message: fact.Reason.Text}
}
