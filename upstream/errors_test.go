package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"dray/upstream"
	"dray/upstream/oci"
)

// A refusal of the content lasts. A registry that throttles, fails or does not answer refuses
// nothing.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		err                error
		refused, transient bool
	}{
		{oci.ErrManifestInvalid, true, false},
		{fmt.Errorf("put: %w", oci.ErrDenied), true, false},
		{oci.ErrManifestBlobUnknown.Because(upstream.ErrPartsMissing), true, false},
		{oci.ErrTooManyRequests, false, true},
		{oci.ErrTooManyRequests.Because(upstream.ErrBusy), false, true},
		{oci.ErrUnavailable, false, true},
		{oci.ErrDenied.Because(upstream.ErrCredentials), false, true},
		{upstream.ErrUnreachable, false, true},
		{context.Canceled, false, false},
		{errors.New("disk full"), false, false},
	} {
		if got := upstream.Refused(test.err); got != test.refused {
			t.Errorf("Refused(%v) = %v", test.err, got)
		}
		if got := upstream.Transient(test.err); got != test.transient {
			t.Errorf("Transient(%v) = %v", test.err, got)
		}
	}
}
