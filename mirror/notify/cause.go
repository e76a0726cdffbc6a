package notify

import (
	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// ReportPath is where a listener shows reports of verdicts. No repository can be there: it is not
// below /v2/.
const ReportPath = "/dray/reports/"

// Cause is the request that brought something about, as events tell of it.
type Cause struct {
	Request Request
	// Base is the address of the listener, and Query what was asked for there.
	Base  string
	Query oci.Request
}

// ManifestURL is where a manifest can be got by its digest; "" where the request was not for one.
func (c Cause) ManifestURL(d digest.Digest) string {
	if d == "" || c.Query.Kind != oci.KindManifest {
		return ""
	}
	q := c.Query
	q.Ref, q.Tags = oci.Reference{Digest: d}, nil
	return c.Base + q.Path()
}

// ReportURL is the address of a report as the client of the request can reach it.
func (c Cause) ReportURL(id string) string { return c.Base + ReportPath + id }
