package notify

import (
	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// ReportPath is the path of reports on a listener. It is not below /v2/, so no repository can be
// there.
const ReportPath = "/dray/reports/"

// Cause is the request that caused an event.
type Cause struct {
	Request Request
	// Base is the address of the listener, and Query the parsed request.
	Base  string
	Query oci.Request
}

// ManifestURL returns the address of the manifest with the digest d, or "" if d is empty or the
// request was not for a manifest.
func (c Cause) ManifestURL(d digest.Digest) string {
	if d == "" || c.Query.Kind != oci.KindManifest {
		return ""
	}
	q := c.Query
	q.Ref, q.Tags = oci.Reference{Digest: d}, nil
	return c.Base + q.Path()
}

// ReportURL returns the address at which the client of the request can read a report.
func (c Cause) ReportURL(id string) string { return c.Base + ReportPath + id }
