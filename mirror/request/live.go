package request

import (
	"net/http"

	"dray/mirror/identity"
	"dray/mirror/live"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// owner returns the client and the repository that the client named, even if a fallback answers.
func (x *Request) owner() live.Owner {
	r := x.Repo
	if x.Instead.Up != nil {
		r = x.Instead
	}
	return live.Owner{Addr: identity.ClientAddr(x.R), User: x.Caller.Name, Upstream: r.Up.Name, Repository: r.Name}
}

// PullsManifest counts the request towards a pull of m, the manifest that the answer will have.
func (x *Request) PullsManifest(m *repository.Manifest) {
	x.Live.Manifest(x.owner(), x.R.UserAgent(), x.Q.Ref.String(), x.R.Method == http.MethodGet, &live.Manifest{
		Digest: m.Digest, MediaType: m.MediaType, Size: int64(len(m.Raw)), Parse: func() *oci.Manifest {
			man, err := m.Parse()
			if err != nil {
				return nil
			}
			return man
		},
	})
}

// PullsBlob counts the request towards the pull that the blob belongs to.
func (x *Request) PullsBlob() { x.Live.Blob(x.owner(), x.R.UserAgent(), x.Q.Ref.Digest) }

// Pushes counts the request and its body towards a push.
func (x *Request) Pushes() {
	reference := ""
	if x.Q.Kind == oci.KindManifest {
		reference = x.Q.Ref.String()
	}
	x.Live.Push(x.owner(), x.R.UserAgent(), reference)
	x.W.CountReceived(x.Live.Received())
}

// CountSent makes x.W count the bytes that it sends from now on. The pull has a counter for each
// source of bytes, and x.W uses the counter of this answer's source.
func (x *Request) CountSent() {
	source := x.Source
	if x.Ahead {
		source = live.Prefetch
	}
	x.W.CountSent(x.Live.Sent(source))
}
